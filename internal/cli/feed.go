package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/client"
	"github.com/millrace/millrace/internal/whisk"
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
			times := make([]time.Time, len(list))
			for i, f := range list {
				wt, wf = max(wt, len(f.Trigger)), max(wf, len(f.Feed))
				times[i] = f.Stats.LastEventAt
			}
			// The last column has no width: nothing follows it.
			const events = "Events since start" // of the server
			row := func(trigger, feed, state, n, last string) string {
				return fmt.Sprintf("%-*s %-*s %-9s %*s  %s", wt, trigger, wf, feed, state, len(events), n, last)
			}
			return table(a, row("Trigger", "Feed", "State", events, "Last event"+zoneOf(times...)), list, func(f client.Feed) string {
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
			if f.URL == "" && strings.HasPrefix(f.Feed, webhookFeeds) {
				if f.URL, err = a.addressOf(ctx, t, f.Feed); interrupted(err) {
					return err
				}
			}
			a.feed(f)
			return nil
		},
	})
}

// webhookFeeds is what the names of feeds with an address begin with.
const webhookFeeds = "/whisk.system/webhook/"

// addressOf asks a webhook itself for its address: nobody else tells it.
func (a *app) addressOf(ctx context.Context, t clientAndName, feed string) (string, error) {
	n, err := a.name(feed, whisk.Own)
	if err != nil {
		return "", err
	}
	got, err := a.tellFeed(ctx, t, n, feedRead, nil)
	if err != nil {
		return "", err
	}
	var record struct {
		Response struct {
			Result struct {
				URL string `json:"url"`
			} `json:"result"`
		} `json:"response"`
	}
	err = json.Unmarshal(got.Body, &record)
	return record.Response.Result.URL, err
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
	if f.Stats.Fired > 0 {
		line("fired", strconv.FormatUint(f.Stats.Fired, 10)+" since the feed was made")
	}
	if f.Stats.Missed > 0 {
		line("missed", strconv.FormatUint(f.Stats.Missed, 10)+" since the feed was made")
	}
	line("events", strconv.FormatUint(f.Stats.Events, 10)+" since the server started")
	line("last event", moment(f.Stats.LastEventAt))
	line("position", clean(f.Stats.Cursor))
	if f.Stats.LagMillis > 0 {
		line("lag", fmt.Sprintf("%d ms", f.Stats.LagMillis))
	}
	if f.Stats.LastError != "" {
		line("last error", a.paint(red, clean(f.Stats.LastError))+" at "+moment(f.Stats.LastErrorAt))
	}
	for i, at := range f.Status.NextFire {
		name := ""
		// The times to come stand under one name.
		if i == 0 {
			name = "next"
		}
		line(name, at.Format(time.DateTime)+" "+zoneOfFeed(f, at))
	}
}

// zoneOfFeed names the zone of a schedule's time: as the schedule does or, of
// one that names none, by its distance from UTC. A period has no zone, whatever
// is named.
func zoneOfFeed(f client.Feed, at time.Time) string {
	cron := jsonText(f.Config["cron"])
	zone := jsonText(f.Config["timezone"])
	if first, _, _ := strings.Cut(cron, " "); zone == "" && strings.Contains(first, "TZ=") {
		_, zone, _ = strings.Cut(first, "=")
	}
	_, offset := at.Zone()
	switch {
	case zone != "" && !strings.Contains(cron, "@every"):
		return zone
	case offset == 0:
		return "UTC"
	}
	return at.Format("-07:00")
}

// jsonText shows a JSON value as text: strings without their quotes.
func jsonText(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s
	}
	return string(v)
}
