package feeds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// How a failing feed is tried again, and when it counts as degraded.
const (
	firstDelay    = time.Second
	maxDelay      = time.Minute
	healthy       = time.Minute // a run that lasts this long wipes the slate
	degradedAfter = 3           // failures in a row
	stopWarning   = 5 * time.Second

	firstFullDelay = 50 * time.Millisecond // the bus is full: how soon to try again
	maxFullDelay   = 5 * time.Second
)

var errGone = errors.New("the trigger is gone")

// instance is one feed under supervision, from its start to its stop. The state
// is that of its start. What the feed itself changes in it, such as its end, is
// only stored.
type instance struct {
	s      *Supervisor
	st     State
	cancel context.CancelFunc
	done   chan struct{}

	mu        sync.Mutex
	feed      Feed // opened; nil while it cannot be
	fresh     bool // feed was not run yet
	position  string
	failures  int       // in a row
	since     time.Time // when the present run began; zero between runs
	restarts  int
	lastErr   string
	lastErrAt time.Time
	events    uint64 // emitted since the start
	lastEvent time.Time
	waiting   bool // for room on the bus
}

// open makes the feed where it stands. What was opened before is closed after,
// so that a feed with an address is never without it.
func (in *instance) open(ctx context.Context) {
	// Without the lock: Open may take as long as a source does.
	f, pos, err := in.make(ctx)
	in.mu.Lock()
	old := in.feed
	if err != nil {
		in.failed(err)
	} else {
		in.feed, in.position, in.fresh = f, pos, true
	}
	in.mu.Unlock()
	if err == nil {
		letGo(old)
	}
}

// make opens the feed at its stored position. A provider's panic is an error
// like any other: one feed must not end the server.
func (in *instance) make(ctx context.Context) (f Feed, position string, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the feed panicked: %v", r)
		}
	}()
	secrets, _, err := in.s.unseal(in.st)
	if err != nil {
		return nil, "", err
	}
	cur, found, err := in.s.parts.Sink.Cursor(ctx, in.st.ID)
	if err != nil {
		return nil, "", fmt.Errorf("read position: %w", err)
	}
	spec := specOf(in.st, secrets)
	if found {
		spec.Position = cur.Position
	}
	p, ok := in.s.parts.Providers[in.st.Feed]
	if !ok {
		return nil, "", fmt.Errorf("there is no feed %s in this server", in.st.Feed)
	}
	f, err = p.Open(ctx, spec)
	return f, spec.Position, err
}

// live runs the feed until ctx ends, its trigger goes or it has nothing more
// to emit.
func (in *instance) live(ctx context.Context) {
	// What was still to be deleted when the process ended.
	if in.st.Ended != nil {
		in.retire(ctx, in.st)
		return
	}
	if in.st.Paused {
		return
	}
	for {
		err := in.run(ctx)
		if ctx.Err() != nil {
			return
		}
		var end *Completed
		switch {
		case errors.Is(err, errGone):
			in.s.TriggerGone(in.st.Trigger)
			return
		case errors.As(err, &end):
			var st State
			if st, err = in.complete(ctx, end); err == nil {
				in.retire(ctx, st)
				return
			}
		}
		if !pause(ctx, in.fail(err)) {
			return
		}
	}
}

// run opens the feed if needed and runs it once.
func (in *instance) run(ctx context.Context) (err error) {
	in.mu.Lock()
	fresh := in.fresh
	in.mu.Unlock()
	if !fresh {
		in.open(ctx)
	}
	in.mu.Lock()
	f, ok := in.feed, in.fresh
	in.fresh = false
	if ok {
		in.since = in.s.now()
	}
	in.mu.Unlock()
	if !ok {
		return nil // open told why
	}
	life, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the feed panicked: %v", r)
		}
		if errors.Is(context.Cause(life), errGone) {
			err = errGone
		}
	}()
	// The feed may return any error, or none, when its trigger has gone.
	// Ending its context with a cause lets the supervisor know the true one.
	err = f.Run(life, func(ctx context.Context, position string, evs ...whisk.Event) error {
		err := in.emit(ctx, position, evs)
		if errors.Is(err, errGone) {
			cancel(errGone)
		}
		return err
	})
	// By the contract only the end of ctx ends a feed without an error.
	if err == nil && ctx.Err() == nil {
		err = errors.New("the feed ended by itself")
	}
	return err
}

// emit stores events for the feed; see Emit.
func (in *instance) emit(ctx context.Context, position string, evs []whisk.Event) error {
	if len(evs) > MaxBatch {
		return whisk.E(whisk.Invalid, "emit", fmt.Errorf("%d events at once are more than %d", len(evs), MaxBatch))
	}
	// Looked at before each write: a feed is told a moment late that its
	// trigger is gone.
	if in.s.orphan(in.st) {
		return whisk.E(whisk.NotFound, "emit", errGone)
	}
	for i := range evs {
		evs[i].Trigger = in.st.Trigger
		evs[i].Actor = in.st.Subject
		if evs[i].Source == "" {
			evs[i].Source = "/" + whisk.SystemNamespace + "/" + in.st.Feed
		}
	}
	var err error
	switch {
	case position != "":
		err = in.emitAt(ctx, position, evs)
	case len(evs) > 0:
		_, err = in.s.parts.Sink.Accept(ctx, evs...)
	}
	if err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(evs) > 0 {
		in.events += uint64(len(evs))
		in.lastEvent = in.s.now()
	}
	return nil
}

// emitAt stores events with the position after them, waiting while there is
// no room.
func (in *instance) emitAt(ctx context.Context, position string, evs []whisk.Event) error {
	in.mu.Lock()
	// The previous position and the count let the bus find out after a power
	// loss whether the events of this one are all there.
	c := whisk.Cursor{Feed: in.st.ID, Position: position, Previous: in.position, Count: len(evs)}
	in.mu.Unlock()
	delay := firstFullDelay
	for {
		err := in.s.parts.Sink.AcceptBatch(ctx, c, evs...)
		// Only this is waited for here. Any other error ends the run, and the
		// feed is opened again at the position that the store has.
		full := errors.Is(err, whisk.Unavailable)
		in.mu.Lock()
		in.waiting = full
		if full {
			in.lastErr, in.lastErrAt = whisk.Message(err), in.s.now()
		}
		if err == nil {
			in.position = position
		}
		in.mu.Unlock()
		if !full {
			return err
		}
		if !pause(ctx, delay) {
			return ctx.Err()
		}
		delay = min(2*delay, maxFullDelay)
	}
}

// fail notes a failure and returns how long to wait before the next try. A nil
// err was noted already.
func (in *instance) fail(err error) time.Duration {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.recovered() {
		in.failures = 0
	}
	in.since = time.Time{}
	if err != nil {
		in.failed(err)
	}
	in.restarts++
	in.s.log.Warn("feed failed", slog.String("feed", in.st.Feed), slog.String("trigger", in.st.Trigger.String()),
		slog.Int("failures", in.failures), slog.String("err", in.lastErr))
	// The shift is bounded, or it would overflow after many failures.
	delay := min(firstDelay<<min(in.failures-1, 10), maxDelay)
	// Half of it random: feeds of one broken source do not come back as one.
	return delay/2 + rand.N(delay/2+1)
}

// recovered reports whether the present run has lasted long enough to forget
// the failures before it; in.mu is held.
func (in *instance) recovered() bool {
	return !in.since.IsZero() && in.s.now().Sub(in.since) >= healthy
}

// failed notes err; in.mu is held.
func (in *instance) failed(err error) {
	in.failures++
	in.lastErr, in.lastErrAt = err.Error(), in.s.now()
}

// complete stores that the feed is at its end.
func (in *instance) complete(ctx context.Context, end *Completed) (State, error) {
	return in.change(ctx, func(st *State) {
		st.Ended = &Reason{Kind: Auto, Message: end.Reason}
		if end.Retire {
			st.Retire = &Retirement{Event: end.Event, Rules: end.Rules}
		}
	})
}

// change alters the stored state, unless a lifecycle event is doing so: that
// one waits for this instance to stop, so to wait for it would be for ever.
func (in *instance) change(ctx context.Context, alter func(*State)) (State, error) {
	unlock, err := in.s.locks.lock(ctx, in.st.Trigger)
	if err != nil {
		return State{}, err
	}
	defer unlock()
	st, rev, err := in.s.parts.States.Get(in.st.Trigger)
	if err != nil {
		return State{}, err
	}
	if st.ID != in.st.ID {
		return State{}, errors.New("the feed was made anew") // and this instance is about to be stopped
	}
	alter(&st)
	st.Changed = in.s.now().UTC()
	_, err = in.s.parts.States.Put(ctx, in.st.Trigger, st, rev)
	return st, err
}

// retire deletes the trigger of a feed that is done with it, if it asked so.
func (in *instance) retire(ctx context.Context, st State) {
	r := st.Retire
	for delay := firstDelay; r != nil; delay = min(2*delay, maxDelay) {
		err := in.s.parts.Triggers.Retire(ctx, in.st.Trigger, r.Event, r.Rules)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			in.s.TriggerGone(in.st.Trigger)
			return
		// The last event ended in dead letters. Whoever redelivers it needs
		// the trigger.
		case errors.Is(err, whisk.Conflict):
			_, err = in.change(ctx, func(st *State) {
				st.Retire = nil
				st.Ended = &Reason{Kind: Auto, Message: st.Ended.Message + "; the trigger is kept, for its event was not delivered"}
			})
			if err == nil {
				return
			}
		}
		in.s.log.WarnContext(ctx, "trigger not deleted yet", slog.String("trigger", in.st.Trigger.String()), slog.Any("err", err))
		if !pause(ctx, delay) {
			return
		}
	}
}

// release takes the feed out of the instance.
func (in *instance) release() Feed {
	in.mu.Lock()
	defer in.mu.Unlock()
	f := in.feed
	in.feed = nil
	return f
}

// letGo closes a feed that can be closed.
func letGo(f Feed) {
	if c, ok := f.(io.Closer); ok {
		c.Close()
	}
}

// pause waits, and reports false when ctx ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
