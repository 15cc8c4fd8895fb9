package bus

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// trimEvery is how often the archive is trimmed, and keepEvents for how long
// it keeps what is done with, if there is room.
const (
	trimEvery  = 30 * time.Second
	keepEvents = 7 * 24 * time.Hour
)

func (b *Bus) trimQuietly(ctx context.Context) {
	if err := b.Trim(ctx, time.Now()); err != nil && ctx.Err() == nil {
		b.o.Log.Warn("archive not trimmed", slog.Any("err", err))
	}
	b.room.look(ctx, b)
}

// Trim removes what is done with and either older than seven days at now, or
// in the way of new events: the older half, once half of the limit is used. It
// stays below the floor.
func (b *Bus) Trim(ctx context.Context, now time.Time) error {
	// Without the journal's word anything may still be needed.
	f := b.floor.Load()
	if f == nil {
		return nil
	}
	st, err := b.State(ctx, StreamEvents)
	if err != nil || st.Messages == 0 {
		return err
	}
	target := uint64(0)
	if st.Bytes > st.Limit/2 {
		// Messages are of all sizes; half of them is about half of the bytes,
		// and the next round goes on.
		target = st.First + (st.Last-st.First)/2
	}
	aged, err := b.firstAfter(ctx, st, now.Add(-keepEvents))
	if err != nil {
		return err
	}
	// Never the last message: it keeps the sequences going on.
	target = min(max(target, aged), (*f)(), st.Last)
	if target <= st.First {
		return nil
	}
	// Saved and flushed before the purge: in between both copies are there.
	if err := b.saveCursors(ctx, target); err != nil {
		return err
	}
	return b.Purge(ctx, StreamEvents, target)
}

// firstAfter returns the first sequence of the archive stored after a time, by
// halving: messages lie in the order of time.
func (b *Bus) firstAfter(ctx context.Context, st State, t time.Time) (uint64, error) {
	lo, hi := st.First, st.Last+1
	for lo < hi {
		mid := lo + (hi-lo)/2
		msgs, err := b.Read(ctx, StreamEvents, mid, 1, 0)
		if err != nil {
			return 0, err
		}
		if len(msgs) == 0 || msgs[0].Time.After(t) {
			hi = mid
		} else {
			lo = msgs[0].Seq + 1
		}
	}
	return lo, nil
}

// saveCursors saves each cursor below a sequence again, so that a trim up to
// there loses none, and flushes. A feed that saved meanwhile has done it
// itself.
func (b *Bus) saveCursors(ctx context.Context, below uint64) error {
	old := b.cursors.below(below)
	for _, s := range old {
		// The batch that it came with is about to go: there is nothing left to
		// compare.
		s.Count, s.Previous = 0, ""
		// With the expected sequence: a feed that saves at this moment must not
		// be set back.
		err := b.writeBatch(ctx, s.Cursor, nil, &s.seq)
		if err != nil && !errors.Is(err, whisk.Conflict) {
			return err
		}
	}
	if len(old) == 0 {
		return nil
	}
	return b.Flush(ctx)
}
