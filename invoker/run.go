package invoker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker/launcher"
)

const nativeLauncher = launcher.Native

// fate is what becomes of a job, and of its container, after one try.
type fate struct {
	record whisk.Activation
	err    error // in the place of a record
	keep   bool  // the container may be used again
	moved  bool  // the job waits in a queue again
}

// serve has w run e, and what waits in q after it.
func (v *Invoker) serve(w *worker, q *queue, e *entry) {
	for e != nil {
		began := time.Now()
		v.mu.Lock()
		q.started.add(began)
		// It is asked for here: a stop must not take it for a job that has not
		// begun.
		e.beginning.asked = true
		v.beginAhead(q)
		calm := v.running <= v.cores
		v.mu.Unlock()

		f := v.attempt(w, q, e)

		v.mu.Lock()
		q.started.drop(began)
		if f.err == nil && !f.moved && w.used {
			q.ran(time.Since(began), calm)
		}
		w.used = w.used || w.loaded // the first job's time holds an init: it tells nothing of the next
		v.mu.Unlock()
		// Before the job is told its end, which may wait for the record to be
		// stored: the container need not be idle for so long.
		next := v.release(w, q, f.keep)
		switch {
		case f.moved:
		case next == nil:
			v.done(e, f.record, f.err)
		default:
			// Its own variable, as e is the next job by the time that the crew
			// runs this.
			last := e
			v.crew.do(func() { v.done(last, f.record, f.err) }, v.busy.Go)
		}
		e = next
	}
}

// done tells a job its end.
func (v *Invoker) done(e *entry, a whisk.Activation, err error) {
	e.job.Done(a, err)
	v.calls.Add(-1)
	v.jobs.Done()
}

// refuse ends a job that got no container. It begins first all the same: a job
// that was accepted has an activation, and the record needs its ID.
func (v *Invoker) refuse(q *queue, e *entry, r response) {
	if err := v.begin(e); err != nil {
		v.done(e, whisk.Activation{}, err)
		return
	}
	now := time.Now()
	t := run{q: q, e: e, start: now, end: now, response: r}
	v.done(e, t.record(), nil)
}

// attempt has w run e.
func (v *Invoker) attempt(w *worker, q *queue, e *entry) fate {
	// Paused is read without the lock: the container is this job's, and no
	// other goroutine touches what is only its.
	if w.paused {
		ctx, cancel := context.WithTimeout(v.base, pauseTimeout)
		err := w.c.Resume(ctx)
		cancel()
		if err != nil {
			v.log.Warn("container not resumed", slog.String("container", w.c.ID()), slog.Any("err", err))
			return v.putBack(q, e)
		}
		w.paused = false
	}
	if err := v.begin(e); err != nil {
		return fate{err: err, keep: true}
	}
	value, env, err := arguments(&e.job.Runnable, e.inv.Payload)
	if err != nil {
		t := run{q: q, e: e, start: time.Now(), end: time.Now(), response: fail(whisk.WhiskError, whisk.Message(err))}
		return fate{record: t.record(), keep: true}
	}
	// Only now is the payload known. The container is kept: it has seen
	// nothing of the job.
	if k := v.keyOfBegun(q, e, env); k != q.key {
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.move(v.queueOf(k, &e.job.Runnable), e, true)
	}
	t := run{q: q, e: e, limit: time.Duration(e.job.Runnable.Action.Limits.Timeout) * time.Millisecond}
	if t.limit <= 0 {
		t.limit = time.Duration(whisk.TimeoutRange.Std) * time.Millisecond
	}
	err = v.perform(w, &t, value, env)
	if err != nil {
		return v.putBack(q, e)
	}
	// The container was killed by the stop, which says nothing about the
	// action: the caller is to run it again.
	if v.stopped() && t.lost {
		return fate{err: whisk.E(whisk.Unavailable, "run action", errStopped)}
	}
	// As OpenWhisk does. After a fault of the developer's, such as an
	// exception, the code may be left in any state.
	keep := t.outcome == whisk.Success || t.outcome == whisk.ApplicationError
	return fate{record: t.record(), keep: keep && !t.lost}
}

// keyOfBegun is the key of a job whose invocation is known: the payload may
// override init parameters, and the namespace may not be what was assumed.
func (v *Invoker) keyOfBegun(q *queue, e *entry, env map[string]string) key {
	k := q.key
	k.env = envHash(env)
	if e.inv.Namespace != "" {
		k.namespace = e.inv.Namespace
	}
	return k
}

// putBack lets e wait for another container: this one never saw it, and is
// dropped.
func (v *Invoker) putBack(q *queue, e *entry) fate {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.move(q, e, false)
}

// move puts e back into q, or hands it back if the invoker stops. By its
// arrival, so that it is no worse off than before. The caller holds mu.
func (v *Invoker) move(q *queue, e *entry, keep bool) fate {
	if v.phase == closed {
		v.forget(q)
		return fate{err: whisk.E(whisk.Unavailable, "run action", errStopped), keep: keep}
	}
	q.waiting.put(e)
	v.noteHungry(q)
	v.pump()
	return fate{moved: true, keep: keep}
}

func (v *Invoker) stopped() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.phase == closed
}

// run is one activation on its way to a record.
type run struct {
	q     *queue
	e     *entry
	limit time.Duration

	load       time.Duration // of /init
	loaded     bool          // there was one
	ran        bool          // /run was asked
	start, end time.Time     // of /run, or of a failed /init
	late       bool          // the limit was reached
	lost       bool          // the container is of no more use
	logs       []string
	response
}

// perform loads the code if need be and calls it. It returns an error if t has
// no response because the container was gone before it could have seen
// anything: another one may be tried.
func (v *Invoker) perform(w *worker, t *run, value json.RawMessage, env map[string]string) error {
	a, inv := &t.e.job.Runnable.Action, t.e.inv
	c := call{
		namespace: inv.Namespace, action: "/" + t.q.path, version: a.Version,
		id: inv.ActivationID, transaction: inv.Transaction,
	}
	now := time.Now()
	if v.mint != nil && a.Annotations.Truthy("provide-api-key") {
		until := now.Add(t.limit)
		if !w.loaded {
			// /init and /run have the whole limit each.
			until = until.Add(t.limit)
		}
		c.key = v.mint(inv, until)
	}
	logLimit := a.Limits.Logs << 20
	// What a container prints before its first job is of its start and
	// concerns nobody's activation. Between jobs of one action it is that
	// action's, as of children that go on after the answer.
	w.logs.open(logLimit, !w.loaded)
	if !w.loaded {
		t.loaded, t.start = true, now
		c.deadline = now.Add(t.limit)
		if ok, err := v.load(w, t, a, c.env(env)); !ok {
			return err
		}
		now = time.Now()
	}
	t.start, t.ran = now, true
	c.deadline = now.Add(t.limit)
	ans, err := w.speak.run(c.deadline, c.body(nil, value))
	t.end = time.Now()
	// After an /init in the same activation the code did run: then this is a
	// failure of the action, told below, and no case for another container.
	if errors.Is(err, errUnsent) && !t.loaded {
		w.logs.take()
		return err
	}
	switch {
	case errors.Is(err, errTimeout):
		t.late, t.lost = true, true
		t.response = fail(whisk.DeveloperError, fmt.Sprintf(textTimeout, t.limit.Milliseconds()))
	case err != nil:
		t.lost = true
		t.response = fail(whisk.DeveloperError, textRunLost)
	default:
		t.response = ans.ofRun()
	}
	v.conclude(w, t, logLimit)
	return nil
}

// load sends the code. If that fails, t has the response and ok is false.
func (v *Invoker) load(w *worker, t *run, a *whisk.Action, env map[string]string) (ok bool, err error) {
	code, err := v.codeOf(a)
	if err != nil {
		v.log.Error("code not found", slog.String("action", t.q.path), slog.String("activation", t.e.inv.ActivationID), slog.Any("err", err))
		t.response, t.end, t.lost, t.loaded = fail(whisk.WhiskError, textNoCode), t.start, true, false
		return false, nil
	}
	req := initRequest{Name: a.Name.Entity, Main: a.Exec.Main, Code: code, Binary: a.Exec.Binary, Env: env}
	if req.Main == "" {
		req.Main = "main"
	}
	ans, err := w.speak.init(t.start.Add(t.limit), req)
	t.end = time.Now()
	t.load = t.end.Sub(t.start)
	switch {
	// One container may have ended unnoticed. Were there no bound, a job whose
	// containers all end at once would try one after the other for ever.
	case errors.Is(err, errUnsent) && !t.e.again:
		t.e.again = true
		return false, err
	case errors.Is(err, errTimeout):
		t.late, t.lost = true, true
		t.response = fail(whisk.DeveloperError, fmt.Sprintf(textInitTime, t.limit.Milliseconds()))
	case err != nil:
		t.lost = true
		t.response = fail(whisk.DeveloperError, textInitLost)
	case ans.status != 200:
		t.response = ans.ofInit()
	default:
		w.loaded = true
		v.mu.Lock()
		t.q.load = average(t.q.load, t.load)
		v.mu.Unlock()
		return true, nil
	}
	v.conclude(w, t, a.Limits.Logs<<20)
	return false, nil
}

// codeOf returns the code of an action; nil for an image without any.
func (v *Invoker) codeOf(a *whisk.Action) (*string, error) {
	if a.Exec.Code != "" || a.Exec.Digest == "" {
		// Not the empty string: such an image is sent no code member at all.
		if a.Exec.Code == "" && a.Exec.Kind == whisk.KindBlackbox {
			return nil, nil
		}
		return &a.Exec.Code, nil
	}
	code, err := v.code(v.base, a.Exec.Digest)
	return &code, err
}

// conclude collects the logs of t, and finds out why the container ended if it
// did.
func (v *Invoker) conclude(w *worker, t *run, logLimit int) {
	complete := true
	// The container ended while it had the job. A limit that was reached is
	// our own doing and needs no reason.
	if t.lost && !t.late {
		ctx, cancel := context.WithTimeout(v.base, endingWait)
		how := w.c.Ending(ctx)
		cancel()
		t.logs = w.collect(false)
		// 134 is SIGABRT, by which V8 ends itself.
		if how.OutOfMemory || how.ExitCode == 134 && heapSpent(t.logs) {
			t.response = fail(whisk.DeveloperError, textMemory)
		}
	} else if w.spec.Launcher == "" {
		t.logs, complete = w.logs.takeMarked(w.spec.Marked && !t.late)
	} else {
		t.logs = w.logs.take()
	}
	if logLimit == 0 {
		t.logs = nil
		return
	}
	if !complete {
		t.logs = append(t.logs, logLine("stderr", []byte(textLogsMissing), t.end))
	}
	if t.lost && t.outcome == whisk.DeveloperError {
		t.logs = append(t.logs, logLine("stderr", []byte(textLogsDevError), t.end))
	}
}

// collect takes the logs of a container that will print no more.
func (w *worker) collect(marked bool) []string {
	if w.spec.Launcher != "" {
		return w.logs.take()
	}
	lines, _ := w.logs.takeMarked(marked)
	return lines
}

// heapSpent reports whether a process said that it ended for want of memory:
// V8 does that before the kernel has to.
func heapSpent(logs []string) bool {
	for _, l := range logs {
		if strings.Contains(l, "heap out of memory") || strings.Contains(l, "failed to allocate memory") {
			return true
		}
	}
	return false
}

// record returns the activation record of t. Its start is moved back so that
// end and duration agree for a cold start as well.
func (t *run) record() whisk.Activation {
	q, a, inv := t.q, &t.e.job.Runnable.Action, t.e.inv
	first := t.start
	if t.loaded && t.ran {
		first = first.Add(-t.load)
	}
	// Waiting is counted from where the event was accepted, not from its
	// arrival here; what has no such time was first seen here.
	received := inv.Received
	if received.IsZero() {
		received = t.e.arrived
	}
	waited := max(first.Sub(received).Milliseconds(), 0)
	notes := make(whisk.Params, 0, 7)
	notes = append(notes,
		whisk.Param{Key: "path", Value: q.notes.path},
		whisk.Param{Key: "waitTime", Value: strconv.AppendInt(nil, waited, 10)},
		whisk.Param{Key: "kind", Value: q.notes.kind},
		whisk.Param{Key: "timeout", Value: strconv.AppendBool(nil, t.late)},
		whisk.Param{Key: "limits", Value: q.notes.limits})
	if t.loaded {
		notes = append(notes, whisk.Param{Key: "initTime", Value: strconv.AppendInt(nil, t.load.Milliseconds(), 10)})
	}
	if q.notes.binding != nil {
		notes = append(notes, whisk.Param{Key: "binding", Value: q.notes.binding})
	}
	// The clock on the wall may be set meanwhile; what passed is what counts.
	start, took := first.UTC(), t.end.Sub(first)
	return whisk.Activation{
		ID: inv.ActivationID, Namespace: inv.Namespace, Name: a.Name.Entity, Version: a.Version,
		Subject: inv.Subject, Cause: inv.Cause, Start: start, End: start.Add(took), Duration: took,
		Outcome: t.outcome, Result: t.result, Size: t.size, Logs: t.logs, Annotations: notes,
	}
}
