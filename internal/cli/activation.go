package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/client"
	"github.com/millrace/millrace/internal/whisk"
)

const needActivation = "An activation ID is required."

func (a *app) activationCommand() *cobra.Command {
	return a.noun("activation", "work with activations",
		a.activationList(), a.activationGet(), a.activationLogs(), a.activationResult(), a.activationPoll())
}

// activationList is the command that lists the records of the key's own
// namespace, newest first.
func (a *app) activationList() *cobra.Command {
	var q client.ActivationQuery
	return a.verb(verb{
		use: "list [NAMESPACE or NAME]", short: "list activations", max: 1, need: "An optional namespace is the only valid argument.",
		flags: func(c *cobra.Command) {
			c.Flags().IntVarP(&q.Skip, "skip", "s", 0, "exclude the first `SKIP` number of activations from the result")
			c.Flags().IntVarP(&q.Limit, "limit", "l", 30, fmt.Sprintf("only return `LIMIT` number of activations from the collection with a maximum LIMIT of %d activations", whisk.MaxListLimit))
			c.Flags().BoolVarP(&q.Full, "full", "f", false, "include full activation description")
			c.Flags().Int64Var(&q.Upto, "upto", 0, "return activations with timestamps earlier than `UPTO`; measured in milliseconds since Th, 01, Jan 1970")
			c.Flags().Int64Var(&q.Since, "since", 0, "return activations with timestamps later than `SINCE`; measured in milliseconds since Th, 01, Jan 1970")
		},
		run: func(ctx context.Context, args []string) error {
			t, err := a.target(args)
			if err != nil {
				return err
			}
			// The server lists the activations of the key's own namespace; of
			// an argument only the name of an action counts.
			q.Name = t.name.Local()
			list, err := t.Activations(ctx, q)
			if err != nil {
				return a.because(err, "Unable to obtain the list of activations for namespace '%s'", shownNamespace(t.name.Namespace))
			}
			if len(list) == 0 && q.Name != "" {
				err := a.warnOfNone("action or trigger", t.name,
					func() error { _, err := t.Action(ctx, t.name, false); return err },
					func() error { _, err := t.Trigger(ctx, t.name); return err })
				if err != nil {
					return err
				}
			}
			return a.printActivations(list, q.Full)
		},
	})
}

// statusWords are what lists call the outcomes, by a record's status code:
// wsk's words, which are shorter than the record's own.
var statusWords = [...]string{"success", "application error", "developer error", "internal error"}

// printActivations prints a list of records: a line each, or the whole of them.
func (a *app) printActivations(list []client.Activation, full bool) error {
	if a.json() {
		if list == nil {
			list = []client.Activation{}
		}
		return a.printJSON(list)
	}
	if full {
		a.print("%s\n", a.bold("activations"))
		for _, e := range list {
			if err := a.printJSON(e); err != nil {
				return err
			}
		}
		return nil
	}
	// An empty line where the header would be, as wsk has it.
	if len(list) == 0 {
		a.print("%s\n", a.bold(""))
		return nil
	}
	// The columns are as wide as the widest entry, and never narrower than
	// wsk's.
	kind, status := len("Kind"), len(statusWords[0])
	for _, e := range list {
		kind, status = max(kind, len(kindOf(e))), max(status, len(statusWord(e)))
	}
	a.print("%s\n", a.bold(fmt.Sprintf("%-19s %-32s %-*s %-6s%-10s %-*s %-6s",
		"Datetime", "Activation ID", kind, "Kind", "Start", "Duration", status, "Status", "Entity")))
	for _, e := range list {
		a.print("%s %-32s %-*s %-5s %-10v %-*s %s/%s:%s\n",
			time.UnixMilli(e.Start).Format(time.DateTime), e.ID, kind, kindOf(e), startOf(e.Annotations),
			time.Duration(e.Duration)*time.Millisecond, status, statusWord(e),
			shorten(e.Namespace, 20), shorten(e.Name, 30), shorten(e.Version, 20))
	}
	return nil
}

// kindOf is the kind of the action that ran; activations of triggers have none.
func kindOf(e client.Activation) string {
	if k := e.Annotations.Text("kind"); k != "" {
		return k
	}
	return "unknown"
}

// statusWord is the outcome of a record in a list. A code that is not known
// counts as success.
func statusWord(e client.Activation) string {
	if e.StatusCode < 0 || e.StatusCode >= len(statusWords) {
		return statusWords[0]
	}
	return statusWords[e.StatusCode]
}

// startOf tells whether the action was initialised in this activation.
func startOf(annots whisk.Params) string {
	if annots.Get("initTime") != nil {
		return "cold"
	}
	return "warm"
}

// shorten takes out the middle of what is longer than most, as wsk does.
func shorten(s string, most int) string {
	if len(s) <= most {
		return s
	}
	head := (most + 1) / 2
	return s[:head] + "..." + s[len(s)-most/2+3:]
}

// withLast puts the ID of the latest activation before args if that is wanted:
// of the action or trigger that args begin with, if they do. What could be a
// field filter is one, as it is to wsk, which knows no name here.
func (a *app) withLast(ctx context.Context, c *client.Client, last bool, args []string, fields bool) ([]string, error) {
	if !last {
		return args, nil
	}
	q := client.ActivationQuery{Page: client.Page{Limit: 1}}
	if len(args) > 0 {
		if _, field := member(client.Activation{}, args[0]); !fields || !field {
			n, err := a.name(args[0], c.Endpoint().Namespace)
			if err != nil {
				return nil, err
			}
			q.Name, args = n.Local(), args[1:]
		}
	}
	list, err := c.Activations(ctx, q)
	switch {
	case err != nil:
		return nil, err
	case len(list) > 0:
		return append([]string{list[0].ID}, args...), nil
	case q.Name != "":
		return nil, &failure{text: fmt.Sprintf("Activation list does not contain any activations of '%s'.", q.Name), exit: exitGeneral, hint: "'millrace activation list' shows what there is"}
	}
	return nil, &failure{text: "Activation list does not contain any activations.", exit: exitGeneral, hint: "invoke an action, or fire a trigger, first"}
}

// ofActivation is a verb about one activation, named by its ID or --last.
func (a *app) ofActivation(v verb, what string, do func(ctx context.Context, c *client.Client, args []string) error) *cobra.Command {
	var last bool
	flags, most := v.flags, v.max
	v.need, v.min = needActivation, 0
	v.max = most + 1 // counted again when --last is known
	v.flags = func(c *cobra.Command) {
		c.Flags().BoolVarP(&last, "last", "l", false, "retrieves the last activation; with the NAME of an action or trigger, its last one")
		if flags != nil {
			flags(c)
		}
	}
	v.run = func(ctx context.Context, args []string) error {
		// Wrong arguments are told without asking the server.
		if !last {
			if err := a.count(args, 1, most, needActivation); err != nil {
				return err
			}
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		if args, err = a.withLast(ctx, c, last, args, most > 1); err != nil {
			return a.because(err, "Unable to get %sactivation", what)
		}
		if err := a.count(args, 1, most, needActivation); err != nil {
			return err
		}
		return do(ctx, c, args)
	}
	return a.verb(v)
}

// activationGet is the command that shows a record: whole, one field of it, its
// result with a line about it, or its log lines.
func (a *app) activationGet() *cobra.Command {
	var summary, logs bool
	return a.ofActivation(verb{
		use: "get (ACTIVATION_ID | --last [NAME]) [FIELD_FILTER]", short: "get activation", max: 2,
		flags: func(c *cobra.Command) {
			c.Flags().BoolVarP(&summary, "summary", "s", false, "summarize activation details")
			c.Flags().BoolVarP(&logs, "logs", "g", false, "emit only the logs, stripped of time stamps and stream identifier")
		},
	}, "", func(ctx context.Context, c *client.Client, args []string) error {
		id, field := args[0], fieldOf(args)
		if _, ok := member(client.Activation{}, field); field != "" && !ok {
			return a.misuse(exitGeneral, fmt.Sprintf("Invalid field filter '%s'.", field))
		}
		act, err := c.Activation(ctx, id)
		if err != nil {
			return a.because(err, "Unable to get activation '%s'", id)
		}
		switch {
		case summary && !a.json():
			a.print("activation result for '/%s/%s' (%s at %s)\n", act.Namespace, act.Name, act.Response.Status, time.UnixMilli(act.End).Truncate(time.Second))
			return a.printJSON(sorted(act.Response.Result))
		case logs && !a.json():
			a.printLogs(act.Logs, true)
			return nil
		}
		return a.got(act, "activation", id, field)
	})
}

// activationLogs is the command that prints the log of a record, with the time
// and stream of each line unless these are not wanted.
func (a *app) activationLogs() *cobra.Command {
	var strip bool
	return a.ofActivation(verb{
		use: "logs (ACTIVATION_ID | --last [NAME])", short: "get the logs of an activation", max: 1,
		flags: func(c *cobra.Command) {
			c.Flags().BoolVarP(&strip, "strip", "r", false, "strip timestamp and stream information")
		},
	}, "logs for ", func(ctx context.Context, c *client.Client, args []string) error {
		lines, err := c.Logs(ctx, args[0])
		if err != nil {
			return a.because(err, "Unable to get logs for activation '%s'", args[0])
		}
		if a.json() {
			return a.printJSON(map[string][]string{"logs": lines})
		}
		a.printLogs(lines, strip)
		return nil
	})
}

// activationResult is the command that prints what a record's action answered,
// whatever its outcome.
func (a *app) activationResult() *cobra.Command {
	return a.ofActivation(verb{
		use: "result (ACTIVATION_ID | --last [NAME])", short: "get the result of an activation", max: 1,
	}, "result for ", func(ctx context.Context, c *client.Client, args []string) error {
		r, err := c.Result(ctx, args[0])
		if err != nil {
			return a.because(err, "Unable to get result for activation '%s'", args[0])
		}
		return a.printJSON(sorted(r.Result))
	})
}

// printLogs prints log lines; with strip their text alone.
func (a *app) printLogs(lines []string, strip bool) {
	for _, l := range lines {
		if strip {
			_, l = splitLog(l)
		}
		a.print("%s\n", l)
	}
}

// logLine is OpenWhisk's form of a line: time, stream, text.
var logLine = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z( *(stdout|stderr):)?\s(.*)$`)

// splitLog returns the stream and the text of a log line.
func splitLog(line string) (stream, text string) {
	m := logLine.FindStringSubmatch(strings.TrimRight(line, "\r\n"))
	// A line that has another form is all text.
	if m == nil {
		return "", line
	}
	return m[2], m[3]
}

// pollEvery is how often activation poll asks, as wsk's.
const pollEvery = 2 * time.Second

// activationPoll is the command that prints the logs of new records until
// Ctrl-C or --exit. It asks again and again, as OpenWhisk's API has no stream;
// tail is the command for ours.
func (a *app) activationPoll() *cobra.Command {
	var exit, seconds, minutes, hours, days int
	return a.verb(verb{
		use: "poll [ NAMESPACE | ACTION_NAME ]", short: "poll continuously for log messages from currently running actions",
		max: 1, need: "An optional namespace is the only valid argument.",
		flags: func(c *cobra.Command) {
			c.Flags().IntVarP(&exit, "exit", "e", 0, "stop polling after `SECONDS` seconds")
			c.Flags().IntVar(&seconds, "since-seconds", 0, "start polling for activations `SECONDS` seconds ago")
			c.Flags().IntVar(&minutes, "since-minutes", 0, "start polling for activations `MINUTES` minutes ago")
			c.Flags().IntVar(&hours, "since-hours", 0, "start polling for activations `HOURS` hours ago")
			c.Flags().IntVar(&days, "since-days", 0, "start polling for activations `DAYS` days ago")
		},
		run: func(ctx context.Context, args []string) error {
			t, err := a.target(args)
			if err != nil {
				return err
			}
			ago := time.Duration(seconds)*time.Second + time.Duration(minutes)*time.Minute + time.Duration(hours+24*days)*time.Hour
			p := poll{app: a, c: t.Client, name: t.name.Local(), seen: map[string]bool{}}
			if exit > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, time.Duration(exit)*time.Second)
				defer cancel()
			}
			return p.run(ctx, ago)
		},
	})
}

// poll shows the logs of activations as they appear. Seen holds the IDs of the
// last answer, so it stays as small as one.
type poll struct {
	*app
	c     *client.Client
	name  string // only this action's, unless empty
	since int64  // milliseconds
	seen  map[string]bool
}

// run shows what begins from now on, or began since a time ago, until ctx ends.
func (p *poll) run(ctx context.Context, ago time.Duration) error {
	p.say("Enter Ctrl-c to exit.\n")
	p.since = time.Now().Add(-ago).UnixMilli()
	// By the server's own times: this machine's clock may differ from its.
	if ago == 0 {
		last, err := p.c.Activations(ctx, client.ActivationQuery{Page: client.Page{Limit: 1}, Full: true})
		if err != nil {
			return p.because(err, "Unable to obtain the list of activations for namespace 'default'")
		}
		if len(last) > 0 {
			p.since = last[0].Start + 1
		}
	}
	p.say("Polling for activation logs\n")
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if err := p.once(ctx); err != nil && ctx.Err() == nil {
			return p.because(err, "Unable to obtain the list of activations for namespace 'default'")
		}
		select {
		case <-ctx.Done():
			return nil // Ctrl-C and --exit are how it ends
		case <-tick.C:
		}
	}
}

// once shows what began since the last time. The window is not moved past what
// was shown: a record appears when it is done, and a long activation that
// began before a short one appears after it.
func (p *poll) once(ctx context.Context) error {
	list, err := p.c.Activations(ctx, client.ActivationQuery{Name: p.name, Since: p.since, Full: true})
	if err != nil {
		return err
	}
	seen := make(map[string]bool, len(list))
	for i := len(list) - 1; i >= 0; i-- { // they come newest first
		e := list[i]
		seen[e.ID] = true
		if p.seen[e.ID] {
			continue
		}
		if err := p.show(e); err != nil {
			return err
		}
	}
	p.seen = seen                        // what is not in the window any more does not come again
	if len(list) >= whisk.MaxListLimit { // a full answer: what is older has been shown
		p.since = list[len(list)/2].Start
	}
	return nil
}

// show prints one record: its logs or, as JSON, the whole of it on a line.
func (p *poll) show(e client.Activation) error {
	if e.Logs == nil {
		e.Logs = []string{}
	}
	if p.json() {
		return json.NewEncoder(p.sys.Out).Encode(e)
	}
	p.say("\nActivation: '%s' (%s)\n", e.Name, e.ID)
	return p.printJSON(e.Logs)
}

// say prints what is for people only.
func (p *poll) say(format string, args ...any) {
	if !p.json() {
		p.print(format, args...)
	}
}
