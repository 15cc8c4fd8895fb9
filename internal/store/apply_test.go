package store_test

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"

	"github.com/millrace/millrace/internal/store"
	"github.com/millrace/millrace/internal/whisk"
)

func TestApply(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	p := openBus(t, dir)
	s := openStore(t, p, false)
	e := s.Entities()
	rev, err := e.Triggers.Put(ctx, name("/guest/t"), trigger("/guest/t"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(ctx); err != nil {
		t.Errorf("nothing to apply: %v", err)
	}
	linked := trigger("/guest/t")
	linked.Linked = true
	rule := whisk.Rule{Meta: whisk.Meta{Name: name("/guest/r")}, Trigger: name("/guest/t")}
	if err := s.Apply(ctx, e.Rules.PutOp(rule.Name, rule, 0), e.Triggers.PutOp(linked.Name, linked, rev)); err != nil {
		t.Fatal(err)
	}
	got, linkedRev, err := e.Triggers.Get(linked.Name)
	if err != nil || !got.Linked || linkedRev <= rev {
		t.Errorf("trigger = %+v, %d, %v, want linked", got, linkedRev, err)
	}
	_, ruleRev, err := e.Rules.Get(rule.Name)
	if err != nil {
		t.Error(err)
	}
	// The revisions that a batch left can be built upon.
	if err := s.Apply(ctx, e.Rules.DeleteOp(rule.Name, ruleRev), e.Triggers.DeleteOp(linked.Name, linkedRev)); err != nil {
		t.Errorf("delete by the revisions of a batch: %v", err)
	}
	if err := s.Apply(ctx, e.Rules.PutOp(rule.Name, rule, 0), e.Triggers.PutOp(linked.Name, linked, 0)); err != nil {
		t.Errorf("put again: %v", err)
	}
	p.stop()
	e = openStore(t, openBus(t, dir), true).Entities()
	if _, _, err := e.Rules.Get(rule.Name); err != nil {
		t.Errorf("rule after a restart: %v", err)
	}
	if got, _, err := e.Triggers.Get(linked.Name); err != nil || !got.Linked {
		t.Errorf("trigger after a restart = %+v, %v", got, err)
	}
}

func TestApplyAllOrNone(t *testing.T) {
	ctx := t.Context()
	p := openBus(t, t.TempDir())
	s := openStore(t, p, false) // not following: it does not know what the other writes
	other := openStore(t, p, false)
	e := s.Entities()
	held, err := e.Actions.Put(ctx, name("/guest/held"), whisk.Action{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Entities().Actions.Put(ctx, name("/guest/others"), whisk.Action{}, 0); err != nil {
		t.Fatal(err)
	}
	good := func(i int) store.Op {
		return e.Actions.PutOp(name(fmt.Sprintf("/guest/new%d", i)), whisk.Action{}, 0)
	}
	words, err := store.NewTable[string](ctx, s, "words")
	if err != nil {
		t.Fatal(err)
	}
	many := make([]store.Op, 1001)
	for i := range many {
		many[i] = good(i)
	}
	unwritable, err := store.NewTable[any](ctx, s, "anything")
	if err != nil {
		t.Fatal(err)
	}
	for what, tt := range map[string]struct {
		ops  []store.Op
		kind whisk.Kind
	}{
		"exists":                 {[]store.Op{good(1), e.Actions.PutOp(name("/guest/held"), whisk.Action{}, 0)}, whisk.Conflict},
		"old revision":           {[]store.Op{good(1), e.Actions.DeleteOp(name("/guest/held"), held+1)}, whisk.Conflict},
		"another kind":           {[]store.Op{good(1), e.Rules.PutOp(name("/guest/held"), whisk.Rule{}, 0)}, whisk.Conflict},
		"missing":                {[]store.Op{good(1), e.Rules.DeleteOp(name("/guest/none"), 7)}, whisk.NotFound},
		"written by another":     {[]store.Op{good(1), e.Actions.PutOp(name("/guest/others"), whisk.Action{}, 0), good(2)}, whisk.Conflict},
		"the same name":          {[]store.Op{good(1), good(1)}, whisk.Invalid},
		"another bucket":         {[]store.Op{good(1), words.PutOp(name("/guest/w"), "w", 0)}, whisk.Invalid},
		"too many":               {many, whisk.Invalid},
		"what can't be written":  {[]store.Op{unwritable.PutOp(name("/guest/f"), func() {}, 0)}, whisk.Invalid},
		"the same by two tables": {[]store.Op{good(1), e.Rules.PutOp(name("/guest/new1"), whisk.Rule{}, 0)}, whisk.Invalid},
	} {
		g := s.Generation()
		if err := s.Apply(ctx, tt.ops...); !errors.Is(err, tt.kind) {
			t.Errorf("%s: error = %v, want %s", what, err, tt.kind)
		}
		if _, _, err := e.Actions.Get(name("/guest/new1")); !errors.Is(err, whisk.NotFound) || s.Generation() != g {
			t.Errorf("%s: a part was written: %v", what, err)
		}
	}
	if got := openStore(t, p, false).Entities().Actions.List(""); len(got) != 2 {
		t.Errorf("the bucket holds %d actions, want 2", len(got))
	}
	if err := s.Apply(ctx, many[:1000]...); err != nil {
		t.Errorf("as many as may be: %v", err)
	}
}

// TestApplyIsSeenWhole has readers look at pairs that are only ever written
// together.
func TestApplyIsSeenWhole(t *testing.T) {
	ctx := t.Context()
	p := openBus(t, t.TempDir())
	s := openStore(t, p, true)
	e := s.Entities()
	left, right := name("/guest/left"), name("/guest/right")
	write := func(version string, prev [2]whisk.Revision) [2]whisk.Revision {
		t.Helper()
		l, r := trigger("/guest/left"), trigger("/guest/right")
		l.Version, r.Version = version, version
		if err := s.Apply(ctx, e.Triggers.PutOp(left, l, prev[0]), e.Triggers.PutOp(right, r, prev[1])); err != nil {
			t.Fatal(err)
		}
		_, lr, _ := e.Triggers.Get(left)
		_, rr, _ := e.Triggers.Get(right)
		return [2]whisk.Revision{lr, rr}
	}
	revs := write("v", [2]whisk.Revision{})
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				l := e.Triggers.List("guest")
				if len(l) != 2 || l[0].Version != l[1].Version {
					t.Errorf("list = %+v, want two of one version", l)
					return
				}
			}
		})
	}
	for i := range 20 {
		revs = write(fmt.Sprint(i), revs)
	}
	close(done)
	wg.Wait()
}

// TestConcurrentApply has writers move units between two accounts.
func TestConcurrentApply(t *testing.T) {
	ctx := t.Context()
	s := newStore(t)
	accounts, err := store.NewTable[int](ctx, s, "accounts")
	if err != nil {
		t.Fatal(err)
	}
	a, b := name("/guest/a"), name("/guest/b")
	for n, v := range map[whisk.Name]int{a: 1000, b: 1000} {
		if _, err := accounts.Put(ctx, n, v, 0); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for moved := 0; moved < 10; {
				va, ra, _ := accounts.Get(a)
				vb, rb, _ := accounts.Get(b)
				err := s.Apply(ctx, accounts.PutOp(a, va-w, ra), accounts.PutOp(b, vb+w, rb))
				switch {
				case err == nil:
					moved++
				case !errors.Is(err, whisk.Conflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	va, _, _ := accounts.Get(a)
	vb, _, _ := accounts.Get(b)
	if va != 1000-280 || vb != 1000+280 {
		t.Errorf("accounts = %d, %d, want 720, 1280", va, vb)
	}
}

func TestResolve(t *testing.T) {
	ctx := t.Context()
	s := newStore(t)
	e := s.Entities()
	param := func(kv ...string) (p whisk.Params) {
		for i := 0; i < len(kv); i += 2 {
			p = p.Set(kv[i], `"`+kv[i+1]+`"`)
		}
		return p
	}
	pkg := func(n, binding string, params whisk.Params) store.Op {
		v := whisk.Package{Meta: whisk.Meta{Name: name(n)}, Parameters: params}
		if binding != "" {
			v.Binding = name(binding)
		}
		return e.Packages.PutOp(v.Name, v, 0)
	}
	act := func(n string, params whisk.Params) store.Op {
		v := whisk.Action{Meta: whisk.Meta{Name: name(n)}, Parameters: params}
		return e.Actions.PutOp(v.Name, v, 0)
	}
	err := s.Apply(ctx,
		act("/me/plain", param("a", "action")),
		pkg("/lib/p", "", param("a", "package", "b", "package", "c", "package")),
		act("/lib/p/act", param("a", "action", "d", "action")),
		pkg("/me/bound", "/lib/p", param("a", "binding", "b", "binding")),
		pkg("/me/toself", "/me/toself", nil),
		pkg("/me/tonothing", "/lib/none", nil),
		pkg("/me/tobinding", "/me/bound", nil),
		pkg("/me/toaction", "/me/plain", nil),
		e.Triggers.PutOp(name("/me/trigger"), trigger("/me/trigger"), 0),
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		n, action, binding string
		params             whisk.Params
	}{
		{"/me/plain", "/me/plain", "", param("a", "action")},
		{"/lib/p/act", "/lib/p/act", "", param("a", "action", "b", "package", "c", "package", "d", "action")},
		{"/me/bound/act", "/lib/p/act", "/me/bound", param("a", "action", "b", "binding", "c", "package", "d", "action")},
	} {
		r, err := s.Resolve(name(tt.n))
		if err != nil {
			t.Errorf("Resolve(%s): %v", tt.n, err)
			continue
		}
		want, rev, _ := e.Actions.Get(name(tt.action))
		binding := ""
		if !r.Binding.IsZero() {
			binding = r.Binding.String()
		}
		if !reflect.DeepEqual(r.Action, want) || r.Revision != rev || binding != tt.binding || !reflect.DeepEqual(r.Params, tt.params) {
			t.Errorf("Resolve(%s) = %+v, want action %s at %d, binding %q, parameters %v", tt.n, r, tt.action, rev, tt.binding, tt.params)
		}
	}
	for n, want := range map[string]struct {
		kind whisk.Kind
		text string
	}{
		"/me/none":         {whisk.NotFound, textMissing},
		"/me/none/act":     {whisk.NotFound, textMissing},
		"/lib/p/none":      {whisk.NotFound, textMissing},
		"/me/tonothing/x":  {whisk.NotFound, textMissing},
		"/me/tobinding/x":  {whisk.NotFound, textMissing},
		"/me/trigger":      {whisk.Conflict, textOther},
		"/me/trigger/x":    {whisk.Conflict, textOther},
		"/me/toaction/act": {whisk.Conflict, textOther},
		"/me/toself/act":   {whisk.Unprocessable, "Package binding 'toself' contains a circular reference."},
	} {
		_, err := s.Resolve(name(n))
		wantErr(t, n, err, want.kind, want.text)
	}
}
