package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/store"
	"github.com/millrace/millrace/internal/whisk"
)

const (
	textMissing = "The requested resource does not exist."
	textOther   = "Resource by this name exists but is not in this collection."
	textRace    = "Concurrent modification to resource detected."
)

var quiet = slog.New(slog.DiscardHandler)

// place is a folder with a bus on it, both running.
type place struct {
	bus  *bus.Bus
	stop func()
}

func openBus(t testing.TB, dir string) place {
	t.Helper()
	return openBusFor(t, dir, bus.Disk)
}

func openBusFor(t testing.TB, dir string, d bus.Durability) place {
	t.Helper()
	b, err := bus.Open(context.Background(), bus.Options{Dir: dir, Durability: d, Log: quiet, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- b.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("bus: %v", err)
		}
		if err := b.Close(); err != nil {
			t.Errorf("close bus: %v", err)
		}
	})
	t.Cleanup(stop)
	return place{b, stop}
}

// openStore opens a store on p; run says whether it follows its buckets.
func openStore(t testing.TB, p place, run bool) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), p.bus, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if run {
		runStore(t, p, s)
	}
	return s
}

func runStore(t testing.TB, p place, s *store.Store) {
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("store: %v", err)
		}
	})
}

func newStore(t testing.TB) *store.Store { return openStore(t, openBus(t, t.TempDir()), true) }

func name(s string) whisk.Name {
	n, err := whisk.ParseName(s, "")
	if err != nil {
		panic(err)
	}
	return n
}

// eventually fails the test unless ok becomes true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("%s did not come about", what)
		}
		<-time.After(time.Millisecond)
	}
}

func wantErr(t *testing.T, what string, err error, kind whisk.Kind, text string) {
	t.Helper()
	if !errors.Is(err, kind) || whisk.Message(err) != text {
		t.Errorf("%s: error = %v, want %s with %q", what, err, kind, text)
	}
}

func trigger(n string) whisk.Trigger {
	return whisk.Trigger{
		Meta:       whisk.Meta{Name: name(n), Version: "0.0.1", Annotations: whisk.Params{}.Set("a", `"b"`)},
		Parameters: whisk.Params{}.Set("p", "1"), Incarnation: "i",
	}
}

func TestPutGetDelete(t *testing.T) {
	ctx := t.Context()
	triggers := newStore(t).Entities().Triggers
	n := name("/guest/a name.with@ odd & signs")
	v := trigger(n.String())
	_, _, err := triggers.Get(n)
	wantErr(t, "get before put", err, whisk.NotFound, textMissing)
	wantErr(t, "delete before put", triggers.Delete(ctx, n, 1), whisk.NotFound, textMissing)

	rev, err := triggers.Put(ctx, n, v, 0)
	if err != nil {
		t.Fatal(err)
	}
	got, gotRev, err := triggers.Get(n)
	if err != nil || gotRev != rev || !reflect.DeepEqual(got, v) {
		t.Errorf("Get = %+v, %d, %v, want what was put, %d", got, gotRev, err, rev)
	}
	_, err = triggers.Put(ctx, n, v, 0)
	wantErr(t, "put of what exists", err, whisk.Conflict, textRace)
	_, err = triggers.Put(ctx, n, v, rev+1)
	wantErr(t, "put on another revision", err, whisk.Conflict, textRace)
	v.Version = "0.0.2"
	rev2, err := triggers.Put(ctx, n, v, rev)
	if err != nil || rev2 <= rev {
		t.Fatalf("second put = %d, %v, want more than %d", rev2, err, rev)
	}
	wantErr(t, "delete of an old revision", triggers.Delete(ctx, n, rev), whisk.Conflict, textRace)
	if err := triggers.Delete(ctx, n, rev2); err != nil {
		t.Fatal(err)
	}
	_, none, err := triggers.Get(n)
	wantErr(t, "get after delete", err, whisk.NotFound, textMissing)
	if none != 0 {
		t.Errorf("revision of what was deleted = %d, want 0", none)
	}
	wantErr(t, "second delete", triggers.Delete(ctx, n, rev2), whisk.NotFound, textMissing)
	_, err = triggers.Put(ctx, n, v, rev2)
	wantErr(t, "put on a deleted revision", err, whisk.Conflict, textRace)
	if _, err := triggers.Put(ctx, n, v, 0); err != nil {
		t.Errorf("put after delete: %v", err)
	}
}

func TestOneKeySpace(t *testing.T) {
	ctx := t.Context()
	e := newStore(t).Entities()
	n := name("/guest/x")
	rev, err := e.Triggers.Put(ctx, n, trigger("/guest/x"), 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = e.Actions.Get(n)
	wantErr(t, "get as action", err, whisk.Conflict, textOther)
	_, err = e.Rules.Put(ctx, n, whisk.Rule{}, 0)
	wantErr(t, "put as rule", err, whisk.Conflict, textOther)
	_, err = e.Rules.Put(ctx, n, whisk.Rule{}, rev)
	wantErr(t, "put as rule with the revision", err, whisk.Conflict, textOther)
	wantErr(t, "delete as package", e.Packages.Delete(ctx, n, rev), whisk.Conflict, textOther)
	if l := e.Actions.List("guest"); len(l) != 0 {
		t.Errorf("actions = %v, want none", l)
	}
	if err := e.Triggers.Delete(ctx, n, rev); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Rules.Put(ctx, n, whisk.Rule{Meta: whisk.Meta{Name: n}}, 0); err != nil {
		t.Errorf("put as rule after the trigger went: %v", err)
	}
	if len(e.Triggers.List("guest")) != 0 || len(e.Rules.List("guest")) != 1 {
		t.Errorf("triggers, rules = %v, %v, want none, one", e.Triggers.List("guest"), e.Rules.List("guest"))
	}
}

func TestList(t *testing.T) {
	ctx := t.Context()
	e := newStore(t).Entities()
	for _, n := range []string{"/a/1", "/a/p/2", "/b/1", "/a/3"} {
		if _, err := e.Actions.Put(ctx, name(n), whisk.Action{Meta: whisk.Meta{Name: name(n)}}, 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e.Packages.Put(ctx, name("/a/p"), whisk.Package{Meta: whisk.Meta{Name: name("/a/p")}}, 0); err != nil {
		t.Fatal(err)
	}
	for ns, want := range map[string]int{"a": 3, "b": 1, "c": 0, "": 4} {
		if got := e.Actions.List(ns); len(got) != want {
			t.Errorf("List(%q) = %v, want %d", ns, got, want)
		}
	}
}

// TestCopies tries to damage the memory copy through everything handed out.
func TestCopies(t *testing.T) {
	ctx := t.Context()
	s := newStore(t)
	e := s.Entities()
	a := whisk.Action{
		Meta: whisk.Meta{Name: name("/guest/p/a"), Annotations: whisk.Params{}.Set("k", `"v"`)}, Parameters: whisk.Params{}.Set("x", `"1"`),
	}
	p := whisk.Package{Meta: whisk.Meta{Name: name("/guest/p")}, Parameters: whisk.Params{}.Set("y", `"2"`)}
	err := s.Apply(ctx, e.Actions.PutOp(a.Name, a, 0), e.Packages.PutOp(p.Name, p, 0))
	if err != nil {
		t.Fatal(err)
	}
	want, _, err := e.Actions.Get(a.Name)
	if err != nil {
		t.Fatal(err)
	}
	wantRun, err := s.Resolve(a.Name)
	if err != nil {
		t.Fatal(err)
	}
	damage := func(ps whisk.Params) {
		for i := range ps {
			for j := range ps[i].Value {
				ps[i].Value[j] = '!'
			}
			ps[i].Key = "broken"
		}
	}
	damage(a.Parameters)
	got, _, _ := e.Actions.Get(a.Name)
	damage(got.Parameters)
	damage(got.Annotations)
	for _, l := range e.Actions.List("guest") {
		damage(l.Parameters)
	}
	run, _ := s.Resolve(a.Name)
	damage(run.Params)
	damage(run.Action.Annotations)
	for c, err := range e.Actions.Watch(ctx) {
		if err != nil || c.Ready {
			break
		}
		damage(c.Value.Parameters)
	}
	if got, _, _ := e.Actions.Get(a.Name); !reflect.DeepEqual(got, want) {
		t.Errorf("stored action became %+v, want %+v", got, want)
	}
	if run, _ := s.Resolve(a.Name); !reflect.DeepEqual(run, wantRun) {
		t.Errorf("runnable became %+v, want %+v", run, wantRun)
	}
}

// TestNoLostUpdate has many writers count in one value.
func TestNoLostUpdate(t *testing.T) {
	ctx := t.Context()
	type counter struct{ N int }
	table, err := store.NewTable[counter](ctx, newStore(t), "counters")
	if err != nil {
		t.Fatal(err)
	}
	const writers, each = 16, 20
	n := name("/guest/count")
	var lost atomic.Int64
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for done := 0; done < each; {
				v, rev, err := table.Get(n)
				if err != nil && !errors.Is(err, whisk.NotFound) {
					t.Error(err)
					return
				}
				v.N++
				mine, err := table.Put(ctx, n, v, rev)
				if errors.Is(err, whisk.Conflict) {
					lost.Add(1)
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				done++
				// A writer sees its own write, or a later one.
				if now, seen, err := table.Get(n); err != nil || seen < mine || now.N < v.N {
					t.Errorf("after writing %d at %d: Get = %d at %d, %v", v.N, mine, now.N, seen, err)
				}
			}
		})
	}
	wg.Wait()
	if v, _, err := table.Get(n); err != nil || v.N != writers*each {
		t.Errorf("count = %d, %v, want %d", v.N, err, writers*each)
	}
	t.Logf("%d races were lost", lost.Load())
}

func TestRestart(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	p := openBus(t, dir)
	s := openStore(t, p, false)
	e := s.Entities()
	digest, err := s.PutCode(ctx, "code")
	if err != nil {
		t.Fatal(err)
	}
	a := whisk.Action{
		Meta: whisk.Meta{Name: name("/guest/p/a"), Updated: time.UnixMilli(1_700_000_000_123).UTC()},
		Exec: whisk.Exec{Kind: "python:3", Digest: digest}, Limits: whisk.StdLimits(),
	}
	rev, err := e.Actions.Put(ctx, a.Name, a, 0)
	if err != nil {
		t.Fatal(err)
	}
	gone := trigger("/guest/gone")
	goneRev, err := e.Triggers.Put(ctx, gone.Name, gone, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Triggers.Delete(ctx, gone.Name, goneRev); err != nil {
		t.Fatal(err)
	}
	other, err := store.NewTable[string](ctx, s, "words")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 25 { // beyond the history
		_, r, err := other.Get(name("/guest/word"))
		if err != nil && i > 0 {
			t.Fatal(err)
		}
		if _, err := other.Put(ctx, name("/guest/word"), fmt.Sprint(i), r); err != nil {
			t.Fatal(err)
		}
	}
	p.stop()

	p = openBus(t, dir)
	s = openStore(t, p, true)
	e = s.Entities()
	got, gotRev, err := e.Actions.Get(a.Name)
	if err != nil || gotRev != rev || !reflect.DeepEqual(got, a) {
		t.Errorf("action = %+v, %d, %v, want %+v, %d", got, gotRev, err, a, rev)
	}
	if code, err := s.Code(ctx, digest); err != nil || code != "code" {
		t.Errorf("code = %q, %v, want what was put", code, err)
	}
	_, err = s.Code(ctx, strings.Repeat("0", 64))
	if !errors.Is(err, whisk.NotFound) {
		t.Errorf("unknown code: error = %v, want NotFound", err)
	}
	_, _, err = e.Triggers.Get(gone.Name)
	wantErr(t, "deleted before the restart", err, whisk.NotFound, textMissing)
	if _, err := e.Triggers.Put(ctx, gone.Name, gone, 0); err != nil {
		t.Errorf("put over what was deleted before the restart: %v", err)
	}
	if other, err = store.NewTable[string](ctx, s, "words"); err != nil {
		t.Fatal(err)
	}
	if w, _, err := other.Get(name("/guest/word")); err != nil || w != "24" {
		t.Errorf("word = %q, %v, want the last, 24", w, err)
	}
	if _, err := store.NewTable[string](ctx, s, "words"); err == nil {
		t.Error("a table was opened twice")
	}
}

// TestDurable checks that each write is flushed before it returns.
func TestDurable(t *testing.T) {
	ctx := t.Context()
	var flushes atomic.Int64
	b, err := bus.Open(ctx, bus.Options{
		Dir: t.TempDir(), OnFlush: func(bus.Flush) { flushes.Add(1) }, Log: quiet, Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close() // not run: nothing is flushed but on request
	s, err := store.Open(ctx, b, quiet)
	if err != nil {
		t.Fatal(err)
	}
	e := s.Entities()
	n := name("/guest/t")
	var rev whisk.Revision
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"put", func() (err error) { rev, err = e.Triggers.Put(ctx, n, trigger(n.String()), 0); return err }},
		{"delete", func() error { return e.Triggers.Delete(ctx, n, rev) }},
		{"apply", func() error {
			return s.Apply(ctx, e.Triggers.PutOp(n, trigger(n.String()), 0), e.Rules.PutOp(name("/guest/r"), whisk.Rule{}, 0))
		}},
	} {
		before := flushes.Load()
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if flushes.Load() == before {
			t.Errorf("%s returned without a flush", step.name)
		}
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := e.Triggers.Put(gone, name("/guest/u"), trigger("/guest/u"), 0); !errors.Is(err, whisk.Unavailable) {
		t.Errorf("put for a caller that has gone: error = %v, want Unavailable", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Triggers.Put(ctx, name("/guest/u"), trigger("/guest/u"), 0); !errors.Is(err, whisk.Unavailable) {
		t.Errorf("put on a bus that is closed: error = %v, want Unavailable", err)
	}
}
