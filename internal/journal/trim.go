package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/whisk"
)

// keepFor is how long what is done stays readable if there is room.
const keepFor = 7 * 24 * time.Hour

// trim removes messages that are done with: older than keepFor, or in the way.
// It stays below Low and the message before it, which tells how far judging
// had come, and below what the index has not reached.
func (j *Journal) trim(ctx context.Context) error {
	st, err := j.bus.State(ctx, bus.StreamJournal)
	if err != nil || st.Messages == 0 {
		return err
	}
	j.mu.Lock()
	j.stored = st.Bytes
	upTo := j.low() - 1
	// Whoever waits may need more than what is kept free. He is given more than
	// he wants: the next one shall not wait as well.
	from := min(j.share(trimFrom), j.limit-j.wanted)
	until := from - j.share(trimFrom-trimUntil)
	j.mu.Unlock()
	upTo = min(upTo, st.Last, j.index.reached(inJournal))
	target, err := firstAfter(ctx, j.bus, bus.StreamJournal, st.First, upTo, time.Now().Add(-keepFor))
	if err != nil {
		return err
	}
	if over := st.Bytes - until; st.Bytes > from {
		// Messages are of all sizes: go by the mean, and look again next time.
		each := max(st.Bytes/int64(st.Messages), 1)
		target = max(target, st.First+uint64(over/each)+1)
	}
	// The purge removes what is below target, so the message upTo stays: there
	// is always a last message, and a start finds Judged.
	if target = min(target, upTo); target <= st.First {
		return nil
	}
	if err := j.bus.Purge(ctx, bus.StreamJournal, target); err != nil {
		return fmt.Errorf("trim journal: %w", err)
	}
	after, err := j.bus.State(ctx, bus.StreamJournal)
	if err != nil {
		return err
	}
	j.mu.Lock()
	j.stored = after.Bytes
	j.ease()
	j.mu.Unlock()
	// What went was smaller than the mean, and there is more that may go.
	if after.Bytes > from && after.First < upTo {
		j.wakeKeeper()
	}
	return nil
}

// firstAfter returns the first message between first and last that was stored
// after t, by halving, since messages lie in the order of time; last if there
// is none.
func firstAfter(ctx context.Context, b streamBus, stream string, first, last uint64, t time.Time) (uint64, error) {
	lo, hi := first, last
	for mid := lo; lo < hi; mid = lo + (hi-lo)/2 { // the first one decides mostly
		msgs, err := b.Read(ctx, stream, mid, 1, 1)
		if err != nil {
			return 0, err
		}
		if len(msgs) == 0 || msgs[0].Time.After(t) {
			// Nothing at or above mid, or something younger than t: the first
			// one is at mid or below.
			hi = mid
		} else {
			lo = max(msgs[0].Seq, mid) + 1
		}
	}
	return min(lo, last), nil
}

// countDead tells when dead letters were pushed out by younger ones: nobody
// will read them any more. Those that have only grown old are not counted. Only
// the keeper's trimmer calls it: dead needs no lock.
func (j *Journal) countDead(ctx context.Context) error {
	st, err := j.bus.State(ctx, bus.StreamDead)
	if err != nil {
		return err
	}
	lost := st.First - min(j.dead, st.First)
	j.dead = st.First
	// Age takes them from a stream that has room; when it is nearly full it was
	// the limit.
	if lost == 0 || st.Limit <= 0 || st.Bytes < st.Limit/4*3 {
		return nil
	}
	j.met.deadLost.Add(float64(lost))
	j.log.WarnContext(ctx, "dead letters pushed out: their stream is full", slog.Uint64("count", lost))
	return nil
}

// notFound is what readers answer for what does not exist, with OpenWhisk's
// text.
func notFound(op string) error {
	return whisk.E(whisk.NotFound, op, errors.New("The requested resource does not exist.")) //nolint:staticcheck // upstream's wording
}
