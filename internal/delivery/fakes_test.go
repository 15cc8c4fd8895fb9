package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

func name(entity string) whisk.Name { return whisk.Name{Namespace: "guest", Entity: entity} }

var errCrash = errors.New("the process died")

// journal is a journal in memory. What it holds survives a crash, which a test
// plays by handing it to a new Delivery.
type journal struct {
	mu      sync.Mutex
	entries []whisk.Entry
	calls   []whisk.Activation
	letters []whisk.DeadLetter
	events  *archive
	full    bool
	durable int           // entries that were appended durably
	gate    chan struct{} // if set, durable appends wait for it
	dead    bool          // the process died: nothing is written any more
}

func (j *journal) Append(ctx context.Context, es ...whisk.Entry) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.dead {
		return errCrash
	}
	for i := range es {
		if es[i].Kind == whisk.EntryInvoke && j.full {
			return whisk.E(whisk.Unavailable, "append", errors.New("full"))
		}
	}
	j.entries = append(j.entries, es...)
	return nil
}

func (j *journal) AppendDurable(ctx context.Context, es ...whisk.Entry) error {
	j.mu.Lock()
	gate := j.gate
	j.mu.Unlock()
	if gate != nil {
		<-gate
	}
	if err := j.Append(ctx, es...); err != nil {
		return err
	}
	j.mu.Lock()
	j.durable += len(es)
	j.mu.Unlock()
	return nil
}

// Undone replays the entries as the journal's rules say.
func (j *journal) Undone() []whisk.Pending {
	j.mu.Lock()
	defer j.mu.Unlock()
	at := map[whisk.Match]int{}
	var all []whisk.Pending
	done := map[whisk.Match]bool{}
	add := func(p whisk.Pending) {
		at[p.Match] = len(all)
		all = append(all, p)
	}
	for _, e := range j.entries {
		switch e.Kind {
		case whisk.EntryVerdict:
			for _, r := range e.Verdict.Rules {
				if r.Decision == whisk.Matched {
					add(whisk.Pending{
						Match: whisk.Match{Event: e.Verdict.Event.Seq, Rule: r.Rule}, Rule: r.Revision, Action: r.Action,
						EventID: e.Verdict.Event.ID, Since: e.Verdict.At,
					})
				}
			}
			continue
		case whisk.EntryInvoke:
			add(whisk.Pending{Match: e.Match, Action: e.Invoke.Action, Since: e.Invoke.Invocation.Received})
			continue
		case whisk.EntryDead:
			done[e.Match] = true
			continue
		}
		i, ok := at[e.Match]
		if !ok {
			panic(fmt.Sprintf("%s of an unknown match %v", e.Kind, e.Match))
		}
		p := &all[i]
		for len(p.Attempts) < e.Attempt {
			p.Attempts = append(p.Attempts, whisk.Attempt{})
		}
		a := &p.Attempts[e.Attempt-1]
		a.ActivationID = e.ActivationID
		if e.Kind == whisk.EntryStart {
			a.Started, p.Started = e.At, true
			continue
		}
		a.Ended, a.Status, a.Due = e.Record.End, e.Record.Outcome.String(), e.Due
		p.Started, p.Due, p.Exhausted = false, e.Due, !e.Final && e.Due.IsZero()
		if e.Final {
			done[e.Match] = true
		}
	}
	var undone []whisk.Pending
	for _, p := range all {
		if !done[p.Match] {
			undone = append(undone, p)
		}
	}
	return undone
}

func (j *journal) Pending(ctx context.Context, m whisk.Match) (whisk.Pending, error) {
	for _, p := range j.Undone() {
		if p.Match != m {
			continue
		}
		if m.Invoke != "" {
			j.mu.Lock()
			defer j.mu.Unlock()
			for _, e := range j.entries {
				if e.Kind == whisk.EntryInvoke && e.Match == m {
					p.Invoke = e.Invoke
				}
			}
			return p, nil
		}
		if ev, err := j.events.Event(ctx, m.Event); err == nil {
			p.Event = &ev
		}
		return p, nil
	}
	return whisk.Pending{}, whisk.E(whisk.NotFound, "pending", errors.New("done"))
}

func (j *journal) RecordCall(_ context.Context, a whisk.Activation) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.dead {
		return errCrash
	}
	j.calls = append(j.calls, a)
	return nil
}

func (j *journal) Bury(_ context.Context, d whisk.DeadLetter) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.dead {
		return errCrash
	}
	j.letters = append(j.letters, d)
	return nil
}

// of returns the entries of one kind.
func (j *journal) of(kind whisk.EntryKind) []whisk.Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []whisk.Entry
	for _, e := range j.entries {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

// archive holds events by sequence, from 1.
type archive struct {
	mu     sync.Mutex
	events map[uint64]whisk.Event
	next   uint64
}

func (a *archive) add(payload string) whisk.Event {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next++
	ev := whisk.Event{
		ID: whisk.DeriveID(time.Now(), fmt.Sprint(a.next)), Trigger: name("t"), Time: time.Now(),
		Payload: json.RawMessage(payload), Seq: a.next, Accepted: time.Now(),
	}
	a.events[a.next] = ev
	return ev
}

func (a *archive) Event(_ context.Context, seq uint64) (whisk.Event, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ev, ok := a.events[seq]
	if !ok {
		return ev, whisk.E(whisk.NotFound, "event", errors.New("no such event"))
	}
	return ev, nil
}

// entities are one trigger, some actions and the retries of some rules.
type entities struct {
	mu      sync.Mutex
	params  whisk.Params
	trigger bool
	actions map[whisk.Name]bool
	retries map[whisk.Name]whisk.Retry
}

func (s *entities) Trigger(n whisk.Name) (whisk.Trigger, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.trigger {
		return whisk.Trigger{}, whisk.E(whisk.NotFound, "trigger", errors.New("no such trigger"))
	}
	return whisk.Trigger{Meta: whisk.Meta{Name: n}, Parameters: s.params}, nil
}

func (s *entities) Resolve(n whisk.Name) (whisk.Runnable, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.actions[n] {
		return whisk.Runnable{}, whisk.E(whisk.NotFound, "resolve", errors.New("The requested resource does not exist."))
	}
	return runnable(n.Entity), nil
}

func (s *entities) Retry(rule whisk.Name) (whisk.Retry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.retries[rule]
	return r, ok
}

func (s *entities) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func runnable(action string) whisk.Runnable {
	return whisk.Runnable{
		Action:   whisk.Action{Meta: whisk.Meta{Name: name(action), Version: "0.0.7"}, Exec: whisk.Exec{Kind: "python:3"}, Limits: whisk.StdLimits()},
		Revision: 1,
	}
}

// invoker runs jobs with a function, each action's first come, first served,
// so many at once.
type invoker struct {
	run   func(inv whisk.Invocation) (whisk.Activation, error)
	slots int

	mu     sync.Mutex
	queues map[whisk.Name][]whisk.Job
	busy   map[whisk.Name]int
	closed bool
	wg     sync.WaitGroup
	ctx    context.Context
}

func newInvoker(ctx context.Context, slots int, run func(whisk.Invocation) (whisk.Activation, error)) *invoker {
	return &invoker{ctx: ctx, run: run, slots: slots, queues: map[whisk.Name][]whisk.Job{}, busy: map[whisk.Name]int{}}
}

func (v *invoker) Submit(job whisk.Job) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return whisk.E(whisk.Unavailable, "submit", errors.New("closed"))
	}
	n := job.Runnable.Action.Name
	v.queues[n] = append(v.queues[n], job)
	if v.busy[n] < v.slots {
		v.busy[n]++
		v.wg.Go(func() { v.work(n) })
	}
	return nil
}

func (v *invoker) work(n whisk.Name) {
	for {
		v.mu.Lock()
		if len(v.queues[n]) == 0 {
			v.busy[n]--
			v.mu.Unlock()
			return
		}
		job := v.queues[n][0]
		v.queues[n] = v.queues[n][1:]
		v.mu.Unlock()
		inv, err := job.Begin(v.ctx)
		var act whisk.Activation
		if err == nil {
			act, err = v.run(inv)
		}
		job.Done(act, err)
	}
}

// ended returns the record of a run with this outcome.
func ended(inv whisk.Invocation, o whisk.Outcome) whisk.Activation {
	a := whisk.Activation{
		ID: inv.ActivationID, Namespace: inv.Namespace, Subject: inv.Subject, Name: "a", Version: "0.0.1",
		Start: now(), End: now(), Outcome: o, Result: inv.Payload, Size: len(inv.Payload),
	}
	if o != whisk.Success {
		a.Result = json.RawMessage(`{"error":"` + o.String() + ` of a test"}`)
	}
	return a
}

// world is a Delivery with all that it stands on.
type world struct {
	t        testing.TB
	journal  *journal
	archive  *archive
	entities *entities
	invoker  *invoker
	delivery *Delivery
	stop     context.CancelFunc
	stopped  chan error
	opts     []Option
}

func newWorld(t testing.TB, opts ...Option) *world {
	a := &archive{events: map[uint64]whisk.Event{}}
	w := &world{
		t: t, archive: a, journal: &journal{events: a}, opts: opts,
		entities: &entities{
			trigger: true, actions: map[whisk.Name]bool{name("a"): true, name("b"): true},
			retries: map[whisk.Name]whisk.Retry{name("r"): whisk.StdRetry(), name("s"): whisk.StdRetry()},
		},
	}
	return w
}

// start begins a process over what the journal holds.
func (w *world) start(slots int, run func(whisk.Invocation) (whisk.Activation, error)) {
	ctx, cancel := context.WithCancel(w.t.Context())
	w.invoker = newInvoker(ctx, slots, run)
	w.delivery = New(Parts{
		Journal: w.journal, Events: w.archive, Invoker: w.invoker, Entities: w.entities, Rules: w.entities,
		Owner: func(ns string) (string, bool) { return "owner-of-" + ns, ns == "guest" },
	}, slog.New(slog.DiscardHandler), w.opts...)
	w.stopped = make(chan error, 1)
	w.stop = cancel
	d := w.delivery
	stopped := w.stopped
	go func() { stopped <- d.Run(ctx) }()
}

// end stops the process in good order.
func (w *world) end() {
	w.stop()
	if err := <-w.stopped; err != nil {
		w.t.Errorf("Run: %v", err)
	}
	w.invoker.wg.Wait()
}

// fire judges a new event: it is matched by the rules with these names, which
// run action a.
func (w *world) fire(payload string, rules ...string) whisk.Event {
	ev := w.archive.add(payload)
	v := whisk.Verdict{Event: whisk.Place{Seq: ev.Seq, ID: ev.ID}, Trigger: ev.Trigger, At: now(), Size: len(payload)}
	for _, r := range rules {
		m := whisk.Match{Event: ev.Seq, Rule: name(r)}
		v.Rules = append(v.Rules, whisk.RuleVerdict{
			Rule: m.Rule, Revision: 3, Action: name("a"), Decision: whisk.Matched, ActivationID: m.AttemptID(ev.ID, 1),
		})
	}
	if err := w.delivery.Wait(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	if err := w.journal.Append(w.t.Context(), whisk.Entry{Kind: whisk.EntryVerdict, Verdict: &v}); err != nil {
		return ev // the process died before
	}
	if err := w.delivery.Deliver(w.t.Context(), &v); err != nil {
		w.t.Fatal(err)
	}
	return ev
}

func (w *world) count() int {
	w.delivery.mu.Lock()
	defer w.delivery.mu.Unlock()
	return w.delivery.count
}
