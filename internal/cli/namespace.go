package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/client"
)

// namespaceCommand has wsk's two verbs. Its get takes no name: it is about the
// key's own namespace, as list is.
func (a *app) namespaceCommand() *cobra.Command {
	return a.noun("namespace", "work with namespaces",
		a.verb(verb{
			use: "list", short: "list available namespaces", need: "No arguments are required.",
			run: func(ctx context.Context, _ []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				list, err := c.Namespaces(ctx)
				if err != nil {
					return a.because(err, "Unable to obtain the list of available namespaces")
				}
				return table(a, "namespaces", list, func(s string) string { return s }, nil)
			},
		}),
		a.entities("get", "get triggers, actions, and rules in the registry for namespace"),
	)
}

// listCommand is the same as namespace get, under a shorter name.
func (a *app) listCommand() *cobra.Command {
	return a.entities("list", "list entities in the current namespace")
}

// entities is a command that lists all that a namespace holds.
func (a *app) entities(use, short string) *cobra.Command {
	var byName bool
	return a.verb(verb{
		use: use, short: short, max: 1, need: "No arguments are required.",
		flags: func(c *cobra.Command) {
			c.Flags().BoolVarP(&byName, "name-sort", "n", false, "sorts a list alphabetically by entity name; only applicable within the limit/skip returned entity block")
		},
		run: func(ctx context.Context, args []string) error {
			if len(args) == 1 && args[0] != "/_" { // the one argument that wsk lets pass
				return a.count(args, 0, 0, "No arguments are required.")
			}
			t, err := a.target(nil)
			if err != nil {
				return err
			}
			return a.listAll(ctx, t, byName)
		},
	})
}

// listAll prints every entity of a namespace by sort, each as far as one answer
// of the server holds them.
func (a *app) listAll(ctx context.Context, t clientAndName, byName bool) error {
	ns := t.name.Namespace
	all := client.Page{}
	// The members have the order in which they are printed.
	var held struct {
		Packages []client.Package `json:"packages"`
		Actions  []client.Action  `json:"actions"`
		Triggers []client.Trigger `json:"triggers"`
		Rules    []client.Rule    `json:"rules"`
	}
	var err error
	if held.Actions, err = t.Actions(ctx, ns, "", all); err == nil {
		held.Packages, err = t.Packages(ctx, ns, all)
	}
	if err == nil {
		held.Triggers, err = t.Triggers(ctx, ns, all)
	}
	if err == nil {
		held.Rules, err = t.Rules(ctx, ns, all)
	}
	if err != nil {
		return a.because(err, "Unable to obtain the list of entities for namespace '%s'", shownNamespace(ns))
	}
	if err := a.fillStatus(ctx, t, held.Rules); err != nil {
		return err
	}
	if a.json() {
		return a.printJSON(held)
	}
	a.print("Entities in namespace: %s\n", a.bold(shownNamespace(ns)))
	_ = a.printPackages(held.Packages, byName) // only JSON can fail
	_ = a.printActions(held.Actions, byName)
	_ = a.printTriggers(held.Triggers, byName)
	return a.printRules(held.Rules, byName)
}
