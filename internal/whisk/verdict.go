package whisk

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// Verdict is what every rule of the trigger made of one event. There is one
// for each event, for ever.
type Verdict struct {
	Event   Place         `json:"event"`
	Trigger Name          `json:"trigger"`
	Version string        `json:"version,omitempty"` // of the trigger
	Actor   string        `json:"actor,omitempty"`
	Time    time.Time     `json:"time"`           // the event's
	At      time.Time     `json:"at"`             // when it was judged
	Size    int           `json:"size,omitempty"` // of the event, in bytes: what keeping it for one match costs
	Rules   []RuleVerdict `json:"rules,omitempty"`
	// Problem says why an event could not be judged by its rules: its payload
	// is missing, it came too many hops.
	Problem string `json:"problem,omitempty"`
}

// Decision is what one rule made of an event.
type Decision string

// The decisions of a rule.
const (
	Matched  Decision = "matched"
	Filtered Decision = "filtered" // its filter refused the event
	Off      Decision = "inactive" // it was not active
)

// RuleVerdict is one rule's part of a Verdict.
type RuleVerdict struct {
	Rule     Name     `json:"rule"`
	Revision Revision `json:"rev"` // of the stored rule
	Action   Name     `json:"action"`
	Decision Decision `json:"decision"`
	Reason   string   `json:"reason,omitempty"` // why it was filtered
	// ActivationID is that of the first attempt, if matched.
	ActivationID string `json:"activationId,omitempty"`
}

// Match names one delivery for good: an event matched by a rule or, with
// Invoke, a non-blocking invocation. It is comparable.
type Match struct {
	Event  uint64 `json:"event,omitempty"` // sequence in the archive
	Rule   Name   `json:"rule,omitzero"`
	Invoke string `json:"invoke,omitempty"` // the activation ID it was answered with
}

// EntryKind is what a journal entry tells.
type EntryKind string

// The kinds of journal entries.
const (
	EntryVerdict EntryKind = "verdict" // an event was judged
	EntryInvoke  EntryKind = "invoke"  // a non-blocking invocation was accepted
	EntryStart   EntryKind = "start"   // an attempt is about to run
	EntryRecord  EntryKind = "record"  // an attempt has ended
	EntryDead    EntryKind = "dead"    // a match has a dead letter and is done
	EntryCarry   EntryKind = "carry"   // what an older entry said, again, so that the older one may be trimmed
)

// Entry is one thing that the journal remembers. Which fields are set depends
// on Kind.
type Entry struct {
	Kind    EntryKind `json:"kind"`
	Match   Match     `json:"match,omitzero"`    // all but verdict
	Verdict *Verdict  `json:"verdict,omitempty"` // verdict
	Invoke  *Invoke   `json:"invoke,omitempty"`  // invoke

	Attempt      int       `json:"attempt,omitempty"`      // start, record: counted from 1
	ActivationID string    `json:"activationId,omitempty"` // start: the attempt's
	At           time.Time `json:"at,omitzero"`            // start: when

	Record *Activation `json:"record,omitempty"` // record
	Final  bool        `json:"final,omitempty"`  // record: nothing is to follow
	Due    time.Time   `json:"due,omitzero"`     // record that is not final: when the next attempt is due; zero when it is exhausted and a dead letter is to follow

	Dead  string   `json:"dead,omitempty"`  // dead: the dead letter's ID
	Carry *Pending `json:"carry,omitempty"` // carry
}

// Invoke is an accepted non-blocking invocation.
type Invoke struct {
	Action     Name       `json:"action"` // as the caller named it
	Invocation Invocation `json:"invocation"`
	// Retry is false for a blocking call that was answered with its ID: the
	// caller decides.
	Retry bool `json:"retry"`
}

// Pending is a match that is not done: what the journal gives back at start.
type Pending struct {
	Match    Match     `json:"match"`
	Rule     Revision  `json:"rev,omitempty"`    // revision of the rule when it matched
	Action   Name      `json:"action"`           // what to run
	Event    *Event    `json:"event,omitempty"`  // set when carried; else the archive has it
	Seq      uint64    `json:"seq,omitempty"`    // the event's, again: Event does not hold it
	Invoke   *Invoke   `json:"invoke,omitempty"` // set for an invocation
	Attempts []Attempt `json:"attempts,omitempty"`
	Due      time.Time `json:"due,omitzero"` // when the next attempt is due; zero for at once
	// Started says that the last attempt began and left no record: the
	// process died meanwhile.
	Started bool `json:"started,omitempty"`
	// Exhausted says that the last record was the last attempt and only the
	// dead letter is missing.
	Exhausted bool      `json:"exhausted,omitempty"`
	Since     time.Time `json:"since"` // when it was matched, or accepted
	// Origin is its first place in the journal: matches are queued in this
	// order, however often they were carried since.
	Origin  uint64 `json:"origin,omitempty"`
	EventID string `json:"eventId,omitempty"` // empty for an invocation
}

// Attempt is one try of a match, as dead letters and explanations tell it.
type Attempt struct {
	ActivationID string    `json:"activationId"`
	Started      time.Time `json:"started"`
	Ended        time.Time `json:"ended,omitzero"`
	Status       string    `json:"status,omitempty"` // Outcome's text; empty while it runs
	Error        string    `json:"error,omitempty"`
	Due          time.Time `json:"nextAttempt,omitzero"`
}

// maxErrorText bounds what an attempt keeps of an error, in bytes.
const maxErrorText = 1024

// Attempt returns what is told of an activation that has ended; due is when the
// next attempt follows, zero for none.
func (a *Activation) Attempt(due time.Time) Attempt {
	return Attempt{
		ActivationID: a.ID, Started: a.Start, Ended: a.End, Status: a.Outcome.String(), Error: a.errorText(), Due: due,
	}
}

// errorText returns what a failed activation says of its failure: the text of
// its error member, or the JSON of one that is no text.
func (a *Activation) errorText() string {
	var r struct {
		Error json.RawMessage `json:"error"`
	}
	if a.Outcome == Success || json.Unmarshal(a.Result, &r) != nil || r.Error == nil {
		return ""
	}
	var s string
	if json.Unmarshal(r.Error, &s) != nil {
		s = string(r.Error)
	}
	return strings.ToValidUTF8(s[:min(len(s), maxErrorText)], "")
}

// DeadLetter is a match that was given up, with its whole story.
type DeadLetter struct {
	ID       string    `json:"id"` // sorts by time; derived from the match and its last attempt
	Time     time.Time `json:"time"`
	Match    Match     `json:"match"`
	Revision Revision  `json:"ruleRevision,omitempty"`
	Action   Name      `json:"action"`
	Reason   string    `json:"reason"`
	Event    *Event    `json:"event,omitempty"`
	Invoke   *Invoke   `json:"invoke,omitempty"`
	Attempts []Attempt `json:"attempts"`
}

// DeadLetterID is derived from a match and its last attempt alone, and so is the
// same for a letter that is written again. since is when the match was made: the
// time of a letter about a match that was never tried.
func DeadLetterID(m Match, attempts []Attempt, since time.Time) string {
	at, last := since, ""
	if n := len(attempts); n > 0 {
		last = attempts[n-1].ActivationID
		at = IDTime(last)
		if ended := attempts[n-1].Ended; !ended.IsZero() {
			at = ended
		}
	}
	return DeriveID(at, "dead", strconv.FormatUint(m.Event, 10), m.Rule.String(), m.Invoke, last)
}
