package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/whisk"
)

const (
	// maxMessage bounds a message of several entries, in bytes. A single entry
	// may take more.
	maxMessage = 256 << 10
	// maxInbox bounds what waits to be written, in bytes.
	maxInbox = 8 << 20
	// maxTries is how often a message is offered when neither an answer nor
	// the message can be got from the stream.
	maxTries = 5
)

// span is a range of events that were judged: all from From to Until, whether
// there is a verdict for each sequence or not (cursors have none).
type span struct {
	from   uint64
	judged whisk.Place
}

// part is some entries that one message holds together, encoded.
//
// A carry is encoded last, in put: between its choice and its turn the match
// may have started, failed or ended, and an old state must not follow a newer
// one.
type part struct {
	req     *request
	entries []stored
	data    []byte
	span    *span
	carry   *node         // instead of entries: written as it stands when its turn comes
	body    whisk.Pending // the carry's bodies
	digest  string        // of the carried event's object
	weight  int           // bytes that the carry takes, about
}

// request is what one caller wants written. Its parts are written in order,
// and after one that was refused no other.
//
// left counts the parts that are neither written nor refused; at zero done is
// closed and the inbox's room given back. left and err belong to the writer's
// mu.
type request struct {
	parts []part
	left  int
	bytes int64
	seq   uint64 // of the last message that holds a part
	err   error
	done  chan struct{}
}

// writer appends to one stream: one message at a time, each with all that came
// while the one before was under way.
//
// One message under way at a time is what makes batches grow with the load, and
// what makes a lost answer safe to resolve: the next sequence can hold only
// this message or somebody else's.
type writer struct {
	j       *Journal
	stream  int
	subject string
	room    *semaphore.Weighted // bytes of the inbox

	mu     sync.Mutex
	inbox  []part
	closed bool
	wake   chan struct{}
}

func newWriter(j *Journal, stream int, subject string) *writer {
	return &writer{
		j: j, stream: stream, subject: subject,
		room: semaphore.NewWeighted(maxInbox), wake: make(chan struct{}, 1),
	}
}

// write returns when r is written. When ctx ends first, r may be written or
// not.
func (w *writer) write(ctx context.Context, r *request) error {
	// One that is larger than the inbox has it for itself.
	size := min(r.bytes, maxInbox)
	if err := w.room.Acquire(ctx, size); err != nil {
		return err
	}
	r.left, r.done = len(r.parts), make(chan struct{})
	w.mu.Lock()
	// Checked under the lock under which run closes: what got in before is
	// drained, what comes after is refused, and nothing is left waiting.
	if w.closed {
		w.mu.Unlock()
		w.room.Release(size)
		return errStopped
	}
	for i := range r.parts {
		r.parts[i].req = r
	}
	w.inbox = append(w.inbox, r.parts...)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default: // it is awake already
	}
	select {
	case <-r.done:
		return r.err
	// The request stays where it is: it may be in the message under way. Its
	// room is given back when it is written.
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run writes until ctx ends, then what is in the inbox, and refuses the rest.
func (w *writer) run(ctx context.Context) error {
	// On every way out whoever waits in the inbox is answered.
	defer w.refuse(errStopped)
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-w.wake:
		}
		if err := w.drain(ctx); err != nil {
			w.refuse(whisk.E(whisk.Unavailable, "append to journal", err))
			return err
		}
	}
	w.mu.Lock()
	// Closed first, drained then: the inbox can only shrink from here on.
	w.closed = true
	w.mu.Unlock()
	bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	return w.drain(bye)
}

// drain writes until the inbox is empty or ctx ends.
func (w *writer) drain(ctx context.Context) error {
	for ctx.Err() == nil {
		batch := w.take()
		if len(batch) == 0 {
			return nil
		}
		// Memory holds the place of every entry that is not indexed yet.
		// Waiting here instead of dropping rows keeps every answered ID
		// readable.
		if err := w.j.index.room(ctx); err != nil {
			w.finish(batch, 0, err)
			return nil // ctx has ended
		}
		// After take: whether there is room depends on the size of this
		// message.
		if err := w.admit(ctx, batch); err != nil {
			w.finish(batch, 0, err)
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if err := w.put(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

// take removes from the inbox what the next message holds.
func (w *writer) take() []part {
	w.mu.Lock()
	defer w.mu.Unlock()
	// An earlier part of the same request was refused. Writing the later ones
	// would leave a hole: verdicts after a gap, or a record without its start.
	for len(w.inbox) > 0 && w.inbox[0].req.err != nil {
		w.done(&w.inbox[0])
		w.inbox = w.inbox[1:]
	}
	n, entries, size := 0, 0, 0
	var last *span
	for ; n < len(w.inbox); n++ {
		p := &w.inbox[n]
		if n > 0 && (p.carry == nil) != (w.inbox[0].carry == nil) {
			break // a carry tells what all entries before it have made of its match
		}
		if n > 0 && (entries+p.count() > maxEntries || size+p.size() > maxMessage) {
			break
		}
		if p.span != nil {
			if last != nil && p.span.from != last.judged.Seq+1 {
				break // one message judges one range
			}
			last = p.span
		}
		entries += p.count()
		size += p.size()
	}
	// The capacity is cut: an append to the batch must not overwrite the inbox.
	batch := w.inbox[:n:n]
	w.inbox = w.inbox[n:]
	return batch
}

// count is how many entries a part makes.
func (p *part) count() int {
	if p.carry != nil {
		return 1
	}
	return len(p.entries)
}

// size is what a part adds to a message, in bytes. For a carry it is a guess
// until it is encoded.
func (p *part) size() int {
	if p.carry != nil {
		return p.weight
	}
	return len(p.data)
}

// put writes one message with batch and tells who waits. It returns an error
// when nothing can be written any more.
func (w *writer) put(ctx context.Context, batch []part) error {
	size := 1
	for i := range batch {
		size += batch[i].size()
	}
	data := make([]byte, 1, size)
	data[0] = format
	var err error
	for i := range batch {
		if batch[i].carry != nil {
			if data, err = w.j.finishCarry(data, &batch[i]); err != nil {
				return err // what was read from the journal can't be written to it
			}
			continue
		}
		data = append(data, batch[i].data...)
	}
	if batch[0].carry != nil && len(data) == 1 {
		w.finish(batch, 0, nil) // all were done meanwhile
		return nil
	}
	m := bus.Message{Subject: w.subject, Data: data}
	if w.stream == inJournal {
		// Headers are made at the last moment: Low and Judged are those of this
		// message, not of the time when its entries were queued.
		m.Header = w.j.header(batch)
	}
	// A refusal concerns this message alone: the stream has nothing in its
	// place, and the next may be written. Every other error leaves open what
	// the stream holds, so the writer ends, and the process with it.
	seq, err := w.publish(ctx, m)
	if err != nil && !errors.Is(err, errRefused) {
		w.finish(batch, 0, err)
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	if err == nil {
		w.j.written(w.stream, seq, batch, data)
	}
	w.finish(batch, seq, err)
	return nil
}

var (
	errRefused = errors.New("the stream refused the message")
	errForeign = errors.New("somebody else writes to the stream")
)

// publish writes m behind the last message. An answer that was lost is not
// answered by writing again: the stream takes a message only behind the one
// that is expected to be last, and what lies there is read back.
func (w *writer) publish(ctx context.Context, m bus.Message) (uint64, error) {
	last := w.j.lastOf(w.stream)
	for try := 1; ; try++ {
		m.Header = maps.Clone(m.Header)
		seq, err := w.j.bus.Publish(ctx, m, &last)
		if err == nil && seq != last+1 {
			return 0, fmt.Errorf("write %s: got %d after %d: %w", streamNames[w.stream], seq, last, errForeign)
		}
		if err == nil {
			return seq, nil
		}
		// The answer may have been lost after the write. Only the stream knows.
		there, rerr := w.j.bus.Get(ctx, streamNames[w.stream], last+1)
		switch {
		case rerr == nil && bytes.Equal(there.Data, m.Data):
			return last + 1, nil
		case rerr == nil:
			return 0, fmt.Errorf("write %s: %w", streamNames[w.stream], errForeign)
		case errors.Is(rerr, whisk.NotFound) && errors.Is(err, whisk.TooLarge):
			return 0, fmt.Errorf("%w: %w", errRefused, err)
		}
		// A full stream is no fault and is waited for without end. Anything
		// else is tried maxTries times.
		full := errors.Is(err, whisk.Unavailable) && errors.Is(rerr, whisk.NotFound)
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if !full && try >= maxTries {
			return 0, fmt.Errorf("write %s: %w", streamNames[w.stream], err)
		}
		var eased <-chan struct{}
		if full && w.stream == inJournal {
			// Our own thresholds should have come first. The entries that are
			// on their way can't be taken back: they wait for the trim.
			eased = w.j.want(int64(len(m.Data)) + 2*messageOverhead)
		}
		w.j.log.WarnContext(ctx, "journal write tried again", slog.String("stream", streamNames[w.stream]), slog.Any("err", err))
		select {
		case <-ctx.Done():
		case <-eased: // there may be room again
		case <-time.After(w.j.pace.retry):
		}
	}
}

// finish tells those who wait for batch.
func (w *writer) finish(batch []part, seq uint64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range batch {
		r := batch[i].req
		// Parts are written in order: the last one sets what the caller sees.
		r.seq = seq
		if err != nil && r.err == nil {
			r.err = err
		}
		w.done(&batch[i])
	}
	// The batch shares the inbox's array, which would keep the entries alive.
	clear(batch)
}

// done counts a part off its request. The caller holds mu.
func (w *writer) done(p *part) {
	r := p.req
	if r.left--; r.left == 0 {
		w.room.Release(min(r.bytes, maxInbox))
		close(r.done)
	}
}

// refuse closes the inbox and tells all who wait in it.
func (w *writer) refuse(err error) {
	w.mu.Lock()
	w.closed = true
	rest := w.inbox
	w.inbox = nil
	w.mu.Unlock()
	w.finish(rest, 0, err)
}

// Names of the headers of JOURNAL's messages.
const (
	headerFrom   = "From"   // the first event judged in it
	headerUntil  = "Until"  // the last one
	headerJudged = "Judged" // how far judging has come with it: sequence and ID
	headerLow    = "Low"    // the oldest message still needed when it was written
)

// header returns the headers of a message with batch. Every message carries
// Judged and Low, even one without verdicts: a start reads the last message
// only to know where to begin. Judged never goes back when a gap is judged.
func (j *Journal) header(batch []part) nats.Header {
	j.mu.Lock()
	low, judged := j.low(), j.judged
	j.mu.Unlock()
	h := make(nats.Header, 5)
	var first, last *span
	for i := range batch {
		if s := batch[i].span; s != nil {
			if first == nil {
				first = s
			}
			last = s
		}
	}
	if first != nil {
		h[headerFrom] = []string{fmt.Sprint(first.from)}
		h[headerUntil] = []string{fmt.Sprint(last.judged.Seq)}
		if last.judged.Seq > judged.Seq {
			judged = last.judged
		}
	}
	h[headerJudged] = []string{fmt.Sprint(judged.Seq, " ", judged.ID)}
	h[headerLow] = []string{fmt.Sprint(low)}
	return h
}

func (j *Journal) lastOf(stream int) uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last[stream]
}

// written takes note of a message that the stream has.
func (j *Journal) written(stream int, seq uint64, batch []part, data []byte) {
	var rows []row
	carries := batch[0].carry != nil
	j.mu.Lock()
	j.last[stream] = seq
	// Everything below happens under one lock: ledger, ranges and index see the
	// same message at once, and in the order of the stream.
	number, matches := 0, 0
	for i := range batch {
		p := &batch[i]
		for k := range p.entries {
			e := &p.entries[k]
			where := at(stream, seq, number)
			number++
			if stream == inJournal {
				matches = j.ledger.apply(e, where, matches)
			}
			rows = appendRows(rows, e, where)
		}
		// After the entries: when a gap closes, its matches are in the ledger.
		if p.span != nil {
			j.judgedUpTo(seq, p.span)
		}
	}
	if stream == inJournal {
		j.volume.add(seq, len(data))
		j.stored += int64(len(data)) + messageOverhead
		// Something was written, so whoever waited has got his room. He asks
		// anew.
		j.wanted = 0
		j.met.bytes.Add(float64(len(data)))
		if !carries {
			j.ledger.filled += int64(len(data)) + messageOverhead
		}
		if j.tight() {
			j.wakeKeeper()
		}
	}
	// Under the lock: the index learns of messages in their order, and none is
	// readable before it can be looked up.
	j.index.wrote(stream, seq, checksum(data), rows)
	j.mu.Unlock()
	j.met.wrote(stream, batch)
	// Outside the lock: followers only read what is immutable, and only this
	// goroutine tells those of its stream, so they still see its order.
	j.tails.tell(batch)
}

// judgedUpTo takes note of a judged range. The caller holds mu.
func (j *Journal) judgedUpTo(seq uint64, s *span) {
	j.ranges.add(s.from, s.judged.Seq)
	if s.judged.Seq > j.judged.Seq {
		j.judged = s.judged
	}
	if len(j.gaps) > 0 {
		j.gaps = missing(j.ranges, j.gaps)
	}
	// Also for a gap, where judged does not move: flush takes them in order.
	j.pending = append(j.pending, judgedAt{seq, j.judged})
}
