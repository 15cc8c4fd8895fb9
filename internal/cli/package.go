package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/client"
)

const needPackage = "A package name is required."

func (a *app) packageCommand() *cobra.Command {
	return a.noun("package", "work with packages",
		a.packageBind(), a.packagePut(false), a.packagePut(true), a.packageGet(), a.packageDelete(), a.packageList(), a.packageRefresh())
}

// packageBind is the command that makes a binding. Its -o is wsk's, for
// overwrite, so that only --output is the format.
func (a *app) packageBind() *cobra.Command {
	var overwrite bool
	return a.verb(verb{
		use: "bind PACKAGE_NAME BOUND_PACKAGE_NAME", short: "bind parameters to a package",
		min: 2, max: 2, need: "A package name and binding name are required.",
		pairs: pairs{params: true, annots: true},
		flags: func(c *cobra.Command) {
			c.Flags().BoolVarP(&overwrite, "overwrite", "o", false, "overwrite bind")
		},
		run: func(ctx context.Context, args []string) error {
			from, err := a.flatTarget(args)
			if err != nil {
				return err
			}
			to, err := a.flatTarget(args[1:])
			if err != nil {
				return err
			}
			// The parameters are the binding's own: they lie over those of the
			// package.
			put := client.Package{
				Annotations: a.given.annots, Parameters: a.given.params,
				Binding: &client.Binding{Namespace: from.name.Namespace, Name: from.name.Entity},
			}
			done, err := to.PutPackage(ctx, to.name, put, overwrite)
			if err != nil {
				return a.because(err, "Binding creation failed")
			}
			return a.ok(done, "created binding %s", a.bold(args[1]))
		},
	})
}

// packagePut is the command of create and update.
func (a *app) packagePut(update bool) *cobra.Command {
	var shared string
	v := verb{
		use: "create PACKAGE_NAME", short: "create a new package", min: 1, max: 1, need: needPackage,
		pairs: pairs{params: true, annots: true},
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&shared, "shared", "", "package visibility `SCOPE`; yes = shared, no = private")
		},
	}
	if update {
		v.use, v.short = "update PACKAGE_NAME", "update an existing package, or create a package if it does not exist"
	}
	v.run = func(ctx context.Context, args []string) error {
		t, err := a.flatTarget(args)
		if err != nil {
			return err
		}
		put := client.Package{Annotations: a.given.annots, Parameters: a.given.params}
		// Not given, it is not sent: an update leaves it as it is.
		if put.Publish, err = a.shared(shared); err != nil {
			return err
		}
		done, err := t.PutPackage(ctx, t.name, put, update)
		switch {
		case err != nil && update:
			return a.because(err, "Package update failed")
		case err != nil:
			return a.because(err, "Unable to create package '%s'", t.name.Entity)
		case update:
			return a.ok(done, "updated package %s", a.bold(t.name.Entity))
		}
		return a.ok(done, "created package %s", a.bold(t.name.Entity))
	}
	return a.verb(v)
}

// shared reads the value of --shared; nil when it was not given.
func (a *app) shared(s string) (*bool, error) {
	yes := strings.EqualFold(s, "yes")
	switch {
	case s == "":
		return nil, nil
	case yes, strings.EqualFold(s, "no"):
		return &yes, nil
	}
	return nil, a.usage(fmt.Sprintf("Cannot use value '%s' for shared.", s))
}

// packageGet is the command that shows a package with what is in it. Of a
// binding that is what is in the package behind it, with the parameters of
// both.
func (a *app) packageGet() *cobra.Command {
	var summary bool
	return a.verb(verb{
		use: "get PACKAGE_NAME [FIELD_FILTER]", short: "get package", min: 1, max: 2, need: needPackage,
		flags: func(c *cobra.Command) {
			c.Flags().BoolVarP(&summary, "summary", "s", false, "summarize package details; parameters with prefix \"*\" are bound")
		},
		run: func(ctx context.Context, args []string) error {
			field := fieldOf(args)
			if _, ok := member(client.Package{}, field); field != "" && !ok {
				return a.misuse(exitGeneral, fmt.Sprintf("Invalid field filter '%s'.", field))
			}
			t, err := a.flatTarget(args)
			if err != nil {
				return err
			}
			p, err := t.Package(ctx, t.name)
			if err != nil {
				return a.because(err, "Unable to get package '%s'", t.name.Entity)
			}
			if summary && !a.json() {
				a.packageSummary(p)
				return nil
			}
			return a.got(p, "package", t.name.Entity, field)
		},
	})
}

// packageSummary prints two lines each for a package and for what is in it.
func (a *app) packageSummary(p client.Package) {
	full := "/" + p.Namespace + "/" + p.Name
	a.summary("package", full, p.Annotations, p.Parameters)
	for _, e := range p.Actions {
		a.summary(" action", full+"/"+e.Name, e.Annotations, e.Parameters)
	}
	for _, e := range p.Feeds {
		a.summary(" feed  ", full+"/"+e.Name, e.Annotations, e.Parameters)
	}
}

// packageDelete is the command that deletes an empty package, or a binding.
func (a *app) packageDelete() *cobra.Command {
	return a.verb(verb{
		use: "delete PACKAGE_NAME", short: "delete package", min: 1, max: 1, need: needPackage,
		run: func(ctx context.Context, args []string) error {
			t, err := a.flatTarget(args)
			if err != nil {
				return err
			}
			was, err := t.DeletePackage(ctx, t.name)
			if err != nil {
				return a.because(err, "Unable to delete package '%s'", t.name.Entity)
			}
			return a.ok(was, "deleted package %s", a.bold(t.name.Entity))
		},
	})
}

// packageList is the command that lists packages and bindings alike.
func (a *app) packageList() *cobra.Command {
	var l listFlags
	return a.verb(verb{
		use: "list [NAMESPACE]", short: "list all packages", max: 1, need: "An optional namespace is the only valid argument.",
		flags: func(c *cobra.Command) { l.declare(c, "packages") },
		run: func(ctx context.Context, args []string) error {
			t, err := a.namespaceTarget(args)
			if err != nil {
				return err
			}
			list, err := t.Packages(ctx, t.name.Namespace, l.Page)
			if err != nil {
				return a.because(err, "Unable to obtain the list of packages for namespace '%s'", shownNamespace(t.name.Namespace))
			}
			return a.printPackages(list, l.byName)
		},
	})
}

func (a *app) printPackages(list []client.Package, byName bool) error {
	return table(a, "packages", list, func(e client.Package) string {
		return entityRow(e.Namespace, e.Name, visibility(e.Publish))
	}, lower(byName, func(e client.Package) string { return e.Namespace + e.Name }))
}

// packageRefresh is wsk's, whose servers have not had it for years.
func (a *app) packageRefresh() *cobra.Command {
	return a.verb(verb{
		use: "refresh [NAMESPACE]", short: "refresh package bindings", max: 1, need: "An optional namespace is the only valid argument.",
		noOutput: true,
		run: func(ctx context.Context, args []string) error {
			t, err := a.namespaceTarget(args)
			if err != nil {
				return err
			}
			err = t.RefreshPackages(ctx, t.name.Namespace)
			var f *client.Failure
			// Servers without it answer in different ways.
			if errors.As(err, &f) && (f.Status == http.StatusNotFound || f.Status == http.StatusMethodNotAllowed || f.Status == http.StatusNotImplemented) {
				return &failure{
					text: "The package refresh feature is not implemented in the target deployment", exit: f.Exit,
					hint: "there is no need for it: a binding always shows its package as it is now",
				}
			}
			if err != nil {
				return a.because(err, "Package refresh for namespace '%s' failed", shownNamespace(t.name.Namespace))
			}
			a.print("'%s' refreshed successfully\n", shownNamespace(t.name.Namespace))
			return nil
		},
	})
}
