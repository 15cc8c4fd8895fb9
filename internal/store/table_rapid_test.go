package store_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/store"
	"github.com/millrace/millrace/internal/whisk"
)

// modelValue is what the model holds for one name.
type modelValue struct {
	rev whisk.Revision
	v   string
}

// TestTableAgainstMap does whatever can be done to a table and to a map, and
// compares; the store is opened anew now and then.
func TestTableAgainstMap(t *testing.T) {
	p := openBusFor(t, t.TempDir(), bus.Process) // many writes; flushes change nothing here
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		m := &machine{p: p, bucket: fmt.Sprintf("model%d", run), model: map[whisk.Name]modelValue{}, old: map[whisk.Name]whisk.Revision{}}
		m.reopen(rt)
		rt.Repeat(map[string]func(*rapid.T){
			"put": m.put, "delete": m.delete, "apply": m.apply, "reopen": m.reopen, "": m.check,
		})
	})
}

type machine struct {
	p      place
	bucket string
	store  *store.Store
	table  *store.Table[string]
	model  map[whisk.Name]modelValue
	old    map[whisk.Name]whisk.Revision // one that each name had before
	writes int
}

func (m *machine) reopen(rt *rapid.T) {
	var err error
	if m.store, err = store.Open(context.Background(), m.p.bus, quiet); err != nil {
		rt.Fatal(err)
	}
	if m.table, err = store.NewTable[string](context.Background(), m.store, m.bucket); err != nil {
		rt.Fatal(err)
	}
}

func (m *machine) name(rt *rapid.T) whisk.Name {
	part := rapid.SampledFrom([]string{"a", "b.c", "ä ö", "_"})
	n := whisk.Name{Namespace: part.Draw(rt, "namespace"), Entity: part.Draw(rt, "entity")}
	if rapid.Bool().Draw(rt, "packaged") {
		n.Package = part.Draw(rt, "package")
	}
	return n
}

// prev returns a revision to write upon: the right one, or some other.
func (m *machine) prev(rt *rapid.T, n whisk.Name) whisk.Revision {
	return rapid.SampledFrom([]whisk.Revision{m.model[n].rev, m.model[n].rev, 0, m.old[n]}).Draw(rt, "prev")
}

func (m *machine) wrote(n whisk.Name, v string, rev whisk.Revision) {
	m.old[n] = m.model[n].rev
	if rev == 0 {
		delete(m.model, n)
		return
	}
	m.model[n] = modelValue{rev, v}
}

func (m *machine) put(rt *rapid.T) {
	n := m.name(rt)
	prev := m.prev(rt, n)
	m.writes++
	v := fmt.Sprint("value ", m.writes)
	rev, err := m.table.Put(context.Background(), n, v, prev)
	if prev != m.model[n].rev {
		if !errors.Is(err, whisk.Conflict) {
			rt.Fatalf("put %v over %d, which is %d: error = %v, want Conflict", n, prev, m.model[n].rev, err)
		}
		return
	}
	if err != nil || rev <= prev {
		rt.Fatalf("put %v over %d = %d, %v", n, prev, rev, err)
	}
	m.wrote(n, v, rev)
}

func (m *machine) delete(rt *rapid.T) {
	n := m.name(rt)
	prev := m.prev(rt, n)
	err := m.table.Delete(context.Background(), n, prev)
	var want error
	switch at, ok := m.model[n]; {
	case !ok:
		want = whisk.NotFound
	case at.rev != prev:
		want = whisk.Conflict
	}
	if !errors.Is(err, want) {
		rt.Fatalf("delete %v at %d, which is %d: error = %v, want %v", n, prev, m.model[n].rev, err, want)
	}
	if err == nil {
		m.wrote(n, "", 0)
	}
}

func (m *machine) apply(rt *rapid.T) {
	names := rapid.SliceOfNDistinct(rapid.Custom(m.name), 1, 5, rapid.ID[whisk.Name]).Draw(rt, "names")
	var ops []store.Op
	ok := true
	deletes := map[whisk.Name]bool{}
	values := map[whisk.Name]string{}
	for _, n := range names {
		prev := m.prev(rt, n)
		at, exists := m.model[n]
		m.writes++
		values[n] = fmt.Sprint("value ", m.writes)
		if deletes[n] = rapid.Bool().Draw(rt, "delete"); deletes[n] {
			ops = append(ops, m.table.DeleteOp(n, prev))
			ok = ok && exists && at.rev == prev
		} else {
			ops = append(ops, m.table.PutOp(n, values[n], prev))
			ok = ok && at.rev == prev
		}
	}
	err := m.store.Apply(context.Background(), ops...)
	if ok != (err == nil) {
		rt.Fatalf("apply to %v: error = %v, want success = %v", names, err, ok)
	}
	if !ok {
		return
	}
	for _, n := range names {
		if deletes[n] {
			m.wrote(n, "", 0)
			continue
		}
		_, rev, err := m.table.Get(n)
		if err != nil || rev <= m.model[n].rev {
			rt.Fatalf("after apply: %v is at %d, %v", n, rev, err)
		}
		m.wrote(n, values[n], rev)
	}
}

// check compares all that can be read.
func (m *machine) check(rt *rapid.T) {
	byNamespace := map[string][]string{}
	for n, want := range m.model {
		got, rev, err := m.table.Get(n)
		if err != nil || got != want.v || rev != want.rev {
			rt.Fatalf("%v = %q at %d, %v, want %q at %d", n, got, rev, err, want.v, want.rev)
		}
		byNamespace[n.Namespace] = append(byNamespace[n.Namespace], want.v)
		byNamespace[""] = append(byNamespace[""], want.v)
	}
	for _, ns := range append(slices.Collect(maps.Keys(byNamespace)), "none") {
		got := m.table.List(ns)
		if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(byNamespace[ns]))) {
			rt.Fatalf("List(%q) = %v, want %v", ns, got, byNamespace[ns])
		}
	}
}
