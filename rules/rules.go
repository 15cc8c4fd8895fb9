// Package rules decides which actions an event invokes.
//
// A rule's options are annotations: ParseOptions reads and checks them when the
// rule is stored. A Table is what all triggers and rules were at one moment; it
// never changes, and Judge asks it what every rule of a trigger makes of an
// event. The Engine around it reads flushed events in order, has them judged,
// writes the verdicts and only then hands the matches on. An event is judged
// once, whatever happens: what was written stands.
//
// The package does not know where events come from, how verdicts are kept, nor
// how a match is delivered.
package rules

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// Entry is a rule as it is stored.
type Entry struct {
	Rule     whisk.Rule
	Revision whisk.Revision
}

// Table is what triggers and rules were at one moment. It never changes; all
// methods are safe for concurrent use.
type Table struct {
	roads   map[whisk.Name]*road
	retries map[whisk.Name]whisk.Retry // by rule
	scratch *sync.Pool                 // of *flat
}

// road is a trigger with its rules, by name. A rule may name a trigger that is
// gone: it has a road all the same, and events that are still to be judged get
// its verdict.
type road struct {
	trigger *whisk.Trigger // nil when it is gone and only rules speak of it
	rules   []branch
	active  bool   // one of the rules is
	index   *index // nil when no active rule has a filter
}

// branch is one rule of a trigger. What judging needs is taken out of the rule
// once: thousands of events are judged by one table.
type branch struct {
	rule     whisk.Name
	revision whisk.Revision
	action   whisk.Name
	active   bool
	filter   *matcher // nil: every event
	broken   string   // why its options cannot be read
}

// NewTable lays out triggers and rules for judging; the slice of triggers is the
// table's from then on. A rule whose stored options
// cannot be read, which those who store rules prevent, refuses every event and
// says why.
func NewTable(triggers []whisk.Trigger, entries []Entry) *Table {
	t := &Table{
		roads:   make(map[whisk.Name]*road, len(triggers)),
		retries: make(map[whisk.Name]whisk.Retry, len(entries)),
		scratch: &sync.Pool{New: func() any { return new(flat) }},
	}
	for i := range triggers {
		t.roads[triggers[i].Name] = &road{trigger: &triggers[i]}
	}
	sorted := slices.SortedFunc(slices.Values(entries), func(a, b Entry) int {
		return compareNames(a.Rule.Name, b.Rule.Name)
	})
	for i := range sorted {
		t.add(&sorted[i])
	}
	return t
}

func (t *Table) add(e *Entry) {
	r := &e.Rule
	on := t.roads[r.Trigger]
	if on == nil {
		on = &road{}
		t.roads[r.Trigger] = on
	}
	b := branch{rule: r.Name, revision: e.Revision, action: r.Action, active: r.Effective(on.trigger) == whisk.Active}
	// Read again although they were checked when they were stored: another
	// version may have stored them.
	opts, err := ParseOptions(r.Annotations)
	if err != nil {
		b.broken = "its options cannot be read: " + whisk.Message(err)
		opts.Retry = whisk.StdRetry()
	}
	if b.active && opts.Filter != nil {
		if on.index == nil {
			on.index = newIndex()
		}
		// Only active rules are compiled: an event is walked for what they ask
		// alone.
		b.filter = on.index.compile(opts.Filter)
	}
	on.active = on.active || b.active
	on.rules = append(on.rules, b)
	// Inactive rules too: what they matched before goes on to be retried.
	t.retries[r.Name] = opts.Retry
}

// compareNames orders rules as verdicts list them.
func compareNames(a, b whisk.Name) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Package, b.Package), cmp.Compare(a.Entity, b.Entity))
}

// Active reports whether the trigger has an active rule.
func (t *Table) Active(trigger whisk.Name) bool {
	on := t.roads[trigger]
	return on != nil && on.active
}

// Retry returns how failed attempts of a rule's matches are retried; false when
// there is no such rule.
func (t *Table) Retry(rule whisk.Name) (whisk.Retry, bool) {
	r, ok := t.retries[rule]
	return r, ok
}

// Judge returns what every rule of the event's trigger makes of it, by name. An
// event that cannot be judged gets a verdict with the Problem and without
// rules. at is the time of the judgement.
func (t *Table) Judge(ev *whisk.Event, at time.Time) whisk.Verdict {
	v := whisk.Verdict{
		Event: whisk.Place{Seq: ev.Seq, ID: ev.ID}, Trigger: ev.Trigger, Actor: ev.Actor, Time: ev.Time, At: at,
		Size: len(ev.Payload) + len(ev.Meta),
	}
	on := t.roads[ev.Trigger]
	if on != nil && on.trigger != nil {
		v.Version = on.trigger.Version
	}
	// Problems come before the rules: such an event is judged, once and for
	// all, and goes to the dead letters as a whole.
	if ev.Hops >= whisk.MaxHops {
		v.Problem = fmt.Sprintf("it is %d events away from its first cause, and at most %d are followed", ev.Hops, whisk.MaxHops)
		return v
	}
	if len(ev.Payload) == 0 {
		v.Problem = "its payload is missing from the store"
		return v
	}
	if on == nil || len(on.rules) == 0 {
		return v
	}
	var f *flat
	if on.index != nil {
		// Borrowed, since a table is asked by several at once and a flat grows
		// to the size of an event.
		f = t.scratch.Get().(*flat)
		defer t.scratch.Put(f)
		if err := on.flatten(f, ev); err != nil {
			v.Problem = "its payload cannot be read: " + err.Error()
			return v
		}
	}
	v.Rules = make([]whisk.RuleVerdict, len(on.rules))
	for i := range on.rules {
		v.Rules[i] = on.rules[i].judge(ev, f)
	}
	return v
}

func (b *branch) judge(ev *whisk.Event, f *flat) whisk.RuleVerdict {
	v := whisk.RuleVerdict{Rule: b.rule, Revision: b.revision, Action: b.action, Decision: whisk.Matched}
	switch {
	case !b.active:
		v.Decision = whisk.Off
		return v
	case b.broken != "":
		v.Reason = b.broken
	case b.filter != nil:
		v.Reason = b.filter.match(f)
	}
	if v.Reason != "" {
		v.Decision = whisk.Filtered
		return v
	}
	// Derived, not drawn: whoever judges the event again finds the same
	// attempt.
	v.ActivationID = whisk.Match{Event: ev.Seq, Rule: b.rule}.AttemptID(ev.ID, 1)
	return v
}

// flatten lays out the event for the filters: its payload over the trigger's
// parameters, and what we know of it besides.
func (on *road) flatten(f *flat, ev *whisk.Event) error {
	f.reset(on.index)
	payload := ev.Payload
	// null as a payload stands for no members.
	if string(payload) == "null" {
		payload = json.RawMessage("{}")
	}
	var own []byte
	// Made only when a filter looks at it.
	if on.index.root.children[ownMember] != nil {
		own = ownMembers(ev)
	}
	return f.fill(on.trigger.Parameters, payload, own)
}

// ownMembers returns the value of the member __ow_event: the feed's own
// members, and over them those that every event has.
func ownMembers(ev *whisk.Event) []byte {
	members := map[string]any{}
	var feeds map[string]json.RawMessage
	// A feed may say nothing of its own, or something that is no object.
	if json.Unmarshal(ev.Meta, &feeds) == nil {
		for k, v := range feeds {
			members[k] = v
		}
	}
	members["id"], members["time"] = ev.ID, ev.Time
	for k, v := range map[string]string{"source": ev.Source, "type": ev.Type, "subject": ev.Subject} {
		// What a feed says of its own must not pass for what we know.
		delete(members, k)
		if v != "" {
			members[k] = v
		}
	}
	own, err := json.Marshal(members)
	if err != nil {
		return nil // a year beyond 9999: there is no such time in JSON
	}
	return own
}
