package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/journal"
	"github.com/millrace/millrace/internal/store"
	"github.com/millrace/millrace/internal/whisk"
)

// keepers are bus, store and journal on one folder, running.
type keepers struct {
	*sweeper
	t    *testing.T
	stop func()
}

func openKeepers(t *testing.T, dir string) *keepers {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	b, err := bus.Open(t.Context(), bus.Options{Dir: dir, Durability: bus.Process, Log: log, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), b, log)
	if err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(t.Context(), b, journal.Options{Index: filepath.Join(dir, "index.db"), Log: log, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	run := startStage(t.Context(), b.Run, j.Run)
	k := &keepers{sweeper: &sweeper{b, s, j, log}, t: t}
	k.stop = sync.OnceFunc(func() {
		if err := errors.Join(run.stop(), j.Close(), b.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(k.stop)
	return k
}

// put stores code and returns its digest.
func (k *keepers) put(code string) string {
	k.t.Helper()
	digest, err := k.store.PutCode(k.t.Context(), code)
	if err != nil {
		k.t.Fatal(err)
	}
	return digest
}

// name stores a revision of the action n that names a digest.
func (k *keepers) name(n, digest string) {
	k.t.Helper()
	table := k.store.Entities().Actions
	_, rev, err := table.Get(in("", n))
	if err != nil && whisk.KindOf(err) != whisk.NotFound {
		k.t.Fatal(err)
	}
	a := whisk.Action{Meta: whisk.Meta{Name: in("", n)}, Exec: whisk.Exec{Kind: "python:3", Digest: digest}}
	if _, err := table.Put(k.t.Context(), a.Name, a, rev); err != nil {
		k.t.Fatal(err)
	}
}

// mustSweep sweeps as if all had been put long ago, unless it says otherwise.
func (k *keepers) mustSweep(unnamed time.Duration) int {
	k.t.Helper()
	n, err := k.sweep(k.t.Context(), unnamed)
	if err != nil {
		k.t.Fatal(err)
	}
	return n
}

func (k *keepers) check(what, digest string, there bool) {
	k.t.Helper()
	_, err := k.bus.Object(k.t.Context(), digest)
	if err != nil && !errors.Is(err, whisk.NotFound) {
		k.t.Fatal(err)
	}
	if (err == nil) != there {
		k.t.Errorf("%s is there = %v, want %v", what, err == nil, there)
	}
}

func large(id string) whisk.Event {
	return whisk.Event{
		ID: id, Trigger: in("", "t"), Time: time.Now().UTC(), Payload: json.RawMessage(`{"id":"` + id + `","x":"` + strings.Repeat("y", 2<<20) + `"}`),
	}
}

// logsOf is the record of a run that said a lot.
func logsOf(id string) whisk.Activation {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return whisk.Activation{
		ID: id, Namespace: "guest", Subject: "guest", Name: "a", Version: "0.0.1", Start: now, End: now,
		Result: json.RawMessage("{}"), Logs: []string{id, strings.Repeat("l", 100<<10)},
	}
}

// TestSweep has each kind of object that something names outlive sweeps, and
// those that nothing names go.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	k := openKeepers(t, dir)
	ids := make([]string, 4)
	for i := range ids {
		ids[i] = whisk.NewID(time.Now())
	}
	k.name("a", k.put("pushed out"))
	for i := range 10 {
		k.name("a", k.put(fmt.Sprint("revision ", i)))
	}
	k.name("gone", k.put("deleted, and still kept"))
	_, rev, _ := k.store.Entities().Actions.Get(in("", "gone"))
	if err := k.store.Entities().Actions.Delete(t.Context(), in("", "gone"), rev); err != nil {
		t.Fatal(err)
	}
	waits := k.put("waits for its action")
	ev := large(ids[0])
	places, err := k.bus.Accept(t.Context(), ev)
	if err != nil {
		t.Fatal(err)
	}
	m := whisk.Match{Event: places[0].Seq, Rule: in("", "r")}
	run, call := logsOf(ids[1]), logsOf(ids[2])
	if err := k.journal.Append(t.Context(), whisk.Entry{Kind: whisk.EntryRecord, Match: m, Attempt: 1, Final: true, Record: &run}); err != nil {
		t.Fatal(err)
	}
	if err := k.journal.RecordCall(t.Context(), call); err != nil {
		t.Fatal(err)
	}
	dead := large(ids[3])
	if err := k.journal.Bury(t.Context(), whisk.DeadLetter{ID: ids[3], Time: dead.Time, Match: whisk.Match{Event: 99, Rule: in("", "r")}, Event: &dead}); err != nil {
		t.Fatal(err)
	}
	pushedOut, nobody := k.put("pushed out"), k.put("nobody wants this")

	stay := func(when string) {
		t.Helper()
		for i := range 10 {
			if _, err := k.store.Code(t.Context(), digestOf(fmt.Sprint("revision ", i))); err != nil {
				t.Errorf("%s: revision %d has no code: %v", when, i, err)
			}
		}
		k.check(when+": the code of a deleted action whose revisions are kept", digestOf("deleted, and still kept"), true)
		if got, err := k.bus.Event(t.Context(), places[0].Seq); err != nil || string(got.Payload) != string(ev.Payload) {
			t.Errorf("%s: the event has a payload of %d bytes, %v; want %d", when, len(got.Payload), err, len(ev.Payload))
		}
		for _, want := range []whisk.Activation{run, call} {
			if got, err := k.journal.Activation(t.Context(), "guest", want.ID); err != nil || len(got.Logs) != 2 {
				t.Errorf("%s: a record has %d lines, %v, want 2", when, len(got.Logs), err)
			}
		}
		if got, err := k.journal.DeadLetter(t.Context(), "guest", ids[3]); err != nil || got.Event == nil || string(got.Event.Payload) != string(dead.Payload) {
			t.Errorf("%s: the dead letter has lost its event: %v", when, err)
		}
	}
	if n := k.mustSweep(unnamed); n != 0 {
		t.Errorf("%d objects swept that were put a moment ago, want none", n)
	}
	stay("soon")
	k.check("what is to be named", waits, true)
	k.name("late", waits)
	if n := k.mustSweep(0); n != 2 {
		t.Errorf("%d objects swept, want 2", n)
	}
	stay("later")
	k.check("what was named late", waits, true)
	k.check("code of a revision that is not kept", pushedOut, false)
	k.check("what nobody names", nobody, false)

	// What is put again is there again.
	if got := k.put("nobody wants this"); got != nobody {
		t.Fatalf("digest = %s, want %s", got, nobody)
	}
	k.check("what was put again", nobody, true)
	k.stop()
	k = openKeepers(t, dir)
	if n := k.mustSweep(unnamed); n != 1 {
		t.Errorf("%d objects swept after a restart, want the one that the process before left unnamed", n)
	}
	stay("after a restart")
	k.check("what was named late, after a restart", waits, true)
	k.check("what nobody names, after a restart", nobody, false)
}

// digestOf returns the digest of code without putting it.
func digestOf(code string) string {
	sum := sha256.Sum256([]byte(code))
	return hex.EncodeToString(sum[:])
}

// TestSweepWhileNaming sweeps all the while that objects, which the process
// before had left unnamed, are put again and named.
func TestSweepWhileNaming(t *testing.T) {
	dir := t.TempDir()
	k := openKeepers(t, dir)
	const n = 40
	code := func(i int) string { return fmt.Sprint(i, strings.Repeat("c", 200<<10)) }
	for i := range n {
		k.put(code(i))
	}
	k.stop()
	k = openKeepers(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	swept := 0
	wg.Go(func() {
		for ctx.Err() == nil {
			got, err := k.sweep(ctx, unnamed)
			if err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
			swept += got
		}
	})
	for i := range n {
		k.name(fmt.Sprint("a", i), k.put(code(i)))
	}
	cancel()
	wg.Wait()
	for i := range n {
		if got, err := k.store.Code(t.Context(), digestOf(code(i))); err != nil || got != code(i) {
			t.Errorf("action %d has lost its code: %v", i, err)
		}
	}
	t.Logf("%d of %d were swept before they were put again", swept, n)
}
