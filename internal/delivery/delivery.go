// Package delivery carries every match and every invocation to its end.
//
// A match is an event that a rule matched, or a non-blocking invocation. It
// waits in the line of its action as a reference of a few hundred bytes; its
// body is fetched when its turn comes. Its attempt is marked as started in the
// journal, run by the invoker and recorded; a failure that the rule retries
// waits for its next attempt; one that is given up becomes a dead letter with
// its whole story. What a stopped process left undone is taken up again from
// the journal, before anything new. Blocking calls stand in the same lines and
// leave only a record, unless they outlive their caller's patience.
//
// The package does not know how rules decide, how containers run or how the
// journal is kept.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/whisk"
)

// Journal keeps what became of every match.
type Journal interface {
	// Append returns once the entries are written: in one message, when they
	// are small. Unavailable when the journal is too full for an invoke entry.
	Append(ctx context.Context, es ...whisk.Entry) error
	// AppendDurable is Append that waits for stable storage.
	AppendDurable(ctx context.Context, es ...whisk.Entry) error
	// Undone returns what was not done when the journal was opened, in its
	// original order. Bodies may be left out.
	Undone() []whisk.Pending
	// Pending returns an undone match with its body; NotFound when it is done.
	Pending(ctx context.Context, m whisk.Match) (whisk.Pending, error)
	// RecordCall stores the record of a blocking call.
	RecordCall(ctx context.Context, a whisk.Activation) error
	// Bury stores a dead letter durably.
	Bury(ctx context.Context, d whisk.DeadLetter) error
}

// Events is the archive of events.
type Events interface {
	// Event returns the event of a sequence; NotFound.
	Event(ctx context.Context, seq uint64) (whisk.Event, error)
}

// Invoker runs jobs.
type Invoker interface {
	// Submit puts a job into its action's queue. Unavailable once the invoker
	// is closed: the job is neither begun nor done.
	Submit(job whisk.Job) error
}

// Entities are the stored triggers and actions.
type Entities interface {
	Trigger(n whisk.Name) (whisk.Trigger, error)  // NotFound
	Resolve(n whisk.Name) (whisk.Runnable, error) // NotFound
}

// Rules tells how a rule's failures are retried; false when there is no such
// rule any more.
type Rules interface {
	Retry(rule whisk.Name) (whisk.Retry, bool)
}

// Parts is what a Delivery stands on. All are required.
type Parts struct {
	Journal  Journal
	Events   Events
	Invoker  Invoker
	Entities Entities
	Rules    Rules
	// Owner returns the subject that a namespace's rules run as; false when
	// the namespace has none.
	Owner func(namespace string) (subject string, ok bool)
}

// Defaults and bounds.
const (
	defaultCount = 100_000   // matches undone before the judge waits
	defaultBytes = 256 << 20 // bytes of their bodies
	keepBytes    = 64 << 20  // bytes undone up to which an invocation's body stays in memory
	overhead     = 512       // bytes counted for a match besides its body
	window       = 256       // jobs of one action at the invoker at once; the rest wait here, small
	workers      = 16        // goroutines for what no run drives: dead letters, attempts that a stop cut off
)

// Delivery is safe for concurrent use. An item is owned by one at a time: the
// line it waits in, the invoker's turn, the heap or a chore. So its own fields
// need no lock.
type Delivery struct {
	Parts
	log      *slog.Logger
	fault    func(point string)
	maxCount int
	maxBytes int64
	metrics  *metrics

	ready chan struct{} // closed once what was undone is in line
	wake  chan struct{} // of the pump; holds at most one call

	mu      sync.Mutex
	stopped bool
	lines   map[whisk.Name]*line
	open    fifo[*line] // lines whose head may be submitted
	later   dueHeap     // attempts that wait for their time
	chores  fifo[func(context.Context)]
	working int
	count   int
	bytes   int64
	resumed map[whisk.Match]bool // what Undone told, until the first new verdict
	holding *line                // the longest line, while the judge waits; nil while it does not
	room    chan struct{}        // closed, and made anew, when there is room again
}

// New returns a Delivery; Run starts it.
func New(p Parts, log *slog.Logger, opts ...Option) *Delivery {
	d := &Delivery{
		Parts: p, log: log, fault: func(string) {}, maxCount: defaultCount, maxBytes: defaultBytes,
		ready: make(chan struct{}), wake: make(chan struct{}, 1), room: make(chan struct{}),
		lines: map[whisk.Name]*line{},
	}
	d.metrics = newMetrics(d)
	for _, o := range opts {
		o(d)
	}
	return d
}

// Option changes a default of a Delivery.
type Option func(*Delivery)

// WithLimits sets how many matches, and how many bytes of their bodies, may be
// undone before the judge waits; at twice as many, calls and invocations are
// refused. Default 100,000 and 256 MiB.
func WithLimits(count int, bytes int64) Option {
	return func(d *Delivery) { d.maxCount, d.maxBytes = count, bytes }
}

// WithFault has f called between the steps of an attempt: "delivery begin",
// "delivery started", "delivery ran", "delivery recorded", "delivery buried",
// "delivery dead", "delivery accepted", "delivery turned". It is there for
// tests that stop the process at such a point.
func WithFault(f func(point string)) Option { return func(d *Delivery) { d.fault = f } }

// Run takes up what was left undone and then keeps the lines moving, until ctx
// ends. Runs that the invoker has by then are still recorded when they end;
// what waits is taken up by the next start.
func (d *Delivery) Run(ctx context.Context) error {
	// All of it is in line before ready: the first new event stands behind what
	// was there.
	undone := d.Journal.Undone()
	d.resumed = make(map[whisk.Match]bool, len(undone))
	for i := range undone {
		d.resumed[undone[i].Match] = true
		d.restore(&undone[i])
	}
	close(d.ready)
	// What began is brought to its end although ctx has ended.
	base := context.WithoutCancel(ctx)
	var g errgroup.Group
	for ctx.Err() == nil {
		for d.startWorker() {
			g.Go(func() error {
				d.work(base)
				return nil
			})
		}
		// One goroutine hands everything over, so the order of a line is that
		// in which the invoker gets it. It never waits for the journal: what
		// writes is done by workers or by the invoker's goroutines.
		it, due := d.next(time.Now())
		if it != nil {
			d.submit(base, it)
			continue
		}
		d.rest(ctx, due)
	}
	d.stop()
	return g.Wait()
}

// rest waits for something to do, or for due unless it is zero.
func (d *Delivery) rest(ctx context.Context, due time.Time) {
	var timer <-chan time.Time
	if !due.IsZero() {
		t := time.NewTimer(time.Until(due))
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-d.wake:
	case <-timer:
	case <-ctx.Done():
	}
}

// poke wakes the pump. A call that is pending covers this one: the pump looks
// at everything when it wakes.
func (d *Delivery) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// stop refuses what comes from now on and answers the calls that no invoker
// has. Matches and invocations are in the journal and may be left alone.
func (d *Delivery) stop() {
	d.mu.Lock()
	d.stopped = true
	var calls []*item
	for _, l := range d.lines {
		for it, ok := l.waiting.pop(); ok; it, ok = l.waiting.pop() {
			if it.call != nil {
				calls = append(calls, it)
			}
		}
	}
	d.mu.Unlock()
	for _, it := range calls {
		// Without mu: an answer takes the call's own lock.
		it.call.refuse(errStopped())
	}
}

func errStopped() error {
	return whisk.E(whisk.Unavailable, "deliver", fmt.Errorf("The server is stopping.")) //nolint:staticcheck // a person is told this
}

// Deliver takes the matches of a verdict that is written. It does not wait for
// them; call Wait first.
func (d *Delivery) Deliver(_ context.Context, v *whisk.Verdict) error {
	d.mu.Lock()
	d.resumed = nil // gaps are judged before anything new
	d.mu.Unlock()
	for i := range v.Rules {
		r := &v.Rules[i]
		if r.Decision != whisk.Matched {
			continue
		}
		d.enqueue(&item{
			match: whisk.Match{Event: v.Event.Seq, Rule: r.Rule}, event: v.Event.ID, revision: r.Revision,
			since: v.At, size: int64(v.Size),
		}, r.Action)
	}
	return nil
}

// Redeliver is Deliver for an event whose verdict was lost with a power cut and
// given again: what the journal still knows of its matches counts.
func (d *Delivery) Redeliver(ctx context.Context, v *whisk.Verdict) error {
	for i := range v.Rules {
		r := &v.Rules[i]
		if r.Decision != whisk.Matched {
			continue
		}
		m := whisk.Match{Event: v.Event.Seq, Rule: r.Rule}
		d.mu.Lock()
		// Without this a match that the start has put in line would be there
		// twice.
		known := d.resumed[m]
		d.mu.Unlock()
		if known {
			continue
		}
		p, err := d.Journal.Pending(ctx, m)
		if errors.Is(err, whisk.NotFound) {
			continue // its record survived: it is done
		}
		if err != nil {
			return err
		}
		d.restore(&p)
	}
	return nil
}

// restore puts a match of the journal where it stands.
func (d *Delivery) restore(p *whisk.Pending) {
	it := &item{
		match: p.Match, event: p.EventID, revision: p.Rule, since: p.Since, due: p.Due, attempts: p.Attempts,
	}
	if p.Event != nil {
		it.size = int64(len(p.Event.Payload) + len(p.Event.Meta))
		if it.event == "" {
			it.event = p.Event.ID
		}
	}
	// The body itself is not kept: thousands may be taken up at once.
	if p.Invoke != nil {
		it.once = !p.Invoke.Retry
		it.size = int64(len(p.Invoke.Invocation.Payload))
	}
	switch {
	case p.Exhausted:
		d.hold(it, p.Action)
		d.chore(func(ctx context.Context) { d.bury(ctx, it, it.story()) })
	// It may have run to its end unseen, so it counts as an attempt; its rule
	// decides whether there is another.
	case p.Started && len(p.Attempts) > 0:
		d.hold(it, p.Action)
		d.chore(func(ctx context.Context) { d.cutOff(ctx, it) })
	case p.Due.After(time.Now()):
		d.hold(it, p.Action)
		d.postpone(it)
	default:
		d.enqueue(it, p.Action)
	}
}

// Wait blocks until what was left undone is in line, and while too much is
// undone.
func (d *Delivery) Wait(ctx context.Context) error {
	select {
	case <-d.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		d.mu.Lock()
		if !d.full() {
			d.mu.Unlock()
			return nil
		}
		// Under the lock that finish closes room under: no room is missed.
		room, first := d.room, d.holding == nil
		// Looked for each time: another line may have become the longest.
		d.holding = d.longest()
		name, count := d.holding.name, d.count
		d.mu.Unlock()
		if first {
			d.log.WarnContext(ctx, "too much is undone: no event is judged until there is room",
				slog.String("action", name.String()), slog.Int("undone", count))
		}
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// admit waits until the lines are made and refuses what comes from callers when
// far too much is undone: at twice the limit, so that a backlog of events, which
// stops at the limit, does not shut them out.
func (d *Delivery) admit(ctx context.Context) error {
	select {
	case <-d.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.stopped:
		return errStopped()
	case d.count >= 2*d.maxCount || d.bytes >= 2*d.maxBytes:
		return whisk.E(whisk.Unavailable, "deliver", fmt.Errorf("%d invocations are waiting: too many to take another", d.count))
	}
	return nil
}
