package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/client"
	"github.com/millrace/millrace/internal/whisk"
)

const needTrigger = "A trigger name is required."

func (a *app) triggerCommand() *cobra.Command {
	return a.noun("trigger", "work with triggers",
		a.triggerFire(), a.triggerCreate(), a.triggerUpdate(), a.triggerGet(), a.triggerDelete(), a.triggerList())
}

// triggerFire is the command that emits one event, with -p as its payload.
func (a *app) triggerFire() *cobra.Command {
	return a.verb(verb{
		use: "fire TRIGGER_NAME", short: "fire trigger event", min: 1, max: 1, need: needTrigger,
		pairs: pairs{params: true},
		run: func(ctx context.Context, args []string) error {
			t, err := a.flatTarget(args)
			if err != nil {
				return err
			}
			id, err := t.Fire(ctx, t.name, object(a.given.params))
			if err != nil {
				return a.because(err, "Unable to fire trigger '%s'", t.name.Entity)
			}
			// The event is stored all the same: 'event list' shows it.
			if id == "" && !a.json() {
				a.okLine(a.sys.Out, "triggered %s, but no active rule is there to take it", a.boldName(t.name))
				return a.tellInactive(ctx, t)
			}
			return a.ok(map[string]string{"activationId": id}, "triggered %s with id %s", a.boldName(t.name), a.bold(id))
		},
	})
}

// tellInactive names the rules that would take an event of a trigger if they
// were active.
func (a *app) tellInactive(ctx context.Context, t clientAndName) error {
	trg, err := t.Trigger(ctx, t.name)
	if interrupted(err) {
		return err
	}
	if rules := rulesOf(trg); err == nil && len(rules) > 0 {
		a.warn("inactive: %s; 'millrace rule enable %s' makes it take events", strings.Join(rules, ", "), rules[0])
	}
	return nil
}

// rulesOf returns the names of a trigger's rules, in order.
func rulesOf(trg client.Trigger) []string {
	var names []string
	for full := range trg.Rules { // namespace/name
		names = append(names, full[strings.LastIndex(full, "/")+1:])
	}
	slices.Sort(names)
	return names
}

// triggerCreate is the command that makes a trigger, and its feed with -f.
func (a *app) triggerCreate() *cobra.Command {
	var feed string
	return a.verb(verb{
		use: "create TRIGGER_NAME", short: "create new trigger", min: 1, max: 1, need: needTrigger,
		pairs: pairs{params: true, annots: true, feed: true},
		flags: func(c *cobra.Command) { c.Flags().StringVarP(&feed, "feed", "f", "", "trigger feed `ACTION_NAME`") },
		run: func(ctx context.Context, args []string) error {
			t, err := a.flatTarget(args)
			if err != nil {
				return err
			}
			return a.createTrigger(ctx, t, feed)
		},
	})
}

// feedParams returns what goes to the feed and what to the trigger itself: -p
// goes where there is something to take it, -F and -T say it themselves.
func (a *app) feedParams(hasFeed bool) (feed, trigger whisk.Params, err error) {
	g := a.given
	if len(g.feed)+len(g.trigger) > 0 {
		if len(g.params) > 0 {
			return nil, nil, a.misuse(exitNotAllowed, "Incorrect usage. Cannot combine --feed-param or --trigger-param flag with neither --param nor --param-file flag")
		}
		return g.feed, g.trigger, nil
	}
	if hasFeed {
		return g.params, nil, nil
	}
	return nil, g.params, nil
}

// createTrigger makes a trigger and, with a feed, has the feed told. If the
// feed refuses, the trigger is taken back.
func (a *app) createTrigger(ctx context.Context, t clientAndName, feed string) error {
	forFeed, forTrigger, err := a.feedParams(feed != "")
	if err != nil {
		return err
	}
	if feed == "" && len(forFeed) > 0 {
		return a.misuse(exitNotAllowed, "Incorrect usage. Trigger without a feed cannot have feed parameters")
	}
	trg := client.Trigger{Annotations: a.given.annots, Parameters: forTrigger}
	var feedName whisk.Name
	if feed != "" {
		if feedName, err = a.name(feed, t.Endpoint().Namespace); err != nil {
			return err
		}
		// The annotation is how clients know, at an update or a delete, which
		// feed to tell.
		trg.Annotations = trg.Annotations.Set("feed", string(quote(feedName.String())))
	}
	// The trigger first: the feed's action looks whether it is there.
	done, err := t.PutTrigger(ctx, t.name, trg, false)
	if err != nil {
		return a.because(err, "Unable to create trigger '%s'", t.name.Entity)
	}
	if feed != "" {
		got, err := a.tellFeed(ctx, t, feedName, feedCreate, forFeed)
		if err != nil {
			return a.takeBack(ctx, t, feedName, err)
		}
		if !a.json() {
			if err := a.printInvoked(a.sys.Out, feedName, got, shown{true, true}); err != nil {
				return err
			}
		}
	}
	return a.ok(done, "created trigger %s", a.bold(t.name.Entity))
}

// takeBack removes a trigger whose feed refused it, and tells why it did.
func (a *app) takeBack(ctx context.Context, t clientAndName, feed whisk.Name, cause error) error {
	ctx = context.WithoutCancel(ctx) // half a trigger must not stay because of a Ctrl-C
	var f *client.Failure
	if errors.As(cause, &f) && f.Application {
		_ = writeJSON(a.sys.Err, sorted(f.Body)) // wsk shows the feed's answer too
	}
	failed := a.because(cause, "Unable to create trigger '%s': Unable to configure feed '%s'", t.name.Entity, feed)
	if own := new(failure); errors.As(failed, &own) && f != nil {
		switch {
		case f.Application:
			own.hint = "give the feed what it asks for with -p KEY VALUE"
		case f.Status == http.StatusNotFound:
			own.hint = "'millrace package get /whisk.system/alarms --summary' shows the feeds of a package"
		}
	}
	_, _ = a.tellFeed(ctx, t, feed, feedDelete, nil) // it may know nothing of the trigger
	if _, err := t.DeleteTrigger(ctx, t.name); err != nil && !errors.Is(err, whisk.NotFound) {
		return errors.Join(failed, a.because(err, "Unable to delete trigger '%s'", t.name.Entity))
	}
	return failed
}

// triggerUpdate is the command that changes a trigger, and tells its feed.
func (a *app) triggerUpdate() *cobra.Command {
	return a.verb(verb{
		use: "update TRIGGER_NAME", short: "update an existing trigger, or create a trigger if it does not exist",
		min: 1, max: 1, need: needTrigger,
		pairs: pairs{params: true, annots: true, feed: true},
		run: func(ctx context.Context, args []string) error {
			t, err := a.flatTarget(args)
			if err != nil {
				return err
			}
			old, err := t.Trigger(ctx, t.name)
			// As wsk has it: an update makes what is not there, but never a
			// feed.
			if errors.Is(err, whisk.NotFound) {
				return a.createTrigger(ctx, t, "")
			}
			if err != nil {
				return a.because(err, "Unable to get trigger '%s'", t.name.Entity)
			}
			return a.updateTrigger(ctx, t, old)
		},
	})
}

// updateTrigger changes the trigger, its feed or both, as wsk does: with -p a
// fed trigger stays as it is and the feed alone is told.
func (a *app) updateTrigger(ctx context.Context, t clientAndName, old client.Trigger) error {
	feed := old.Annotations.Text("feed")
	forFeed, forTrigger, err := a.feedParams(feed != "")
	if err != nil {
		return err
	}
	said := len(a.given.feed)+len(a.given.trigger) > 0 // with -F or -T
	done := old
	if said || feed == "" {
		put := client.Trigger{Annotations: a.given.annots, Parameters: forTrigger}
		if feed != "" && put.Annotations != nil {
			// Annotations are replaced as a whole: without this the trigger
			// would lose its feed.
			put.Annotations = put.Annotations.Set("feed", string(quote(feed)))
		}
		if done, err = t.PutTrigger(ctx, t.name, put, true); err != nil {
			return a.because(err, "Unable to update trigger '%s'", t.name.Entity)
		}
	}
	switch {
	case feed == "" && len(forFeed) > 0:
		return a.misuse(exitGeneral, fmt.Sprintf("Unable to configure feed '%s': this trigger does not contain a feed", t.name.Entity))
	case feed != "" && (len(forFeed) > 0 || !said):
		if err := a.configureFeed(ctx, t, feed, feedUpdate, forFeed); err != nil {
			return err
		}
	}
	return a.ok(done, "updated trigger %s", a.bold(t.name.Entity))
}

// triggerGet is the command that shows a trigger, or what its feed tells.
func (a *app) triggerGet() *cobra.Command {
	var summary bool
	return a.verb(verb{
		use: "get TRIGGER_NAME [FIELD_FILTER]", short: "get trigger", min: 1, max: 2, need: needTrigger,
		flags: func(c *cobra.Command) {
			c.Flags().BoolVarP(&summary, "summary", "s", false, "summarize trigger details; parameters with prefix \"*\" are bound")
		},
		run: func(ctx context.Context, args []string) error {
			field := fieldOf(args)
			if _, ok := member(client.Trigger{}, field); field != "" && !ok {
				return a.misuse(exitGeneral, fmt.Sprintf("Invalid field filter '%s'.", field))
			}
			t, err := a.flatTarget(args)
			if err != nil {
				return err
			}
			trg, err := t.Trigger(ctx, t.name)
			if err != nil {
				return a.because(err, "Unable to get trigger '%s'", t.name.Entity)
			}
			// Of a fed trigger wsk shows what its feed answers, unless that
			// fails.
			if feed := trg.Annotations.Text("feed"); feed != "" && field == "" && !summary && !a.json() {
				if err := a.configureFeed(ctx, t, feed, feedRead, nil); err == nil || interrupted(err) {
					return err
				}
			}
			if summary && !a.json() {
				a.summary("trigger", "/"+trg.Namespace+"/"+trg.Name, trg.Annotations, trg.Parameters)
				return nil
			}
			return a.got(trg, "trigger", t.name.Entity, field)
		},
	})
}

// triggerDelete is the command that deletes a trigger, after telling its feed.
func (a *app) triggerDelete() *cobra.Command {
	return a.verb(verb{
		use: "delete TRIGGER_NAME", short: "delete trigger", min: 1, max: 1, need: needTrigger,
		run: func(ctx context.Context, args []string) error {
			t, err := a.flatTarget(args)
			if err != nil {
				return err
			}
			trg, err := t.Trigger(ctx, t.name)
			if err != nil {
				return a.because(err, "Unable to get trigger '%s'", t.name.Entity)
			}
			if feed := trg.Annotations.Text("feed"); feed != "" {
				// The trigger goes, whatever its feed says; what it says is shown.
				if err := a.configureFeed(ctx, t, feed, feedDelete, nil); interrupted(err) {
					return err
				}
			}
			was, err := t.DeleteTrigger(ctx, t.name)
			if err != nil {
				return a.because(err, "Unable to delete trigger '%s'", t.name.Entity)
			}
			if rules := rulesOf(trg); len(rules) > 0 {
				a.warn("without their trigger these rules are inactive now: %s; 'millrace rule delete NAME' deletes one", strings.Join(rules, ", "))
			}
			return a.ok(was, "deleted trigger %s", a.bold(t.name.Entity))
		},
	})
}

// triggerList is the command that lists triggers. What feeds them is told by
// 'feed list'.
func (a *app) triggerList() *cobra.Command {
	var l listFlags
	return a.verb(verb{
		use: "list [NAMESPACE]", short: "list all triggers", max: 1, need: "An optional namespace is the only valid argument.",
		flags: func(c *cobra.Command) { l.declare(c, "triggers") },
		run: func(ctx context.Context, args []string) error {
			t, err := a.namespaceTarget(args)
			if err != nil {
				return err
			}
			list, err := t.Triggers(ctx, t.name.Namespace, l.Page)
			if err != nil {
				return a.because(err, "Unable to obtain the list of triggers for namespace '%s'", shownNamespace(t.name.Namespace))
			}
			return a.printTriggers(list, l.byName)
		},
	})
}

func (a *app) printTriggers(list []client.Trigger, byName bool) error {
	return table(a, "triggers", list, func(e client.Trigger) string {
		return entityRow(e.Namespace, e.Name, "private")
	}, lower(byName, func(e client.Trigger) string { return e.Namespace + e.Name }))
}
