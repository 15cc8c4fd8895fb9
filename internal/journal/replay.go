package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/whisk"
)

// replayMessages and replayBytes bound what one step of a replay reads. Bytes
// bound the memory; the number keeps small messages from making long steps.
const (
	replayMessages = 256
	replayBytes    = 4 << 20
)

// headers are what the headers of a message of JOURNAL say.
//
// A message without from judges nothing. judged and low stand in every message.
type headers struct {
	from, until uint64 // zero when it judges nothing
	judged      whisk.Place
	low         uint64
}

// readHeaders fails for a message without Judged: every message of ours has it,
// so the stream is not ours or damaged.
func readHeaders(m *bus.Message) (headers, error) {
	var h headers
	var err error
	number := func(name string) uint64 {
		s := m.Header.Get(name)
		if s == "" || err != nil {
			return 0
		}
		var n uint64
		n, err = strconv.ParseUint(s, 10, 64)
		return n
	}
	h.from, h.until, h.low = number(headerFrom), number(headerUntil), number(headerLow)
	if err == nil {
		seq, id, _ := strings.Cut(m.Header.Get(headerJudged), " ")
		h.judged.ID = id
		h.judged.Seq, err = strconv.ParseUint(seq, 10, 64)
	}
	if err != nil {
		return headers{}, fmt.Errorf("read the headers of journal message %d: %w", m.Seq, err)
	}
	return h, nil
}

// replay reads the journal from the Low of its last message on: what is
// judged, what is missing, what is undone.
func (j *Journal) replay(ctx context.Context) error {
	events, err := j.bus.State(ctx, bus.StreamEvents)
	if err != nil {
		return err
	}
	last := j.last[inJournal]
	if last > 0 {
		if err := j.replayFrom(ctx, last); err != nil {
			return err
		}
	}
	if err := j.agree(ctx, events); err != nil {
		return err
	}
	// What lies below the archive is gone: nobody can judge it.
	j.gaps = j.ranges.gaps(max(events.First, 1), j.judged.Seq)
	// Nothing was ever judged: then all events are new, and none is a gap.
	if len(j.ranges) == 0 {
		j.gaps = nil
	}
	if len(j.gaps) > 0 {
		j.log.WarnContext(ctx, "verdicts are missing and will be given again", slog.Int("ranges", len(j.gaps)))
	}
	if len(j.gaps) > 0 {
		j.gapLow, j.gapFloor = max(j.replayed, 1), j.gaps[0][0]
	}
	j.ledger.endReplay(j.gaps)
	// Everything stored was flushed before it was read, so what is judged here
	// is judged for good.
	j.settled = j.judged
	return nil
}

// lastMessage returns the newest message that can be read at or below seq: a
// stream may end in sequences that were removed.
func (j *Journal) lastMessage(ctx context.Context, seq uint64) (bus.Message, error) {
	m, err := j.bus.Get(ctx, bus.StreamJournal, seq)
	if !errors.Is(err, whisk.NotFound) {
		return m, err
	}
	st, err := j.bus.State(ctx, bus.StreamJournal)
	if err != nil || st.Messages == 0 {
		return bus.Message{}, err
	}
	// Steps that double reach back over a hole at the end without reading the
	// whole stream.
	for back := uint64(1); ; back *= 2 {
		from := st.First
		if seq > back && seq-back > from {
			from = seq - back
		}
		msgs, err := j.bus.Read(ctx, bus.StreamJournal, from, int(back)+1, 0)
		if err != nil || len(msgs) > 0 {
			if len(msgs) == 0 {
				return bus.Message{}, err
			}
			return msgs[len(msgs)-1], nil
		}
		if from == st.First {
			return bus.Message{}, nil
		}
	}
}

func (j *Journal) replayFrom(ctx context.Context, last uint64) error {
	m, err := j.lastMessage(ctx, last)
	if err != nil || m.Seq == 0 {
		return err
	}
	h, err := readHeaders(&m)
	if err != nil {
		return err
	}
	// The Low of the last message is the highest: reading from there finds all
	// that was undone when it was written, and all that came after.
	j.ledger.replaying, j.replayed = true, h.low
	low := max(h.low, 1)
	first := true
	// The message below Low tells how far judging had come before it.
	for next := max(low-1, 1); next <= last; {
		msgs, err := j.bus.Read(ctx, bus.StreamJournal, next, replayMessages, replayBytes)
		if err != nil {
			return err
		}
		if len(msgs) == 0 {
			break
		}
		for i := range msgs {
			if err := j.replayMessage(&msgs[i], msgs[i].Seq < low, first); err != nil {
				return err
			}
			first = false
			j.met.replayed.Inc()
			j.met.replayedBytes.Add(float64(len(msgs[i].Data)))
		}
		next = msgs[len(msgs)-1].Seq + 1
		// Done is done: everything here was put on stable storage at start.
		j.ledger.settle(next - 1)
	}
	j.ledger.settle(last)
	return nil
}

// replayMessage takes note of one message; of one below Low only of how far
// judging had come.
func (j *Journal) replayMessage(m *bus.Message, below, first bool) error {
	h, err := readHeaders(m)
	if err != nil {
		return err
	}
	switch {
	// What was judged before the reading begins is not in sight. It was flushed
	// and without gaps up to there, or Low would lie further back.
	case below || first && h.from == 0:
		j.ranges.add(0, h.judged.Seq)
	case first:
		j.ranges.add(0, h.from-1)
	}
	if h.from > 0 && j.ranges.has(h.from) {
		// Nothing is judged twice, so judging was taken back to here: the
		// archive had lost what followed.
		j.ranges.cut(h.from - 1)
		j.ledger.void(h.from - 1)
	}
	if h.from > 0 {
		j.ranges.add(h.from, h.until)
	}
	// Also of a message without verdicts, and not the maximum: when judging was
	// taken back, the later message counts.
	j.judged = h.judged
	if below {
		return nil
	}
	matches, number := 0, 0
	var bad error
	carries := false
	err = splitEntries(m.Data, func(n int, b []byte) bool {
		var e stored
		if e, bad = decodeState(b); bad != nil {
			return false
		}
		carries = e.Kind == whisk.EntryCarry
		matches = j.ledger.apply(&e, at(inJournal, m.Seq, n), matches)
		number++
		return true
	})
	if err = errors.Join(err, bad); err != nil {
		return fmt.Errorf("journal message %d, entry %d: %w", m.Seq, number, err)
	}
	j.volume.add(m.Seq, len(m.Data))
	if !carries {
		j.ledger.filled += int64(len(m.Data)) + messageOverhead
	}
	return nil
}

// agree takes Judged back to the last event that journal and archive both
// have, if the archive does not have the one that was judged last: its end was
// lost, and its sequences may have been given out again.
func (j *Journal) agree(ctx context.Context, events bus.State) error {
	ok, err := j.has(ctx, events, j.judged)
	if err != nil || ok {
		return err
	}
	// Going on from judged would skip events: new ones may have been given the
	// sequences of those that were judged.
	was := j.judged
	place, err := j.lastAgreed(ctx, events)
	if err != nil {
		return err
	}
	j.judged = place
	j.ranges.cut(place.Seq)
	if len(j.ranges) == 0 {
		j.ranges.add(0, place.Seq)
	}
	j.ledger.void(place.Seq)
	j.log.WarnContext(ctx, "the archive lost events that were judged", slog.Uint64("judged", was.Seq), slog.Uint64("resume", place.Seq))
	return nil
}

// has reports whether the archive has the event of a place, or had it and has
// trimmed it.
func (j *Journal) has(ctx context.Context, events bus.State, p whisk.Place) (bool, error) {
	// The trim stays below what is judged for good, so what it took existed.
	if p.Seq < events.First || p.Seq == 0 {
		return true, nil
	}
	if p.Seq > events.Last {
		return false, nil
	}
	ev, err := j.bus.Event(ctx, p.Seq)
	if errors.Is(err, whisk.NotFound) {
		// A batch may end in something that is no event, a cursor: then the
		// place has no ID.
		return p.ID == "", nil
	}
	return err == nil && ev.ID == p.ID, err
}

// lastAgreed walks the verdicts backwards to the first one whose event the
// archive has.
func (j *Journal) lastAgreed(ctx context.Context, events bus.State) (whisk.Place, error) {
	st, err := j.bus.State(ctx, bus.StreamJournal)
	if err != nil {
		return whisk.Place{}, err
	}
	for upTo := st.Last; upTo >= st.First && upTo > 0; {
		from := st.First
		if upTo > replayMessages && upTo-replayMessages > from {
			from = upTo - replayMessages + 1
		}
		// One by one: what was lost was not flushed, so the place that is
		// sought lies in the last few messages.
		for seq := upTo; seq >= from; seq-- {
			m, err := j.bus.Get(ctx, bus.StreamJournal, seq)
			if errors.Is(err, whisk.NotFound) {
				continue
			}
			if err != nil {
				return whisk.Place{}, err
			}
			if p, ok, err := j.agreedIn(ctx, events, &m); err != nil || ok {
				return p, err
			}
		}
		upTo = from - 1
	}
	return whisk.Place{}, nil
}

func (j *Journal) agreedIn(ctx context.Context, events bus.State, m *bus.Message) (whisk.Place, bool, error) {
	h, err := readHeaders(m)
	if err != nil || h.until != h.judged.Seq {
		return whisk.Place{}, false, err // nothing was judged, or a gap far behind
	}
	entries, err := decodeEntries(m.Data)
	if err != nil {
		return whisk.Place{}, false, err
	}
	for i := len(entries) - 1; i >= 0; i-- {
		// Backwards: of the events that both have, the last is wanted.
		v := entries[i].Verdict
		if v == nil || v.Event.Seq > j.judged.Seq {
			continue
		}
		if ok, err := j.has(ctx, events, v.Event); err != nil || ok {
			return v.Event, ok, err
		}
	}
	return whisk.Place{}, false, nil
}
