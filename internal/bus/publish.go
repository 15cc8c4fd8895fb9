package bus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/internal/whisk"
)

// Message is one message of a stream. What a read returned is shared with
// nobody.
type Message struct {
	Subject string
	Header  nats.Header
	Data    []byte
	Seq     uint64    // given by the stream
	Time    time.Time // likewise
}

// Codes of the server's refusals that callers can act on.
const (
	codeMaxBytes   = 10077
	codeWrongLast  = 10071
	codeWrongLast2 = 10164 // wrong last sequence, of a constant kind
)

// slotWait is how long the server may take to acknowledge one message. It gives
// no answer at all after an I/O error. Longer is a failure of the store, so this
// is well above any wait for a busy disk.
const slotWait = 30 * time.Second

// publisher has messages under way side by side, each with a slot that its
// acknowledgement finds by the reply subject's last token.
type publisher struct {
	count, bytes *semaphore.Weighted // the window
	batches      chan struct{}       // holds one value for each atomic batch under way

	// underWay counts the publishers who are yet to come for a flush.
	underWay atomic.Int64

	mu     sync.Mutex
	prefix string
	next   uint64
	slots  map[string]*slot
}

// slot is one message under way. acked runs on the connection's own goroutine,
// in the order of the stream's sequences, before done is told.
//
// done has room for one value: whoever answers does not wait, even when nobody
// asks any more. seq is set before done and read after it.
type slot struct {
	since time.Time
	acked func(seq uint64)
	done  chan error
	seq   uint64
}

// listen takes all answers with one subscription. It must never lose one, so
// its queue has no bounds: the window has.
func (p *publisher) listen(nc *nats.Conn) error {
	p.prefix = nc.NewInbox() + "."
	sub, err := nc.Subscribe(p.prefix+"*", p.answer)
	if err != nil {
		return err
	}
	return sub.SetPendingLimits(-1, -1)
}

// answer takes one acknowledgement.
func (p *publisher) answer(m *nats.Msg) {
	p.mu.Lock()
	s := p.slots[m.Subject]
	// Taken out before it is answered: an answer that comes twice finds
	// nothing.
	delete(p.slots, m.Subject)
	p.mu.Unlock()
	if s == nil {
		return // it came after its slot was given up
	}
	seq, err := parseAck(m)
	if err == nil {
		s.seq = seq
		if s.acked != nil {
			s.acked(seq)
		}
	}
	s.done <- err
}

func parseAck(m *nats.Msg) (uint64, error) {
	// The server's way to say that no stream listens on the subject.
	if m.Header.Get("Status") == "503" {
		return 0, whisk.E(whisk.Unavailable, "publish", errors.New("no stream takes the message"))
	}
	if seq, ok := plainAck(m.Data); ok {
		return seq, nil
	}
	var ack struct {
		Seq   uint64 `json:"seq"`
		Error *struct {
			ErrCode     int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &ack); err != nil {
		return 0, fmt.Errorf("read an acknowledgement: %w", err)
	}
	if ack.Error == nil {
		return ack.Seq, nil
	}
	err := fmt.Errorf("%s (%d)", ack.Error.Description, ack.Error.ErrCode)
	switch ack.Error.ErrCode {
	case codeMaxBytes:
		return 0, whisk.E(whisk.Unavailable, "publish", err)
	case codeWrongLast, codeWrongLast2:
		return 0, whisk.E(whisk.Conflict, "publish", err)
	}
	return 0, err
}

// plainAck reads what nearly all acknowledgements are, {"stream":"S","seq":7},
// without the cost of a decoder; whatever else there is is left to that.
func plainAck(data []byte) (seq uint64, ok bool) {
	if !bytes.HasPrefix(data, []byte(`{"stream":"`)) {
		return 0, false
	}
	i := bytes.LastIndexByte(data, ':')
	digits, closed := bytes.CutSuffix(data[i+1:], []byte("}"))
	if !closed || !bytes.HasSuffix(data[:i], []byte(`"seq"`)) {
		return 0, false
	}
	seq, err := strconv.ParseUint(string(bytes.TrimSpace(digits)), 10, 64)
	return seq, err == nil
}

// send publishes m and returns its slot. The caller holds the window.
func (b *Bus) send(m *nats.Msg, acked func(seq uint64)) (*slot, error) {
	s := &slot{since: time.Now(), acked: acked, done: make(chan error, 1)}
	p := &b.pub
	p.mu.Lock()
	// The slot is in place before the message leaves: the answer may come
	// first.
	p.next++
	m.Reply = p.prefix + strconv.FormatUint(p.next, 36)
	p.slots[m.Reply] = s
	p.mu.Unlock()
	if err := b.nc.PublishMsg(m); err != nil {
		p.mu.Lock()
		delete(p.slots, m.Reply)
		p.mu.Unlock()
		return nil, err
	}
	return s, nil
}

// enter takes room in the window for a number of messages.
func (b *Bus) enter(ctx context.Context, count, bytes int) (leave func(), err error) {
	// One that is larger than the window goes when it has it for itself.
	bytes = min(bytes, windowBytes)
	if err := b.pub.count.Acquire(ctx, int64(count)); err != nil {
		return nil, err
	}
	if err := b.pub.bytes.Acquire(ctx, int64(bytes)); err != nil {
		b.pub.count.Release(int64(count))
		return nil, err
	}
	return func() {
		b.pub.bytes.Release(int64(bytes))
		b.pub.count.Release(int64(count))
	}, nil
}

// wait returns when a message is acknowledged or refused. The end of the
// caller's context does not end it: the message is under way and its outcome
// must be known.
func (b *Bus) wait(s *slot) error {
	select {
	case err := <-s.done:
		return err
	// A store that has failed may never answer.
	case <-b.failed:
		return b.check()
	}
}

// Publish writes one message and returns its sequence: it survives the death
// of the process, and is flushed within a second or by the next Flush. With
// expectLast, the stream's last sequence must be that: else Conflict. A stream
// that is full gives Unavailable.
func (b *Bus) Publish(ctx context.Context, m Message, expectLast *uint64) (uint64, error) {
	if err := b.check(); err != nil {
		return 0, err
	}
	out := &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data}
	if expectLast != nil {
		// The caller's headers stay as they are: it may send them again.
		if out.Header = maps.Clone(m.Header); out.Header == nil {
			out.Header = nats.Header{}
		}
		out.Header.Set("Nats-Expected-Last-Sequence", strconv.FormatUint(*expectLast, 10))
	}
	leave, err := b.enter(ctx, 1, len(m.Data))
	if err != nil {
		return 0, err
	}
	defer leave()
	s, err := b.send(out, nil)
	if err != nil {
		return 0, err
	}
	if err := b.wait(s); err != nil {
		return 0, err
	}
	return s.seq, nil
}

// expireSlots gives the store up when it does not acknowledge in time.
func (b *Bus) expireSlots() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-b.stop:
			return
		case now := <-tick.C:
			b.pub.mu.Lock()
			// All are looked at, not only the oldest: a map has no order, and
			// there are at most as many as the window lets in.
			late := 0
			for _, s := range b.pub.slots {
				if now.Sub(s.since) > slotWait {
					late++
				}
			}
			b.pub.mu.Unlock()
			if late > 0 {
				b.fail(writeFailure(b.o.Dir, fmt.Sprintf("it left %d messages without an answer for %v", late, slotWait)))
			}
		}
	}
}
