package invoker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// errPanic marks the error of a function that panicked.
var errPanic = errors.New("panic")

// submitBuiltin runs a job whose action is a function of this binary. Such
// jobs wait for nothing: goroutines need no container.
func (v *Invoker) submitBuiltin(job whisk.Job) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.phase > open {
		return whisk.E(whisk.Unavailable, "submit", errStopped)
	}
	v.calls.Add(1)
	v.jobs.Add(1)
	// The queue is never used as one: it only holds what a record says of its
	// action.
	e := &entry{job: job, arrived: time.Now()}
	q := v.newQueue(keyOf(&job.Runnable, job.Namespace), &job.Runnable)
	v.busy.Go(func() {
		if err := v.begin(e); err != nil {
			v.done(e, whisk.Activation{}, err)
			return
		}
		record, err := v.runBuiltin(q, e)
		v.done(e, record, err)
	})
	return nil
}

// runBuiltin calls the function and makes the record, by the same rules as for
// the answer of a container. The error says that there is no record, because of
// the stop.
func (v *Invoker) runBuiltin(q *queue, e *entry) (whisk.Activation, error) {
	a := &e.job.Runnable.Action
	t := run{q: q, e: e, start: time.Now(), limit: time.Duration(a.Limits.Timeout) * time.Millisecond}
	if t.limit <= 0 {
		t.limit = time.Duration(whisk.TimeoutRange.Std) * time.Millisecond
	}
	fn := v.builtins[a.Name.Local()]
	args, err := e.job.Runnable.Params.Object(e.inv.Payload, true)
	switch {
	case fn == nil:
		t.response = fail(whisk.WhiskError, textNoCode)
	case err != nil:
		t.response = fail(whisk.WhiskError, whisk.Message(err))
	default:
		ctx, cancel := context.WithTimeout(v.base, t.limit)
		body, err := v.callBuiltin(ctx, fn, *e.inv, args)
		late := errors.Is(ctx.Err(), context.DeadlineExceeded)
		cancel()
		// The function may have failed for the stop alone: nothing can be said
		// of it.
		if v.base.Err() != nil {
			return whisk.Activation{}, whisk.E(whisk.Unavailable, "run action", errStopped)
		}
		t.late = late
		switch {
		case late:
			t.response = fail(whisk.DeveloperError, fmt.Sprintf(textTimeout, t.limit.Milliseconds()))
		case errors.Is(err, errPanic):
			t.response = fail(whisk.WhiskError, whisk.Message(err))
		case err != nil:
			t.response = fail(whisk.ApplicationError, whisk.Message(err))
		default:
			t.response = answer{200, body[:min(len(body), whisk.MaxPayload)], len(body)}.ofRun()
		}
	}
	t.end = time.Now()
	return t.record(), nil
}

// callBuiltin calls fn and returns when it does or ctx ends. A function that
// goes on after that is not waited for; one that panics is our fault.
func (v *Invoker) callBuiltin(ctx context.Context, fn Builtin, inv whisk.Invocation, args json.RawMessage) (json.RawMessage, error) {
	type outcome struct {
		body json.RawMessage
		err  error
	}
	// With room for one, so that a function nobody waits for any more can end.
	done := make(chan outcome, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				v.log.Error("builtin action panicked", slog.String("activation", inv.ActivationID), slog.Any("err", p), slog.String("stack", string(debug.Stack())))
				done <- outcome{err: whisk.E(whisk.Internal, "run builtin", fmt.Errorf("%w: %v", errPanic, p))}
			}
		}()
		body, err := fn(ctx, inv, args)
		done <- outcome{body, err}
	}()
	select {
	case o := <-done:
		return o.body, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
