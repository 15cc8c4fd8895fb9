package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"github.com/millrace/millrace/internal/whisk"
)

// Table holds values of one type by name. What it returns are copies: the
// caller may do with them what it likes. T must read back from JSON what it
// writes, and have no unexported fields that refer to something that can
// change. Safe for concurrent use.
type Table[T any] struct {
	bucket *bucket
	kind   string // of its values in the bucket; empty where there is one kind only
}

// NewTable opens the table that is kept in a bucket, made if it is missing, and
// reads it. A table is opened once; letters, digits, "-" and "_" make its name.
// Internal when it is open already.
func NewTable[T any](ctx context.Context, s *Store, bucket string) (*Table[T], error) {
	b, err := s.open(ctx, bucket, map[string]decoder{"": decode[T]}, func(string) {})
	if err != nil {
		return nil, err
	}
	return &Table[T]{bucket: b}, nil
}

// decode reads a value of T. Rows hold pointers, so that a large value is not
// copied with its row.
func decode[T any](data []byte) (any, error) {
	v := new(T)
	if err := json.Unmarshal(data, v); err != nil {
		return nil, err
	}
	return v, nil
}

// Get returns the value of a name and its revision. It returns NotFound when
// there is none, Conflict when the name is held by another kind of entity, and
// Internal, with the revision, when the stored value can't be read.
func (t *Table[T]) Get(n whisk.Name) (T, whisk.Revision, error) {
	v, rev, err := t.value(t.bucket.get(n))
	if err != nil {
		return v, rev, t.fail("get", n, err)
	}
	return v, rev, nil
}

// value returns a copy of the value in r, and the revision to write upon.
func (t *Table[T]) value(r row) (v T, rev whisk.Revision, err error) {
	at, err := t.shared(r)
	switch {
	case err == nil:
		return deepCopy(*at), whisk.Revision(r.rev), nil
	// With its revision, so that whoever knows better can put another in its
	// place.
	case errors.Is(err, whisk.ErrCorrupt):
		return v, whisk.Revision(r.rev), err
	}
	return v, 0, err
}

// shared returns the value in r itself: it must not be changed.
func (t *Table[T]) shared(r row) (*T, error) {
	switch {
	case r.rev == 0 || r.gone:
		return nil, errMissing
	case r.err != nil:
		return nil, whisk.ErrCorrupt
	case r.kind != t.kind:
		return nil, errOther
	}
	return r.value.(*T), nil
}

// Put stores v under a name and returns its revision when it is durable. prev
// is the revision that v is to replace, 0 for a name that must not exist; else
// Conflict, as when the name is held by another kind of entity.
func (t *Table[T]) Put(ctx context.Context, n whisk.Name, v T, prev whisk.Revision) (whisk.Revision, error) {
	op := t.PutOp(n, v, prev)
	revs, err := apply(ctx, op)
	if err != nil {
		return 0, t.fail("put", n, err)
	}
	return revs[0], nil
}

// Delete removes a name and returns when that is durable. prev is the revision
// that is to go, else Conflict. It returns NotFound when there is none.
func (t *Table[T]) Delete(ctx context.Context, n whisk.Name, prev whisk.Revision) error {
	if _, err := apply(ctx, t.DeleteOp(n, prev)); err != nil {
		return t.fail("delete", n, err)
	}
	return nil
}

// List returns all values in a namespace, or in all of them for "", in any
// order. What can't be read is left out.
func (t *Table[T]) List(namespace string) []T {
	rows := t.bucket.list(t.kind, namespace)
	out := make([]T, 0, len(rows))
	for _, r := range rows {
		if v, _, err := t.value(r); err == nil {
			out = append(out, v)
		}
	}
	return out
}

// Change is what Watch tells.
type Change[T any] struct {
	Name     whisk.Name
	Value    T
	Revision whisk.Revision
	Deleted  bool // Value and Revision are zero
	// Ready marks the end of what was there when Watch began; nothing else is
	// set.
	Ready bool
}

// Watch yields every value there is, then a change that is Ready, then a change
// for each name that was put or deleted since. Of several changes of a name
// that come faster than they are taken, the last is yielded. It ends with ctx,
// yielding its error. A slow loop holds nobody up.
func (t *Table[T]) Watch(ctx context.Context) iter.Seq2[Change[T], error] {
	return func(yield func(Change[T], error) bool) {
		w := t.bucket.watch(t.kind)
		defer t.bucket.unwatch(w)
		// Read when it is given, not when it changed: a slow loop gets the
		// newest.
		give := func(n whisk.Name, initial bool) bool {
			c := Change[T]{Name: n}
			v, rev, err := t.value(t.bucket.get(n))
			switch {
			case err == nil:
				c.Value, c.Revision = v, rev
			case initial || errors.Is(err, whisk.ErrCorrupt):
				return true // gone since, which is a change of its own; or nothing to show
			default:
				c.Deleted = true
			}
			return yield(c, nil)
		}
		for _, n := range w.initial {
			if !give(n, true) {
				return
			}
		}
		if !yield(Change[T]{Ready: true}, nil) {
			return
		}
		for {
			select {
			case <-ctx.Done():
				yield(Change[T]{}, ctx.Err())
				return
			case <-w.wake:
			}
			for _, n := range w.take() {
				if !give(n, false) {
					return
				}
			}
		}
	}
}

// Op is one of several writes for Apply. The zero value is of no use. The value
// is encoded when the Op is made: what the caller changes afterwards does not
// matter.
type Op struct {
	bucket *bucket
	write  write
	err    error // why it can't be written
}

// PutOp is Put as a part of an Apply.
func (t *Table[T]) PutOp(n whisk.Name, v T, prev whisk.Revision) Op {
	data, err := json.Marshal(v)
	return Op{t.bucket, write{n, t.kind, data, prev}, err}
}

// DeleteOp is Delete as a part of an Apply.
func (t *Table[T]) DeleteOp(n whisk.Name, prev whisk.Revision) Op {
	return Op{t.bucket, write{n, t.kind, nil, prev}, nil}
}

// Apply does several writes, all or none, and returns when they are durable.
// They must be of tables in one bucket, as entities are, at most 1,000, and of
// different names. It returns Conflict or NotFound as Put and Delete do, for
// the first that can't be done.
func (s *Store) Apply(ctx context.Context, ops ...Op) error {
	if _, err := apply(ctx, ops...); err != nil {
		return whisk.E(kindOf(err), "apply", err)
	}
	return nil
}

func apply(ctx context.Context, ops ...Op) ([]whisk.Revision, error) {
	if len(ops) == 0 {
		return nil, nil
	}
	if len(ops) > MaxBatch {
		return nil, whisk.E(whisk.Invalid, "", fmt.Errorf("%d writes at once are more than %d", len(ops), MaxBatch))
	}
	ws := make([]write, len(ops))
	// The server compares revisions with what was there before the batch: two
	// writes of one name in it would not see each other.
	names := make(map[whisk.Name]struct{}, len(ops))
	for i, o := range ops {
		names[o.write.name] = struct{}{}
		if o.err != nil {
			return nil, whisk.E(whisk.Invalid, "", o.err)
		}
		if o.bucket != ops[0].bucket || len(names) != i+1 {
			return nil, whisk.E(whisk.Invalid, "", errors.New("the writes are not of different names in one bucket"))
		}
		ws[i] = o.write
	}
	return ops[0].bucket.commit(ctx, ws...)
}

// fail says what was done to which name when err came.
func (t *Table[T]) fail(op string, n whisk.Name, err error) error {
	return whisk.E(kindOf(err), op+" "+t.bucket.name+" "+n.String(), err)
}

// kindOf returns the kind of err: that of one of our own texts, else the one
// that it has.
func kindOf(err error) whisk.Kind {
	switch {
	case errors.Is(err, errMissing):
		return whisk.NotFound
	case errors.Is(err, errOther), errors.Is(err, errRace):
		return whisk.Conflict
	case errors.Is(err, whisk.ErrCorrupt):
		return whisk.Internal
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return whisk.Unavailable
	}
	return whisk.KindOf(err)
}
