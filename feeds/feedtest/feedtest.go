// Package feedtest is what defines a correct feed: a suite that every Provider
// passes, and an engine in memory (states, events, triggers, keys) to run
// feeds on without a bus.
package feedtest

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/feeds"
	"github.com/millrace/millrace/internal/whisk"
)

// Source is a feed's source under the suite's control.
type Source struct {
	Provider feeds.Provider
	Feed     string       // the Provider's name for it
	Params   whisk.Params // good ones, as CREATE gives them
	Bad      []whisk.Params
	// Produce makes n more happenings at the source. It returns when the feed
	// can see them. Nil for feeds whose source is the passing of time since
	// Spec.Since.
	Produce func(t *testing.T, n int)
	// Since is when the definition was made. Zero: now.
	Since time.Time
	// Records is how many happenings the suite may expect from a feed opened
	// at its beginning. At least 2.
	Records int
	// Pushed says that the source comes to the feed and keeps no place.
	Pushed bool
}

// patience is how long the suite waits for what must come soon.
const patience = 10 * time.Second

// Run checks that a source's feed keeps the contract: it refuses bad
// parameters as Invalid, emits what happens, stops within a second, goes on
// after its position, and gives the same happening the same ID.
func Run(t *testing.T, newSource func(t *testing.T) Source) {
	t.Run("bad parameters are invalid", func(t *testing.T) {
		src := newSource(t)
		for _, ps := range src.Bad {
			if _, err := define(t, src, ps); !errors.Is(err, whisk.Invalid) {
				t.Errorf("parameters %s: error = %v, want invalid", text(ps), err)
			}
		}
	})
	t.Run("stops within a second", func(t *testing.T) {
		src := newSource(t)
		r := start(t, src, spec(t, src))
		r.stop(t)
	})
	t.Run("stops within a second while the bus is full", func(t *testing.T) {
		src := newSource(t)
		if src.Pushed {
			t.Skip("a pushed source is answered at once")
		}
		sp := spec(t, src)
		r := &run{full: true, asked: make(chan struct{}, 1), done: make(chan error, 1), more: make(chan struct{}, 1)}
		r.start(t, src, sp)
		produce(t, src)
		select {
		case <-r.asked:
		case <-time.After(patience):
			t.Fatal("nothing was emitted")
		}
		r.stop(t)
	})
	t.Run("goes on after its position with the same IDs", func(t *testing.T) {
		src := newSource(t)
		if src.Pushed {
			t.Skip("a pushed source keeps no place")
		}
		resumes(t, src)
	})
}

func resumes(t *testing.T, src Source) {
	sp := spec(t, src)
	all := start(t, src, sp)
	produce(t, src)
	want := all.wait(t, src.Records)
	all.stop(t)

	again := start(t, src, sp)
	for i, ev := range again.wait(t, src.Records) {
		if whisk.IDHash(ev.ID) != whisk.IDHash(want[i].ID) {
			t.Errorf("event %d: ID %s the second time, %s the first", i, ev.ID, want[i].ID)
		}
	}
	again.stop(t)

	seen := map[string]bool{}
	for _, ev := range want {
		seen[whisk.IDHash(ev.ID)] = true
	}
	if len(seen) != len(want) {
		t.Errorf("%d events have %d IDs", len(want), len(seen))
	}
	sp.Position = all.position()
	rest := start(t, src, sp)
	rest.stop(t)
	for _, ev := range rest.taken() {
		if seen[whisk.IDHash(ev.ID)] {
			t.Errorf("event %s was emitted again from the position after it", ev.ID)
		}
	}
}

func produce(t *testing.T, src Source) {
	if src.Produce != nil {
		src.Produce(t, src.Records)
	}
}

// define returns the definition that ps make, proven by Open.
func define(t *testing.T, src Source, ps whisk.Params) (whisk.Params, error) {
	t.Helper()
	now := src.Since
	if now.IsZero() {
		now = time.Now()
	}
	trigger := whisk.Name{Namespace: "guest", Entity: "t"}
	if d, ok := src.Provider.(feeds.Definer); ok {
		def, err := d.Define(t.Context(), feeds.Change{Event: feeds.Create, Feed: src.Feed, Trigger: trigger, Given: ps, Now: now})
		if err != nil {
			return nil, err
		}
		ps = def.Params
	}
	f, err := src.Provider.Open(t.Context(), feeds.Spec{ID: "probe", Feed: src.Feed, Trigger: trigger, Params: ps, Since: now})
	if c, ok := f.(io.Closer); ok {
		c.Close()
	}
	return ps, err
}

func spec(t *testing.T, src Source) feeds.Spec {
	t.Helper()
	ps, err := define(t, src, src.Params)
	if err != nil {
		t.Fatalf("good parameters refused: %v", err)
	}
	since := src.Since
	if since.IsZero() {
		since = time.Now()
	}
	return feeds.Spec{
		ID: whisk.NewID(since), Feed: src.Feed, Trigger: whisk.Name{Namespace: "guest", Entity: "t"}, Params: ps, Since: since,
	}
}

func text(ps whisk.Params) string {
	b, err := ps.MarshalJSON()
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// run is one feed running.
type run struct {
	cancel context.CancelFunc
	done   chan error
	more   chan struct{} // something was emitted
	asked  chan struct{} // something was to be emitted, and the bus was full
	full   bool

	mu  sync.Mutex
	evs []whisk.Event
	pos string
}

func start(t *testing.T, src Source, sp feeds.Spec) *run {
	t.Helper()
	r := &run{done: make(chan error, 1), more: make(chan struct{}, 1)}
	r.start(t, src, sp)
	return r
}

func (r *run) start(t *testing.T, src Source, sp feeds.Spec) {
	t.Helper()
	f, err := src.Provider.Open(t.Context(), sp)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	go func() { r.done <- f.Run(ctx, r.emit) }()
}

func (r *run) emit(ctx context.Context, position string, evs ...whisk.Event) error {
	if r.full {
		select {
		case r.asked <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return ctx.Err()
	}
	if len(evs) > feeds.MaxBatch {
		return whisk.E(whisk.Invalid, "emit", errors.New("too many events at once"))
	}
	r.mu.Lock()
	r.evs, r.pos = append(r.evs, evs...), position
	r.mu.Unlock()
	select {
	case r.more <- struct{}{}:
	default:
	}
	return nil
}

func (r *run) taken() []whisk.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.evs)
}

func (r *run) position() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pos
}

// wait returns the first n events.
func (r *run) wait(t *testing.T, n int) []whisk.Event {
	t.Helper()
	late := time.After(patience)
	for {
		if evs := r.taken(); len(evs) >= n {
			return evs[:n]
		}
		select {
		case <-r.more:
		case err := <-r.done:
			r.done <- err
			if evs := r.taken(); len(evs) >= n {
				return evs[:n]
			}
			t.Fatalf("the feed ended with %v after %d of %d events", err, len(r.taken()), n)
		case <-late:
			t.Fatalf("%d of %d events came", len(r.taken()), n)
		}
	}
}

// stop ends the feed's context and wants it gone within a second. A feed that
// had nothing more to emit is gone already.
func (r *run) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	select {
	case err := <-r.done:
		var end *feeds.Completed
		if err != nil && !errors.As(err, &end) {
			t.Errorf("stopped feed returned %v, want nil", err)
		}
	case <-time.After(time.Second):
		t.Error("the feed runs a second after it was told to stop")
	}
}
