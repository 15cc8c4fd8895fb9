package client

import (
	"bytes"
	"encoding/json"

	"github.com/millrace/millrace/internal/whisk"
)

// Action is an action on the wire, in requests and answers alike.
type Action struct {
	Namespace      string       `json:"namespace,omitempty"` // with the package after a slash
	Name           string       `json:"name,omitempty"`
	Version        string       `json:"version,omitempty"`
	Exec           *Exec        `json:"exec,omitempty"`
	Annotations    whisk.Params `json:"annotations,omitempty"`
	DelAnnotations []string     `json:"delAnnotations,omitempty"` // requests: annotations to remove
	Parameters     whisk.Params `json:"parameters,omitempty"`
	Limits         *Limits      `json:"limits,omitempty"`
	Publish        *bool        `json:"publish,omitempty"`
	Updated        int64        `json:"updated,omitempty"` // milliseconds since 1970
	Binding        string       `json:"binding,omitempty"` // answers: namespace/name of the binding that it was found through
}

// Exec is what an action runs. Code is nil where there is none, or where it
// was not asked for.
type Exec struct {
	Kind       string   `json:"kind,omitempty"`
	Code       *string  `json:"code,omitempty"`
	Image      string   `json:"image,omitempty"`
	Main       string   `json:"main,omitempty"`
	Components []string `json:"components,omitempty"`
	Binary     *bool    `json:"binary,omitempty"`
}

// Limits of an action; nil where not said.
type Limits struct {
	Timeout     *int `json:"timeout,omitempty"` // milliseconds
	Memory      *int `json:"memory,omitempty"`  // MiB
	Logs        *int `json:"logs,omitempty"`    // MiB
	Concurrency *int `json:"concurrency,omitempty"`
	Instances   *int `json:"instances,omitempty"`
}

// Trigger is a trigger on the wire.
type Trigger struct {
	Namespace   string                     `json:"namespace,omitempty"`
	Name        string                     `json:"name,omitempty"`
	Version     string                     `json:"version,omitempty"`
	Annotations whisk.Params               `json:"annotations,omitempty"`
	Parameters  whisk.Params               `json:"parameters,omitempty"`
	Limits      *Limits                    `json:"limits,omitempty"`
	Publish     *bool                      `json:"publish,omitempty"`
	Rules       map[string]json.RawMessage `json:"rules,omitempty"` // by "ns/rule"
	Updated     int64                      `json:"updated,omitempty"`
}

// Rule is a rule in answers.
type Rule struct {
	Namespace   string       `json:"namespace,omitempty"`
	Name        string       `json:"name,omitempty"`
	Version     string       `json:"version,omitempty"`
	Annotations whisk.Params `json:"annotations,omitempty"`
	Status      string       `json:"status"`
	Trigger     *ref         `json:"trigger"`
	Action      *ref         `json:"action"`
	Publish     *bool        `json:"publish,omitempty"`
	Updated     int64        `json:"updated,omitempty"`
}

// ref is how a rule's answer names its trigger and action.
type ref struct {
	Name string `json:"name"`
	Path string `json:"path"`
}

// RulePut is a rule in requests. Trigger and Action are full names; empty ones
// are kept as they are by an update.
type RulePut struct {
	Name        string       `json:"name"`
	Status      string       `json:"status"`
	Trigger     string       `json:"trigger,omitempty"`
	Action      string       `json:"action,omitempty"`
	Annotations whisk.Params `json:"annotations,omitempty"`
}

// Package is a package or binding in answers.
type Package struct {
	Namespace   string       `json:"namespace,omitempty"`
	Name        string       `json:"name,omitempty"`
	Version     string       `json:"version,omitempty"`
	Publish     *bool        `json:"publish,omitempty"`
	Annotations whisk.Params `json:"annotations,omitempty"`
	Parameters  whisk.Params `json:"parameters,omitempty"`
	Binding     *Binding     `json:"binding,omitempty"`
	Actions     []Action     `json:"actions,omitempty"`
	Feeds       []Action     `json:"feeds,omitempty"`
	Updated     int64        `json:"updated,omitempty"`
}

// Binding names the package that a binding shows; it is empty for a package.
type Binding struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
}

// UnmarshalJSON reads an object, or the false that lists have for packages.
func (b *Binding) UnmarshalJSON(in []byte) error {
	*b = Binding{}
	if bytes.HasPrefix(bytes.TrimSpace(in), []byte("{")) {
		// Without this method, which would call itself.
		type plain Binding
		return json.Unmarshal(in, (*plain)(b))
	}
	return nil
}

// Activation is a record, or a line of a list of records.
type Activation struct {
	Namespace   string       `json:"namespace"`
	Name        string       `json:"name"`
	Version     string       `json:"version"`
	Subject     string       `json:"subject"`
	ID          string       `json:"activationId"`
	Cause       string       `json:"cause,omitempty"`
	Start       int64        `json:"start"` // milliseconds since 1970
	End         int64        `json:"end"`   // 0: none
	Duration    int64        `json:"duration"`
	StatusCode  int          `json:"statusCode"`
	Response    Response     `json:"response"`
	Logs        []string     `json:"logs"`
	Annotations whisk.Params `json:"annotations"`
	Publish     *bool        `json:"publish,omitempty"`
}

// Response is what an activation answered.
type Response struct {
	Status     string          `json:"status"`
	StatusCode int             `json:"statusCode"`
	Success    bool            `json:"success"`
	Result     json.RawMessage `json:"result,omitempty"`
}
