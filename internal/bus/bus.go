// Package bus is the embedded NATS server: its streams, what is published on
// them and what is read back.
//
// All that Millrace remembers lies in the server's JetStream store. The server
// acknowledges a message once it is written to its block file, which survives
// the death of the process but not of the machine. Accept therefore goes in
// three steps: events are published side by side, within a window; one flush
// then puts on stable storage whatever was acknowledged by then, for all who
// wait; then each is told. So the cost of a flush is shared by everyone who
// came while the one before was under way, and one event alone waits for no
// company.
//
// Readers see events in the order of their sequence, and only flushed ones.
// The archive of events is trimmed from its old end, never above the floor
// that the journal gives, and feeds' cursors below are saved again first.
//
// The package knows streams, sequences and files. It does not know what events
// mean, nor what the journal and the store write.
package bus

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/internal/whisk"
)

// Durability is what an accepted event survives.
type Durability int

// Disk: the loss of power. Process: the death of the process alone, at a
// fraction of the cost.
const (
	Disk Durability = iota
	Process
)

// Options are the settings of a bus. Dir, Log and Metrics are required.
type Options struct {
	// Dir is the folder in which the store's own folder, jetstream, is made.
	Dir        string
	Durability Durability
	// Limits of the streams in bytes. 0 computes them from the disk when the
	// stream is made, and keeps them: a fifth part, 8 GiB at most. Never less
	// than is held.
	EventsLimit, JournalLimit, CallsLimit, DeadLimit int64
	// OnFlush is told what each flush covered, before anybody is told that it
	// is over. Only tests set it.
	OnFlush func(Flush)
	// SyncInterval is the server's own; 0 means a minute. Only tests set it.
	SyncInterval time.Duration
	Log          *slog.Logger
	Metrics      prometheus.Registerer
}

// Bus is one embedded server. It is safe for concurrent use.
//
// limits, recent, room and cursors are filled by Open alone and have locks of
// their own where they change later.
type Bus struct {
	o      Options
	srv    *server.Server
	nc     *nats.Conn
	js     jetstream.JetStream
	limits map[string]int64 // bytes of each stream
	met    metrics

	pub     publisher
	group   group
	files   *blockFiles
	recent  *recent
	ahead   readAhead
	objects objects
	room    room
	cursors cursors

	floor  atomic.Pointer[func() uint64]
	failed chan struct{} // closed once with err set: nothing may be accepted any more
	once   sync.Once
	err    error
	stop   chan struct{} // ends what Open started
	wg     sync.WaitGroup
}

// window bounds what is published and not acknowledged yet: the server drops
// what exceeds its own queue of 100,000 messages or 128 MiB.
const (
	windowCount = 1024
	windowBytes = 64 << 20
	// windowBatches bounds the atomic batches: the server holds 50 of a stream
	// and refuses more.
	windowBatches = 16
)

// Open starts the server on its store, makes the streams that are missing and
// reads what it must know of them. The context bounds the start alone.
func Open(ctx context.Context, o Options) (*Bus, error) {
	if o.SyncInterval == 0 {
		o.SyncInterval = time.Minute
	}
	b := &Bus{o: o, failed: make(chan struct{}), stop: make(chan struct{}), met: newMetrics(o.Metrics)}
	b.pub.count = semaphore.NewWeighted(windowCount)
	b.pub.bytes = semaphore.NewWeighted(windowBytes)
	b.pub.slots = map[string]*slot{}
	b.pub.batches = make(chan struct{}, windowBatches)
	b.group.wake = make(chan struct{}, 1)
	// Close copes with whatever open has got to.
	if err := b.open(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func (b *Bus) open(ctx context.Context) error {
	var err error
	if b.files, err = newBlockFiles(b.o.Dir, b.o.Log); err != nil {
		return err
	}
	// What a killed process wrote may still lie in the page cache alone: before
	// anything is built on it, it must be on the disk.
	if b.o.Durability == Disk {
		if err := b.files.syncAll(); err != nil {
			return err
		}
	}
	// Steps go by what they need: the layout is checked with a stream, the
	// streams are synced before anything counts on them, and cursors are read
	// from synced events. Only then may somebody flush.
	if err := b.startServer(); err != nil {
		return err
	}
	if err := b.pub.listen(b.nc); err != nil {
		return err
	}
	if err := b.makeStreams(ctx); err != nil {
		return err
	}
	if err := b.checkLayout(ctx); err != nil {
		return err
	}
	if err := b.SyncAll(ctx); err != nil {
		return err
	}
	st, err := b.State(ctx, StreamEvents)
	if err != nil {
		return err
	}
	// All that the archive holds was synced above, so readers may see it.
	b.recent = newRecent(st.Last)
	b.room.init(st, b.limits[StreamEvents], b.o.Dir)
	b.room.look(ctx, b)
	if err := b.loadCursors(ctx); err != nil {
		return err
	}
	b.wg.Go(b.flushLoop)
	b.wg.Go(b.expireSlots)
	return nil
}

// Run flushes within a second what nobody waits for, trims the archive and
// watches the room that is left. It returns nil when ctx ends, and an error
// when the store failed: the process must end then, since what was promised
// can't be kept.
func (b *Bus) Run(ctx context.Context) error {
	lazy := time.NewTicker(lazyFlush)
	defer lazy.Stop()
	trim := time.NewTicker(trimEvery)
	defer trim.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		// Told at once, not at the next tick: until the process ends, others
		// would build on what may not be on the disk.
		case <-b.failed:
			return b.err
		case <-lazy.C:
			if err := b.Flush(ctx); err != nil && ctx.Err() == nil {
				return err
			}
			b.room.look(ctx, b)
		case <-trim.C:
			b.trimQuietly(ctx)
		case <-b.room.wanted:
			b.trimQuietly(ctx)
		}
	}
}

// fail makes the bus refuse everything from now on. Only the first cause is
// kept: the later ones follow from it.
func (b *Bus) fail(err error) {
	b.once.Do(func() {
		b.err = err
		close(b.failed)
	})
}

// Failure is why the store takes nothing any more, nil while it does: the
// cause of whatever else goes wrong from then on.
func (b *Bus) Failure() error {
	select {
	case <-b.failed:
		return b.err
	default:
		return nil
	}
}

// check returns why nothing can be accepted, or nil.
func (b *Bus) check() error {
	select {
	case <-b.failed:
		return whisk.E(whisk.Unavailable, "publish", errors.New("the store has failed: "+b.err.Error())) // its remedy is not the caller's
	case <-b.stop:
		return whisk.E(whisk.Unavailable, "publish", errors.New("the server is stopping"))
	default:
		return nil
	}
}

// Close flushes what is written and stops the server. Whoever still waits is
// told that the server is stopping.
func (b *Bus) Close() error {
	select {
	case <-b.stop:
		return nil
	default:
	}
	var err error
	if b.recent != nil && b.Failure() == nil {
		err = b.Flush(context.Background()) // the caller's context is over: this is the end
	}
	// After the flush, which waits for the goroutine that stop ends.
	close(b.stop)
	b.wg.Wait()
	if b.nc != nil {
		b.nc.Close()
	}
	if b.srv != nil {
		b.srv.Shutdown()
		b.srv.WaitForShutdown()
	}
	if b.files != nil {
		if b.o.Durability == Disk {
			err = errors.Join(err, b.files.syncAll()) // the state files that the server wrote at its end
		}
		b.files.close()
	}
	return err
}

// JetStream is the server's own interface, for rooms that keep streams of
// their own. Call SyncAll after making one, and Flush after writing to it.
func (b *Bus) JetStream() jetstream.JetStream { return b.js }

// SetFloor gives the archive the sequence below which events are done with.
// Until it is called nothing is trimmed.
func (b *Bus) SetFloor(f func() uint64) { b.floor.Store(&f) }
