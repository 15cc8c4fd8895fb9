package feedtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/millrace/millrace/internal/whisk"
)

// Table is a table of entities in memory, with revisions. The zero value is
// empty.
type Table[T any] struct {
	mu   sync.Mutex
	rev  whisk.Revision
	rows map[whisk.Name]row[T]
	Fail func() error // asked before each write, if set
}

type row[T any] struct {
	v   T
	rev whisk.Revision
}

// Get returns NotFound when there is no n.
func (t *Table[T]) Get(n whisk.Name) (T, whisk.Revision, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.rows[n]
	if !ok {
		return r.v, 0, whisk.E(whisk.NotFound, "get", fmt.Errorf("%s does not exist", n))
	}
	return r.v, r.rev, nil
}

// Put returns Conflict unless prev is the stored revision (0: none).
func (t *Table[T]) Put(_ context.Context, n whisk.Name, v T, prev whisk.Revision) (whisk.Revision, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.check(n, prev); err != nil {
		return 0, err
	}
	if t.rows == nil {
		t.rows = map[whisk.Name]row[T]{}
	}
	t.rev++
	t.rows[n] = row[T]{v, t.rev}
	return t.rev, nil
}

// Delete returns Conflict unless prev is the stored revision.
func (t *Table[T]) Delete(_ context.Context, n whisk.Name, prev whisk.Revision) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.check(n, prev); err != nil {
		return err
	}
	delete(t.rows, n)
	return nil
}

func (t *Table[T]) check(n whisk.Name, prev whisk.Revision) error {
	if t.Fail != nil {
		if err := t.Fail(); err != nil {
			return err
		}
	}
	if have := t.rows[n].rev; have != prev {
		return whisk.E(whisk.Conflict, "write", fmt.Errorf("%s is at revision %d, not %d", n, have, prev))
	}
	return nil
}

// List returns all of a namespace, or of all of them.
func (t *Table[T]) List(namespace string) []T {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []T
	for n, r := range t.rows {
		if namespace == "" || n.Namespace == namespace {
			out = append(out, r.v)
		}
	}
	return out
}

// Sink keeps events and positions in memory. The zero value is empty.
type Sink struct {
	mu      sync.Mutex
	evs     []whisk.Event
	cursors map[string]whisk.Cursor
	Fail    func() error // asked before each write, if set
	Changed func()       // called after each write, if set
}

// Accept stores evs.
func (s *Sink) Accept(_ context.Context, evs ...whisk.Event) ([]whisk.Place, error) {
	if err := s.write(nil, evs); err != nil {
		return nil, err
	}
	places := make([]whisk.Place, len(evs))
	for i, ev := range evs {
		places[i].ID = ev.ID
	}
	return places, nil
}

// AcceptBatch stores evs and c, all or nothing. It returns Conflict when c
// does not follow the stored position.
func (s *Sink) AcceptBatch(_ context.Context, c whisk.Cursor, evs ...whisk.Event) error {
	return s.write(&c, evs)
}

func (s *Sink) write(c *whisk.Cursor, evs []whisk.Event) error {
	if s.Fail != nil {
		if err := s.Fail(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c != nil {
		if have := s.cursors[c.Feed].Position; have != c.Previous || c.Count != len(evs) {
			return whisk.E(whisk.Conflict, "accept", errors.New("the position does not follow"))
		}
		if s.cursors == nil {
			s.cursors = map[string]whisk.Cursor{}
		}
		s.cursors[c.Feed] = *c
	}
	s.evs = append(s.evs, evs...)
	if s.Changed != nil {
		s.Changed()
	}
	return nil
}

// Cursor returns the newest position of a feed.
func (s *Sink) Cursor(_ context.Context, feed string) (whisk.Cursor, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.cursors[feed]
	return c, ok, nil
}

// ForgetCursor deletes a feed's position.
func (s *Sink) ForgetCursor(_ context.Context, feed string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.cursors, feed)
	return nil
}

// Cursors returns how many positions are kept.
func (s *Sink) Cursors() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.cursors)
}

// Events returns all that was stored, in order.
func (s *Sink) Events() []whisk.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.evs)
}

// Has reports whether an event of that ID was stored.
func (s *Sink) Has(_ context.Context, _, id string) (bool, error) {
	return slices.ContainsFunc(s.Events(), func(ev whisk.Event) bool { return ev.ID == id }), nil
}

// Triggers is a table of triggers whose events all end well, or in dead
// letters if Dead is set.
type Triggers struct {
	Table[whisk.Trigger]
	Dead    bool
	Retired func(n whisk.Name, event string, rules bool) // told of each, if set
}

// Add makes a trigger anew.
func (t *Triggers) Add(n whisk.Name, incarnation string) {
	_, rev, _ := t.Get(n) //nolint:errcheck // none is revision 0
	_, err := t.Put(context.Background(), n, whisk.Trigger{Meta: whisk.Meta{Name: n}, Incarnation: incarnation}, rev)
	if err != nil {
		panic(err)
	}
}

// Remove deletes a trigger, if it is there.
func (t *Triggers) Remove(n whisk.Name) {
	if _, rev, err := t.Get(n); err == nil {
		if err := t.Delete(context.Background(), n, rev); err != nil {
			panic(err)
		}
	}
}

// Retire deletes a trigger, or returns Conflict if Dead.
func (t *Triggers) Retire(_ context.Context, n whisk.Name, event string, rules bool) error {
	if t.Dead {
		return whisk.E(whisk.Conflict, "retire", errors.New("the event ended in dead letters"))
	}
	t.Remove(n)
	if t.Retired != nil {
		t.Retired(n, event, rules)
	}
	return nil
}

// Keys are keys with their namespaces.
type Keys map[string]string

// Owner returns Unauthorized for a key that is not there.
func (k Keys) Owner(authKey string) (namespace, subject string, err error) {
	ns, ok := k[authKey]
	if !ok {
		return "", "", whisk.E(whisk.Unauthorized, "authenticate", errors.New("no such key"))
	}
	return ns, ns, nil
}
