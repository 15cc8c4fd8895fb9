package server

import (
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/controller"
	"github.com/millrace/millrace/internal/store"
	"github.com/millrace/millrace/internal/whisk"
)

// openTestStore opens a store in a folder of its own, without flushes.
func openTestStore(t *testing.T) *store.Store {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	b, err := bus.Open(t.Context(), bus.Options{Dir: t.TempDir(), Durability: bus.Process, Log: log, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	s, err := store.Open(t.Context(), b, log)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func in(pkg, entity string) whisk.Name {
	return whisk.Name{Namespace: "guest", Package: pkg, Entity: entity}
}

// putNew stores an entity under a new name and returns its revision.
func putNew[T any](t *testing.T, table *store.Table[T], n whisk.Name, v T) whisk.Revision {
	t.Helper()
	rev, err := table.Put(t.Context(), n, v, 0)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func TestRemovePackage(t *testing.T) {
	s := openTestStore(t)
	table := s.Entities()
	pkg := controller.Removal{Name: in("", "p"), Revision: putNew(t, table.Packages, in("", "p"), whisk.Package{Meta: whisk.Meta{Name: in("", "p")}})}
	var actions []controller.Removal
	for i := range 3 {
		n := in("p", fmt.Sprint("a", i))
		actions = append(actions, controller.Removal{Name: n, Revision: putNew(t, table.Actions, n, whisk.Action{Meta: whisk.Meta{Name: n}})})
	}
	stale := append([]controller.Removal(nil), actions...)
	stale[2].Revision--
	if err := (restStore{s}).RemovePackage(t.Context(), pkg, stale...); whisk.KindOf(err) != whisk.Conflict {
		t.Errorf("RemovePackage of what has changed = %v, want a conflict", err)
	}
	if n := len(table.Actions.List("guest")); n != 3 {
		t.Errorf("%d actions are left after a refusal, want all 3", n)
	}
	if err := (restStore{s}).RemovePackage(t.Context(), pkg, actions...); err != nil {
		t.Fatal(err)
	}
	if a, p := len(table.Actions.List("guest")), len(table.Packages.List("guest")); a+p != 0 {
		t.Errorf("%d actions and %d packages are left, want none", a, p)
	}
}

// A trigger that retires goes with its rules, whoever writes them meanwhile,
// and no rule of another trigger does.
func TestRemoveTrigger(t *testing.T) {
	s := openTestStore(t)
	table := s.Entities()
	tr := &feedTriggers{store: s}
	gone, stays := in("", "gone"), in("", "stays")
	for _, n := range []whisk.Name{gone, stays} {
		putNew(t, table.Triggers, n, whisk.Trigger{Meta: whisk.Meta{Name: n}})
	}
	rule := func(name string, trigger whisk.Name) whisk.Rule {
		return whisk.Rule{Meta: whisk.Meta{Name: in("", name)}, Trigger: trigger, Action: in("", "a"), Status: whisk.Active}
	}
	var wg sync.WaitGroup
	for i := range 4 {
		r := rule(fmt.Sprint("r", i), gone)
		rev := putNew(t, table.Rules, r.Name, r)
		wg.Go(func() { // somebody else changes the rule as long as it is there
			for range 50 {
				var err error
				if rev, err = table.Rules.Put(t.Context(), r.Name, r, rev); err != nil {
					return
				}
			}
		})
	}
	other := rule("other", stays)
	putNew(t, table.Rules, other.Name, other)
	// It may say that it could not; a conflict would mean that an event was lost.
	err := tr.remove(t.Context(), gone, true)
	if whisk.KindOf(err) == whisk.Conflict {
		t.Errorf("remove = %v, want another kind for a lost race", err)
	}
	if left := len(table.Rules.List("guest")); err != nil && left != 5 {
		t.Errorf("%d rules are left after a failure, want all 5", left)
	}
	wg.Wait()
	if err := tr.remove(t.Context(), gone, true); err != nil {
		t.Fatal(err)
	}
	if _, _, err := table.Triggers.Get(gone); whisk.KindOf(err) != whisk.NotFound {
		t.Errorf("the trigger is still there: %v", err)
	}
	if left := table.Rules.List("guest"); len(left) != 1 || left[0].Name != other.Name {
		t.Errorf("rules left = %v, want that of the other trigger", left)
	}
	if err := tr.remove(t.Context(), gone, true); err != nil {
		t.Errorf("remove of nothing = %v, want no error", err)
	}
}
