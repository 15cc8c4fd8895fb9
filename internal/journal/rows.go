package journal

import (
	"hash/crc32"
	"strconv"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// class says what an indexed ID names, and so in which lists it is.
type class uint8

const (
	classRun    class = iota // an activation of an action
	classFired               // an event that an active rule has seen: also an activation, of the trigger
	classUnseen              // an event that no active rule has seen
	classDead                // a dead letter
)

// row is what the index knows of one entry.
//
// Names and IDs are kept, and nothing of the contents: a list reads those from
// the stream by place.
type row struct {
	place place
	id    string // empty: only what follows is indexed
	space string // namespace
	name  string // as lists filter by it
	class class
	start int64 // milliseconds: lists are in this order

	event   uint64 // of a verdict: its event's sequence
	match   string // of a record, if the attempt was not the only one, and of a dead letter
	attempt int
	dead    string // of a dead entry: the dead letter's ID
	object  string // a digest that the entry names
}

// deadAttempt is the attempt's number under which a dead letter is found by
// its match.
const deadAttempt = 1 << 30

// appendRows adds what is to be indexed of the entry at where.
func appendRows(rows []row, e *stored, where place) []row {
	switch {
	case e.Kind == whisk.EntryVerdict && e.Verdict != nil:
		v := e.Verdict
		r := row{
			place: where, id: v.Event.ID, space: v.Trigger.Namespace, name: v.Trigger.Entity,
			class: classUnseen, start: firedAt(v).UnixMilli(), event: v.Event.Seq,
		}
		if anyActive(v) {
			r.class = classFired
		}
		return append(rows, r)
	case e.Kind == whisk.EntryRecord && e.Record != nil:
		a := e.Record
		r := row{
			place: where, id: a.ID, space: a.Namespace, name: a.FilterName(),
			start: a.Start.UnixMilli(), object: e.logs,
		}
		// A match with one attempt is the rule, and is found by the ID that its
		// verdict tells: its row would double the cost of a run.
		if e.Match != (whisk.Match{}) && (!e.Final || e.Attempt > 1) {
			r.match, r.attempt = matchKey(e.Match), e.Attempt
		}
		return append(rows, r)
	case e.Kind == whisk.EntryDead:
		return append(rows, row{place: where, match: matchKey(e.Match), attempt: deadAttempt, dead: e.Dead})
	// Only for the object's sake: while the carry exists, nobody removes it.
	case e.Kind == whisk.EntryCarry && e.body != "":
		return append(rows, row{place: where, object: e.body})
	}
	return rows
}

// deadRows adds what is to be indexed of a dead letter.
func deadRows(rows []row, d *whisk.DeadLetter, body string, where place) []row {
	return append(rows, row{
		place: where, id: d.ID, space: deadNamespace(d), class: classDead,
		start: d.Time.UnixMilli(), object: body,
	})
}

// firedAt is when an event's record begins: the time in its ID, which is the
// source's unless that is far off.
func firedAt(v *whisk.Verdict) time.Time {
	if t := whisk.IDTime(v.Event.ID); !t.IsZero() {
		return t
	}
	return v.Time
}

// anyActive reports whether OpenWhisk would show an activation for the event:
// it records none when no rule is active.
func anyActive(v *whisk.Verdict) bool {
	for i := range v.Rules {
		if v.Rules[i].Decision != whisk.Off {
			return true
		}
	}
	return false
}

// matchKey is a match as one string: an invocation's ID, or the event's
// sequence and the rule's path, which begins with a slash.
func matchKey(m whisk.Match) string {
	if m.Invoke != "" {
		return m.Invoke
	}
	return strconv.FormatUint(m.Event, 10) + m.Rule.String()
}

// idKey is an ID as the index has it: 16 bytes, or whatever else it is. Half
// the bytes make the largest key of the file cheaper.
func idKey(id string) []byte {
	var raw [idBytes]byte
	if rawID(&raw, id) {
		return raw[:]
	}
	return []byte(id)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum tells two messages of one sequence apart.
func checksum(data []byte) uint64 {
	return uint64(len(data))<<32 | uint64(crc32.Checksum(data, castagnoli))
}
