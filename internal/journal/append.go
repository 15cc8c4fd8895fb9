package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/whisk"
)

const (
	// maxLogs is how much log text a record holds itself, in bytes, and maxBody
	// how large a carried or dead event may be there: what is larger is an
	// object.
	maxLogs = 64 << 10
	maxBody = 1 << 20
	// maxEntry is the largest entry, in bytes: the server takes messages of
	// 8 MiB. Nothing that keeps to whisk's limits comes near it.
	maxEntry = 7 << 20
)

// Verdicts writes what became of the events from..judged: vs holds the verdicts
// of those of them that are events, in order. All are one message, or several
// when they exceed 256 KiB or 1,000 entries. It waits while the journal is too
// full for more matches. An event that has a verdict keeps it: a second one is
// passed over.
func (j *Journal) Verdicts(ctx context.Context, from uint64, judged whisk.Place, vs []whisk.Verdict) error {
	if err := j.waitForRoom(ctx); err != nil {
		return err
	}
	// After a start events of a gap come here together with neighbours that
	// were judged before. The first verdict stands, since its runs may have
	// begun.
	from, vs = j.unjudged(from, vs)
	if from > judged.Seq {
		return nil
	}
	r := new(request)
	p := part{span: &span{from: from, judged: judged}}
	for i := range vs {
		v := &vs[i]
		s := stored{Entry: whisk.Entry{Kind: whisk.EntryVerdict, Verdict: v}}
		// An entry is encoded before it is known whether it fits. When it does
		// not, its bytes move to the next part: encoding twice would cost more.
		before := len(p.data)
		var err error
		if p.data, err = appendEntry(p.data, &s); err != nil {
			return whisk.E(whisk.Internal, "append verdicts", err)
		}
		if n := len(p.entries); n > 0 && (len(p.data) > maxMessage || n == maxEntries) {
			// What came before is a message of its own and judges up to there.
			next := append([]byte(nil), p.data[before:]...)
			p.data, p.span.judged = p.data[:before], vs[i-1].Event
			r.add(p)
			p = part{span: &span{from: p.span.judged.Seq + 1, judged: judged}, data: next}
		}
		p.entries = append(p.entries, s)
	}
	r.add(p)
	return j.writer.write(ctx, r)
}

// add counts the overhead of a message for every part, although parts may come
// to share one: room is taken for the worst case.
func (r *request) add(p part) {
	r.parts = append(r.parts, p)
	r.bytes += int64(p.size()) + messageOverhead
}

// unjudged returns the first sequence from from on that is not judged, and
// copies of those of vs whose events have no verdict yet.
func (j *Journal) unjudged(from uint64, vs []whisk.Verdict) (uint64, []whisk.Verdict) {
	out := make([]whisk.Verdict, 0, len(vs))
	j.mu.Lock()
	defer j.mu.Unlock()
	from = j.ranges.after(from)
	for i := range vs {
		if j.ranges.has(vs[i].Event.Seq) {
			continue
		}
		out = append(out, vs[i])
		// The size counts towards what is undone. A verdict without one stands
		// for an event of average size, so that the bound holds about.
		if v := &out[len(out)-1]; v.Size == 0 {
			v.Size = int(j.average)
		}
	}
	return from, out
}

// Append writes entries in one message where they fit: they survive the death
// of the process when it returns. An invoke is refused with Unavailable while
// the journal is too full for more.
func (j *Journal) Append(ctx context.Context, es ...whisk.Entry) error {
	_, err := j.append(ctx, es)
	return err
}

// AppendDurable is Append, and returns once the entries are on stable storage.
func (j *Journal) AppendDurable(ctx context.Context, es ...whisk.Entry) error {
	if _, err := j.append(ctx, es); err != nil {
		return err
	}
	return j.flush(ctx)
}

// errFull is what a non-blocking invocation gets. Unlike verdicts it does not
// wait: its caller holds a connection and can come again.
var errFull = whisk.E(whisk.Unavailable, "append to journal", errors.New("too much is waiting to be done"))

func (j *Journal) append(ctx context.Context, es []whisk.Entry) (uint64, error) {
	if len(es) == 0 {
		return 0, nil
	}
	for i := range es {
		// Only what makes a new match is refused. Starts, records and dead
		// entries end matches, and refusing them would keep the journal full.
		if es[i].Kind == whisk.EntryInvoke && j.full() {
			return 0, errFull
		}
	}
	r, err := j.request(ctx, es)
	if err != nil {
		return 0, err
	}
	if err := j.writer.write(ctx, r); err != nil {
		return 0, err
	}
	return r.seq, nil
}

// request encodes entries. Log text that is too long is put into an object
// first, and flushed: nothing names what may be lost.
func (j *Journal) request(ctx context.Context, es []whisk.Entry) (*request, error) {
	r := new(request)
	var p part
	// All objects are put first and flushed once, before any entry names them.
	objects := false
	all := make([]stored, len(es))
	for i := range es {
		all[i].Entry = es[i]
		if a := es[i].Record; a != nil && logBytes(a.Logs) > maxLogs {
			digest, err := j.putLogs(ctx, a.Logs)
			if err != nil {
				return nil, err
			}
			all[i].logs, objects = digest, true
		}
	}
	if objects {
		if err := j.bus.Flush(ctx); err != nil {
			return nil, fmt.Errorf("flush log text: %w", err)
		}
	}
	for i := range all {
		before := len(p.data)
		var err error
		if p.data, err = appendEntry(p.data, &all[i]); err != nil {
			return nil, whisk.E(whisk.Internal, "append to journal", err)
		}
		// Caught here, where one caller can be told. In the writer it would
		// stand in a message with the entries of others.
		if len(p.data)-before > maxEntry {
			return nil, whisk.E(whisk.TooLarge, "append to journal", fmt.Errorf("an entry of %d bytes", len(p.data)-before))
		}
		if n := i - sum(r.parts); n > 0 && (len(p.data) > maxMessage || n == maxEntries) {
			// A copy: the parts must not share an array that append may write
			// into.
			next := append([]byte(nil), p.data[before:]...)
			p.data, p.entries = p.data[:before], all[i-n:i:i]
			r.add(p)
			p = part{data: next}
		}
	}
	p.entries = all[sum(r.parts):]
	r.add(p)
	return r, nil
}

// sum is how many entries the parts hold: where the next part begins in the
// slice of all.
func sum(parts []part) int {
	n := 0
	for i := range parts {
		n += len(parts[i].entries)
	}
	return n
}

// logBytes is the length of log lines in bytes, without their encoding.
func logBytes(lines []string) int {
	n := 0
	for _, l := range lines {
		n += len(l)
	}
	return n
}

// RecordCall writes the record of a blocking call to CALLS: it survives the
// death of the process when RecordCall returns.
func (j *Journal) RecordCall(ctx context.Context, a whisk.Activation) error {
	r, err := j.request(ctx, []whisk.Entry{{Kind: whisk.EntryRecord, Record: &a, Final: true}})
	if err != nil {
		return err
	}
	// CALLS has a writer of its own: a flood of calls does not stand in line
	// with the verdicts, and its stream drops its oldest by itself, so it is
	// never full.
	return j.calls.write(ctx, r)
}

// deadLetter is a dead letter as it is stored.
type deadLetter struct {
	whisk.DeadLetter
	Body string `json:"body,omitempty"` // digest of the event, when it is not in Event
}

// Bury stores a dead letter and returns once it is on stable storage: the
// dead entry may be written then. The letter has its ID, whisk.DeadLetterID's,
// so that one written again is the same.
func (j *Journal) Bury(ctx context.Context, d whisk.DeadLetter) error {
	s := deadLetter{DeadLetter: d}
	data, err := json.Marshal(s)
	if err == nil && len(data) > maxBody && d.Event != nil {
		data, err = j.buryBody(ctx, &s)
	}
	if err != nil {
		return fmt.Errorf("bury %s: %w", d.ID, err)
	}
	// The writers wait for the index in the same place. A dead letter is not
	// written by them, so it waits here.
	if err := j.index.room(ctx); err != nil {
		return err
	}
	// The lock is held over publish and note: the tail of the index needs the
	// messages of a stream in their order. The flush is outside of it, so
	// letters buried together share one.
	j.bury.Lock()
	err = j.buried(ctx, &s, data)
	j.bury.Unlock()
	if err != nil {
		return fmt.Errorf("bury %s: %w", d.ID, err)
	}
	return j.flush(ctx)
}

func (j *Journal) buried(ctx context.Context, s *deadLetter, data []byte) error {
	seq, err := j.bus.Publish(ctx, bus.Message{Subject: deadSubject(&s.DeadLetter), Data: data}, nil)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last[inDead] = seq
	j.index.wrote(inDead, seq, checksum(data), deadRows(nil, &s.DeadLetter, s.Body, at(inDead, seq, 0)))
	return nil
}

// deadSubject is dead.<namespace>.<trigger>.<rule>, or for an invocation
// dead.<namespace>._.<action>.
func deadSubject(d *whisk.DeadLetter) string {
	trigger, entity := "", d.Action.Local()
	if d.Event != nil {
		trigger = d.Event.Trigger.Entity
	}
	if !d.Match.Rule.IsZero() {
		entity = d.Match.Rule.Entity
	}
	return bus.SubjectDead + "." + whisk.Token(deadNamespace(d)) + "." + whisk.Token(trigger) + "." + whisk.Token(entity)
}

// deadNamespace is whose dead letter d is.
func deadNamespace(d *whisk.DeadLetter) string {
	switch {
	case !d.Match.Rule.IsZero():
		return d.Match.Rule.Namespace
	case d.Invoke != nil && d.Invoke.Invocation.Namespace != "":
		return d.Invoke.Invocation.Namespace
	case d.Event != nil: // no rule ever saw it
		return d.Event.Trigger.Namespace
	}
	return d.Action.Namespace
}

// buryBody puts the event of s into an object and encodes s without it.
func (j *Journal) buryBody(ctx context.Context, s *deadLetter) ([]byte, error) {
	b, err := json.Marshal(s.Event)
	if err != nil {
		return nil, err
	}
	if s.Body, err = j.bus.PutObject(ctx, b); err != nil {
		return nil, err
	}
	if err := j.bus.Flush(ctx); err != nil {
		return nil, err
	}
	// The caller's event stays whole: the copy loses what the object has. The
	// rest is kept so that a list can show the letter even when the object is
	// gone.
	slim := *s.Event
	slim.Payload, slim.Meta, slim.Headers = nil, nil, nil
	s.Event = &slim
	return json.Marshal(s)
}
