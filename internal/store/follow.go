package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/whisk"
)

const (
	fetchCount = 500                    // messages of one request
	fetchWait  = 9 * time.Second        // how long one request waits for news; from 10 s on it would need heartbeats
	retryWait  = 500 * time.Millisecond // before a bucket is read anew
)

// How long the mark of a deletion stays: any process that follows the bucket
// has seen it by then.
const (
	markAge    = 10 * time.Minute
	cleanEvery = time.Minute
)

// errGap says that messages got lost on their way from the server.
var errGap = errors.New("messages were missed")

// reader reads a bucket's stream: the last message of each key, then whatever
// is written. It acknowledges nothing: every reader begins with all that is
// there.
type reader struct {
	b        *bucket
	consumer jetstream.Consumer
	next     uint64                  // the number that the next delivery must have
	base     uint64                  // the stream's last sequence when the reader was made
	seen     map[whisk.Name]struct{} // keys found so far, until all are read
}

func (b *bucket) newReader(ctx context.Context) (*reader, error) {
	s, err := b.bus.JetStream().Stream(ctx, b.stream())
	if err != nil {
		return nil, err
	}
	// It is the server's memory alone that knows the consumer: if it forgets,
	// the bucket is read anew.
	c, err := s.CreateConsumer(ctx, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, FilterSubject: b.prefix() + ">",
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, InactiveThreshold: time.Minute,
	})
	if err != nil {
		return nil, err
	}
	return &reader{b: b, consumer: c, next: 1, base: s.CachedInfo().State.LastSeq, seen: map[whisk.Name]struct{}{}}, nil
}

// close ends the reader. The server would, after a while.
func (r *reader) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := r.b.bus.JetStream().DeleteConsumer(ctx, r.b.stream(), r.consumer.CachedInfo().Name); err != nil {
		r.b.log.Debug("reader not removed", slog.Any("err", err))
	}
}

// load takes in all that is there. What the memory copy has besides is gone.
func (r *reader) load(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		batch, err := r.consumer.FetchNoWait(fetchCount)
		if err != nil {
			return err
		}
		n, err := r.take(batch)
		if err != nil {
			return err
		}
		// Until a request finds nothing: then the count of what is pending
		// decides.
		if n > 0 {
			continue
		}
		info, err := r.consumer.Info(ctx)
		if err != nil {
			return err
		}
		if info.NumPending == 0 {
			break
		}
	}
	// Only what is not newer than the beginning: what was written while it read
	// is in the copy, although the reader may not have seen it yet.
	r.b.forget(r.base, r.seen)
	r.seen = nil
	return nil
}

// follow takes in what is written, until ctx ends or something is missed.
func (r *reader) follow(ctx context.Context) error {
	for {
		if err := r.wait(ctx); err != nil {
			return err
		}
	}
}

func (r *reader) wait(ctx context.Context) error {
	one, cancel := context.WithTimeout(ctx, fetchWait)
	defer cancel()
	batch, err := r.consumer.Fetch(fetchCount, jetstream.FetchContext(one))
	if err != nil {
		return err
	}
	_, err = r.take(batch)
	// No news within fetchWait is no fault.
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	return errors.Join(err, ctx.Err())
}

// take takes in the messages of one request, those that are there together at
// once.
func (r *reader) take(batch jetstream.MessageBatch) (n int, err error) {
	in := batch.Messages()
	for m := range in {
		var cs []change
		// What was written in one step arrives together: it is taken in
		// together.
		for more := true; more; {
			meta, err := m.Metadata()
			if err != nil {
				return n, err
			}
			// Deliveries are numbered: a gap means that the copy would miss a
			// change.
			if meta.Sequence.Consumer != r.next {
				return n, errGap
			}
			r.next++
			n++
			if c, ok := r.change(m, meta); ok {
				cs = append(cs, c)
			}
			select {
			case m, more = <-in:
			default:
				more = false
			}
		}
		// A batch of this process is put in by its writer first, as a whole.
		r.b.batch.Lock()
		r.b.set(cs...)
		r.b.batch.Unlock()
	}
	return n, batch.Error()
}

// change returns what a message says, if it is news.
func (r *reader) change(m jetstream.Msg, meta *jetstream.MsgMetadata) (change, bool) {
	// Another tool may write under any key; it is told and passed over.
	name, err := r.b.parse(m.Subject())
	if err != nil {
		r.b.log.Warn("key is not ours", slog.Any("err", err))
		return change{}, false
	}
	if r.seen != nil {
		r.seen[name] = struct{}{}
	}
	if meta.Sequence.Stream <= r.b.get(name).rev {
		return change{}, false // our own, mostly: it need not be decoded again
	}
	row := r.b.row(m.Headers(), m.Data(), meta.Sequence.Stream, meta.Timestamp)
	if row.err != nil {
		r.b.log.Error("value can't be read", slog.String("name", name.String()), slog.Any("err", row.err))
	}
	return change{name, row}, true
}

// load reads the whole bucket once.
func (b *bucket) load(ctx context.Context) error {
	r, err := b.newReader(ctx)
	if err != nil {
		return err
	}
	defer r.close(ctx)
	return r.load(ctx)
}

// follow keeps the memory copy up with the stream until ctx ends. When the
// server loses track of it, the bucket is read anew.
func (b *bucket) follow(ctx context.Context) {
	for {
		err := b.followOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		b.log.WarnContext(ctx, "bucket is read anew", slog.Any("err", err))
		select {
		case <-ctx.Done():
			return
		case <-time.After(retryWait):
		}
	}
}

func (b *bucket) followOnce(ctx context.Context) error {
	r, err := b.newReader(ctx)
	if err != nil {
		return err
	}
	defer r.close(ctx)
	if err := r.load(ctx); err != nil {
		return err
	}
	return r.follow(ctx)
}

// clean removes the marks of old deletions until ctx ends.
func (b *bucket) clean(ctx context.Context) {
	tick := time.NewTicker(cleanEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := b.purge(ctx, time.Now().Add(-markAge)); err != nil && ctx.Err() == nil {
				b.log.WarnContext(ctx, "deletions not purged", slog.Any("err", err))
			}
		}
	}
}

// purge removes what marks deletions made before a time, and the history of
// what was deleted. The history goes first and for good: if a power cut
// brought it back without the mark, the deleted value would be alive.
func (b *bucket) purge(ctx context.Context, before time.Time) error {
	// From memory: reading the stream would cost as much as a start.
	marks := b.marks(before)
	if len(marks) == 0 {
		return nil
	}
	s, err := b.bus.JetStream().Stream(ctx, b.stream())
	if err != nil {
		return err
	}
	for _, below := range []uint64{0, 1} {
		for _, m := range marks {
			// Up to a sequence: what was written since stays.
			err := s.Purge(ctx, jetstream.WithPurgeSubject(b.subject(m.name)), jetstream.WithPurgeSequence(m.row.rev+below))
			if err != nil {
				return fmt.Errorf("purge %s: %w", m.name, err)
			}
			if below == 1 {
				b.unmark(m.name, m.row.rev)
			}
		}
		if below == 0 {
			if err := b.bus.SyncAll(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}
