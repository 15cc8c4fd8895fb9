package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/client"
	"github.com/millrace/millrace/internal/whisk"
)

func (a *app) deadLetterCommand() *cobra.Command {
	return a.noun("dead-letter", "work with dead letters: matches that were given up", a.deadLetterList(), a.deadLetterShow())
}

// deadLetterList is the command that lists what was given up, with its reason.
func (a *app) deadLetterList() *cobra.Command {
	var p client.Page
	return a.verb(verb{
		use: "list", short: "list dead letters, the newest first", need: "No arguments are required.",
		flags: func(c *cobra.Command) {
			c.Flags().IntVarP(&p.Skip, "skip", "s", 0, "exclude the first `SKIP` number of dead letters from the result")
			c.Flags().IntVarP(&p.Limit, "limit", "l", 30, "only return `LIMIT` number of dead letters from the collection")
		},
		run: func(ctx context.Context, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			list, err := c.DeadLetters(ctx, p)
			if err != nil {
				return a.because(err, "Unable to obtain the list of dead letters")
			}
			width := len("Rule")
			times := make([]time.Time, len(list))
			for i, d := range list {
				width = max(width, len(ruleOf(d)))
				times[i] = d.Time
			}
			header := fmt.Sprintf("%-23s %-32s %-*s %s", "Datetime"+zoneOf(times...), "Dead letter ID", width, "Rule", "Reason")
			return table(a, header, list, func(d whisk.DeadLetter) string {
				// The reason may hold an action's own words: nothing in it may
				// move the cursor.
				return fmt.Sprintf("%-23s %-32s %-*s %s", stamp(d.Time), d.ID, width, ruleOf(d), clean(d.Reason))
			}, nil)
		},
	})
}

// ruleOf names what was given up: a rule's match, or an invocation.
func ruleOf(d whisk.DeadLetter) string {
	if d.Match.Rule.IsZero() {
		return "invoke " + d.Action.Local()
	}
	return d.Match.Rule.Entity
}

// deadLetterShow is the command that shows one dead letter. As JSON it is the
// letter as the server keeps it.
func (a *app) deadLetterShow() *cobra.Command {
	return a.verb(verb{
		use: "show DEAD_LETTER_ID", short: "show a dead letter with its whole story", min: 1, max: 1, need: "A dead letter ID is required.",
		run: func(ctx context.Context, args []string) error {
			if err := a.checkID(args[0], "a dead letter", "millrace dead-letter list"); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			d, err := c.DeadLetter(ctx, args[0])
			if err != nil {
				return a.because(err, "Unable to get dead letter '%s'", args[0])
			}
			if a.json() {
				return a.printJSON(d)
			}
			a.deadLetter(d)
			return nil
		},
	})
}

// deadLetter prints the whole story for a person: what it was, why it was given
// up, what came in, and every attempt.
func (a *app) deadLetter(d whisk.DeadLetter) {
	a.print("%s %s\n", a.bold("dead letter"), d.ID)
	a.print("   given up %s\n   because  %s\n   action   %s\n", moment(d.Time), clean(d.Reason), d.Action)
	if !d.Match.Rule.IsZero() {
		a.print("   rule     %s\n", d.Match.Rule)
	}
	if d.Event != nil {
		a.print("   event    %s on trigger %s\n   payload  %s\n", d.Event.ID, d.Event.Trigger, clean(string(d.Event.Payload)))
	}
	// What was invoked over REST, and not by an event.
	if d.Invoke != nil {
		a.print("   invoked  %s\n   payload  %s\n", d.Invoke.Invocation.ActivationID, clean(string(d.Invoke.Invocation.Payload)))
	}
	for i, t := range d.Attempts {
		a.print("   %s\n", a.attempt(i+1, t))
	}
}
