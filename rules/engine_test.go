package rules

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/whisk"
)

// world is all that an engine stands on, in memory. What is in it survives the
// engine, as it survives a process.
type world struct {
	mu      sync.Mutex
	events  map[uint64]whisk.Event // by sequence; cursors take sequences too
	last    uint64
	grown   chan struct{}
	reading func() // called when events were found

	verdicts map[uint64]whisk.Verdict
	judged   whisk.Place
	messages [][2]uint64 // the ranges that were written
	twice    []uint64    // events that were judged again
	letters  []whisk.DeadLetter
	refuse   error // of the next write

	triggers   []whisk.Trigger
	entries    []Entry
	generation uint64

	steps     []string // what was done, in order
	delivered []string
	held      chan struct{} // if set, Wait waits for it
}

func newWorld() *world {
	return &world{
		events: map[uint64]whisk.Event{}, grown: make(chan struct{}), verdicts: map[uint64]whisk.Verdict{},
		triggers: []whisk.Trigger{trigger("t", "1")}, entries: []Entry{rule("r", "")}, generation: 1,
	}
}

func (w *world) add(payload string) whisk.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last++
	ev := *event(payload)
	ev.Seq = w.last
	ev.ID = whisk.DeriveID(ev.Time, fmt.Sprint(w.last))
	w.events[w.last] = ev
	close(w.grown)
	w.grown = make(chan struct{})
	return ev
}

func (w *world) ReadEvents(ctx context.Context, from uint64, n int) ([]whisk.Event, error) {
	for {
		w.mu.Lock()
		var out []whisk.Event
		for seq := from; seq <= w.last && len(out) < n; seq++ {
			if ev, ok := w.events[seq]; ok {
				out = append(out, ev)
			}
		}
		grown := w.grown
		w.mu.Unlock()
		if len(out) > 0 {
			if w.reading != nil {
				w.reading()
			}
			return out, nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (w *world) Judged() whisk.Place { return w.judged }

func (w *world) Gaps() [][2]uint64 {
	var gaps [][2]uint64
	at := uint64(1)
	sorted := slices.SortedFunc(slices.Values(w.messages), func(a, b [2]uint64) int { return int(a[0]) - int(b[0]) })
	for _, m := range sorted {
		if m[0] > at {
			gaps = append(gaps, [2]uint64{at, m[0] - 1})
		}
		at = max(at, m[1]+1)
	}
	return gaps
}

func (w *world) Verdicts(_ context.Context, from uint64, judged whisk.Place, vs []whisk.Verdict) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return w.refuse
	}
	w.steps = append(w.steps, fmt.Sprintf("write %d-%d", from, judged.Seq))
	w.messages = append(w.messages, [2]uint64{from, judged.Seq})
	if judged.Seq > w.judged.Seq {
		w.judged = judged
	}
	for _, v := range vs {
		if _, ok := w.verdicts[v.Event.Seq]; ok {
			w.twice = append(w.twice, v.Event.Seq)
		}
		w.verdicts[v.Event.Seq] = v
	}
	return nil
}

func (w *world) Bury(_ context.Context, d whisk.DeadLetter) error {
	w.steps = append(w.steps, "bury")
	w.letters = append(w.letters, d)
	return nil
}

func (w *world) Wait(ctx context.Context) error {
	if w.held != nil {
		select {
		case <-w.held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (w *world) Deliver(_ context.Context, v *whisk.Verdict) error {
	return w.deliver("deliver", v)
}

func (w *world) Redeliver(_ context.Context, v *whisk.Verdict) error {
	return w.deliver("redeliver", v)
}

func (w *world) deliver(how string, v *whisk.Verdict) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.verdicts[v.Event.Seq]; !ok {
		return fmt.Errorf("event %d is delivered before its verdict is written", v.Event.Seq)
	}
	w.steps = append(w.steps, fmt.Sprintf("%s %d", how, v.Event.Seq))
	for _, r := range v.Rules {
		if r.Decision == whisk.Matched {
			w.delivered = append(w.delivered, fmt.Sprintf("%d %s", v.Event.Seq, r.Rule.Entity))
		}
	}
	return nil
}

func (w *world) Generation() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.generation
}

func (w *world) Snapshot() ([]whisk.Trigger, []Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.triggers), slices.Clone(w.entries)
}

func (w *world) put(e Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.entries = append(w.entries, e)
	w.generation++
}

func (w *world) engine(opts ...Option) *Engine {
	return NewEngine(w, w, w, w, slog.New(slog.DiscardHandler), opts...)
}

// run runs an engine until it has nothing to do.
func (w *world) run(t *testing.T, opts ...Option) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- w.engine(opts...).Run(ctx) }()
	synctest.Wait()
	cancel()
	if err := <-stopped; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestEngineJudgesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for range 3 {
			w.add(`{}`)
		}
		w.last += 2 // cursors
		w.add(`{}`)
		w.run(t)
		if got, want := strings.Join(w.steps, ", "), "write 1-6, deliver 1, deliver 2, deliver 3, deliver 6"; got != want {
			t.Errorf("steps = %s, want %s", got, want)
		}
		w.add(`{}`)
		w.steps = nil
		w.run(t) // the next process goes on where this one was
		if got, want := strings.Join(w.steps, ", "), "write 7-7, deliver 7"; got != want {
			t.Errorf("steps = %s, want %s", got, want)
		}
	})
}

func TestEngineJudgesGapsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for range 9 {
			w.add(`{}`)
		}
		delete(w.events, 7) // a cursor at the end of the second gap
		w.messages = [][2]uint64{{1, 2}, {5, 5}, {8, 8}}
		w.judged = whisk.Place{Seq: 8, ID: w.events[8].ID}
		w.run(t)
		want := "write 3-4, redeliver 3, redeliver 4, write 6-6, redeliver 6, write 7-7, write 9-9, deliver 9"
		if got := strings.Join(w.steps, ", "); got != want {
			t.Errorf("steps = %s, want %s", got, want)
		}
		if gaps := w.Gaps(); len(gaps) != 0 {
			t.Errorf("gaps %v are left", gaps)
		}
	})
}

func TestEngineSeesANewRule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		e := w.engine()
		if e.Active(name("u")) {
			t.Error("trigger u is active already")
		}
		// A rule is stored, and then an event accepted, while the engine waits
		// for events: its table must not be older than the event.
		w.reading = func() { w.put(rule("new", "")) }
		w.add(`{}`)
		w.run(t)
		if got, want := strings.Join(w.delivered, ", "), "1 new, 1 r"; got != want {
			t.Errorf("delivered %s, want %s", got, want)
		}
		if _, ok := e.Retry(name("new")); !ok {
			t.Error("Retry does not know the rule")
		}
		u := rule("ur", "")
		u.Rule.Trigger = name("u")
		w.triggers = append(w.triggers, trigger("u", "1"))
		w.put(u)
		if !e.Active(name("u")) {
			t.Error("Active does not see the rule that was stored before")
		}
	})
}

func TestEngineBuriesProblemsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.add(`{}`)
		ev := w.events[1]
		ev.Hops = whisk.MaxHops
		w.events[1] = ev
		w.add(`{}`)
		w.run(t)
		if got, want := strings.Join(w.steps, ", "), "bury, write 1-2, deliver 1, deliver 2"; got != want {
			t.Errorf("steps = %s, want %s", got, want)
		}
		l := w.letters[0]
		if l.Match != (whisk.Match{Event: 1}) || l.Event.ID != ev.ID || l.Reason != w.verdicts[1].Problem || l.Reason == "" || whisk.CheckID(l.ID) != nil {
			t.Errorf("letter = %+v", l)
		}
		if got := strings.Join(w.delivered, ", "); got != "2 r" {
			t.Errorf("delivered %s, want the second event's match alone", got)
		}
	})
}

func TestEngineWaitsForDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.held = make(chan struct{})
		w.add(`{}`)
		w.run(t)
		if len(w.steps) != 0 {
			t.Errorf("steps = %v while delivery is full, want none", w.steps)
		}
	})
}

func TestEngineSplitsBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.entries = nil
		for i := range maxMatches/4 + 1 {
			w.entries = append(w.entries, rule(fmt.Sprintf("r%d", i), ""))
		}
		for range 10 {
			w.add(`{}`)
		}
		w.run(t)
		if got, want := fmt.Sprint(w.messages), "[[1 4] [5 8] [9 10]]"; got != want {
			t.Errorf("messages = %s, want %s", got, want)
		}
	})
}

func TestEngineEndsWithAnError(t *testing.T) {
	w := newWorld()
	w.refuse = errors.New("disk full")
	w.add(`{}`)
	if err := w.engine().Run(t.Context()); !errors.Is(err, w.refuse) {
		t.Errorf("Run = %v, want the journal's error", err)
	}
}

// TestEngineKilled kills the engine at each of its steps, over and over, while
// rules come: no event is judged twice or not at all.
func TestEngineKilled(t *testing.T) {
	for _, point := range []string{"judge read", "judge judged", "judge buried", "judge written", "judge delivered"} {
		t.Run(point, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				met := 0
				for i := range 6 {
					ev := w.add(`{}`)
					if i == 2 {
						ev.Hops = whisk.MaxHops
						w.events[ev.Seq] = ev
					}
					killed := false
					func() {
						defer func() { killed = recover() != nil }()
						ctx, cancel := context.WithCancel(t.Context())
						defer cancel()
						_ = w.engine(WithFault(func(p string) {
							if p == point {
								panic("killed")
							}
							if p == "judge delivered" {
								cancel() // all is done
							}
						})).Run(ctx)
					}()
					if killed {
						met++
						w.put(rule(fmt.Sprintf("n%d", i), ""))
					}
				}
				if met == 0 {
					t.Fatalf("the engine never came to %q", point)
				}
				w.run(t)
				if len(w.verdicts) != 6 || len(w.twice) != 0 {
					t.Errorf("%d verdicts of 6, twice: %v", len(w.verdicts), w.twice)
				}
				ids := map[string]bool{}
				for _, l := range w.letters {
					ids[l.ID] = true
				}
				if len(ids) != 1 {
					t.Errorf("%d different dead letters, want 1", len(ids))
				}
			})
		})
	}
}

func TestEngineMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		w := newWorld()
		w.entries = append(w.entries, rule("f", filter(`{"a":[1]}`)))
		w.add(`{}`)
		w.add(`{"a":1}`)
		w.run(t, WithMetrics(reg))
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				n := f.GetName()
				for _, l := range m.GetLabel() {
					n += " " + l.GetValue()
				}
				got[n] = m.GetCounter().GetValue()
			}
		}
		for n, want := range map[string]float64{
			"millrace_events_judged_total": 2, "millrace_events_problem_total": 0, "millrace_rule_verdicts_total matched": 3,
			"millrace_rule_verdicts_total filtered": 1, "millrace_rule_verdicts_total inactive": 0,
		} {
			if v, ok := got[n]; !ok || v != want {
				t.Errorf("%s = %v, %v, want %v", n, v, ok, want)
			}
		}
	})
}
