package controller

import (
	"fmt"
	"net/http"

	"github.com/millrace/millrace/internal/whisk"
)

// perMinute is how many invocations, and fires, a namespace may make in a
// minute: nothing holds anybody to it.
const perMinute = 1_000_000

// listNamespaces tells the caller's namespace: a key has one.
func (a *api) listNamespaces(c *call) error {
	return c.json(http.StatusOK, []string{c.id.Namespace})
}

// limitsOf are the limits of a namespace, under OpenWhisk's names: MB,
// milliseconds and counts.
type limitsOf struct {
	InvocationsPerMinute  int    `json:"invocationsPerMinute"`
	ConcurrentInvocations int    `json:"concurrentInvocations"`
	FiresPerMinute        int    `json:"firesPerMinute"`
	MinMemory             int    `json:"minActionMemory"`
	MaxMemory             int    `json:"maxActionMemory"`
	MinTimeout            int    `json:"minActionTimeout"`
	MaxTimeout            int    `json:"maxActionTimeout"`
	MinLogs               int    `json:"minActionLogs"`
	MaxLogs               int    `json:"maxActionLogs"`
	MinConcurrency        int    `json:"minActionConcurrency"`
	MaxConcurrency        int    `json:"maxActionConcurrency"`
	MaxParameterSize      string `json:"maxParameterSize"`
	MaxInstances          int    `json:"maxActionInstances"`
}

// userLimits are the same for every namespace.
func userLimits() limitsOf {
	return limitsOf{
		InvocationsPerMinute: perMinute, ConcurrentInvocations: userConcurrency, FiresPerMinute: perMinute,
		MinMemory: whisk.MemoryRange.Min, MaxMemory: whisk.MemoryRange.Max,
		MinTimeout: whisk.TimeoutRange.Min, MaxTimeout: whisk.TimeoutRange.Max,
		MinLogs: whisk.LogsRange.Min, MaxLogs: whisk.LogsRange.Max,
		MinConcurrency: whisk.ConcurrencyRange.Min, MaxConcurrency: whisk.ConcurrencyRange.Max,
		MaxParameterSize: fmt.Sprintf("%d B", whisk.MaxParams), MaxInstances: userConcurrency,
	}
}

func (a *api) getLimits(c *call) error { return c.raw(http.StatusOK, a.limits) }

// noInnerLimits answers for limits/x, in OpenWhisk's words.
func noInnerLimits(*call) error {
	return refuse(whisk.Invalid, "Inner entity level routes for limits are not yet implemented.")
}
