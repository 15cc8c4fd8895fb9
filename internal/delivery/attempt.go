package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// gone is why a match cannot be delivered any more, whoever tries. No attempt
// follows, whatever the rule's retry says.
type gone string

func (g gone) Error() string { return string(g) }

const payloadMissing = gone("its payload is missing from the store")

// turn is one attempt of an item, while the invoker has it. begin and done are
// called by the invoker, in this order, each once at most, done always.
type turn struct {
	d     *Delivery
	it    *item
	ctx   context.Context // outlives the stop, so that what ran is recorded
	begun bool
	err   error // of begin
}

// submit hands an item to the invoker.
func (d *Delivery) submit(ctx context.Context, it *item) {
	// Resolved when its turn comes: an action that was updated while it waited
	// runs in its new form.
	run, err := d.runnable(it)
	if err != nil {
		// Not here: it writes to the journal, and the pump must not wait.
		d.chore(func(ctx context.Context) {
			d.give(ctx, it, gone("its action cannot be found: "+strings.TrimSuffix(whisk.Message(err), ".")))
			d.back(it.line)
		})
		return
	}
	t := &turn{d: d, it: it, ctx: ctx}
	job := whisk.Job{Runnable: run, Namespace: it.namespace(), Begin: t.begin, Done: t.done}
	if err := d.Invoker.Submit(job); err != nil {
		d.chore(func(context.Context) { t.done(whisk.Activation{}, err) })
	}
}

// namespace is whose activation an item's attempts are; empty while only the
// journal knows.
func (it *item) namespace() string {
	switch {
	case it.call != nil:
		return it.call.inv.Namespace
	case it.invoke != nil:
		return it.invoke.Invocation.Namespace
	}
	return it.match.Rule.Namespace
}

// runnable is what an item runs. A call brings what it was resolved to: its
// caller was let in for that.
func (d *Delivery) runnable(it *item) (whisk.Runnable, error) {
	if it.call != nil {
		return it.call.run, nil
	}
	return d.Entities.Resolve(it.line.name)
}

// begin is Job.Begin: the invoker has a container for the item.
func (t *turn) begin(ctx context.Context) (whisk.Invocation, error) {
	t.d.fault("delivery begin")
	var inv whisk.Invocation
	if err := ctx.Err(); err != nil {
		t.err = err // the invoker stops: better not started than cut off
		return inv, err
	}
	if t.it.call != nil {
		inv, t.err = t.beginCall()
	} else {
		inv, t.err = t.beginMatch()
	}
	t.begun = t.err == nil
	return inv, t.err
}

// beginMatch is begin for a match or an accepted invocation. The start is
// written last: everything that can fail without running has not failed.
func (t *turn) beginMatch() (whisk.Invocation, error) {
	inv, policy, err := t.d.invocation(t.ctx, t.it)
	if err != nil {
		return inv, err
	}
	return inv, t.d.start(t.ctx, t.it, inv.ActivationID, policy.Attempts == 1)
}

// start marks the next attempt as started; durably, when there is only one: it
// must not run again even after a power cut.
func (d *Delivery) start(ctx context.Context, it *item, id string, durable bool) error {
	e := whisk.Entry{
		Kind: whisk.EntryStart, Match: it.match, Attempt: len(it.attempts) + 1, ActivationID: id, At: now(),
	}
	// A start that is lost with the power is an attempt that may come again,
	// which at least once allows.
	write := d.Journal.Append
	if durable {
		write = d.Journal.AppendDurable
	}
	if err := write(ctx, e); err != nil {
		return err
	}
	d.fault("delivery started")
	return nil
}

// now is the time as records tell it: to the millisecond, so that it is the
// same after it was read back.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// invocation returns what the next attempt of an item runs.
func (d *Delivery) invocation(ctx context.Context, it *item) (whisk.Invocation, whisk.Retry, error) {
	// Before the body: of a rule that is gone nobody needs it.
	policy, ok := d.policy(it)
	if !ok {
		return whisk.Invocation{}, policy, gone("its rule was deleted")
	}
	body, err := d.body(ctx, it)
	if err != nil {
		return whisk.Invocation{}, policy, err
	}
	n := len(it.attempts) + 1
	if body.invoke != nil {
		policy, _ = d.policy(it) // body told whether it is retried
		inv := body.invoke.Invocation
		inv.ActivationID = it.match.AttemptID("", n)
		// Each attempt has an activation of its own, received when it was due.
		if n > 1 {
			inv.Received = it.due
		}
		return inv, policy, nil
	}
	ev := body.event
	trigger, err := d.Entities.Trigger(ev.Trigger)
	if errors.Is(err, whisk.NotFound) {
		return whisk.Invocation{}, policy, gone("its trigger was deleted, and with it the parameters that the action expects")
	}
	if err != nil {
		return whisk.Invocation{}, policy, err
	}
	owner, ok := d.Owner(ev.Trigger.Namespace)
	if !ok {
		return whisk.Invocation{}, policy, gone("its namespace has no owner to run as")
	}
	args, err := arguments(trigger.Parameters, ev)
	if err != nil {
		return whisk.Invocation{}, policy, gone("its payload cannot be read: " + err.Error())
	}
	received := it.since
	if n > 1 {
		received = it.due
	}
	inv := whisk.Invocation{
		ActivationID: it.match.AttemptID(ev.ID, n), Namespace: ev.Trigger.Namespace, Subject: owner,
		Payload: args, Received: received, Correlation: ev.Correlation, Hops: ev.Hops + 1,
	}
	// The event is a first cause: what it leads to names it.
	if inv.Correlation == "" {
		inv.Correlation = ev.ID
	}
	return inv, policy, nil
}

// arguments returns what the event says to an action: its payload over the
// request's headers over the trigger's parameters.
func arguments(params whisk.Params, ev *whisk.Event) (json.RawMessage, error) {
	if len(ev.Headers) > 0 {
		headers, err := json.Marshal(ev.Headers)
		if err != nil {
			return nil, err
		}
		params = params.With(whisk.Param{Key: "__ow_headers", Value: headers})
	}
	return params.Object(ev.Payload, true)
}

// policy returns how an item's failures are retried; false when its rule is
// gone. Of a rule that changed since the match the newest revision counts, save
// for the action: that is the one of the verdict.
func (d *Delivery) policy(it *item) (whisk.Retry, bool) {
	switch {
	case it.match.Invoke == "":
		return d.Rules.Retry(it.match.Rule)
	case it.once:
		return whisk.Retry{Attempts: 1}, true
	}
	return whisk.StdRetry(), true
}

// body is what an item carries: one of the two.
type body struct {
	event  *whisk.Event
	invoke *whisk.Invoke
}

// body fetches what an item carries; a gone error when it is nowhere.
func (d *Delivery) body(ctx context.Context, it *item) (body, error) {
	if it.invoke != nil {
		return body{invoke: it.invoke}, nil
	}
	if it.match.Invoke == "" {
		// The archive first: it has most of them, many in memory.
		ev, err := d.Events.Event(ctx, it.match.Event)
		switch {
		// Another ID at the sequence is another event, given it after a power
		// cut.
		case err == nil && (it.event == "" || ev.ID == it.event):
			ev.Seq = it.match.Event
			it.event = ev.ID
			if len(ev.Payload) == 0 {
				return body{event: &ev}, payloadMissing
			}
			return body{event: &ev}, nil
		case err != nil && !errors.Is(err, whisk.NotFound):
			return body{}, err
		}
	}
	// An event that left the archive was carried by the journal.
	p, err := d.Journal.Pending(ctx, it.match)
	switch {
	case errors.Is(err, whisk.NotFound), err == nil && p.Event == nil && p.Invoke == nil:
		return body{}, gone("its event is in the store no more")
	case err != nil:
		return body{}, err
	case p.Invoke != nil:
		it.once = !p.Invoke.Retry
		return body{invoke: p.Invoke}, nil
	}
	p.Event.Seq = it.match.Event
	it.event = p.Event.ID
	if len(p.Event.Payload) == 0 {
		return body{event: p.Event}, payloadMissing
	}
	return body{event: p.Event}, nil
}

// done is Job.Done: the attempt ended, or could not begin.
func (t *turn) done(act whisk.Activation, err error) {
	// Last of all: the next of the line goes out when this one is written.
	defer t.d.back(t.it.line)
	d, it := t.d, t.it
	if it.call != nil && !t.endCall(act, err) {
		return
	}
	var g gone
	switch {
	case errors.As(t.err, &g):
		d.give(t.ctx, it, g)
	case t.err != nil:
		d.leave(t.ctx, it, t.err)
	// The invoker is closed and did not begin: no attempt is lost by it.
	case err != nil && !t.begun && (errors.Is(err, whisk.Unavailable) || errors.Is(err, context.Canceled)):
		d.leave(t.ctx, it, err)
	// It began, or can't begin for a reason that stays: an attempt, and a
	// failure of the platform.
	case err != nil:
		d.settle(t.ctx, it, d.failed(t.ctx, it, now(), "The action could not be run: "+whisk.Message(err)))
	default:
		d.settle(t.ctx, it, act)
	}
}

// leave ends an item that is neither done nor dead: the journal has it, and the
// next start takes it up.
func (d *Delivery) leave(ctx context.Context, it *item, err error) {
	if !errors.Is(err, context.Canceled) && !errors.Is(err, whisk.Unavailable) {
		d.log.ErrorContext(ctx, "match left to the next start", slog.String("action", it.line.name.String()),
			slog.String("rule", it.match.Rule.String()), slog.Any("err", err))
	}
	d.finish(it)
}

// cutOff ends an attempt that a stopped process began.
func (d *Delivery) cutOff(ctx context.Context, it *item) {
	// The journal tells the attempt as begun; it is taken off and settled as an
	// ended one, under the ID that it had.
	last := it.attempts[len(it.attempts)-1]
	it.attempts = it.attempts[:len(it.attempts)-1]
	act := d.failed(ctx, it, last.Started, "The server stopped while the action was running.")
	if last.ActivationID != "" {
		act.ID = last.ActivationID
	}
	d.settle(ctx, it, act)
}

// failed returns the record of an attempt that was our failure. What can't be
// found out is left at what a new action would have: there is a record in any
// case.
func (d *Delivery) failed(ctx context.Context, it *item, began time.Time, text string) whisk.Activation {
	name := it.line.name
	a := whisk.Activation{
		Namespace: it.match.Rule.Namespace, Name: name.Entity, Version: "0.0.1", Start: began, End: now(),
		Outcome: whisk.WhiskError, Size: -1,
	}
	if a.Start.IsZero() {
		a.Start = a.End
	}
	kind := "unknown"
	if run, err := d.runnable(it); err == nil {
		a.Version, kind = run.Action.Version, run.Action.Exec.Kind
	}
	quoted, _ := json.Marshal(name.Path())
	a.Annotations = whisk.Params{}.Set("path", string(quoted)).Set("kind", fmt.Sprintf("%q", kind))
	a.Result, _ = json.Marshal(map[string]string{"error": text})
	switch b, _ := d.body(ctx, it); {
	case b.invoke != nil:
		a.Namespace, a.Subject, a.Cause = b.invoke.Invocation.Namespace, b.invoke.Invocation.Subject, b.invoke.Invocation.Cause
	case b.event != nil:
		a.Namespace = b.event.Trigger.Namespace
		a.Subject, _ = d.Owner(a.Namespace)
	}
	a.ID = it.match.AttemptID(it.event, len(it.attempts)+1)
	return a
}
