package controller

import (
	"bytes"
	"encoding/json"
	"net/http"
	"time"

	"github.com/millrace/millrace/internal/auth"
	"github.com/millrace/millrace/internal/whisk"
)

// invoke runs an action: POST actions/[package/]name.
func (a *api) invoke(c *call) error {
	var blocking, result bool
	// Most invocations have no query: they do not pay for parsing one.
	wait := whisk.MaxWait
	if q := c.query(); len(q) > 0 {
		var err error
		if blocking, err = queryBool(q, "blocking", false); err != nil {
			return err
		}
		if result, err = queryBool(q, "result", false); err != nil {
			return err
		}
		if wait, err = queryWait(q); err != nil {
			return err
		}
	}
	args, err := payload(c.w, c.Request)
	if err != nil {
		return err
	}
	// After the body, as OpenWhisk does: of two faults the caller is told the
	// same.
	run, err := a.Store.Resolve(c.name)
	if err != nil {
		return err
	}
	if a.deprecated(run.Action.Exec.Kind) {
		return errDeprecated(run.Action.Exec.Kind)
	}
	if err := checkFinal(&run, args); err != nil {
		return err
	}
	inv := newInvocation(c.id, c.id.Origin, transactionOn(c.w), args)
	// Only here: an invocation that nobody waits for is kept with its body,
	// which a disk that is nearly full has no room for.
	if !blocking {
		if err := a.Events.Room(); err != nil {
			return err
		}
		if err := a.Delivery.Invoke(c.Context(), c.name, inv); err != nil {
			return err
		}
		return c.activation(inv.ActivationID)
	}
	act, done, err := a.Delivery.Call(c.Context(), run, inv, wait)
	if err != nil {
		return err
	}
	// The run goes on, and its record can be asked for by this ID.
	if !done {
		return c.activation(inv.ActivationID)
	}
	return c.record(&act, result)
}

// newInvocation is what id asks for, because of from. id is whom the action
// runs as, from where the request comes from: a web action runs as its owner
// whoever calls it. The ID begins with the time of reception, so records are in
// the order of requests.
func newInvocation(id auth.Identity, from whisk.Origin, transaction string, args json.RawMessage) whisk.Invocation {
	now := time.Now()
	return whisk.Invocation{
		ActivationID: whisk.NewID(now), Namespace: id.Namespace, Subject: id.Subject,
		Payload: args, Transaction: transaction, Received: now, Correlation: from.Correlation, Hops: from.Hops,
	}
}

// record answers with the record of a blocking invocation, or with its result
// alone. A result that is an array stands alone in any case.
func (c *call) record(act *whisk.Activation, resultOnly bool) error {
	status := http.StatusOK
	switch act.Outcome {
	case whisk.Success:
	case whisk.ApplicationError, whisk.DeveloperError:
		status = http.StatusBadGateway
	default:
		status = http.StatusInternalServerError
	}
	c.w.Header()[headerActivation] = []string{act.ID}
	if resultOnly || bytes.HasPrefix(act.Result, []byte("[")) {
		if len(act.Result) == 0 {
			return c.raw(status, []byte("{}"))
		}
		return c.raw(status, act.Result)
	}
	act.Logs = nil // a caller who waits does not wait for these
	b, err := act.MarshalJSON()
	if err != nil {
		return whisk.E(whisk.Internal, "encode record", err)
	}
	return c.raw(status, b)
}

// immutable returns the parameters that a caller of the action may not give:
// all that have a value, when the action says they are final. A parameter
// without a value is one that the caller is expected to give.
func immutable(run *whisk.Runnable) map[string]bool {
	if string(run.Action.Annotations.Get("final")) != "true" {
		return nil
	}
	fixed := map[string]bool{}
	for _, p := range run.Params {
		if string(p.Value) != "null" {
			fixed[p.Key] = true
		}
	}
	return fixed
}

// checkFinal refuses arguments that would replace final parameters.
func checkFinal(run *whisk.Runnable, args json.RawMessage) error {
	// Most actions have none: then the arguments are not parsed at all.
	fixed := immutable(run)
	if len(fixed) == 0 {
		return nil
	}
	var given members
	if err := json.Unmarshal(args, &given); err != nil {
		return malformed(decodeText(err))
	}
	for key := range given {
		if fixed[key] {
			return refuse(whisk.Invalid, textReserved)
		}
	}
	return nil
}
