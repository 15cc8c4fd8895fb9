package whisk

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Meta is what all entities have. Updated is when it was last PUT; answers
// show its milliseconds, lists are sorted by all of it.
type Meta struct {
	Name        Name      `json:"name"`
	Version     string    `json:"version"`
	Publish     bool      `json:"publish,omitempty"`
	Annotations Params    `json:"annotations,omitempty"`
	Updated     time.Time `json:"updated"`
}

// Action is code that can be run.
type Action struct {
	Meta
	Parameters Params `json:"parameters,omitempty"`
	Exec       Exec   `json:"exec"`
	Limits     Limits `json:"limits"`
}

// Kinds of exec that are not the kind of a runtime.
const (
	KindBlackbox = "blackbox" // an image that speaks /init and /run
	KindSequence = "sequence"
	KindBuiltin  = "builtin" // a Go function of this binary, for our own packages
)

// Exec says what an action runs.
type Exec struct {
	Kind   string `json:"kind"`             // a runtime's kind, or one of the Kind constants
	Code   string `json:"code,omitempty"`   // source text, or base64 of an archive or program; empty in the store, where Digest names it
	Digest string `json:"digest,omitempty"` // SHA-256 of Code, in hex; empty when there is no code
	Size   int    `json:"size,omitempty"`   // bytes of Code, where Digest names it; 0 if not known
	Binary bool   `json:"binary,omitempty"` // Code is base64
	Main   string `json:"main,omitempty"`
	Image  string `json:"image,omitempty"` // blackbox only
}

// Limits bound one activation of an action. Zero means nothing: StdLimits
// fills in.
type Limits struct {
	Timeout     int `json:"timeout"`     // milliseconds
	Memory      int `json:"memory"`      // MiB
	Logs        int `json:"logs"`        // MiB
	Concurrency int `json:"concurrency"` // activations at once in one container
	Instances   int `json:"instances,omitempty"`
}

// StdLimits are the limits of an action that names none.
func StdLimits() Limits {
	return Limits{
		Timeout: TimeoutRange.Std, Memory: MemoryRange.Std,
		Logs: LogsRange.Std, Concurrency: ConcurrencyRange.Std,
	}
}

// Trigger is a named class of events.
type Trigger struct {
	Meta
	Parameters Params `json:"parameters,omitempty"`
	// Incarnation is new each time a trigger of this name is made: a rule
	// linked to an earlier one is not linked to this one.
	Incarnation string `json:"incarnation"`
	// Linked says that a rule was linked once, even if none is any more.
	Linked bool `json:"linked,omitempty"`
}

// Status of a rule.
type Status string

// The states of a rule.
const (
	Active   Status = "active"
	Inactive Status = "inactive"
)

// Rule binds a trigger to an action. Its options (filter, retry and the like)
// are annotations.
type Rule struct {
	Meta
	Trigger Name `json:"trigger"`
	Action  Name `json:"action"` // as given: a binding is resolved when it is run
	// Status is what was last asked for; see Effective.
	Status Status `json:"status"`
	// Incarnation is that of the trigger it was linked to.
	Incarnation string `json:"incarnation"`
}

// Effective returns the status that r has while its trigger is t: inactive
// when the trigger is gone (nil) or was made anew since r was linked.
func (r *Rule) Effective(t *Trigger) Status {
	if t == nil || t.Incarnation != r.Incarnation {
		return Inactive
	}
	return r.Status
}

// Package is a group of actions and feeds or, with a Binding, a package seen
// from another namespace with parameters filled in.
type Package struct {
	Meta
	Parameters Params `json:"parameters,omitempty"`
	Binding    Name   `json:"binding,omitzero"` // Namespace and Entity of the provider; zero for a package
}

// Revision is the store's count for one stored value: it changes with every
// write. 0 stands for "does not exist".
type Revision uint64

// Runnable is an action ready to be run: found through packages and bindings,
// with the parameters of all three laid over each other.
type Runnable struct {
	Action   Action
	Revision Revision // of the stored action
	Params   Params   // package < binding < action
	Binding  Name     // the binding it was reached through; zero if none
}

// NextVersion returns v with its last part one higher; "0.0.1" after "".
func NextVersion(v string) string {
	i := strings.LastIndexByte(v, '.')
	n, err := strconv.Atoi(v[i+1:])
	if i < 0 || err != nil {
		return "0.0.1"
	}
	return fmt.Sprintf("%s.%d", v[:i], n+1)
}
