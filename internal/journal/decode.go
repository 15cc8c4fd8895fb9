package journal

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// maxEntries bounds the entries of one message: an index's place counts them.
const maxEntries = 1000

// splitEntries calls fn with the number and the bytes of each entry of a
// message until fn returns false. It returns an error for a message that is
// not one of ours, and calls fn for the whole entries before the damage.
func splitEntries(data []byte, fn func(n int, b []byte) bool) error {
	if len(data) == 0 || data[0] != format {
		return fmt.Errorf("read journal message: %w", errWire)
	}
	data = data[1:]
	for n := 0; len(data) > 0; n++ {
		l, w := binary.Uvarint(data)
		if w <= 0 || l > uint64(len(data)-w) || n >= maxEntries {
			return fmt.Errorf("read journal message: %w", errWire)
		}
		if !fn(n, data[w:w+int(l)]) {
			return nil
		}
		data = data[w+int(l):]
	}
	return nil
}

// decodeEntries returns all entries of a message.
func decodeEntries(data []byte) ([]stored, error) {
	var out []stored
	var bad error
	err := splitEntries(data, func(_ int, b []byte) bool {
		s, err := decodeEntry(b)
		if err != nil {
			bad = err
			return false
		}
		out = append(out, s)
		return true
	})
	if bad != nil {
		err = bad
	}
	return out, err
}

// decodeEntry reads what appendEntry wrote, without the length.
func decodeEntry(b []byte) (stored, error) { return decode(b, false) }

// decodeState is decodeEntry for a ledger, which has no use for the record of
// an attempt that ended its match: those are most of a journal.
func decodeState(b []byte) (stored, error) { return decode(b, true) }

func decode(b []byte, state bool) (stored, error) {
	var s stored
	var record []byte
	if len(b) == 0 || int(b[0]) >= len(kinds) || b[0] == 0 {
		return s, fmt.Errorf("decode journal entry: %w", errWire)
	}
	s.Kind = kinds[b[0]]
	d := decoder{b: b[1:]}
	for d.next() {
		if state && d.field == fieldRecord && d.typ == typeBytes {
			record = d.val
			continue
		}
		d.entryField(&s)
	}
	if record != nil && !s.Final && d.err == nil {
		d.typ, d.val = typeBytes, record
		s.Record = d.record()
	}
	if d.err != nil {
		return stored{}, fmt.Errorf("decode journal entry: %w", d.err)
	}
	return s, nil
}

func (d *decoder) entryField(s *stored) {
	switch d.field {
	case fieldMatch:
		s.Match = d.match()
	case fieldVerdict:
		s.Verdict = d.verdict()
	case fieldInvoke:
		s.Invoke = d.invoke()
	case fieldAttempt:
		s.Attempt = int(d.int())
	case fieldActivation:
		s.ActivationID = d.id()
	case fieldAt:
		s.At = d.time()
	case fieldRecord:
		s.Record = d.record()
	case fieldFinal:
		s.Final = d.bool()
	case fieldDue:
		s.Due = d.time()
	case fieldDead:
		s.Dead = d.id()
	case fieldCarry:
		s.Carry = d.pending()
	case fieldLogs:
		s.logs = d.str()
	case fieldBody:
		s.body = d.str()
	}
}

func (d *decoder) match() whisk.Match {
	var m whisk.Match
	in := d.inner()
	for in.next() {
		switch in.field {
		case 1:
			m.Event = in.uint()
		case 2:
			m.Rule = in.name()
		case 3:
			m.Invoke = in.id()
		}
	}
	d.join(&in, "match")
	return m
}

func (d *decoder) verdict() *whisk.Verdict {
	v := new(whisk.Verdict)
	in := d.inner()
	for in.next() {
		switch in.field {
		case 1:
			v.Event.Seq = in.uint()
		case 2:
			v.Event.ID = in.id()
		case 3:
			v.Trigger = in.name()
		case 4:
			v.Version = in.str()
		case 5:
			v.Actor = in.str()
		case 6:
			v.Time = in.time()
		case 7:
			v.At = in.time()
		case 8:
			v.Rules = append(v.Rules, in.ruleVerdict())
		case 9:
			v.Problem = in.str()
		case 10:
			v.Size = int(in.int())
		}
	}
	d.join(&in, "verdict")
	return v
}

func (d *decoder) ruleVerdict() whisk.RuleVerdict {
	var r whisk.RuleVerdict
	in := d.inner()
	for in.next() {
		switch in.field {
		case 1:
			r.Rule = in.name()
		case 2:
			r.Revision = whisk.Revision(in.uint())
		case 3:
			r.Action = in.name()
		case 4:
			r.Decision = whisk.Decision(in.str())
		case 5:
			r.Reason = in.str()
		case 6:
			r.ActivationID = in.id()
		}
	}
	d.join(&in, "rule verdict")
	return r
}

func (d *decoder) invoke() *whisk.Invoke {
	i := new(whisk.Invoke)
	v := &i.Invocation
	in := d.inner()
	for in.next() {
		switch in.field {
		case 1:
			i.Action = in.name()
		case 2:
			i.Retry = in.bool()
		case 3:
			v.ActivationID = in.id()
		case 4:
			v.Cause = in.id()
		case 5:
			v.Namespace = in.str()
		case 6:
			v.Subject = in.str()
		case 7:
			v.Payload = in.bytes()
		case 8:
			v.Transaction = in.str()
		case 9:
			v.Received = in.time()
		case 10:
			v.Correlation = in.id()
		case 11:
			v.Hops = int(in.int())
		}
	}
	d.join(&in, "invoke")
	return i
}

func (d *decoder) record() *whisk.Activation {
	a := new(whisk.Activation)
	in := d.inner()
	for in.next() {
		switch in.field {
		case 1:
			a.ID = in.id()
		case 2:
			a.Namespace = in.str()
		case 3:
			a.Name = in.str()
		case 4:
			a.Version = in.str()
		case 5:
			a.Subject = in.str()
		case 6:
			a.Cause = in.id()
		case 7:
			a.Start = in.time()
		case 8:
			a.End = in.time()
		case 9:
			a.Duration = time.Duration(in.int())
		case 10:
			a.Outcome = whisk.Outcome(in.int())
		case 11:
			a.Result = in.bytes()
		case 12:
			a.Size = int(in.int())
		case 13:
			a.Logs = append(a.Logs, in.str())
		case 14:
			a.Annotations = append(a.Annotations, in.param())
		}
	}
	d.join(&in, "record")
	return a
}

func (d *decoder) param() whisk.Param {
	var p whisk.Param
	in := d.inner()
	for in.next() {
		switch in.field {
		case 1:
			p.Key = in.str()
		case 2:
			p.Value = in.bytes()
		case 3:
			p.Init = in.bool()
		case 4:
			p.Encryption = in.str()
		}
	}
	d.join(&in, "annotation")
	return p
}

func (d *decoder) pending() *whisk.Pending {
	p := new(whisk.Pending)
	in := d.inner()
	var accepted time.Time
	for in.next() {
		switch in.field {
		case 1:
			p.Match = in.match()
		case 2:
			p.Rule = whisk.Revision(in.uint())
		case 3:
			p.Action = in.name()
		case 4:
			p.Event = in.event()
		case 5:
			accepted = in.time()
		case 6:
			p.Seq = in.uint()
		case 7:
			p.Invoke = in.invoke()
		case 8:
			p.Attempts = append(p.Attempts, in.attempt())
		case 9:
			p.Due = in.time()
		case 10:
			p.Started = in.bool()
		case 11:
			p.Exhausted = in.bool()
		case 12:
			p.Since = in.time()
		case 13:
			p.Origin = in.uint()
		case 14:
			p.EventID = in.id()
		}
	}
	if p.Event == nil && !accepted.IsZero() {
		p.Event = new(whisk.Event) // the object store has the rest
	}
	if p.Event != nil {
		p.Event.Seq, p.Event.Accepted = p.Seq, accepted
	}
	d.join(&in, "carry")
	return p
}

func (d *decoder) event() *whisk.Event {
	ev := new(whisk.Event)
	if !d.want(typeBytes) {
		return ev
	}
	if err := json.Unmarshal(d.val, ev); err != nil {
		d.fail()
	}
	return ev
}

func (d *decoder) attempt() whisk.Attempt {
	var a whisk.Attempt
	in := d.inner()
	for in.next() {
		switch in.field {
		case 1:
			a.ActivationID = in.id()
		case 2:
			a.Started = in.time()
		case 3:
			a.Ended = in.time()
		case 4:
			a.Status = in.str()
		case 5:
			a.Error = in.str()
		case 6:
			a.Due = in.time()
		}
	}
	d.join(&in, "attempt")
	return a
}
