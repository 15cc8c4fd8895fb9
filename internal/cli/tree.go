package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/client"
	"github.com/millrace/millrace/internal/whisk"
)

const (
	// patience is how long an event's tree is held back for it to be whole. A
	// tree in one piece is easier to read than its branches among those of
	// others.
	patience = 2 * time.Second
	// maxLogLines is how many lines of an activation's log a tree shows.
	maxLogLines = 20
	// maxGrowing bounds the events whose end is waited for; the oldest is
	// forgotten, and what comes of it later is shown under its rule alone.
	maxGrowing = 10_000
)

// tree prints what becomes of events: the event, under it each rule with its
// verdict, and under a match what its runs did. An event is printed when all
// of it is known or when it has waited for its patience; what comes later is
// printed under its name again. It is not safe for concurrent use.
type tree struct {
	w     io.Writer
	paint func(colour, s string) string
	grows map[uint64]*growing // by the event's sequence
}

// growing is an event whose story goes on.
type growing struct {
	verdict *whisk.Verdict
	since   time.Time
	printed bool
	news    []whisk.Entry // records and deaths that are not printed yet
	open    int           // matches whose end is not known
}

func newTree(w io.Writer, paint func(colour, s string) string) *tree {
	return &tree{w: w, paint: paint, grows: map[uint64]*growing{}}
}

// take adds what was told at the time now, and prints what became whole.
func (t *tree) take(what client.Told, now time.Time) {
	e := what.Entry
	switch {
	// The server tells of a gap rather than waiting for a slow reader.
	case what.Lost:
		t.line("%s", t.paint(yellow, "… some messages were lost: this was read too slowly; 'millrace event list' has all events"))
	case e.Kind == whisk.EntryVerdict && e.Verdict != nil:
		t.sprout(e.Verdict, now)
	// A record without an event is of an action that somebody invoked.
	case e.Kind == whisk.EntryRecord && e.Record != nil && e.Match.Event == 0:
		t.invocation(e)
	case e.Kind == whisk.EntryRecord && e.Record != nil, e.Kind == whisk.EntryDead:
		t.grow(e)
	}
}

// sprout begins the tree of an event. One without a match is whole at once.
func (t *tree) sprout(v *whisk.Verdict, now time.Time) {
	g := &growing{verdict: v, since: now}
	for _, r := range v.Rules {
		if r.Decision == whisk.Matched {
			g.open++
		}
	}
	if g.open == 0 {
		t.event(g)
		return
	}
	// Sequences go up, so the lowest one is the oldest event.
	if len(t.grows) >= maxGrowing {
		oldest := uint64(0)
		for seq := range t.grows {
			if oldest == 0 || seq < oldest {
				oldest = seq
			}
		}
		delete(t.grows, oldest)
	}
	t.grows[v.Event.Seq] = g
}

// grow adds what came of a match.
func (t *tree) grow(e whisk.Entry) {
	g := t.grows[e.Match.Event]
	if g == nil {
		// It was judged before the tail began, or was forgotten.
		t.line("%s", t.paint(dim, "… of an earlier event, rule "+e.Match.Rule.Entity))
		t.outcome(e, "   ")
		return
	}
	g.news = append(g.news, e)
	if e.Final || e.Kind == whisk.EntryDead {
		g.open--
	}
	if g.open > 0 && !g.printed {
		return // the rest may come at once
	}
	t.event(g)
	// Its story has ended: what is kept of it may go.
	if g.open <= 0 {
		delete(t.grows, e.Match.Event)
	}
}

// tick prints the events that have waited long enough at the time now.
func (t *tree) tick(now time.Time) {
	var ripe []*growing
	for _, g := range t.grows {
		if !g.printed && now.Sub(g.since) >= patience {
			ripe = append(ripe, g)
		}
	}
	// A map has no order: events are shown in that of their coming.
	slices.SortFunc(ripe, func(x, y *growing) int { return cmp.Compare(x.verdict.Event.Seq, y.verdict.Event.Seq) })
	for _, g := range ripe {
		t.event(g)
	}
}

// event prints an event with its rules or, if that was done, what is new.
func (t *tree) event(g *growing) {
	v := g.verdict
	head := fmt.Sprintf("%s  %s  %s", clock(v.Time), t.paint(bold, v.Trigger.Entity), t.paint(dim, v.Event.ID))
	rules := v.Rules
	// Later news repeat the head of the event, with those rules alone that
	// they are about.
	if g.printed {
		head += t.paint(dim, "  (later)")
		rules = slices.DeleteFunc(slices.Clone(rules), func(r whisk.RuleVerdict) bool {
			return !slices.ContainsFunc(g.news, func(e whisk.Entry) bool { return e.Match.Rule == r.Rule })
		})
	}
	t.line("%s", head)
	if v.Problem != "" {
		t.line("   %s", t.paint(red, v.Problem))
	}
	if len(rules) == 0 && v.Problem == "" {
		t.line("└─ %s", t.paint(dim, "no rule"))
	}
	width := 0
	for _, r := range rules {
		width = max(width, len(r.Rule.Entity))
	}
	for i, r := range rules {
		branch, stem := "├─ ", "│  "
		if i == len(rules)-1 {
			branch, stem = "└─ ", "   "
		}
		t.rule(g, r, branch+fmt.Sprintf("%-*s", width, r.Rule.Entity), stem)
	}
	g.news, g.printed = nil, true
}

// rule prints one rule's verdict and what came of it so far.
func (t *tree) rule(g *growing, r whisk.RuleVerdict, head, stem string) {
	switch r.Decision {
	case whisk.Filtered:
		line := head + "  " + t.paint(yellow, "filtered")
		if r.Reason != "" {
			line += ": " + clean(r.Reason)
		}
		t.line("%s", line)
		return
	case whisk.Matched:
	default:
		t.line("%s  %s", head, t.paint(dim, string(r.Decision)))
		return
	}
	head += "  " + t.paint(green, "matched") + " → " + actionName(r)
	n := 0
	for _, e := range g.news {
		if e.Match.Rule != r.Rule {
			continue
		}
		// The first run stands on the rule's own line, the others below it.
		if n++; n > 1 || e.Kind == whisk.EntryDead {
			t.outcome(e, stem)
			continue
		}
		t.line("%s  %s", head, t.run(e))
		t.logs(e.Record, stem)
	}
	if n == 0 {
		t.line("%s  %s", head, t.paint(dim, "running"))
	}
}

// actionName names an action as its rule's namespace does.
func actionName(r whisk.RuleVerdict) string {
	if r.Action.Namespace == r.Rule.Namespace {
		return r.Action.Local()
	}
	return r.Action.String()
}

// outcome prints a record or a death on a line of its own.
func (t *tree) outcome(e whisk.Entry, stem string) {
	if e.Kind == whisk.EntryDead {
		t.line("%s  %s %s", stem, t.paint(red, "given up: dead letter"), e.Dead)
		return
	}
	t.line("%s  %s", stem, t.run(e))
	t.logs(e.Record, stem)
}

// run is one attempt in a line: status, start, milliseconds, activation.
func (t *tree) run(e whisk.Entry) string {
	r := e.Record
	colour := green
	if r.Outcome != whisk.Success {
		colour = red
	}
	parts := []string{t.paint(colour, r.Outcome.String()), startOf(r.Annotations), fmt.Sprintf("%d ms", r.Duration.Milliseconds()), t.paint(dim, r.ID)}
	if e.Attempt > 1 {
		parts = append([]string{fmt.Sprintf("attempt %d", e.Attempt)}, parts...)
	}
	if !e.Final && !e.Due.IsZero() {
		parts = append(parts, t.paint(yellow, "again at "+clock(e.Due)))
	}
	return strings.Join(parts, "  ")
}

// logs prints what an activation wrote, and the error that it answered.
func (t *tree) logs(r *whisk.Activation, stem string) {
	if r.Outcome != whisk.Success && len(r.Result) > 0 {
		t.line("%s    %s", stem, t.paint(red, clean(string(unescapeHTML(r.Result)))))
	}
	for i, l := range r.Logs {
		if i == maxLogLines {
			t.line("%s    %s", stem, t.paint(dim, fmt.Sprintf("… %d lines more: millrace activation logs %s", len(r.Logs)-i, r.ID)))
			return
		}
		stream, text := splitLog(l)
		text = clean(text)
		if stream == "stderr" {
			text = t.paint(yellow, text)
		}
		t.line("%s    %s", stem, text)
	}
}

// invocation prints the record of an action that was invoked, by no event.
func (t *tree) invocation(e whisk.Entry) {
	t.line("%s  %s %s  %s", clock(e.Record.Start), t.paint(dim, "invoke"), t.paint(bold, e.Record.FilterName()), t.run(e))
	t.logs(e.Record, "")
}

func (t *tree) line(format string, args ...any) { fmt.Fprintf(t.w, format+"\n", args...) }

// clock is a time of day, to the millisecond, where we are.
func clock(at time.Time) string { return at.Local().Format("15:04:05.000") }

// clean takes out what would move the cursor of a terminal.
func clean(s string) string {
	// Besides the control characters of ASCII there are those of Latin-1,
	// which some terminals obey as well.
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, s)
}
