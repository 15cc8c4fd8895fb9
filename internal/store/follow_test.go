package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/store"
	"github.com/millrace/millrace/internal/whisk"
)

// TestFollow has two stores over one bus: each sees what the other writes.
func TestFollow(t *testing.T) {
	ctx := t.Context()
	p := openBus(t, t.TempDir())
	one, two := openStore(t, p, true), openStore(t, p, true)
	n := name("/guest/t")
	rev, err := one.Entities().Triggers.Put(ctx, n, trigger("/guest/t"), 0)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other's put", func() bool {
		_, r, err := two.Entities().Triggers.Get(n)
		return err == nil && r == rev
	})
	if err := two.Entities().Triggers.Delete(ctx, n, rev); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other's deletion", func() bool {
		_, _, err := one.Entities().Triggers.Get(n)
		return errors.Is(err, whisk.NotFound)
	})
	if _, err := one.Entities().Triggers.Put(ctx, n, trigger("/guest/t"), 0); err != nil {
		t.Errorf("put after the other's deletion: %v", err)
	}
	// Both create the same name, again and again: one of them wins.
	for i := range 20 {
		n := name(fmt.Sprintf("/guest/race%d", i))
		var won atomic.Int64
		var wg sync.WaitGroup
		for _, s := range []*store.Store{one, two} {
			wg.Go(func() {
				_, err := s.Entities().Triggers.Put(ctx, n, trigger(n.String()), 0)
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, whisk.Conflict) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d creations of %s succeeded, want 1", won.Load(), n)
		}
	}
}

// TestFollowRecovers has the server forget who follows: what is written then
// must be seen all the same.
func TestFollowRecovers(t *testing.T) {
	ctx := t.Context()
	p := openBus(t, t.TempDir())
	one, two := openStore(t, p, true), openStore(t, p, false)
	e := two.Entities()
	if _, err := e.Triggers.Put(ctx, name("/guest/before"), trigger("/guest/before"), 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first put", func() bool {
		_, _, err := one.Entities().Triggers.Get(name("/guest/before"))
		return err == nil
	})
	stream, err := p.bus.JetStream().Stream(ctx, "KV_entities")
	if err != nil {
		t.Fatal(err)
	}
	for c := range stream.ConsumerNames(ctx).Name() {
		if err := stream.DeleteConsumer(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	// While nobody looks one name comes, and another goes without a trace.
	if _, err := e.Triggers.Put(ctx, name("/guest/after"), trigger("/guest/after"), 0); err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(ctx, jetstream.WithPurgeSubject("$KV.entities.guest._.before")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "reading anew", func() bool {
		_, _, came := one.Entities().Triggers.Get(name("/guest/after"))
		_, _, went := one.Entities().Triggers.Get(name("/guest/before"))
		return came == nil && errors.Is(went, whisk.NotFound) && len(one.Entities().Triggers.List("guest")) == 1
	})
}

func TestGeneration(t *testing.T) {
	ctx := t.Context()
	s := newStore(t)
	e := s.Entities()
	ch, g := s.Changed(), s.Generation()
	if _, err := e.Packages.Put(ctx, name("/guest/p"), whisk.Package{}, 0); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ch:
		t.Error("a package changed the generation")
	default:
	}
	step := func(what string, do func() error) {
		t.Helper()
		ch, g = s.Changed(), s.Generation()
		if err := do(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ch:
		default:
			t.Errorf("%s: the channel is still open", what)
		}
		if s.Generation() == g {
			t.Errorf("%s: the generation is still %d", what, g)
		}
	}
	n := name("/guest/r")
	var rev whisk.Revision
	step("put rule", func() (err error) { rev, err = e.Rules.Put(ctx, n, whisk.Rule{}, 0); return err })
	step("delete rule", func() error { return e.Rules.Delete(ctx, n, rev) })
	step("put trigger", func() error { _, err := e.Triggers.Put(ctx, n, whisk.Trigger{}, 0); return err })
}

func TestWatch(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	e := newStore(t).Entities()
	put := func(n string, prev whisk.Revision) whisk.Revision {
		t.Helper()
		rev, err := e.Triggers.Put(ctx, name(n), trigger(n), prev)
		if err != nil {
			t.Fatal(err)
		}
		return rev
	}
	first := put("/guest/one", 0)
	put("/other/two", 0)
	if _, err := e.Rules.Put(ctx, name("/guest/rule"), whisk.Rule{}, 0); err != nil {
		t.Fatal(err)
	}
	seen := map[string]whisk.Revision{}
	ready := false
	steps := 0
	for c, err := range e.Triggers.Watch(ctx) {
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("watch ended with %v, want the end of its context", err)
			}
			break
		}
		switch {
		case c.Ready:
			if ready || len(seen) != 2 || seen["/guest/one"] != first {
				t.Errorf("ready with %v, want both triggers", seen)
			}
			ready = true
			put("/guest/three", 0)
		case c.Deleted:
			delete(seen, c.Name.String())
			if c.Name.String() != "/guest/one" || c.Revision != 0 {
				t.Errorf("deleted %v at %d, want /guest/one", c.Name, c.Revision)
			}
			// Faster than they are taken: the last counts.
			r := put("/guest/four", 0)
			r = put("/guest/four", r)
			first = put("/guest/four", r)
		default:
			seen[c.Name.String()] = c.Revision
			if c.Value.Name != c.Name {
				t.Errorf("value of %v is %v's", c.Name, c.Value.Name)
			}
			switch c.Name.String() {
			case "/guest/three":
				if err := e.Triggers.Delete(ctx, name("/guest/one"), first); err != nil {
					t.Fatal(err)
				}
			case "/guest/four":
				steps++
				if c.Revision == first {
					cancel()
				}
			}
		}
	}
	if steps != 1 {
		t.Errorf("three quick writes came as %d changes, want 1", steps)
	}
	if len(seen) != 3 {
		t.Errorf("seen = %v, want two, three and four", seen)
	}
}
