package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/catalog"
	"github.com/millrace/millrace/internal/store"
	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/packages"
)

// installPackages puts the built-in packages into whisk.system, each in one
// step, and leaves alone what is there already as it should be.
func (s *Server) installPackages(ctx context.Context, r *road) error {
	goods, err := catalog.Load(packages.FS())
	if err != nil {
		return err
	}
	table := r.store.Entities()
	// One time for all: lists show milliseconds.
	now := time.Now().UTC().Truncate(time.Millisecond)
	for _, p := range goods.Packages {
		pkg, actions := p.Entities(whisk.SystemNamespace)
		var ops []store.Op
		// The package with its actions in one step: nobody sees the half of an
		// update.
		op, err := install(table.Packages, pkg, now)
		if err != nil {
			return fmt.Errorf("install package %s: %w", p.Name, err)
		}
		ops = append(ops, op...)
		for _, a := range actions {
			if op, err = install(table.Actions, a, now); err != nil {
				return fmt.Errorf("install action %s: %w", a.Name, err)
			}
			ops = append(ops, op...)
		}
		// A start that changes nothing writes nothing, and versions stay.
		if len(ops) == 0 {
			continue
		}
		if err := r.store.Apply(ctx, ops...); err != nil {
			return fmt.Errorf("install package %s: %w", p.Name, err)
		}
	}
	return nil
}

// entity is what can be installed.
type entity interface{ whisk.Package | whisk.Action }

// meta returns the head of an entity.
func meta[T entity](v *T) *whisk.Meta {
	switch e := any(v).(type) {
	case *whisk.Package:
		return &e.Meta
	case *whisk.Action:
		return &e.Meta
	}
	return nil
}

// install returns the write that makes a stored entity what it should be, and
// nothing if it is that already.
func install[T entity](t *store.Table[T], want T, now time.Time) ([]store.Op, error) {
	m := meta(&want)
	have, rev, err := t.Get(m.Name)
	switch {
	case errors.Is(err, whisk.NotFound):
	case err != nil:
		return nil, err
	default:
		old := meta(&have)
		// What the store adds is not what the goods differ in.
		m.Version, m.Updated = old.Version, old.Updated
		if same(have, want) {
			return nil, nil
		}
		m.Version = whisk.NextVersion(old.Version)
	}
	m.Updated = now
	return []store.Op{t.PutOp(m.Name, want, rev)}, nil
}

// same reports whether two entities are stored alike. As JSON, since that is
// what a stored one has gone through.
func same(a, b any) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}
