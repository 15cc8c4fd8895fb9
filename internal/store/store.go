// Package store keeps entities and other small values with revisions: in
// memory for reading, in buckets of the bus for good.
//
// A Table holds values of one type by name. Reading never leaves the process.
// Writing carries the revision that the writer has seen, publishes to the
// bucket, puts the acknowledged value into the memory copy, and returns once
// the bus has flushed it; of two writers that saw the same revision one gets a
// Conflict. Run follows the buckets, so that what other processes write arrives
// as well. The four kinds of entities share one bucket and one space of names,
// and Apply writes several of them in one step. The package does not know what
// the entities mean, but for Resolve, which follows packages and bindings.
package store

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/whisk"
)

// Texts that callers and clients compare with. They are OpenWhisk's.
var (
	errMissing = errors.New("The requested resource does not exist.")
	errOther   = errors.New("Resource by this name exists but is not in this collection.")
	errRace    = errors.New("Concurrent modification to resource detected.")
)

// Store is every table of the installation. Safe for concurrent use.
type Store struct {
	bus      *bus.Bus
	log      *slog.Logger
	entities *Entities
	changes  changes

	mu      sync.Mutex
	buckets map[string]*bucket
	added   chan struct{} // holds something when Run has a bucket to begin with
}

// changes counts the changes of rules and triggers. The counter tells that
// something has changed, the channel when: one for those who compare, one for
// those who wait.
type changes struct {
	generation atomic.Uint64
	mu         sync.Mutex
	next       chan struct{} // closed by the next change
}

// Open reads the entities and returns the store. It makes the bucket if it is
// missing.
func Open(ctx context.Context, b *bus.Bus, log *slog.Logger) (*Store, error) {
	s := &Store{bus: b, log: log, buckets: map[string]*bucket{}, added: make(chan struct{}, 1)}
	s.changes.next = make(chan struct{})
	if err := s.openEntities(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Run follows the buckets, those of later tables too, and removes what marks
// old deletions. It returns nil when ctx ends.
func (s *Store) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	running := map[string]bool{}
	for {
		s.mu.Lock()
		for name, b := range s.buckets {
			if !running[name] {
				running[name] = true
				// In its own goroutine: one bucket that must be read anew holds
				// up no other.
				wg.Go(func() { b.follow(ctx) })
				wg.Go(func() { b.clean(ctx) })
			}
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			wg.Wait()
			return nil
		// A table may be opened while the store runs.
		case <-s.added:
		}
	}
}

// Generation counts the changes of rules and triggers since Open.
func (s *Store) Generation() uint64 { return s.changes.generation.Load() }

// Changed returns a channel that is closed by the next change of a rule or a
// trigger. Take it before reading them, so that no change is missed.
func (s *Store) Changed() <-chan struct{} {
	s.changes.mu.Lock()
	defer s.changes.mu.Unlock()
	return s.changes.next
}

// bump counts a change and wakes who waits for one.
func (c *changes) bump() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation.Add(1)
	close(c.next)
	c.next = make(chan struct{})
}

// open returns the bucket of that name, loaded, with the kinds of values that
// it may hold. A bucket is opened once.
func (s *Store) open(ctx context.Context, name string, kinds map[string]decoder, changed func(kind string)) (*bucket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Two copies in memory would not see each other's writes at once.
	if s.buckets[name] != nil {
		return nil, whisk.E(whisk.Internal, "open bucket "+name, errors.New("it is open already"))
	}
	b := newBucket(s.bus, name, kinds, changed, s.log)
	if err := b.open(ctx); err != nil {
		return nil, whisk.E(whisk.KindOf(err), "open bucket "+name, err)
	}
	s.buckets[name] = b
	select {
	case s.added <- struct{}{}:
	default:
	}
	return b, nil
}
