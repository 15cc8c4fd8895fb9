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

// A node is killed at random while it works. What was answered is there, and
// everything is judged once and done or undone.
func TestKilledWhileItWorks(t *testing.T) {
	dir := t.TempDir()
	made := 0
	for round := range 4 {
		n := start(t, dir, bus.Disk)
		undone := n.j.Undone()
		first := n.j.Judged().Seq + 1
		if first > uint64(made)+1 || len(n.j.Gaps()) != 0 {
			t.Fatalf("round %d: judged up to %d of %d, gaps %v", round, first-1, made, n.j.Gaps())
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var mu sync.Mutex
		recorded := map[string]bool{}
		progress := make(chan struct{}, 10_000)
		run := func(ev whisk.Event) {
			if n.j.Append(ctx, startEntry(&ev)) == nil && n.j.Append(ctx, recordEntry(&ev)) == nil {
				mu.Lock()
				recorded[runID(&ev)] = true
				mu.Unlock()
				progress <- struct{}{}
			}
		}
		for _, p := range undone {
			q, err := n.j.Pending(ctx, p.Match)
			if err != nil || q.Event == nil {
				t.Fatalf("round %d: body of %v: %v", round, p.Match, err)
			}
			wg.Go(func() { run(*q.Event) })
		}
		evs := newEvents(made, 400)
		places, err := n.bus.Accept(ctx, evs...)
		if err != nil {
			t.Fatal(err)
		}
		made += len(evs)
		for i := range evs {
			evs[i].Seq = places[i].Seq
		}
		wg.Go(func() {
			for from := first; from <= uint64(made) && ctx.Err() == nil; {
				got, err := n.bus.ReadEvents(ctx, from, 37)
				if err != nil {
					return
				}
				var vs []whisk.Verdict
				for i := range got {
					vs = append(vs, verdictOf(&got[i]))
				}
				if n.j.Verdicts(ctx, from, vs[len(vs)-1].Event, vs) != nil {
					return
				}
				for i := range got {
					if rand.IntN(3) > 0 {
						run(got[i])
					}
				}
				from = got[len(got)-1].Seq + 1
			}
		})
		for stop := 100 + rand.IntN(150); stop > 0; stop-- {
			select {
			case <-progress:
			case <-t.Context().Done():
				t.Fatal("nothing more is recorded")
			}
		}
		// What is recorded now must be in the copy.
		mu.Lock()
		sure := make([]string, 0, len(recorded))
		for id := range recorded {
			sure = append(sure, id)
		}
		mu.Unlock()
		next := journal.CopyTree(t, dir)
		// Files copied one after the other while they change are no state that a
		// kill leaves: block files only grow, the index's do not.
		for _, f := range []string{"index.db", "index.db-wal", "index.db-shm"} {
			os.Remove(filepath.Join(next, f)) //nolint:errcheck // it may not be there
		}
		cancel()
		wg.Wait()
		n.stop(t)

		dir = next
		check := start(t, dir, bus.Disk)
		for _, id := range sure {
			if _, err := check.j.Activation(t.Context(), "guest", id); err != nil {
				t.Fatalf("round %d: record %s: %v", round, id, err)
			}
		}
		judged := check.j.Judged().Seq
		open := map[uint64]bool{}
		for _, p := range check.j.Undone() {
			open[p.Match.Event] = true
		}
		for _, ev := range evs {
			if ev.Seq > judged {
				continue
			}
			v, err := check.j.Verdict(t.Context(), "guest", ev.ID)
			if err != nil || v.Event.Seq != ev.Seq {
				t.Fatalf("round %d: event %d: %v", round, ev.Seq, err)
			}
			_, err = check.j.Activation(t.Context(), "guest", runID(&ev))
			if done := err == nil; done == open[ev.Seq] {
				t.Fatalf("round %d: event %d: recorded %v, undone %v", round, ev.Seq, done, open[ev.Seq])
			}
		}
		check.stop(t)
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
	if _, err := n.bus.SweepObjects(t.Context(), n.j.ObjectInUse); err != nil {
		t.Fatal(err)
	}
	if a, err := n.j.Activation(t.Context(), "guest", runID(&evs[0])); err != nil || len(a.Logs) != 100 {
		t.Errorf("%d log lines, %v", len(a.Logs), err)
	}
	_ = digest // the bus keeps what was put of late; ours must stay whatever it does
}
