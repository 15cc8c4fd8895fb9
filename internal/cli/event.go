package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/client"
	"github.com/millrace/millrace/internal/whisk"
)

const needEvent = "An event ID is required."

func (a *app) eventCommand() *cobra.Command {
	return a.noun("event", "work with events", a.eventList(), a.eventGet(), a.eventExplain())
}

// eventList is the command that lists judged events with what their rules made
// of them.
func (a *app) eventList() *cobra.Command {
	var limit int
	var since string
	return a.verb(verb{
		use: "list [TRIGGER_NAME]", short: "list events, the newest first", max: 1, need: "An optional trigger name is the only valid argument.",
		flags: func(c *cobra.Command) {
			c.Flags().IntVarP(&limit, "limit", "l", 30, "only return `LIMIT` number of events from the collection")
			c.Flags().StringVar(&since, "since", "", "only events from `WHEN` on: a time as in 2026-01-31T12:00:00Z, milliseconds since 1970, or how long ago, as in 90s, 2h")
		},
		run: func(ctx context.Context, args []string) error {
			t, err := a.target(nil)
			if len(args) == 1 && err == nil {
				t, err = a.flatTarget(args)
			}
			if err != nil {
				return err
			}
			from, err := a.moment(since)
			if err != nil {
				return err
			}
			list, err := t.Events(ctx, t.name.Entity, from, limit)
			if err != nil {
				return a.because(err, "Unable to obtain the list of events")
			}
			if len(list) == 0 && len(args) == 1 {
				if err := a.warnOfNoTrigger(ctx, t); err != nil {
					return err
				}
			}
			width := len("Trigger")
			times := make([]time.Time, len(list))
			for i, v := range list {
				width = max(width, len(v.Trigger.Entity))
				times[i] = v.Time
			}
			// The rules come last, as their text may have any length.
			header := fmt.Sprintf("%-23s %-32s %-*s %s", "Datetime"+zoneOf(times...), "Event ID", width, "Trigger", "Rules")
			return table(a, header, list, func(v whisk.Verdict) string {
				return fmt.Sprintf("%-23s %-32s %-*s %s", stamp(v.Time), v.Event.ID, width, v.Trigger.Entity, decisions(v))
			}, nil)
		},
	})
}

// warnOfNoTrigger tells when there is no trigger of that name.
func (a *app) warnOfNoTrigger(ctx context.Context, t clientAndName) error {
	return a.warnOfNone("trigger", t.name, func() error {
		_, err := t.Trigger(ctx, t.name)
		return err
	})
}

// moment reads a time: RFC 3339, milliseconds since 1970, or a duration ago.
func (a *app) moment(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	// The forms exclude each other, so the order does not matter.
	if at, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return at, nil
	}
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		return time.Now().Add(-ago), nil
	}
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil && ms >= 0 {
		return time.UnixMilli(ms), nil
	}
	return time.Time{}, a.usage(fmt.Sprintf("'%s' is not a time: give it as 2026-01-31T12:00:00Z, in milliseconds since 1970, or as how long ago, such as 90s or 2h", s))
}

// stamp is a time as lists show it, where we are.
func stamp(at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return at.Local().Format("2006-01-02 15:04:05.000")
}

// moment is a time that stands alone, so with its zone.
func moment(at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return stamp(at) + " " + at.Local().Format("MST")
}

// zoneOf is what the header of a column of times adds: the zone of its stamps.
// Where the clocks changed in between there are two.
func zoneOf(times ...time.Time) string {
	zone := ""
	for _, at := range times {
		switch name := at.Local().Format("MST"); {
		case at.IsZero():
		case zone != "" && zone != name:
			return " (local time)"
		default:
			zone = name
		}
	}
	if zone == "" {
		return ""
	}
	return " (" + zone + ")"
}

// decisions tells in a line what the rules made of an event.
func decisions(v whisk.Verdict) string {
	if v.Problem != "" {
		return v.Problem
	}
	if len(v.Rules) == 0 {
		return "no rule"
	}
	parts := make([]string, len(v.Rules))
	for i, r := range v.Rules {
		parts[i] = r.Rule.Entity + ": " + string(r.Decision)
	}
	return strings.Join(parts, ", ")
}

// eventGet is the command that shows an event with its verdict, as JSON.
func (a *app) eventGet() *cobra.Command {
	return a.verb(verb{
		use: "get EVENT_ID", short: "get event", min: 1, max: 1, need: needEvent,
		run: func(ctx context.Context, args []string) error {
			if err := a.checkID(args[0], "an event", "millrace event list"); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			e, err := c.Event(ctx, args[0])
			if err != nil {
				return a.because(err, "Unable to get event '%s'", args[0])
			}
			return a.got(e, "event", args[0], "")
		},
	})
}

// eventExplain is the command that answers why an event did or did not run an
// action: each rule's decision with its reason, and each attempt.
func (a *app) eventExplain() *cobra.Command {
	return a.verb(verb{
		use: "explain EVENT_ID", short: "tell what each rule made of an event, and what came of it", min: 1, max: 1, need: needEvent,
		run: func(ctx context.Context, args []string) error {
			if err := a.checkID(args[0], "an event", "millrace event list"); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			x, err := c.Explain(ctx, args[0])
			if err != nil {
				return a.because(err, "Unable to explain event '%s'", args[0])
			}
			if a.json() {
				return a.printJSON(x)
			}
			a.explain(x)
			return nil
		},
	})
}

// explain prints an event and the whole of its story for a person.
func (a *app) explain(x client.Explanation) {
	ev := x.Event
	a.print("%s %s on trigger %s\n", a.bold("event"), ev.ID, a.bold(ev.Trigger.String()))
	a.print("   at      %s\n", moment(ev.Time))
	for _, f := range []struct{ name, value string }{
		{"source", clean(ev.Source)},
		{"type", clean(ev.Type)},
		{"subject", clean(ev.Subject)},
		{"actor", ev.Actor},
		{"cause", ev.Cause},
		{"payload", clean(string(ev.Payload))},
		{"meta", clean(string(ev.Meta))},
	} {
		if f.value != "" && f.value != "null" {
			a.print("   %-7s %s\n", f.name, f.value)
		}
	}
	if x.Problem != "" {
		a.print("%s\n", a.paint(red, clean(x.Problem)))
	}
	if x.Waiting {
		a.print("it is accepted, and waits to be judged\n")
		return
	}
	if len(x.Rules) == 0 {
		a.print("no rule of the trigger was there when it came\n")
	}
	for _, r := range x.Rules {
		a.explainRule(r)
	}
}

// explainRule prints one rule's decision and, under it, the attempts of its
// match.
func (a *app) explainRule(r client.RuleExplanation) {
	line := a.bold("rule") + " " + r.Rule.String() + ": " + string(r.Decision)
	if r.Decision == whisk.Matched {
		line += " → " + r.Action.String()
	}
	if r.Reason != "" {
		line += ": " + clean(r.Reason)
	}
	a.print("%s\n", line)
	if r.Decision == whisk.Matched && len(r.Attempts) == 0 {
		a.print("   waiting for its turn\n")
	}
	for i, t := range r.Attempts {
		a.print("   %s\n", a.attempt(i+1, t))
	}
	if r.DeadLetter != "" {
		a.print("   %s\n", a.paint(red, "given up: dead letter "+r.DeadLetter))
	}
}

// attempt tells one try of a match in a line.
func (a *app) attempt(n int, t whisk.Attempt) string {
	status, colour := t.Status, red
	// An attempt without a status has begun and not ended.
	switch status {
	case "":
		status, colour = "running", dim
	case whisk.Success.String():
		colour = green
	}
	line := fmt.Sprintf("attempt %d  %s  %s  %s", n, stamp(t.Started), t.ActivationID, a.paint(colour, status))
	if !t.Ended.IsZero() && !t.Started.IsZero() {
		line += fmt.Sprintf("  %d ms", t.Ended.Sub(t.Started).Milliseconds())
	}
	if t.Error != "" {
		line += ": " + clean(t.Error)
	}
	if !t.Due.IsZero() {
		line += "; again at " + stamp(t.Due)
	}
	return line
}
