package feeds

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// Parts are what a Supervisor stands on. All are required; Vault only if a
// Provider has secrets.
type Parts struct {
	States    States
	Sink      Sink
	Triggers  Triggers
	Keys      Keys
	Vault     Vault
	Providers map[string]Provider // by name, as in "alarms/alarm"
	Log       *slog.Logger
}

// Supervisor keeps the feeds of every trigger and runs them. All methods are
// safe for concurrent use.
type Supervisor struct {
	parts Parts
	log   *slog.Logger
	now   func() time.Time
	locks locks // one lifecycle event at a time for each trigger

	// Held for a moment only, and after a trigger's lock, never before one.
	mu      sync.Mutex
	feeds   map[whisk.Name]*instance
	running context.Context // of Run; nil before
	stopped bool
	gone    map[whisk.Name]struct{}

	work  sync.WaitGroup // goroutines of instances
	wake  chan struct{}  // gone is not empty
	ready chan struct{}
}

// NewSupervisor returns a Supervisor that runs nothing until Run. Before that,
// lifecycle events are carried out but nothing is emitted.
func NewSupervisor(p Parts) *Supervisor {
	return &Supervisor{
		parts: p, log: p.Log, now: time.Now,
		feeds: map[whisk.Name]*instance{}, gone: map[whisk.Name]struct{}{},
		wake: make(chan struct{}, 1), ready: make(chan struct{}),
	}
}

// Ready is closed when Run has opened every stored feed.
func (s *Supervisor) Ready() <-chan struct{} { return s.ready }

// Run starts every stored feed and keeps them running until ctx ends; then it
// stops them and returns nil. It must be called once.
func (s *Supervisor) Run(ctx context.Context) error {
	s.mu.Lock()
	s.running = ctx
	s.mu.Unlock()
	// One after the other: what cannot be resumed is tried again by reap and
	// does not keep the rest waiting.
	for _, st := range s.parts.States.List("") {
		if err := s.resume(ctx, st.Trigger); err != nil {
			s.log.WarnContext(ctx, "feed not resumed yet", slog.String("trigger", st.Trigger.String()), slog.Any("err", err))
			s.TriggerGone(st.Trigger) // tries again
		}
	}
	for _, p := range s.parts.Providers {
		if l, ok := p.(Loader); ok {
			l.Loaded()
		}
	}
	close(s.ready)
	s.reap(ctx)
	s.mu.Lock()
	s.stopped = true // from here on start adds no goroutine
	s.mu.Unlock()
	// Feeds are let go only when none of them runs: Close must not meet a Run.
	s.work.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, in := range s.feeds {
		letGo(in.release())
		delete(s.feeds, name)
	}
	return nil
}

// resume starts a stored feed that does not run, or removes one whose trigger
// went.
func (s *Supervisor) resume(ctx context.Context, name whisk.Name) error {
	unlock, err := s.locks.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	st, rev, err := s.parts.States.Get(name)
	if errors.Is(err, whisk.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if s.orphan(st) {
		return s.remove(ctx, name, st, rev)
	}
	if s.lookup(name) == nil { // a lifecycle event may have been quicker
		s.start(ctx, st)
	}
	return nil
}

// orphan reports whether the trigger that st fires is gone.
func (s *Supervisor) orphan(st State) bool {
	t, _, err := s.parts.Triggers.Get(st.Trigger)
	if err != nil {
		// A store that cannot be read is no reason to delete a feed.
		return errors.Is(err, whisk.NotFound)
	}
	// The name may have been taken by a new trigger, which knows nothing of
	// this feed.
	return t.Incarnation != st.Incarnation
}

// TriggerGone tells that a trigger was deleted, by whatever path. Its feed
// stops and is removed, soon; the call does not wait.
func (s *Supervisor) TriggerGone(name whisk.Name) {
	s.mu.Lock()
	s.gone[name] = struct{}{}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	// Somebody has called already, and reap will find this name too.
	default:
	}
}

// reap settles the feeds of triggers that may have gone, until ctx ends. What
// fails is tried again.
func (s *Supervisor) reap(ctx context.Context) {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-retry.C:
		}
		s.mu.Lock()
		names := slices.Collect(maps.Keys(s.gone))
		clear(s.gone)
		s.mu.Unlock()
		for _, name := range names {
			if err := s.resume(ctx, name); err != nil && ctx.Err() == nil {
				s.log.WarnContext(ctx, "feed not settled yet",
					slog.String("trigger", name.String()), slog.Any("err", err))
				s.mu.Lock()
				s.gone[name] = struct{}{}
				s.mu.Unlock()
				retry.Reset(firstDelay)
			}
		}
	}
}

// remove stops a feed and deletes all that is kept of it. The state goes
// first: a position without a feed does nothing, a feed without its position
// would emit again. The trigger's lock is held.
func (s *Supervisor) remove(ctx context.Context, name whisk.Name, st State, rev whisk.Revision) error {
	s.stop(ctx, name)
	if err := s.parts.States.Delete(ctx, name, rev); err != nil && !errors.Is(err, whisk.NotFound) {
		// The state is still there, so the feed is too.
		s.restore(ctx, name)
		return err
	}
	s.forget(ctx, st.ID)
	s.log.InfoContext(ctx, "feed removed", slog.String("feed", st.Feed), slog.String("trigger", name.String()))
	return nil
}

// forget lets go of a feed's position. What stays behind on a failure is one
// small message that nothing reads.
func (s *Supervisor) forget(ctx context.Context, id string) {
	if err := s.parts.Sink.ForgetCursor(ctx, id); err != nil {
		s.log.WarnContext(ctx, "position of a removed feed stays", slog.String("feed", id), slog.Any("err", err))
	}
}

// restore starts the stored feed again after a change that did not happen.
func (s *Supervisor) restore(ctx context.Context, name whisk.Name) {
	if st, _, err := s.parts.States.Get(name); err == nil {
		s.start(ctx, st)
	}
}

// start opens a feed and, when it is neither paused nor at its end, runs it.
// Whatever goes wrong is tried again, so start itself cannot fail.
func (s *Supervisor) start(ctx context.Context, st State) {
	s.mu.Lock()
	run := s.running
	if run == nil || s.stopped {
		s.mu.Unlock()
		return // Run will, or the next process
	}
	life, cancel := context.WithCancel(run)
	in := &instance{s: s, st: st, cancel: cancel, done: make(chan struct{})}
	s.feeds[st.Trigger] = in
	// Under the lock that sets stopped: Wait never meets an Add from zero.
	s.work.Add(1)
	s.mu.Unlock()
	// Before the goroutine: when the caller goes on, the feed has its address,
	// or its error.
	in.open(ctx)
	go func() {
		defer s.work.Done()
		defer close(in.done)
		in.live(life)
	}()
}

// stop ends a feed and waits until it has. The trigger's lock is held.
func (s *Supervisor) stop(ctx context.Context, name whisk.Name) {
	s.mu.Lock()
	in := s.feeds[name]
	delete(s.feeds, name)
	s.mu.Unlock()
	if in == nil {
		return
	}
	in.cancel()
	// The wait has no end: a feed that still runs could emit beside the one
	// that replaces it. The warning tells people why nothing happens.
	slow := time.NewTimer(stopWarning)
	defer slow.Stop()
	for {
		select {
		case <-in.done:
			letGo(in.release())
			return
		case <-slow.C:
			s.log.WarnContext(ctx, "feed does not stop", slog.String("feed", in.st.Feed), slog.String("trigger", name.String()))
		}
	}
}

// lookup returns the running feed of a trigger; nil if there is none.
func (s *Supervisor) lookup(name whisk.Name) *instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.feeds[name]
}

// List returns how the feeds of a namespace ("" for all) are, by trigger.
func (s *Supervisor) List(namespace string) []Info {
	states := s.parts.States.List(namespace)
	slices.SortFunc(states, func(a, b State) int {
		return cmpNames(a.Trigger, b.Trigger)
	})
	infos := make([]Info, 0, len(states))
	for _, st := range states {
		infos = append(infos, s.info(st))
	}
	return infos
}

// Get returns how the feed of a trigger is, or NotFound.
func (s *Supervisor) Get(namespace, trigger string) (Info, error) {
	st, _, err := s.parts.States.Get(whisk.Name{Namespace: namespace, Entity: trigger})
	if err != nil {
		return Info{}, err
	}
	return s.info(st), nil
}

// locks is a set of locks by name; the zero value holds none.
type locks struct {
	mu   sync.Mutex
	held map[whisk.Name]*nameLock
}

type nameLock struct {
	free  chan struct{} // holds a token while free
	users int
}

// lock waits for the lock of n or for the end of ctx.
func (l *locks) lock(ctx context.Context, n whisk.Name) (unlock func(), err error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[whisk.Name]*nameLock{}
	}
	nl := l.held[n]
	if nl == nil {
		nl = &nameLock{free: make(chan struct{}, 1)}
		nl.free <- struct{}{}
		l.held[n] = nl
	}
	// Counted before the wait, so that the lock of those that wait is not
	// dropped from the map.
	nl.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if nl.users--; nl.users == 0 {
			delete(l.held, n)
		}
	}
	select {
	case <-nl.free:
		return func() { nl.free <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
