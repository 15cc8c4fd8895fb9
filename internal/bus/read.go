package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/whisk"
)

// readWait is how long the server may take to answer one read, and directBytes
// about how much it answers with at a time.
const (
	readWait    = 30 * time.Second
	directBytes = 16 << 20
)

// ReadEvents returns up to most flushed events from a sequence on, in order.
// It waits until there is one, or until ctx ends.
func (b *Bus) ReadEvents(ctx context.Context, from uint64, most int) ([]whisk.Event, error) {
	for {
		evs, durable, known, grown := b.recent.from(from, most)
		if len(evs) > 0 {
			return evs, nil
		}
		if !known {
			// Only up to durable: the store also has what is written and not
			// flushed.
			evs, next, err := b.readArchive(ctx, from, durable, most)
			if err != nil || len(evs) > 0 {
				return evs, err
			}
			from = next
			continue
		}
		if durable >= from {
			from = durable + 1 // cursors only
		}
		select {
		// Taken together with the events: no growth in between is missed.
		case <-grown:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-b.stop:
			return nil, b.check()
		}
	}
}

// readArchive reads events from the store, up to and with a sequence, and
// tells where to go on.
func (b *Bus) readArchive(ctx context.Context, from, upTo uint64, most int) (evs []whisk.Event, next uint64, err error) {
	msgs, err := b.Read(ctx, StreamEvents, from, min(most, 1000), 0)
	if err != nil {
		return nil, 0, err
	}
	next = upTo + 1
	for _, m := range msgs {
		if m.Seq > upTo {
			break
		}
		next = m.Seq + 1
		if !strings.HasPrefix(m.Subject, subjectEvent+".") {
			continue
		}
		ev, err := b.decode(ctx, m)
		if err != nil {
			return nil, 0, err
		}
		evs = append(evs, ev)
	}
	if len(msgs) == 0 {
		next = upTo + 1
	}
	return evs, next, nil
}

// Event returns the flushed event of a sequence. NotFound when the archive has
// no event there, any more or at all.
func (b *Bus) Event(ctx context.Context, seq uint64) (whisk.Event, error) {
	// The ring first. It knows as well what must not be shown yet, although the
	// store would give it.
	ev, flushed := b.recent.get(seq)
	if ev != nil {
		return *ev, nil
	}
	if !flushed {
		return whisk.Event{}, notThere(StreamEvents, seq)
	}
	m, err := b.archiveMessage(ctx, seq)
	if err != nil {
		return whisk.Event{}, err
	}
	if !strings.HasPrefix(m.Subject, subjectEvent+".") {
		return whisk.Event{}, notThere(StreamEvents, seq)
	}
	return b.decode(ctx, m)
}

// decode reads an archived event. Its payload is nil when the object that held
// it is gone.
func (b *Bus) decode(ctx context.Context, m Message) (whisk.Event, error) {
	var a archived
	if err := json.Unmarshal(m.Data, &a); err != nil {
		return whisk.Event{}, fmt.Errorf("read event %d: %w", m.Seq, err)
	}
	a.Seq, a.Event.Accepted = m.Seq, time.UnixMilli(a.Accepted).UTC()
	if a.Object != "" {
		payload, err := b.Object(ctx, a.Object)
		// A lost payload is not a lost event: it is judged, and its verdict
		// says so.
		if err != nil && !errors.Is(err, whisk.NotFound) {
			return whisk.Event{}, err
		}
		a.Payload = payload
	}
	return a.Event, nil
}

// EventSpan returns the sequence of the oldest event kept, or cursor, and the
// newest flushed one. The first is above the last when there is none.
func (b *Bus) EventSpan(ctx context.Context) (first, last uint64, err error) {
	st, err := b.State(ctx, StreamEvents)
	if err != nil {
		return 0, 0, err
	}
	b.recent.mu.Lock()
	defer b.recent.mu.Unlock()
	return st.First, b.recent.durable, nil
}

// Get returns one message of a stream. NotFound.
func (b *Bus) Get(ctx context.Context, stream string, seq uint64) (Message, error) {
	msgs, err := b.direct(ctx, stream, map[string]any{"seq": seq})
	if err != nil {
		return Message{}, err
	}
	if len(msgs) == 0 {
		return Message{}, notThere(stream, seq)
	}
	return msgs[0], nil
}

// notThere is the NotFound of a message.
func notThere(stream string, seq uint64) error {
	return whisk.E(whisk.NotFound, "read "+stream, fmt.Errorf("message %d does not exist", seq))
}

// Read returns up to most messages of a stream from a sequence on, in order,
// and about maxBytes of them (0: a few MiB). It does not wait: nothing at the
// end.
func (b *Bus) Read(ctx context.Context, stream string, from uint64, most, maxBytes int) ([]Message, error) {
	if maxBytes <= 0 {
		maxBytes = directBytes
	}
	return b.direct(ctx, stream, map[string]any{"seq": max(from, 1), "batch": most, "max_bytes": maxBytes})
}

// lastPerSubject returns the newest message of each bus subject. One request
// each: there are as many as feeds or objects, and only a start or a sweep
// asks.
func (b *Bus) lastPerSubject(ctx context.Context, stream, filter string) ([]Message, error) {
	var out []Message
	st, err := b.State(ctx, stream)
	if err != nil || st.Messages == 0 {
		return nil, err
	}
	s, err := b.js.Stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(filter))
	if err != nil {
		return nil, err
	}
	for subject := range info.State.Subjects {
		msgs, err := b.direct(ctx, stream, map[string]any{"last_by_subj": subject})
		if err != nil {
			return nil, err
		}
		out = append(out, msgs...)
	}
	return out, nil
}

// direct asks the store itself, without a consumer, and gathers the answers: one
// for a single message, else those before the end mark.
func (b *Bus) direct(ctx context.Context, stream string, request map[string]any) ([]Message, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	wait, cancel := context.WithTimeout(ctx, readWait)
	defer cancel()
	var out []Message
	// The store ends a batch with a mark of its own, a single answer has none.
	if most, batch := request["batch"].(int); batch {
		out, err = b.directBatch(wait, "$JS.API.DIRECT.GET."+stream, body, most)
	} else {
		out, err = b.directOne(wait, "$JS.API.DIRECT.GET."+stream, body)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", stream, err)
	}
	return out, nil
}

// directOne goes by the connection's shared inbox: a subscription for each
// message would cost half a megabyte of queue, cleared and collected again,
// which is most of what a read costs when the road is far behind.
func (b *Bus) directOne(ctx context.Context, subject string, body []byte) ([]Message, error) {
	m, err := b.nc.RequestWithContext(ctx, subject, body)
	if err != nil {
		return nil, err
	}
	msg, found, err := stored(m)
	if err != nil || !found {
		return nil, err
	}
	return []Message{msg}, nil
}

// directBatch has an inbox of its own, since it gets many answers to one
// request.
func (b *Bus) directBatch(ctx context.Context, subject string, body []byte, most int) ([]Message, error) {
	inbox := b.nc.NewInbox()
	// The library's own queue has room for 65,536 messages, to be cleared and
	// collected again with every read.
	answers := make(chan *nats.Msg, most+1)
	sub, err := b.nc.ChanSubscribe(inbox, answers)
	if err != nil {
		return nil, err
	}
	defer sub.Unsubscribe() //nolint:errcheck // fails only when the connection is gone
	if err := b.nc.PublishRequest(subject, inbox, body); err != nil {
		return nil, err
	}
	var out []Message
	for {
		select {
		case m := <-answers:
			msg, found, err := stored(m)
			if err != nil {
				return nil, err
			}
			if !found {
				return out, nil
			}
			out = append(out, msg)
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-b.stop:
			return nil, b.check()
		}
	}
}

// stored turns an answer of a direct read into the message that was asked for.
// There is none where nothing is, and at the end of a batch.
func stored(m *nats.Msg) (_ Message, found bool, _ error) {
	// 404: nothing there. 204: the end of a batch.
	switch status := m.Header.Get("Status"); status {
	case "404", "204":
		return Message{}, false, nil
	case "":
	default:
		return Message{}, false, fmt.Errorf("the store answered %s %s", status, m.Header.Get("Description"))
	}
	seq, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
	if err != nil {
		return Message{}, false, err
	}
	at, err := time.Parse(time.RFC3339Nano, m.Header.Get("Nats-Time-Stamp"))
	if err != nil {
		return Message{}, false, err
	}
	return Message{Subject: m.Header.Get("Nats-Subject"), Header: m.Header, Data: m.Data, Seq: seq, Time: at}, true, nil
}
