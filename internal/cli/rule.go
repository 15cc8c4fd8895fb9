package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/client"
	"github.com/millrace/millrace/internal/whisk"
)

const (
	needRule      = "A rule name is required."
	needRuleParts = "A rule, trigger and action name are required."
)

func (a *app) ruleCommand() *cobra.Command {
	return a.noun("rule", "work with rules",
		a.rulePut(false), a.ruleSet("enable", whisk.Active), a.ruleSet("disable", whisk.Inactive), a.ruleStatus(),
		a.rulePut(true), a.ruleGet(), a.ruleDelete(), a.ruleList())
}

// aboutRule is what the help says of rule create and update.
const aboutRule = `Options are annotations; keys that are not Millrace's are kept as they are.

  -a filter '{"state": ["paid"], "total": [10, 20]}'
      only events whose payload has one of the values of each
  -a retry '{"attempts": 5, "backoff": "1s", "on": ["platform", "application"]}'
      how often a run that failed is tried again, and after which failures`

// ruleOptions are the annotations that Millrace acts upon.
var ruleOptions = [...]string{"filter", "retry"}

// warnOfOptions tells of annotations that look like slips of Millrace's own:
// the server keeps any, as OpenWhisk does, and would not act upon them.
func (a *app) warnOfOptions(annots whisk.Params) {
	for _, e := range annots {
		if near := whisk.Nearest(e.Key, ruleOptions[:]...); near != "" && near != e.Key {
			a.warn("annotation '%s' is not one of Millrace's options; did you mean '%s'?", e.Key, near)
		}
	}
}

// rulePut is the command of create and update.
func (a *app) rulePut(update bool) *cobra.Command {
	v := verb{
		use: "create RULE_NAME TRIGGER_NAME ACTION_NAME", short: "create new rule", long: aboutRule,
		min: 3, max: 3, need: needRuleParts, pairs: pairs{annots: true},
	}
	verbing, done := "create", "created"
	if update {
		v.use, v.short = "update RULE_NAME TRIGGER_NAME ACTION_NAME", "update an existing rule, or create a rule if it does not exist"
		v.long = "With -a or -A, all annotations of the rule are replaced: name those that are to\nstay, filter and retry too. Without them, all stay.\n\n" + aboutRule
		verbing, done = "update", "updated"
	}
	v.run = func(ctx context.Context, args []string) error {
		t, err := a.flatTarget(args)
		if err != nil {
			return err
		}
		own := t.Endpoint().Namespace
		trg, err := a.name(args[1], own)
		if err != nil {
			return err
		}
		act, err := a.name(args[2], own)
		if err != nil {
			return err
		}
		put := client.RulePut{Trigger: trg.String(), Action: act.String(), Annotations: a.given.annots}
		r, err := t.PutRule(ctx, t.name, put, update)
		if err != nil {
			return a.because(err, "Unable to %s rule '%s'", verbing, t.name.Entity)
		}
		a.warnOfOptions(a.given.annots)
		return a.ok(r, "%s rule %s", done, a.bold(t.name.Entity))
	}
	return a.verb(v)
}

// ruleSet is the command of enable and disable.
func (a *app) ruleSet(verbing string, to whisk.Status) *cobra.Command {
	return a.verb(verb{
		use: verbing + " RULE_NAME", short: verbing + " rule", min: 1, max: 1, need: needRule,
		run: func(ctx context.Context, args []string) error {
			t, err := a.flatTarget(args)
			if err != nil {
				return err
			}
			if err := t.SetRule(ctx, t.name, to); err != nil {
				return a.because(err, "Unable to %s rule '%s'", verbing, t.name.Entity)
			}
			return a.ok(map[string]whisk.Status{"status": to}, "%sd rule %s", verbing, a.bold(t.name.Entity))
		},
	})
}

// ruleStatus is the command that tells whether a rule is active.
func (a *app) ruleStatus() *cobra.Command {
	return a.verb(verb{
		use: "status RULE_NAME", short: "get rule status", min: 1, max: 1, need: needRule,
		run: func(ctx context.Context, args []string) error {
			t, err := a.flatTarget(args)
			if err != nil {
				return err
			}
			r, err := t.Rule(ctx, t.name)
			if err != nil {
				return a.because(err, "Unable to get status of rule '%s'", t.name.Entity)
			}
			return a.ok(map[string]string{"status": r.Status}, "rule %s is %s", a.bold(t.name.Entity), a.bold(r.Status))
		},
	})
}

// ruleGet is the command that shows a rule, whole, one field of it, or in two
// lines.
func (a *app) ruleGet() *cobra.Command {
	var summary bool
	return a.verb(verb{
		use: "get RULE_NAME [FIELD_FILTER]", short: "get rule", min: 1, max: 2, need: needRule,
		flags: func(c *cobra.Command) {
			c.Flags().BoolVarP(&summary, "summary", "s", false, "summarize rule details")
		},
		run: func(ctx context.Context, args []string) error {
			field := fieldOf(args)
			if _, ok := member(client.Rule{}, field); field != "" && !ok {
				return a.misuse(exitGeneral, fmt.Sprintf("Invalid field filter '%s'.", field))
			}
			t, err := a.flatTarget(args)
			if err != nil {
				return err
			}
			r, err := t.Rule(ctx, t.name)
			if err != nil {
				return a.because(err, "Unable to get rule '%s'", t.name.Entity)
			}
			if summary && !a.json() {
				a.print("%s /%s/%s\n   (%s: %s)\n", a.bold("rule"), r.Namespace, r.Name, a.bold("status"), r.Status)
				return nil
			}
			return a.got(r, "rule", t.name.Entity, field)
		},
	})
}

// ruleDelete is the command that deletes a rule. With --disable it is made
// inactive first, as wsk does.
func (a *app) ruleDelete() *cobra.Command {
	var disable bool
	return a.verb(verb{
		use: "delete RULE_NAME", short: "delete rule", min: 1, max: 1, need: needRule,
		flags: func(c *cobra.Command) {
			c.Flags().BoolVar(&disable, "disable", false, "automatically disable rule before deleting it")
		},
		run: func(ctx context.Context, args []string) error {
			t, err := a.flatTarget(args)
			if err != nil {
				return err
			}
			if disable {
				if err := t.SetRule(ctx, t.name, whisk.Inactive); err != nil {
					return a.because(err, "Unable to disable rule '%s'", t.name.Entity)
				}
			}
			was, err := t.DeleteRule(ctx, t.name)
			if err != nil {
				return a.because(err, "Unable to delete rule '%s'", t.name.Entity)
			}
			return a.ok(was, "deleted rule %s", a.bold(t.name.Entity))
		},
	})
}

// ruleList is the command that lists rules with their status, for which each of
// them is asked for by itself.
func (a *app) ruleList() *cobra.Command {
	var l listFlags
	return a.verb(verb{
		use: "list [NAMESPACE]", short: "list all rules", max: 1, need: "An optional namespace is the only valid argument.",
		flags: func(c *cobra.Command) { l.declare(c, "rules") },
		run: func(ctx context.Context, args []string) error {
			t, err := a.namespaceTarget(args)
			if err != nil {
				return err
			}
			list, err := t.Rules(ctx, t.name.Namespace, l.Page)
			if err != nil {
				return a.because(err, "Unable to obtain the list of rules for namespace '%s'", shownNamespace(t.name.Namespace))
			}
			if err := a.fillStatus(ctx, t, list); err != nil {
				return err
			}
			return a.printRules(list, l.byName)
		},
	})
}

// fillStatus asks for the status of each rule: lists come without.
func (a *app) fillStatus(ctx context.Context, t clientAndName, list []client.Rule) error {
	for i, r := range list {
		full, err := t.Rule(ctx, whisk.Name{Namespace: t.name.Namespace, Entity: r.Name})
		if err != nil {
			return a.because(err, "Unable to get status of rule '%s'", r.Name)
		}
		list[i].Status = full.Status
	}
	return nil
}

func (a *app) printRules(list []client.Rule, byName bool) error {
	return table(a, "rules", list, func(e client.Rule) string {
		return entityRow(e.Namespace, e.Name, fmt.Sprintf("%-20s %s", "private", e.Status))
	}, lower(byName, func(e client.Rule) string { return e.Namespace + e.Name }))
}
