package whisk

import (
	"context"
	"encoding/json"
	"time"
)

// Invocation is one action to run: what is handed to a container.
type Invocation struct {
	ActivationID string          `json:"activationId"`
	Cause        string          `json:"cause,omitempty"` // the enclosing activation; empty for rule-fired and direct calls
	Namespace    string          `json:"namespace"`       // whose record it is, and whose key it may be given
	Subject      string          `json:"subject"`
	Payload      json.RawMessage `json:"payload"`               // what the caller or the event gave, without the action's own parameters
	Transaction  string          `json:"transaction,omitempty"` // the request's ID; empty for rule-fired runs
	Correlation  string          `json:"correlation,omitempty"` // the first cause's ID; empty when it has no cause but its caller
	Hops         int             `json:"hops,omitempty"`        // events between the first cause and this run, the one that it runs for included
	Received     time.Time       `json:"received"`              // when it was asked for: the record's waitTime counts from here
}

// Origin is what the run is to all that it asks for itself.
func (i *Invocation) Origin() Origin {
	o := Origin{Cause: i.ActivationID, Correlation: i.Correlation, Hops: i.Hops}
	if o.Correlation == "" {
		o.Correlation = i.ActivationID
	}
	return o
}

// Job is an invocation that waits in its action's queue. Only a reference
// waits: what it needs is fetched when its turn has come.
type Job struct {
	Runnable Runnable
	// Namespace is whose activation it will be, as Invocation.Namespace says
	// later: containers are not shared between namespaces. Empty stands for
	// the action's own.
	Namespace string
	// Begin is called once, when a container is ready for the job or soon will
	// be: it marks the attempt as started and returns what to run. An error
	// drops the job.
	Begin func(ctx context.Context) (Invocation, error)
	// Done is called once, with the record, with the error of Begin, or with
	// Unavailable when the invoker was stopped before there was a record. It
	// may wait for the record to be stored; the container is free by then.
	Done func(Activation, error)
}
