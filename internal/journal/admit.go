package journal

import (
	"context"
	"time"
)

// reserveFor is the largest part of JOURNAL that is kept for carries, in
// sixteenths. What is undone takes an eighth, and what one batch of verdicts
// adds to it.
const reserveFor = 4

// admit returns when JOURNAL has room for batch and, besides, for carrying all
// that is undone. Without that, starts and records could fill the stream up to
// its end while what is undone holds every message of it, and nobody could
// write the carries that let it be trimmed. Carries pass meanwhile: what they
// tell is true whenever they are written.
func (w *writer) admit(ctx context.Context, batch []part) error {
	// CALLS makes room by itself.
	if w.stream != inJournal || batch[0].carry != nil {
		return nil
	}
	size := 0
	for i := range batch {
		size += batch[i].size()
	}
	for {
		ok, eased := w.j.admits(size)
		if ok {
			return nil
		}
		// They stand in the inbox behind this batch and would wait for it, and
		// it for them.
		if carries := w.takeCarries(); len(carries) > 0 {
			if err := w.put(ctx, carries); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.wake: // there may be a carry
		case <-eased:
		case <-time.After(w.j.pace.retry):
		}
	}
}

// admits reports whether a message of size bytes may be written now. If not,
// the keeper is asked for room, and the channel closed when there may be some.
func (j *Journal) admits(size int) (bool, <-chan struct{}) {
	j.mu.Lock()
	need := int64(size) + 2*messageOverhead + min(j.ledger.bytes, j.share(reserveFor))
	if j.limit <= 0 || j.stored+need <= j.limit {
		j.mu.Unlock()
		return true, nil
	}
	j.mu.Unlock()
	return false, j.want(need)
}

// want asks the keeper for room for so many bytes. The channel is closed when
// there may be some.
func (j *Journal) want(bytes int64) <-chan struct{} {
	defer j.wakeKeeper()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.wanted = bytes
	return j.eased
}

// takeCarries removes from the inbox the carries that fit into one message,
// wherever they are. The others keep their order. One carry goes alone if it is
// too large.
func (w *writer) takeCarries() []part {
	w.mu.Lock()
	defer w.mu.Unlock()
	var carries, rest []part
	size := 0
	for _, p := range w.inbox {
		if p.carry != nil && len(carries) < maxEntries && (len(carries) == 0 || size+p.size() <= maxMessage) {
			carries = append(carries, p)
			size += p.size()
			continue
		}
		rest = append(rest, p)
	}
	w.inbox = rest
	return carries
}
