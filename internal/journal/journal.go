// Package journal remembers what became of every event.
//
// One writer appends entries to the stream JOURNAL: verdicts, accepted
// invocations, starts and records of attempts, the end of a match in a dead
// letter, and carries, which say again what an older entry said. What came
// while a message was under way is the next message, so a message is there
// wholly or not at all and at load an entry costs a fraction of one. Every
// message tells in its header which events it judged (From, Until), how far
// judging has come in all (Judged) and the oldest message that is still needed
// (Low).
//
// At start the journal is read from Low on. That gives the place to judge on
// from, the gaps that a power cut tore, and everything that is undone, in its
// original order. To keep that short, what stays undone while the journal
// grows is carried to its end, body included; then JOURNAL and EVENTS may be
// trimmed below it.
//
// Readers go through an index, a SQLite file that follows the flushed journal
// and is made anew whenever it is in doubt. Between an entry's write and its
// place in the index, memory knows where it is.
//
// The package does not judge, queue or run anything.
package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/whisk"
)

// Options are the settings of a journal. Index is required.
type Options struct {
	Index   string // path of the index's file; made if missing
	Limit   int64  // bytes that the stream JOURNAL may hold; 0: what the bus says
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// streamBus is what the journal needs of the bus. Tests lay one over a real
// bus, to fail a step or to cut between two.
type streamBus interface {
	Publish(ctx context.Context, m bus.Message, expectLast *uint64) (uint64, error)
	Flush(ctx context.Context) error
	Read(ctx context.Context, stream string, from uint64, most, maxBytes int) ([]bus.Message, error)
	Get(ctx context.Context, stream string, seq uint64) (bus.Message, error)
	State(ctx context.Context, stream string) (bus.State, error)
	Purge(ctx context.Context, stream string, before uint64) error
	PutObject(ctx context.Context, data []byte) (string, error)
	Object(ctx context.Context, digest string) ([]byte, error)
	Event(ctx context.Context, seq uint64) (whisk.Event, error)
}

var streamNames = [streams]string{inJournal: bus.StreamJournal, inCalls: bus.StreamCalls, inDead: bus.StreamDead}

// Journal is the journal of one server. It is safe for concurrent use.
type Journal struct {
	bus   streamBus
	log   *slog.Logger
	met   *metrics
	limit int64 // bytes of JOURNAL
	pace  pace

	writer *writer // of JOURNAL
	calls  *writer // of CALLS
	index  *indexer
	recent *messageCache
	tails  followers

	mu     sync.Mutex
	ledger *ledger
	judged whisk.Place
	ranges ranges // of judged events, as far back as Low
	gaps   ranges // found at start, not judged yet
	// While gaps are not judged for good, Low stays where they can be seen and
	// the archive keeps their events.
	gapLow, gapFloor uint64
	replayed         uint64      // where the replay began
	settled          whisk.Place // Judged, as far as it is flushed
	pending          []judgedAt  // Judged of messages that are not flushed yet
	volume           volume      // bytes since Low
	stored           int64       // bytes of the stream, about
	wanted           int64       // bytes that whoever waits for room needs, until something is written
	last             [streams]uint64
	average          int64         // bytes of an event in the archive, about
	eased            chan struct{} // closed and replaced when there may be room again

	trimNow, carryNow chan struct{} // wake the keeper

	bury sync.Mutex // one dead letter at a time: their order is the index's
	dead uint64     // the oldest dead letter kept, as last seen
}

// judgedAt says how far judging had come with message seq. Floor must not
// follow it before that message is flushed: after a power cut the events would
// be trimmed and their verdicts gone.
type judgedAt struct {
	seq   uint64
	place whisk.Place
}

// pace says how long the journal's own goroutines wait. Tests shorten it.
type pace struct {
	settle time.Duration // between a write that nobody waits for and its flush
	keep   time.Duration // between two looks at what could be carried or trimmed
	retry  time.Duration // after a refused publish or an error of the index
}

var usualPace = pace{settle: 200 * time.Millisecond, keep: time.Second, retry: time.Second}

// Open reads the journal from Low on and opens the index, or makes it anew
// where it is in doubt. It starts nothing.
func Open(ctx context.Context, b *bus.Bus, o Options) (*Journal, error) {
	return open(ctx, b, o)
}

func open(ctx context.Context, b streamBus, o Options) (*Journal, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	j := &Journal{
		bus: b, log: o.Log, limit: o.Limit, pace: usualPace,
		ledger: newLedger(), eased: make(chan struct{}),
		trimNow: make(chan struct{}, 1), carryNow: make(chan struct{}, 1),
		recent: newMessageCache(b),
	}
	j.met = newMetrics()
	for i, name := range streamNames {
		st, err := b.State(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("open journal: %w", err)
		}
		j.last[i] = st.Last
		switch {
		case i == inJournal && j.limit == 0:
			j.limit = st.Limit
		case i == inDead:
			j.dead = st.First
		}
	}
	// About a thousand marks cover a full stream, whatever its size.
	j.volume.grain = max(j.limit/1024, 1)
	if err := j.replay(ctx); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j.writer = newWriter(j, inJournal, bus.SubjectJournal)
	j.calls = newWriter(j, inCalls, bus.SubjectCalls)
	// The index comes after the replay and opens before the trim: the trim
	// stays below what the index has reached, and must know that first.
	j.index = newIndexer(j, o.Index)
	j.index.open(ctx)
	// On a full disk room comes first: what follows wants some.
	if err := j.trim(ctx); err != nil {
		j.log.WarnContext(ctx, "trim journal at start", slog.Any("err", err))
	}
	j.index.start(ctx)
	j.met.register(o.Metrics, j)
	return j, nil
}

// drainTime bounds how long Run goes on after its context has ended, to write
// what is in the inbox and flush it.
const drainTime = 10 * time.Second

// Run writes, flushes, indexes, carries and trims until ctx ends. Then it
// refuses what is new, writes what it has taken, flushes it and returns nil.
// Its context should end after those of everybody who appends. It returns an
// error when the stream can't be written or flushed any more, or is written
// by somebody else: the process must end then.
func (j *Journal) Run(ctx context.Context) error {
	// The writers stop first, on ctx. The flusher, the index and the keeper go
	// on until the writers have drained their inboxes: a writer may wait for
	// room that only these make. If one of them fails, gctx stops the writers
	// too.
	g, gctx := errgroup.WithContext(context.WithoutCancel(ctx))
	stop, cancel := context.WithCancel(gctx)
	g.Go(func() error {
		defer cancel()
		either, end := context.WithCancel(ctx)
		defer end()
		defer context.AfterFunc(gctx, end)()
		w, wctx := errgroup.WithContext(either)
		w.Go(func() error { return j.writer.run(wctx) })
		w.Go(func() error { return j.calls.run(wctx) })
		return w.Wait()
	})
	g.Go(func() error { return j.settleLoop(stop) })
	g.Go(func() error { j.index.run(stop); return nil })
	g.Go(func() error { j.keep(stop); return nil })
	err := g.Wait()
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	// What the drained inboxes wrote is flushed and indexed last, so that the
	// next start finds an index that has everything.
	bye, end := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer end()
	if err := j.flush(bye); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.index.finish(bye)
	return nil
}

// Close closes the index. Run must have returned.
func (j *Journal) Close() error { return j.index.close() }

// settleLoop flushes what nobody waited for, so that Low can move. Starts and
// records are written without a flush of their own. Without this loop a quiet
// journal would hold its last matches as undone until somebody else flushed.
func (j *Journal) settleLoop(ctx context.Context) error {
	tick := time.NewTicker(j.pace.settle)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		j.mu.Lock()
		idle := j.ledger.flushed == j.last[inJournal] && !j.index.behind(j.last)
		j.mu.Unlock()
		if idle {
			continue
		}
		if err := j.flush(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// flush puts on stable storage all that is written by now, and lets what was
// done in it go.
func (j *Journal) flush(ctx context.Context) error {
	j.mu.Lock()
	// Taken before the flush: what is written while it runs may be on the disk
	// or not, and is not counted as flushed.
	last := j.last
	gapless := len(j.gaps) == 0
	j.mu.Unlock()
	if err := j.bus.Flush(ctx); err != nil {
		return fmt.Errorf("flush journal: %w", err)
	}
	j.mu.Lock()
	j.ledger.settle(last[inJournal])
	// Floor may pass an event only when the message that judged it is flushed.
	for len(j.pending) > 0 && j.pending[0].seq <= last[inJournal] {
		j.settled = j.pending[0].place
		j.pending = j.pending[1:]
	}
	// The gaps were closed by messages that this flush covers. Had one closed
	// while the flush ran, its verdicts might not be on the disk yet.
	if gapless {
		j.gapLow, j.gapFloor = 0, 0
	}
	j.volume.forget(j.low())
	j.ease()
	j.mu.Unlock()
	j.index.flushed(last)
	return nil
}

// ease wakes whoever waits for room. The caller holds mu. A closed channel
// reaches all waiters, and they may wait with a context beside it, which a
// condition variable would not allow.
func (j *Journal) ease() {
	close(j.eased)
	j.eased = make(chan struct{})
}

// Judged is the last event judged; zero before the first.
func (j *Journal) Judged() whisk.Place {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.judged
}

// Gaps are the closed ranges of events below Judged whose verdicts a power cut
// has taken. They must be judged before anything is dispatched: what runs is
// Undone, asked for after that.
func (j *Journal) Gaps() [][2]uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([][2]uint64(nil), j.gaps...)
}

// Undone is everything that is not done, in the order in which it was matched
// or accepted, without bodies: Pending has those.
func (j *Journal) Undone() []whisk.Pending {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ledger.pendings()
}

// Floor is the oldest event that is still needed: not judged for good, or of
// a match that is undone and not carried. The archive keeps it and all above.
func (j *Journal) Floor() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	// Not judged, but settled: a verdict that is not flushed can be lost, and
	// its event is then judged again.
	floor := j.settled.Seq + 1
	if f := j.ledger.floor(); f != 0 {
		floor = min(floor, f)
	}
	if j.gapFloor != 0 {
		floor = min(floor, j.gapFloor)
	}
	return floor
}

// Low is the oldest message of JOURNAL that a start would read.
func (j *Journal) Low() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.low()
}

// low is Low. The caller holds mu.
func (j *Journal) low() uint64 {
	// Above gapLow lie the ranges that show the gaps. Were they trimmed, the
	// next start would take everything below its first message as judged.
	if j.gapLow != 0 {
		return min(j.gapLow, j.ledger.low())
	}
	return j.ledger.low()
}

// errStopped is Unavailable: the caller may come again after the next start.
var errStopped = whisk.E(whisk.Unavailable, "append to journal", errors.New("the server is stopping"))
