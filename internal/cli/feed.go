package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/client"
)

func (a *app) feedCommand() *cobra.Command {
	return a.noun("feed", "work with feeds", a.feedList(), a.feedStatus())
}

// feedList is the command that lists the feeds of the key's namespace.
func (a *app) feedList() *cobra.Command {
	return a.verb(verb{
		use: "list", short: "list all feeds", need: "No arguments are required.",
		run: func(ctx context.Context, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			list, err := c.Feeds(ctx)
			if err != nil {
				return a.because(err, "Unable to obtain the list of feeds")
			}
			wt, wf := len("Trigger"), len("Feed")
			for _, f := range list {
				wt, wf = max(wt, len(f.Trigger)), max(wf, len(f.Feed))
			}
			// The last column has no width: nothing follows it.
			row := func(trigger, feed, state, events, last string) string {
				return fmt.Sprintf("%-*s %-*s %-9s %8s  %s", wt, trigger, wf, feed, state, events, last)
			}
			return table(a, row("Trigger", "Feed", "State", "Events", "Last event"), list, func(f client.Feed) string {
				return row(f.Trigger, f.Feed, f.Status.State, strconv.FormatUint(f.Stats.Events, 10), stamp(f.Stats.LastEventAt))
			}, nil)
		},
	})
}

// feedStatus is the command that tells how the feed of a trigger is.
func (a *app) feedStatus() *cobra.Command {
	return a.verb(verb{
		use: "status TRIGGER_NAME", short: "tell how the feed of a trigger is", min: 1, max: 1, need: needTrigger,
		run: func(ctx context.Context, args []string) error {
			t, err := a.flatTarget(args)
			if err != nil {
				return err
			}
			f, raw, err := t.FeedOf(ctx, t.name)
			if err != nil {
				return a.because(err, "Unable to get the feed of trigger '%s'", t.name.Entity)
			}
			if a.json() {
				return a.printJSON(raw) // a feed may tell more than we know
			}
			a.feed(f)
			return nil
		},
	})
}

// feed prints how a feed is for a person: its configuration, its figures, its
// last error and the times it will fire next. What does not apply is left out.
func (a *app) feed(f client.Feed) {
	width := len("last event")
	for k := range f.Config {
		width = max(width, len(k))
	}
	// A dash is the stamp of no time.
	line := func(name, value string) {
		if value != "" && value != "-" {
			a.print("   %-*s %s\n", width, name, value)
		}
	}
	a.print("%s %s on trigger %s is %s\n", a.bold("feed"), f.Feed, a.bold(f.Trigger), a.bold(f.Status.State))
	if f.Status.Reason != nil {
		line("because", f.Status.Reason.Message)
	}
	line("url", f.URL)
	for _, k := range slices.Sorted(maps.Keys(f.Config)) {
		line(k, clean(jsonText(f.Config[k])))
	}
	line("events", strconv.FormatUint(f.Stats.Events, 10))
	if f.Stats.Missed > 0 {
		line("missed", strconv.FormatUint(f.Stats.Missed, 10))
	}
	line("last event", stamp(f.Stats.LastEventAt))
	line("position", clean(f.Stats.Cursor))
	if f.Stats.LagMillis > 0 {
		line("lag", fmt.Sprintf("%d ms", f.Stats.LagMillis))
	}
	if f.Stats.LastError != "" {
		line("last error", a.paint(red, clean(f.Stats.LastError))+" at "+stamp(f.Stats.LastErrorAt))
	}
	for i, at := range f.Status.NextFire {
		name := ""
		// The times to come stand under one name.
		if i == 0 {
			name = "next"
		}
		line(name, stamp(at))
	}
}

// jsonText shows a JSON value as text: strings without their quotes.
func jsonText(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s
	}
	return string(v)
}
