package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/millrace/millrace/internal/whisk"
)

// MaxBatch is how many events fit into one AcceptBatch: the server takes 1,000
// messages in an atomic batch, and the cursor is one.
const MaxBatch = 999

// archived is an event as the archive holds it. The time of acceptance is
// ours: what is derived from it must be the same whoever reads it.
type archived struct {
	whisk.Event
	Accepted int64  `json:"accepted"`         // milliseconds since 1970
	Object   string `json:"object,omitempty"` // digest of a payload that is too large for a message
}

// encode makes the message of an event and sets its time of acceptance. A
// large payload is put into the objects.
func (b *Bus) encode(ctx context.Context, ev *whisk.Event, now time.Time) (*nats.Msg, error) {
	// Set on the caller's copy, which is shown to readers from memory, and on
	// the stored one: both must tell the same.
	ev.Accepted = now
	a := archived{Event: *ev, Accepted: now.UnixMilli()}
	if len(ev.Payload) > whisk.MaxPayload {
		// The object is written before the archive's account is asked: on a
		// disk that is nearly full it must not be written at all.
		if err := b.Room(); err != nil {
			return nil, err
		}
		digest, err := b.PutObject(ctx, ev.Payload)
		if err != nil {
			return nil, err
		}
		a.Object, a.Payload = digest, nil
	}
	data, err := json.Marshal(a)
	if err != nil {
		return nil, whisk.E(whisk.Invalid, "encode event", err)
	}
	m := &nats.Msg{Subject: EventSubject(ev.Trigger), Data: data}
	if a.Object != "" {
		m.Subject += "." + tokenLarge
	}
	return m, nil
}

// Accept stores events and returns their places once they are on stable
// storage. When there is no room it returns Unavailable; some of the events
// may be stored after an error, none is after Unavailable at the door.
func (b *Bus) Accept(ctx context.Context, evs ...whisk.Event) ([]whisk.Place, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	// Milliseconds are what is stored: from memory and from the store the event
	// must come out alike.
	now := time.Now().UTC().Truncate(time.Millisecond)
	places := make([]whisk.Place, 0, len(evs))
	// The flush may wait for who is under way, so whoever counts must count
	// down on every way out.
	b.pub.underWay.Add(1)
	for len(evs) > 0 {
		// More than the window at once would never get in.
		n := min(len(evs), windowCount)
		part, err := b.write(ctx, evs[:n], now)
		places = append(places, part...)
		if err != nil {
			b.pub.underWay.Add(-1)
			return nil, err
		}
		evs = evs[n:]
	}
	// Joined before the count goes down: otherwise a flush might begin in
	// between without this one.
	done := b.group.join(false)
	b.pub.underWay.Add(-1)
	if err := b.flushed(ctx, done); err != nil {
		return nil, err
	}
	b.met.accepted.Add(float64(len(places)))
	return places, nil
}

// write publishes events side by side and returns when all are acknowledged.
func (b *Bus) write(ctx context.Context, evs []whisk.Event, now time.Time) ([]whisk.Place, error) {
	msgs := make([]*nats.Msg, len(evs))
	kept := make([]whisk.Event, len(evs))
	size := 0
	for i := range evs {
		// A copy outlives the call: the ring of recent events holds on to it.
		kept[i] = evs[i]
		m, err := b.encode(ctx, &kept[i], now)
		if err != nil {
			return nil, err
		}
		msgs[i] = m
		size += len(m.Data) + overhead
	}
	if err := b.flushObjects(ctx, evs); err != nil {
		return nil, err
	}
	// Counted before it is sent, and never given back: the next look corrects
	// it.
	if err := b.room.take(size, false); err != nil {
		return nil, err
	}
	leave, err := b.enter(ctx, len(evs), size)
	if err != nil {
		return nil, err
	}
	defer leave()
	slots := make([]*slot, 0, len(evs))
	for i, m := range msgs {
		ev := &kept[i]
		// In the order of the sequences, before anybody is told: the ring has
		// no gap when the flush begins.
		s, err := b.send(m, func(seq uint64) {
			ev.Seq = seq
			b.recent.add(seq, ev)
		})
		if err != nil {
			// What was sent is waited for: it may be stored, and its room in
			// the window is not free before.
			return nil, errors.Join(err, b.waitAll(slots))
		}
		slots = append(slots, s)
	}
	if err := b.waitAll(slots); err != nil {
		return nil, b.room.refused(err)
	}
	places := make([]whisk.Place, len(evs))
	for i, s := range slots {
		places[i] = whisk.Place{Seq: s.seq, ID: evs[i].ID}
	}
	return places, nil
}

// overhead is about what a message costs in a block file besides its data.
const overhead = 64

// waitAll returns when every one is acknowledged or refused, with all refusals.
func (b *Bus) waitAll(slots []*slot) error {
	var errs []error
	for _, s := range slots {
		errs = append(errs, b.wait(s))
	}
	return errors.Join(errs...)
}

// AcceptBatch stores events and, last, the cursor that covers them, all or
// nothing, and returns once they are on stable storage. There may be no events
// at all; more than MaxBatch are Invalid. When the server does not answer, the
// bus has failed and the process ends: the cursor that the next one finds
// tells the outcome.
func (b *Bus) AcceptBatch(ctx context.Context, c whisk.Cursor, evs ...whisk.Event) error {
	if err := b.check(); err != nil {
		return err
	}
	if len(evs) > MaxBatch {
		return whisk.E(whisk.Invalid, "accept batch", fmt.Errorf("%d events are more than the %d of one batch", len(evs), MaxBatch))
	}
	// Written with the cursor: a start sees by it whether the batch is whole.
	c.Count = len(evs)
	if err := b.writeBatch(ctx, c, evs, nil); err != nil {
		return err
	}
	if err := b.flushed(ctx, b.group.join(false)); err != nil {
		return err
	}
	b.met.accepted.Add(float64(len(evs)))
	return nil
}

// flushObjects flushes payloads that lie outside the archive, if there are any.
// It comes before the events are published: whoever waits for other events may
// have the archive flushed at any moment, and with it an event, or a cursor past
// it, whose payload a power cut would still take.
func (b *Bus) flushObjects(ctx context.Context, evs []whisk.Event) error {
	if !slices.ContainsFunc(evs, func(ev whisk.Event) bool { return len(ev.Payload) > whisk.MaxPayload }) {
		return nil
	}
	return b.Flush(ctx)
}

// writeBatch publishes an atomic batch. With expect, the cursor saved before
// must still be the one of that sequence, else Conflict.
func (b *Bus) writeBatch(ctx context.Context, c whisk.Cursor, evs []whisk.Event, expect *uint64) error {
	now := time.Now().UTC().Truncate(time.Millisecond)
	kept := make([]whisk.Event, len(evs))
	msgs := make([]*nats.Msg, 0, len(evs)+1)
	size := 0
	for i := range evs {
		kept[i] = evs[i]
		m, err := b.encode(ctx, &kept[i], now)
		if err != nil {
			return err
		}
		msgs = append(msgs, m)
		size += len(m.Data) + overhead
	}
	if err := b.flushObjects(ctx, evs); err != nil {
		return err
	}
	data, err := json.Marshal(c)
	if err != nil {
		return whisk.E(whisk.Invalid, "encode cursor", err)
	}
	last := &nats.Msg{Subject: cursorSubject(c.Feed), Data: data, Header: nats.Header{}}
	if expect != nil {
		last.Header.Set("Nats-Expected-Last-Subject-Sequence", strconv.FormatUint(*expect, 10))
	}
	msgs = append(msgs, last)
	size += len(data) + overhead
	if err := b.room.take(size, len(evs) == 0); err != nil {
		return err
	}
	leave, err := b.enter(ctx, len(msgs), size)
	if err != nil {
		return err
	}
	defer leave()
	// The answer tells the last sequence. A batch has consecutive ones, so
	// those of the events follow from it.
	acked := func(seq uint64) {
		first := seq - uint64(len(kept))
		for i := range kept {
			kept[i].Seq = first + uint64(i)
			b.recent.add(kept[i].Seq, &kept[i])
		}
		b.recent.add(seq, nil)
		b.cursors.saved(c, seq)
	}
	// A cursor alone needs no batch, whose commit the server syncs.
	if len(msgs) == 1 {
		s, err := b.send(last, acked)
		if err != nil {
			return err
		}
		return b.room.refused(b.wait(s))
	}
	select {
	case b.pub.batches <- struct{}{}:
		defer func() { <-b.pub.batches }()
	case <-ctx.Done():
		return ctx.Err()
	}
	id := nuid.Next()
	for i, m := range msgs {
		if m.Header == nil {
			m.Header = nats.Header{}
		}
		m.Header.Set("Nats-Batch-Id", id)
		m.Header.Set("Nats-Batch-Sequence", strconv.Itoa(i+1))
	}
	last.Header.Set("Nats-Batch-Commit", "1")
	// Only the commit is answered. Until then the server keeps the batch apart,
	// so a crash leaves all of it or nothing.
	for _, m := range msgs[:len(msgs)-1] {
		if err := b.nc.PublishMsg(m); err != nil {
			return err
		}
	}
	s, err := b.send(last, acked)
	if err != nil {
		return err
	}
	return b.room.refused(b.wait(s))
}
