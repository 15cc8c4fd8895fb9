package journal_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/journal"
	"github.com/millrace/millrace/internal/whisk"
)

var (
	trigger = whisk.Name{Namespace: "guest", Entity: "t"}
	rule    = whisk.Name{Namespace: "guest", Entity: "r"}
	action  = whisk.Name{Namespace: "guest", Entity: "a"}
)

// node is a bus and a journal on one folder, running.
type node struct {
	dir    string
	bus    *bus.Bus
	j      *journal.Journal
	cancel context.CancelFunc
	ended  chan error
	once   sync.Once
}

func start(t testing.TB, dir string, d bus.Durability) *node {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	b, err := bus.Open(t.Context(), bus.Options{
		Dir: dir, Durability: d, Log: log, Metrics: prometheus.NewRegistry(),
		EventsLimit: 2 << 30, JournalLimit: 2 << 30, CallsLimit: 1 << 30, DeadLimit: 64 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(t.Context(), b, journal.Options{Index: filepath.Join(dir, "index.db"), Log: log, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	b.SetFloor(j.Floor)
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{dir: dir, bus: b, j: j, cancel: cancel, ended: make(chan error, 1)}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.Run(gctx) })
	g.Go(func() error { return j.Run(gctx) })
	go func() { n.ended <- g.Wait() }()
	t.Cleanup(func() { n.stop(t) })
	return n
}

func (n *node) stop(t testing.TB) {
	n.once.Do(func() {
		n.cancel()
		if err := <-n.ended; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := n.j.Close(); err != nil {
			t.Errorf("close journal: %v", err)
		}
		if err := n.bus.Close(); err != nil {
			t.Errorf("close bus: %v", err)
		}
	})
}

func verdictOf(ev *whisk.Event) whisk.Verdict {
	return whisk.Verdict{
		Event: whisk.Place{Seq: ev.Seq, ID: ev.ID}, Trigger: trigger, Version: "0.0.1", Actor: "guest", Time: ev.Time, At: ev.Time, Size: 256,
		Rules: []whisk.RuleVerdict{{Rule: rule, Revision: 1, Action: action, Decision: whisk.Matched, ActivationID: runID(ev)}},
	}
}

func runID(ev *whisk.Event) string { return whisk.DeriveID(ev.Time, ev.ID, "1") }

func startEntry(ev *whisk.Event) whisk.Entry {
	return whisk.Entry{Kind: whisk.EntryStart, Match: whisk.Match{Event: ev.Seq, Rule: rule}, Attempt: 1, ActivationID: runID(ev), At: ev.Time}
}

var annotations = whisk.Params{}.Set("path", `"guest/a"`).Set("kind", `"python:3"`).
	Set("limits", `{"concurrency":1,"logs":10,"memory":256,"timeout":60000}`).Set("timeout", "false").Set("waitTime", "3")

func recordEntry(ev *whisk.Event) whisk.Entry {
	return whisk.Entry{
		Kind: whisk.EntryRecord, Match: whisk.Match{Event: ev.Seq, Rule: rule}, Attempt: 1, Final: true,
		Record: &whisk.Activation{
			ID: runID(ev), Namespace: "guest", Name: "a", Version: "0.0.1", Subject: "guest", Start: ev.Time, End: ev.Time.Add(time.Millisecond),
			Duration: time.Millisecond, Result: json.RawMessage(`{"greeting":"Hello, world"}`), Size: 27,
			Logs: []string{"2026-11-24T00:00:00.000000000Z  stdout: hello"}, Annotations: annotations,
		},
	}
}

func newEvents(from, n int) []whisk.Event {
	var out []whisk.Event
	for i := from; i < from+n; i++ {
		when := time.UnixMilli(1_790_000_000_000 + int64(i))
		out = append(out, whisk.Event{
			ID: whisk.DeriveID(when, "e", fmt.Sprint(i)), Trigger: trigger, Time: when, Actor: "guest",
			Payload: json.RawMessage(fmt.Sprintf(`{"n":%d}`, i)),
		})
	}
	return out
}

// worker does what judge and delivery do: it judges, and runs what matched.
type worker struct {
	t        *testing.T
	n        *node
	ctx      context.Context //nolint:containedctx // it ends the worker, as a kill would
	progress chan struct{}
	mu       sync.Mutex
	recorded []string
}

func (w *worker) run(ev *whisk.Event) {
	if w.n.j.Append(w.ctx, startEntry(ev)) != nil || w.n.j.Append(w.ctx, recordEntry(ev)) != nil {
		return
	}
	w.mu.Lock()
	w.recorded = append(w.recorded, runID(ev))
	w.mu.Unlock()
	w.progress <- struct{}{}
}

// judge judges what is there, and runs most of it.
func (w *worker) judge(first, last uint64) {
	for from := first; from <= last && w.ctx.Err() == nil; {
		got, err := w.n.bus.ReadEvents(w.ctx, from, 37)
		if err != nil {
			return
		}
		var vs []whisk.Verdict
		for i := range got {
			vs = append(vs, verdictOf(&got[i]))
		}
		if w.n.j.Verdicts(w.ctx, from, vs[len(vs)-1].Event, vs) != nil {
			return
		}
		for i := range got {
			if rand.IntN(3) > 0 {
				w.run(&got[i])
			}
		}
		from = got[len(got)-1].Seq + 1
	}
}

// workUntilKilled works on a store with some more events and returns a copy of
// it made in the midst, with the records that are sure to be in it.
func workUntilKilled(t *testing.T, dir string, made int) (killed string, evs []whisk.Event, sure []string) {
	n := start(t, dir, bus.Disk)
	defer n.stop(t)
	first := n.j.Judged().Seq + 1
	if first > uint64(made)+1 || len(n.j.Gaps()) != 0 {
		t.Fatalf("judged up to %d of %d, gaps %v", first-1, made, n.j.Gaps())
	}
	ctx, cancel := context.WithCancel(t.Context())
	w := &worker{t: t, n: n, ctx: ctx, progress: make(chan struct{}, 10_000)}
	var wg sync.WaitGroup
	for _, p := range n.j.Undone() {
		q, err := n.j.Pending(ctx, p.Match)
		if err != nil || q.Event == nil {
			t.Fatalf("body of %v: %v", p.Match, err)
		}
		wg.Go(func() { w.run(q.Event) })
	}
	evs = newEvents(made, 400)
	places, err := n.bus.Accept(ctx, evs...)
	if err != nil {
		t.Fatal(err)
	}
	for i := range evs {
		evs[i].Seq = places[i].Seq
	}
	wg.Go(func() { w.judge(first, evs[len(evs)-1].Seq) })
	for stop := 100 + rand.IntN(150); stop > 0; stop-- {
		<-w.progress
	}
	w.mu.Lock()
	sure = slices.Clone(w.recorded)
	w.mu.Unlock()
	killed = journal.CopyTree(t, dir)
	// Files copied one after the other while they change are no state that a
	// kill leaves: block files only grow, the index's do not.
	for _, f := range []string{"index.db", "index.db-wal", "index.db-shm"} {
		os.Remove(filepath.Join(killed, f)) //nolint:errcheck // it may not be there
	}
	cancel()
	wg.Wait()
	return killed, evs, sure
}

// A node is killed at random while it works. What was answered is there, and
// everything that was judged is judged once and done or undone.
func TestKilledWhileItWorks(t *testing.T) {
	dir, made := t.TempDir(), 0
	for round := range 4 {
		killed, evs, sure := workUntilKilled(t, dir, made)
		dir, made = killed, made+len(evs)
		n := start(t, dir, bus.Disk)
		for _, id := range sure {
			if _, err := n.j.Activation(t.Context(), "guest", id); err != nil {
				t.Fatalf("round %d: record %s: %v", round, id, err)
			}
		}
		judged, open := n.j.Judged().Seq, map[uint64]int{}
		for _, p := range n.j.Undone() {
			open[p.Match.Event]++
		}
		for _, ev := range evs {
			if ev.Seq > judged {
				continue
			}
			if v, err := n.j.Verdict(t.Context(), "guest", ev.ID); err != nil || v.Event.Seq != ev.Seq {
				t.Fatalf("round %d: event %d: %v", round, ev.Seq, err)
			}
			done := 0
			if _, err := n.j.Activation(t.Context(), "guest", runID(&ev)); err == nil {
				done = 1
			}
			if done+open[ev.Seq] != 1 {
				t.Fatalf("round %d: event %d: %d records, %d times undone", round, ev.Seq, done, open[ev.Seq])
			}
		}
		n.stop(t)
	}
}

func TestObjectsSweep(t *testing.T) {
	n := start(t, t.TempDir(), bus.Disk)
	evs := newEvents(0, 1)
	places, err := n.bus.Accept(t.Context(), evs...)
	if err != nil {
		t.Fatal(err)
	}
	evs[0].Seq = places[0].Seq
	e := recordEntry(&evs[0])
	e.Record.Logs = slices.Repeat([]string{strings.Repeat("l", 1000)}, 100)
	if err := n.j.Append(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	digest, err := n.bus.PutObject(t.Context(), []byte("nobody wants this"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.bus.SweepObjects(t.Context(), 0, n.j.ObjectInUse); err != nil {
		t.Fatal(err)
	}
	if a, err := n.j.Activation(t.Context(), "guest", runID(&evs[0])); err != nil || len(a.Logs) != 100 {
		t.Errorf("%d log lines, %v", len(a.Logs), err)
	}
	_ = digest // the bus keeps what was put of late; ours must stay whatever it does
}
