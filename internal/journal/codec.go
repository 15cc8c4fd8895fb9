package journal

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/millrace/millrace/internal/whisk"
)

// format is the first byte of every message of entries. It lets a later form be
// told from this one. A message with another byte is not skipped: a start that
// can't read the journal must not begin to judge.
const format = 1

// stored is an entry as it lies in a message: what is large lies elsewhere.
type stored struct {
	whisk.Entry
	logs string // digest of the record's log text, when it is not in the record
	body string // digest of the carried event, when it is not in the carry
}

// Numbers of an entry's fields. They are for ever.
const (
	fieldMatch = iota + 1
	fieldVerdict
	fieldInvoke
	fieldAttempt
	fieldActivation
	fieldAt
	fieldRecord
	fieldFinal
	fieldDue
	fieldDead
	fieldCarry
	fieldLogs
	fieldBody
)

// kinds gives every kind its byte on the wire. The numbers are for ever, and 0
// stays free: it marks what is damaged.
var kinds = [...]whisk.EntryKind{
	1: whisk.EntryVerdict, 2: whisk.EntryInvoke, 3: whisk.EntryStart,
	4: whisk.EntryRecord, 5: whisk.EntryDead, 6: whisk.EntryCarry,
}

func kindByte(k whisk.EntryKind) byte {
	for i, o := range kinds {
		if o == k && i > 0 {
			return byte(i)
		}
	}
	return 0
}

// appendEntry appends s, with its length before it, to b. It returns Internal
// for a kind that it does not know and for a value that has no wire form.
func appendEntry(b []byte, s *stored) ([]byte, error) {
	kind := kindByte(s.Kind)
	if kind == 0 {
		return b, fmt.Errorf("encode journal entry: no such kind %q", s.Kind)
	}
	var scratch [binary.MaxVarintLen64]byte
	start := len(b)
	// Three bytes of length hold all but the largest entries: those are moved.
	b = append(b, 0, 0, 0, kind)
	e := encoder{b}
	if err := e.entry(s); err != nil {
		return b[:start], err
	}
	b = e.b
	n := len(b) - start - 3
	w := binary.PutUvarint(scratch[:], uint64(n))
	if w > 3 {
		b = append(b, scratch[:w-3]...)
	}
	copy(b[start+w:], b[start+3:start+3+n])
	copy(b[start:], scratch[:w])
	return b[:start+w+n], nil
}

func (e *encoder) entry(s *stored) error {
	e.match(fieldMatch, s.Match)
	if s.Verdict != nil {
		m := e.begin(fieldVerdict)
		e.verdict(s.Verdict)
		e.end(m)
	}
	if s.Invoke != nil {
		m := e.begin(fieldInvoke)
		e.invoke(s.Invoke)
		e.end(m)
	}
	e.int(fieldAttempt, int64(s.Attempt))
	e.id(fieldActivation, s.ActivationID)
	e.time(fieldAt, s.At)
	if s.Record != nil {
		m := e.begin(fieldRecord)
		// Either the text or the digest of its object, never both.
		e.record(s.Record, s.logs == "")
		e.end(m)
	}
	e.bool(fieldFinal, s.Final)
	e.time(fieldDue, s.Due)
	e.id(fieldDead, s.Dead)
	if s.Carry != nil {
		m := e.begin(fieldCarry)
		if err := e.pending(s.Carry, s.body == ""); err != nil {
			return err
		}
		e.end(m)
	}
	e.str(fieldLogs, s.logs)
	e.str(fieldBody, s.body)
	return nil
}

func (e *encoder) match(field int, m whisk.Match) {
	if m == (whisk.Match{}) {
		return
	}
	mark := e.begin(field)
	e.uint(1, m.Event)
	e.name(2, m.Rule)
	e.id(3, m.Invoke)
	e.end(mark)
}

func (e *encoder) verdict(v *whisk.Verdict) {
	e.uint(1, v.Event.Seq)
	e.id(2, v.Event.ID)
	e.name(3, v.Trigger)
	e.str(4, v.Version)
	e.str(5, v.Actor)
	e.time(6, v.Time)
	e.time(7, v.At)
	for i := range v.Rules {
		r := &v.Rules[i]
		m := e.begin(8)
		e.name(1, r.Rule)
		e.uint(2, uint64(r.Revision))
		e.name(3, r.Action)
		e.str(4, string(r.Decision))
		e.str(5, r.Reason)
		e.id(6, r.ActivationID)
		e.end(m)
	}
	e.str(9, v.Problem)
	e.int(10, int64(v.Size))
}

func (e *encoder) invoke(i *whisk.Invoke) {
	e.name(1, i.Action)
	e.bool(2, i.Retry)
	v := &i.Invocation
	e.id(3, v.ActivationID)
	e.id(4, v.Cause)
	e.str(5, v.Namespace)
	e.str(6, v.Subject)
	e.bytes(7, v.Payload)
	e.str(8, v.Transaction)
	e.time(9, v.Received)
	e.id(10, v.Correlation)
	e.int(11, int64(v.Hops))
}

func (e *encoder) record(a *whisk.Activation, logs bool) {
	e.id(1, a.ID)
	e.str(2, a.Namespace)
	e.str(3, a.Name)
	e.str(4, a.Version)
	e.str(5, a.Subject)
	e.id(6, a.Cause)
	e.time(7, a.Start)
	e.time(8, a.End)
	e.int(9, int64(a.Duration))
	e.int(10, int64(a.Outcome))
	e.bytes(11, a.Result)
	e.int(12, int64(a.Size))
	if logs {
		e.lines(13, a.Logs)
	}
	for i := range a.Annotations {
		p := &a.Annotations[i]
		m := e.begin(14)
		e.str(1, p.Key)
		e.bytes(2, p.Value)
		e.bool(3, p.Init)
		e.str(4, p.Encryption)
		e.end(m)
	}
}

// lines writes every string, the empty ones too.
func (e *encoder) lines(field int, lines []string) {
	for _, l := range lines {
		e.key(field, typeBytes)
		e.b = binary.AppendUvarint(e.b, uint64(len(l)))
		e.b = append(e.b, l...)
	}
}

func (e *encoder) pending(p *whisk.Pending, body bool) error {
	e.match(1, p.Match)
	e.uint(2, uint64(p.Rule))
	e.name(3, p.Action)
	if p.Event != nil {
		if body {
			// Events have one wire form, and carries are rare.
			b, err := json.Marshal(p.Event)
			if err != nil {
				return fmt.Errorf("encode carried event: %w", err)
			}
			e.bytes(4, b)
		}
		e.time(5, p.Event.Accepted)
	}
	e.uint(6, p.Seq)
	if p.Invoke != nil {
		m := e.begin(7)
		e.invoke(p.Invoke)
		e.end(m)
	}
	for i := range p.Attempts {
		a := &p.Attempts[i]
		m := e.begin(8)
		e.id(1, a.ActivationID)
		e.time(2, a.Started)
		e.time(3, a.Ended)
		e.str(4, a.Status)
		e.str(5, a.Error)
		e.time(6, a.Due)
		e.end(m)
	}
	e.time(9, p.Due)
	e.bool(10, p.Started)
	e.bool(11, p.Exhausted)
	e.time(12, p.Since)
	e.uint(13, p.Origin)
	e.id(14, p.EventID)
	return nil
}
