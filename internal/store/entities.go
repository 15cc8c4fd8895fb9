package store

import (
	"context"
	"fmt"

	"github.com/millrace/millrace/internal/whisk"
)

// Kinds of entities in their bucket.
const (
	kindAction  = "action"
	kindTrigger = "trigger"
	kindRule    = "rule"
	kindPackage = "package"
)

// Entities are the tables of the four kinds of entities. They share one space
// of names: what one holds, another can neither get nor put.
type Entities struct {
	Actions  *Table[whisk.Action]
	Triggers *Table[whisk.Trigger]
	Rules    *Table[whisk.Rule]
	Packages *Table[whisk.Package]
}

// Entities returns the tables of entities.
func (s *Store) Entities() *Entities { return s.entities }

func (s *Store) openEntities(ctx context.Context) error {
	// One bucket for four kinds: a batch reaches across them, and the server
	// itself keeps a name from being used twice.
	b, err := s.open(ctx, "entities", map[string]decoder{
		kindAction:  decode[whisk.Action],
		kindTrigger: decode[whisk.Trigger],
		kindRule:    decode[whisk.Rule],
		kindPackage: decode[whisk.Package],
	}, func(kind string) {
		// Actions and packages are looked up when they are needed. Only those
		// who judge keep something made of rules and triggers.
		if kind == kindRule || kind == kindTrigger {
			s.changes.bump()
		}
	})
	if err != nil {
		return err
	}
	s.entities = &Entities{
		Actions:  &Table[whisk.Action]{b, kindAction},
		Triggers: &Table[whisk.Trigger]{b, kindTrigger},
		Rules:    &Table[whisk.Rule]{b, kindRule},
		Packages: &Table[whisk.Package]{b, kindPackage},
	}
	return nil
}

// Resolve returns the action of a name, found through its package, which may
// be a binding, and with the parameters of all of them laid over each other.
// It returns NotFound when one of them is missing, Conflict when one is of
// another kind, and Unprocessable for a binding to itself.
func (s *Store) Resolve(n whisk.Name) (whisk.Runnable, error) {
	const op = "resolve action"
	var out whisk.Runnable
	at, params := n, whisk.Params(nil)
	if n.Package != "" {
		pkg := whisk.Name{Namespace: n.Namespace, Entity: n.Package}
		p, err := s.pkg(pkg)
		if err != nil {
			return out, whisk.E(kindOf(err), op, err)
		}
		params = p.Parameters
		if !p.Binding.IsZero() {
			// A longer circle is not possible: what a binding names is taken
			// for a package.
			if p.Binding == pkg {
				return out, whisk.E(whisk.Unprocessable, op, fmt.Errorf("Package binding '%s' contains a circular reference.", pkg.Entity))
			}
			provider, err := s.pkg(p.Binding)
			if err != nil {
				return out, whisk.E(kindOf(err), op, err)
			}
			params = p.Parameters.Over(provider.Parameters)
			out.Binding = pkg
			at.Namespace, at.Package = p.Binding.Namespace, p.Binding.Entity
		}
	}
	r := s.entities.Actions.bucket.get(at)
	// Copied once, at the end, not at each step.
	a, err := s.entities.Actions.shared(r)
	if err != nil {
		return whisk.Runnable{}, whisk.E(kindOf(err), op, err)
	}
	out.Action, out.Revision = deepCopy(*a), whisk.Revision(r.rev)
	out.Params = deepCopy(a.Parameters.Over(params))
	return out, nil
}

// pkg returns a package itself: it must not be changed.
func (s *Store) pkg(n whisk.Name) (*whisk.Package, error) {
	return s.entities.Packages.shared(s.entities.Packages.bucket.get(n))
}
