package delivery

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// call is a blocking invocation. While its caller waits it is written nowhere
// but in its record. When the caller's patience ends first, it is turned into
// an accepted invocation, which the journal knows, and from then on it is
// carried to its end like any other.
type call struct {
	run    whisk.Runnable
	inv    whisk.Invocation
	answer chan answer   // holds one
	turned chan struct{} // closed when the turning has ended, either way

	mu    sync.Mutex
	state callState
	began time.Time // when it began to run
	ended bool      // its run is over and decides about the answer
}

// callState is who answers for a call. It leaves turning by closing turned,
// once.
type callState int

const (
	direct    callState = iota // the caller waits
	turning                    // it is being written
	accepted                   // the journal has it
	abandoned                  // it could not be written before it ran, and must not run
)

type answer struct {
	act whisk.Activation
	err error
}

var errAbandoned = errors.New("its caller was refused")

// Call runs an action and waits for it, at most wait. It returns the record,
// which is stored, and true; or false when the wait ended first: then the run
// goes on, is known to the journal, and leaves its record under the same
// activation ID. When ctx ends the run goes on too. Unavailable when too much
// is undone or the server stops.
func (d *Delivery) Call(ctx context.Context, run whisk.Runnable, inv whisk.Invocation, wait time.Duration) (whisk.Activation, bool, error) {
	if err := d.admit(ctx); err != nil {
		return whisk.Activation{}, false, err
	}
	c := &call{run: run, inv: inv, answer: make(chan answer, 1), turned: make(chan struct{})}
	// Never retried: the caller is told what happened and decides himself.
	it := &item{
		match: whisk.Match{Invoke: inv.ActivationID}, since: inv.Received, once: true,
		size: int64(len(inv.Payload)), call: c,
	}
	d.enqueue(it, calledName(&run))
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case a := <-c.answer:
		return a.act, a.err == nil, a.err
	// Nobody reads the answer any more; the record is written all the same.
	case <-ctx.Done():
		return whisk.Activation{}, false, ctx.Err()
	case <-timer.C:
	}
	// Written before the caller is let go: the ID that it gets must not be lost
	// with the process.
	if took, err := d.accept(ctx, it); took || err != nil {
		return whisk.Activation{}, false, err
	}
	// It ended just now; its record is being written.
	select {
	case a := <-c.answer:
		return a.act, a.err == nil, a.err
	case <-ctx.Done():
		return whisk.Activation{}, false, ctx.Err()
	}
}

// calledName is the action's name as the caller reached it.
func calledName(run *whisk.Runnable) whisk.Name {
	n := run.Action.Name
	if b := run.Binding; !b.IsZero() {
		n.Namespace, n.Package = b.Namespace, b.Entity
	}
	return n
}

// accept turns a call into an accepted invocation. It returns false without an
// error when the run is over and will be answered.
//
// Three may meet here: the end of the wait, the begin of the run and its end.
// Whoever takes mu first decides. A run that begins while the turning is under
// way waits for it, then writes its start; one that began before has its start
// written together with the invocation. A run that ends meanwhile waits too,
// and is recorded as the turning turns out.
func (d *Delivery) accept(ctx context.Context, it *item) (bool, error) {
	c := it.call
	c.mu.Lock()
	// Too late to turn: the answer is a matter of one write.
	if c.ended {
		c.mu.Unlock()
		return false, nil
	}
	c.state = turning
	// Read under the lock that beginCall sets it under: either it is told here,
	// or beginCall sees the turning.
	began := c.began
	c.mu.Unlock()

	invoke := &whisk.Invoke{Action: it.line.name, Invocation: c.inv}
	entries := []whisk.Entry{{Kind: whisk.EntryInvoke, Match: it.match, Invoke: invoke}}
	if !began.IsZero() {
		// It never runs again, so nobody needs what it was given; and two small
		// entries are one message: there is no invocation without its start.
		invoke.Invocation.Payload = nil
		entries = append(entries, whisk.Entry{
			Kind: whisk.EntryStart, Match: it.match, Attempt: 1, ActivationID: c.inv.ActivationID, At: began,
		})
	}
	// A caller who hangs up must not leave it in doubt.
	err := d.Journal.AppendDurable(context.WithoutCancel(ctx), entries...)
	c.mu.Lock()
	switch {
	case err == nil:
		c.state = accepted
	// The caller is told of the error and may try again: were it to run, it
	// would run twice.
	case began.IsZero():
		c.state = abandoned
	default:
		c.state = direct
	}
	c.mu.Unlock()
	close(c.turned)
	if err == nil {
		d.fault("delivery turned")
	}
	return err == nil, err
}

// settled waits while the call is being turned, and returns its state with mu
// held. The caller must unlock mu.
func (c *call) settled() callState {
	c.mu.Lock()
	for c.state == turning {
		c.mu.Unlock()
		<-c.turned
		c.mu.Lock()
	}
	return c.state
}

// refuse answers a call that nobody runs.
func (c *call) refuse(err error) {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.reply(answer{err: err})
}

// reply answers the caller; the first answer counts.
func (c *call) reply(a answer) {
	select {
	case c.answer <- a:
	default:
	}
}

// beginCall is begin for a call.
func (t *turn) beginCall() (whisk.Invocation, error) {
	c := t.it.call
	state := c.settled()
	switch state {
	// No start is written: if the process dies, so does the connection, and the
	// caller knows.
	case direct:
		c.began = now()
	case abandoned:
		c.mu.Unlock()
		return whisk.Invocation{}, errAbandoned
	}
	c.mu.Unlock()
	if state == accepted {
		if err := t.d.start(t.ctx, t.it, c.inv.ActivationID, true); err != nil {
			return whisk.Invocation{}, err
		}
	}
	return c.inv, nil
}

// endCall ends a call whose caller waits, and returns false; true when it is an
// accepted invocation by now and ends like one.
func (t *turn) endCall(act whisk.Activation, err error) bool {
	c, d := t.it.call, t.d
	state := c.settled()
	// From here on accept leaves the answer to this run.
	c.ended = true
	c.mu.Unlock()
	if state == accepted {
		// The body is at hand; a failure's record needs whose it is.
		t.it.invoke = &whisk.Invoke{Action: t.it.line.name, Invocation: c.inv}
		return true
	}
	// A call that could not be recorded is over too: nothing would take it up
	// again.
	defer d.finish(t.it)
	if err == nil {
		err = t.err
	}
	// The invoker cut it off at its stop: the caller is told so, not
	// "canceled".
	if errors.Is(err, context.Canceled) {
		err = errStopped()
	}
	if err == nil {
		d.fault("delivery ran")
		err = d.Journal.RecordCall(t.ctx, act)
	}
	if err == nil {
		d.fault("delivery recorded")
		d.metrics.attempts.WithLabelValues(act.Outcome.String()).Inc()
	}
	c.reply(answer{act: act, err: err})
	return false
}

// Invoke accepts a non-blocking invocation of the action with this name. It
// returns once the journal has it on stable storage; Unavailable when the
// journal is full or too much is undone.
func (d *Delivery) Invoke(ctx context.Context, name whisk.Name, inv whisk.Invocation) error {
	if err := d.admit(ctx); err != nil {
		return err
	}
	it := &item{
		match: whisk.Match{Invoke: inv.ActivationID}, since: inv.Received, size: int64(len(inv.Payload)),
		invoke: &whisk.Invoke{Action: name, Invocation: inv, Retry: true},
	}
	// Counted before it is written: many at once stay within the limit.
	d.hold(it, name)
	e := whisk.Entry{Kind: whisk.EntryInvoke, Match: it.match, Invoke: it.invoke}
	// A caller who hangs up must not leave it in doubt.
	if err := d.Journal.AppendDurable(context.WithoutCancel(ctx), e); err != nil {
		d.finish(it)
		return err
	}
	d.fault("delivery accepted")
	d.mu.Lock()
	// Below the bound a body that is about to run is not read back from the
	// journal.
	if d.bytes > keepBytes {
		it.invoke = nil // the journal has it
	}
	d.mu.Unlock()
	d.push(it)
	return nil
}
