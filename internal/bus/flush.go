package bus

import (
	"context"
	"runtime"
	"sync"
	"time"
)

// lazyFlush is how long what nobody waits for may stay unflushed.
const lazyFlush = time.Second

// group gathers those who wait for a flush: all who came while one was under
// way share the next. One flag for all who wait: a flush is for the archive
// alone only if nobody in it wants more.
type group struct {
	mu      sync.Mutex
	waiting []chan<- error
	all     bool // one of them waits for more than the archive
	wake    chan struct{}
}

// Flush returns when all that was acknowledged before the call is on stable
// storage, or at once if the bus promises no such thing. An error means that
// the store has failed for good.
func (b *Bus) Flush(ctx context.Context) error {
	if err := b.check(); err != nil {
		return err
	}
	// The end of ctx ends the wait, not the flush.
	return b.flushed(ctx, b.group.join(true))
}

// join asks for a flush that begins after this call, of everything or of the
// archive alone, and tells its outcome. Who waits for events alone does not
// pay for what the journal writes meanwhile.
func (g *group) join(all bool) <-chan error {
	// With room for the answer: who has gone away does not hold the others up.
	done := make(chan error, 1)
	g.mu.Lock()
	g.waiting = append(g.waiting, done)
	g.all = g.all || all
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default: // it is awake already
	}
	return done
}

func (b *Bus) flushed(ctx context.Context, done <-chan error) error {
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-b.stop:
		return b.check()
	}
}

// SyncAll puts the whole file system of the store on stable storage. It
// belongs after everything that makes or changes a stream, a bucket or a
// consumer: the server renames their files without syncing them.
func (b *Bus) SyncAll(context.Context) error {
	if b.o.Durability == Process {
		return nil
	}
	// Its failure is final for the same reason as that of a flush.
	if err := b.files.syncAll(); err != nil {
		err = writeFailure(b.o.Dir, err.Error())
		b.fail(err)
		return err
	}
	if b.o.OnFlush != nil {
		f, err := b.files.everything()
		if err != nil {
			return err
		}
		b.o.OnFlush(f)
	}
	return nil
}

// flushLoop does one flush after another as long as somebody waits.
func (b *Bus) flushLoop() {
	var last time.Duration
	for {
		select {
		case <-b.stop:
			return
		case <-b.group.wake:
		}
		// Only then is the list taken: who joins while it waits is in this
		// flush.
		b.gather(last)
		b.group.mu.Lock()
		waiting, all := b.group.waiting, b.group.all
		b.group.waiting, b.group.all = nil, false
		b.group.mu.Unlock()
		if len(waiting) == 0 {
			continue
		}
		begun := time.Now()
		err := b.flushOnce(all)
		last = time.Since(begun)
		for _, done := range waiting {
			done <- err
		}
	}
}

// gather lets those join the coming flush whose messages are under way, for a
// part of the time that the last flush took. Without it the first who comes
// back from a flush would begin the next one, and all others wait for two. Who
// is alone has nothing under way and does not wait.
func (b *Bus) gather(last time.Duration) {
	for begun := time.Now(); b.pub.underWay.Load() > 0 && time.Since(begun) < last/2; {
		runtime.Gosched()
	}
}

// flushOnce makes durable what was acknowledged before it began, of all streams
// or of the archive alone, and shows the events among it to readers.
func (b *Bus) flushOnce(all bool) error {
	if err := b.check(); err != nil {
		return err
	}
	// Before the files are looked at: what is acknowledged later may be written
	// behind what was synced.
	covered := b.recent.acked()
	if b.o.Durability == Disk {
		start := time.Now()
		only := ""
		if !all {
			only = StreamEvents
		}
		f, err := b.files.sync(only)
		if err != nil {
			// A second fsync after a failed one may say yes for pages that the
			// kernel has dropped: it is never tried again.
			err = writeFailure(b.o.Dir, err.Error())
			b.fail(err)
			return err
		}
		b.met.flush.Observe(time.Since(start).Seconds())
		if b.o.OnFlush != nil {
			b.o.OnFlush(f)
		}
	}
	// Last: readers hand on what they see, and that must not vanish any more.
	b.recent.flushed(covered)
	return nil
}
