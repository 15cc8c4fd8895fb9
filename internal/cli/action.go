package cli

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/client"
	"github.com/millrace/millrace/internal/whisk"
)

// actionFlags are those of action create and update. The limits have wsk's
// defaults, but only those that were given are sent.
type actionFlags struct {
	kind, docker, main, web, webSecure string
	native, copy, sequence             bool
	timeout, memory, logs, concurrency int
	delAnnotations                     []string
	changed                            func(flag string) bool // it was given
	update                             bool
}

func (a *app) actionCommand() *cobra.Command {
	return a.noun("action", "work with actions",
		a.actionPut(false), a.actionPut(true), a.actionInvoke(), a.actionGet(), a.actionDelete(), a.actionList())
}

// actionPut is the command of create and update: they differ in whether the
// action may be there, and may come without code.
func (a *app) actionPut(update bool) *cobra.Command {
	var f actionFlags
	f.update = update
	v := verb{
		use: "create ACTION_NAME ACTION", short: "create a new action",
		min: 1, max: 2, need: "An action name and code artifact are required.",
		pairs: pairs{params: true, annots: true},
	}
	if update {
		v.use, v.short = "update ACTION_NAME [ACTION]", "update an existing action, or create an action if it does not exist"
		v.need = "An action name is required. A code artifact is optional."
	}
	v.flags = func(c *cobra.Command) {
		fs := c.Flags()
		fs.BoolVar(&f.native, "native", false, "treat ACTION as native action (zip file provides a compatible executable to run)")
		fs.StringVar(&f.docker, "docker", "", "use provided docker image (a path on DockerHub) to run the action")
		fs.BoolVar(&f.copy, "copy", false, "treat ACTION as the name of an existing action")
		fs.BoolVar(&f.sequence, "sequence", false, "treat ACTION as comma separated sequence of actions to invoke")
		fs.StringVar(&f.kind, "kind", "", "the `KIND` of the action runtime (example: python:default, nodejs:default)")
		fs.StringVar(&f.main, "main", "", "the name of the action entry point (function or fully-qualified method name when applicable)")
		fs.IntVarP(&f.timeout, "timeout", "t", whisk.TimeoutRange.Std, "the timeout `LIMIT` in milliseconds after which the action is terminated")
		fs.IntVarP(&f.memory, "memory", "m", whisk.MemoryRange.Std, "the maximum memory `LIMIT` in MB for the action")
		fs.IntVarP(&f.logs, "logsize", "l", whisk.LogsRange.Std, "the maximum log size `LIMIT` in MB for the action")
		fs.IntVar(&f.logs, "logs", whisk.LogsRange.Std, "the same as --logsize `LIMIT`")
		fs.IntVarP(&f.concurrency, "concurrency", "c", whisk.ConcurrencyRange.Std, "the maximum intra-container concurrent activation `LIMIT` for the action")
		fs.StringVar(&f.web, "web", "", "treat ACTION as a web action, a raw HTTP web action, or as a standard action; `MODE`: yes | true = web action, raw = raw HTTP web action, no | false = standard action")
		fs.StringVar(&f.webSecure, "web-secure", "", "secure the web action. where `SECRET` is true, false, or any string. Only valid when the ACTION is a web action")
		if update {
			fs.StringArrayVar(&f.delAnnotations, "del-annotation", nil, "the list of annotations to be deleted from the action, e.g. --del-annotation key1 --del-annotation key2")
		}
		// A limit with its default value that was given is sent, one that was
		// not given is not: an update must not put defaults in the place of
		// what is there.
		f.changed = fs.Changed
	}
	v.run = func(ctx context.Context, args []string) error { return a.putAction(ctx, args, &f) }
	return a.verb(v)
}

// putAction makes or changes an action: the code first, then the annotations of
// a web action, which may need to know those that are there, then one PUT.
func (a *app) putAction(ctx context.Context, args []string, f *actionFlags) error {
	t, err := a.target(args)
	if err != nil {
		return err
	}
	act, err := a.actionOf(ctx, t, args, f)
	if err != nil {
		return a.invalidArguments(err)
	}
	// Asked for only by an update, whose annotations may depend on those that
	// are there. An action that is not there yet is made.
	var existing *client.Action
	if f.update {
		found, err := t.Action(ctx, t.name, false)
		switch {
		case err == nil:
			existing = &found
		case !errors.Is(err, whisk.NotFound):
			return a.because(err, "Unable to get action '%s'", t.name.Local())
		}
	}
	if err := a.webAnnotations(&act, existing, f); err != nil {
		return a.invalidArguments(err)
	}
	done, err := t.PutAction(ctx, t.name, act, f.update)
	if err != nil {
		return a.withPackage(t.name, err, a.because(err, "Unable to create action '%s'", t.name.Local()))
	}
	verb := "created"
	if f.update {
		verb = "updated"
	}
	return a.ok(done, "%s action %s", verb, a.bold(t.name.Local()))
}

// withPackage gives the remedy for an action whose package is not there: that
// is all that a put can miss.
func (a *app) withPackage(n whisk.Name, cause, told error) error {
	if f := (*failure)(nil); n.Package != "" && errors.Is(cause, whisk.NotFound) && errors.As(told, &f) {
		f.hint = fmt.Sprintf("its package may be missing: 'millrace package create %s' makes it", n.Package)
	}
	return told
}

// invalidArguments puts wsk's words before what was wrong with the arguments.
func (a *app) invalidArguments(err error) error {
	// A copy: the failure may be somebody else's.
	f := *a.failureOf(err)
	f.text = "Invalid argument(s). " + f.text
	if f.hint == "" {
		f.hint = usageOf(a.now)
	}
	return &f
}

// actionOf makes the action that the command line describes, but for the
// annotations of web actions.
func (a *app) actionOf(ctx context.Context, t clientAndName, args []string, f *actionFlags) (client.Action, error) {
	act := client.Action{
		Parameters: a.given.params, Annotations: a.given.annots,
		DelAnnotations: f.delAnnotations, Limits: f.limits(),
	}
	var err error
	switch {
	case f.kind != "" && f.docker != "":
		return act, a.misuse(exitNotAllowed, "Cannot specify both --kind and --docker at the same time.")
	case (f.copy || f.sequence) && len(args) < 2:
		return act, a.noArtifact()
	case f.copy:
		err = a.copyAction(ctx, t, args[1], &act)
	case f.sequence:
		act.Exec, err = a.sequenceOf(t.Endpoint().Namespace, args[1])
	case len(args) > 1 || f.docker != "":
		act.Exec, err = a.execOf(args[1:], f)
	// Without an artifact an update changes only what its flags say.
	case !f.update:
		return act, a.noArtifact()
	}
	return act, err
}

// noArtifact is the failure of a create without code, with wsk's exit code for
// it.
func (a *app) noArtifact() error {
	return a.misuse(exitUsage, "An action name and code artifact are required.")
}

// copyAction takes code, parameters and annotations from an existing action;
// what the command line says wins.
func (a *app) copyAction(ctx context.Context, t clientAndName, from string, to *client.Action) error {
	n, err := a.name(from, t.Endpoint().Namespace)
	if err != nil {
		return err
	}
	src, err := t.Action(ctx, n, true)
	if err != nil {
		return a.because(err, "Unable to get action '%s'", n.Local())
	}
	to.Exec = src.Exec
	to.Parameters = to.Parameters.Over(src.Parameters)
	to.Annotations = to.Annotations.Over(src.Annotations)
	return nil
}

// sequenceOf makes the exec of a sequence from a list with commas.
func (a *app) sequenceOf(own, list string) (*client.Exec, error) {
	e := &client.Exec{Kind: whisk.KindSequence}
	for _, s := range strings.Split(list, ",") {
		n, err := a.name(strings.TrimSpace(s), own)
		if err != nil {
			return nil, err
		}
		e.Components = append(e.Components, n.String())
	}
	return e, nil
}

// limits returns the limits that were given, nil if none was.
func (f *actionFlags) limits() *client.Limits {
	var l client.Limits
	pick := func(to **int, value *int, names ...string) {
		for _, n := range names {
			if f.changed(n) {
				*to = value
			}
		}
	}
	pick(&l.Timeout, &f.timeout, "timeout")
	pick(&l.Memory, &f.memory, "memory")
	pick(&l.Logs, &f.logs, "logs", "logsize")
	pick(&l.Concurrency, &f.concurrency, "concurrency")
	if l == (client.Limits{}) {
		return nil
	}
	return &l
}

// actionInvoke is the command that runs an action. With -r the record is not
// shown but the result, and both wait.
func (a *app) actionInvoke() *cobra.Command {
	var blocking, result bool
	return a.verb(verb{
		use: "invoke ACTION_NAME", short: "invoke action", min: 1, max: 1, need: "An action name is required.",
		pairs: pairs{params: true},
		flags: func(c *cobra.Command) {
			c.Flags().BoolVarP(&blocking, "blocking", "b", false, "blocking invoke")
			c.Flags().BoolVarP(&result, "result", "r", false, "blocking invoke; show only activation result (unless there is a failure)")
		},
		run: func(ctx context.Context, args []string) error {
			t, err := a.target(args)
			if err != nil {
				return err
			}
			got, err := t.Invoke(ctx, t.name, object(a.given.params), blocking || result, result)
			return a.showInvoked(t.name, got, err, shown{header: !result, body: blocking || result})
		},
	})
}

// shown says what is printed of an invocation's answer. Header is the line with
// the ID, body the answer.
type shown struct{ header, body bool }

// showInvoked prints the answer to an invocation as wsk does: that of a
// failed one, or of one that goes on, to standard error.
func (a *app) showInvoked(n whisk.Name, got client.Invoked, err error, show shown) error {
	var f *client.Failure
	errors.As(err, &f)
	switch {
	case err == nil:
		return a.printInvoked(a.sys.Out, n, got, show)
	// It goes on: the ID is what it can be asked for by later.
	case f != nil && f.Pending:
		a.okLine(a.sys.Err, "invoked %s, but the request has not yet finished, with id %s", a.boldName(n), a.bold(got.ActivationID))
		return told(err)
	// The record or result is shown, and is the message: nothing else is to be
	// told.
	case f != nil && f.Application:
		if perr := a.printInvoked(a.sys.Err, n, got, shown{show.header, true}); perr != nil {
			return perr
		}
		return told(err)
	}
	return a.because(err, "Unable to invoke action '%s'", n.Local())
}

// printInvoked prints the answer to an invocation: a line with its ID, the
// answer itself, or both. As JSON it is the answer alone.
func (a *app) printInvoked(w io.Writer, n whisk.Name, got client.Invoked, show shown) error {
	if show.header && !a.json() {
		a.okLine(w, "invoked %s with id %s", a.boldName(n), a.bold(got.ActivationID))
	}
	if show.body || a.json() {
		return writeJSON(w, sorted(got.Body))
	}
	return nil
}

// boldName is the full name of an entity as wsk shows it after an invocation.
func (a *app) boldName(n whisk.Name) string {
	return "/" + a.bold(n.Namespace) + "/" + a.bold(n.Local())
}

// actionGet is the command that shows an action: whole, one field of it, in two
// lines, or as its address, or writes its code to a file.
func (a *app) actionGet() *cobra.Command {
	var summary, url, save bool
	var saveAs string
	return a.verb(verb{
		use: "get ACTION_NAME [FIELD_FILTER | --summary | --url]", short: "get action", min: 1, max: 2, need: "An action name is required.",
		flags: func(c *cobra.Command) {
			c.Flags().BoolVarP(&summary, "summary", "s", false, "summarize action details; parameters with prefix \"*\" are bound, \"**\" are bound and finalized")
			c.Flags().BoolVarP(&url, "url", "r", false, "get action url")
			c.Flags().StringVar(&saveAs, "save-as", "", "`FILE` to save action code to")
			c.Flags().BoolVar(&save, "save", false, "save action code to file corresponding with action name")
		},
		run: func(ctx context.Context, args []string) error {
			field := fieldOf(args)
			// A filter that no action has is refused before the server is
			// asked.
			if _, ok := member(client.Action{}, field); field != "" && !ok && !url && !summary {
				return a.misuse(exitUsage, fmt.Sprintf("Invalid field filter '%s'.", field))
			}
			t, err := a.target(args)
			if err != nil {
				return err
			}
			// Code can be large: it is only asked for when it is to be
			// written.
			save = save || saveAs != ""
			act, err := t.Action(ctx, t.name, save)
			if err != nil {
				return a.because(err, "Unable to get action '%s'", t.name.Local())
			}
			switch {
			case url:
				return a.showURL(t, act)
			case summary && !a.json():
				a.summary("action", "/"+act.Namespace+"/"+act.Name, act.Annotations, act.Parameters)
				return nil
			case save:
				return a.saveCode(act, saveAs)
			}
			act.Binding = "" // wsk does not show it
			return a.got(act, "action", t.name.Local(), field)
		},
	})
}

// showURL prints the address of an action.
func (a *app) showURL(t clientAndName, act client.Action) error {
	url := t.ActionURL(act)
	if a.json() {
		return a.printJSON(map[string]string{"url": url})
	}
	a.okLine(a.sys.Out, "got action %s", a.bold(t.name.Entity))
	a.print("%s\n", url)
	return nil
}

// fieldOf returns the field filter, the second argument of a get.
func fieldOf(args []string) string {
	if len(args) > 1 {
		return args[1]
	}
	return ""
}

// actionDelete is the command that deletes an action. As JSON it prints what
// was deleted.
func (a *app) actionDelete() *cobra.Command {
	return a.verb(verb{
		use: "delete ACTION_NAME", short: "delete action", min: 1, max: 1, need: "An action name is required.",
		run: func(ctx context.Context, args []string) error {
			t, err := a.target(args)
			if err != nil {
				return err
			}
			was, err := t.DeleteAction(ctx, t.name)
			if err != nil {
				return a.because(err, "Unable to delete action '%s'", t.name.Local())
			}
			return a.ok(was, "deleted action %s", a.bold(t.name.Local()))
		},
	})
}

// listFlags are those of every list of entities.
type listFlags struct {
	client.Page
	byName bool
}

func (l *listFlags) declare(c *cobra.Command, what string) {
	c.Flags().IntVarP(&l.Skip, "skip", "s", 0, "exclude the first `SKIP` number of "+what+" from the result")
	c.Flags().IntVarP(&l.Limit, "limit", "l", 30, "only return `LIMIT` number of "+what+" from the collection")
	c.Flags().BoolVarP(&l.byName, "name-sort", "n", false, "sorts a list alphabetically by entity name; only applicable within the limit/skip returned entity block")
}

// actionList is the command that lists the actions of a namespace with those of
// its packages, or those of one package.
func (a *app) actionList() *cobra.Command {
	var l listFlags
	return a.verb(verb{
		use: "list [ NAMESPACE | PACKAGE_NAME ]", short: "list all actions in a namespace or actions contained in a package",
		max: 1, need: "An optional namespace is the only valid argument.",
		flags: func(c *cobra.Command) { l.declare(c, "actions") },
		run: func(ctx context.Context, args []string) error {
			t, err := a.target(args)
			if err != nil {
				return err
			}
			list, err := t.Actions(ctx, t.name.Namespace, t.name.Local(), l.Page)
			if err != nil {
				return a.because(err, "Unable to obtain the list of actions for namespace '%s'", shownNamespace(t.name.Namespace))
			}
			return a.printActions(list, l.byName)
		},
	})
}

// printActions prints a list of actions with their kinds, which lists have in
// the annotation exec.
func (a *app) printActions(list []client.Action, byName bool) error {
	var key func(client.Action) string
	if byName {
		// Those in no package come first, as wsk has them.
		key = func(e client.Action) string {
			if strings.Contains(e.Namespace, "/") {
				return "1" + strings.ToLower(e.Namespace+e.Name)
			}
			return "0" + e.Name
		}
	}
	return table(a, "actions", list, func(e client.Action) string {
		return entityRow(e.Namespace, e.Name, "private "+e.Annotations.Text("exec"))
	}, key)
}

// shownNamespace is what messages call the caller's own namespace.
func shownNamespace(ns string) string {
	if ns == whisk.Own {
		return "default"
	}
	return ns
}

// saveCode writes an action's code to a file that does not exist yet.
func (a *app) saveCode(act client.Action, name string) error {
	e := act.Exec
	switch {
	// A sequence has components and no code; an image has its code inside, if
	// it was not made with a file.
	case e == nil || e.Kind == whisk.KindSequence:
		return a.misuse(exitUsage, "Cannot save action sequences")
	case e.Kind == whisk.KindBlackbox && e.Code == nil:
		return a.misuse(exitUsage, "Cannot save Docker images")
	case e.Code == nil:
		return a.misuse(exitUsage, fmt.Sprintf("Cannot save actions of kind %s", e.Kind))
	}
	code := []byte(*e.Code)
	binary := e.Binary != nil && *e.Binary
	if binary {
		b, err := base64.StdEncoding.DecodeString(*e.Code)
		if err != nil {
			return a.because(whisk.E(whisk.Internal, "", err), "Cannot read the code of action '%s'", act.Name)
		}
		code = b
	}
	if name == "" {
		name = act.Name + extensionOf(e.Kind, binary)
	}
	// Never over a file that is there: it may be the newer code.
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return &failure{text: fmt.Sprintf("The file '%s' already exists", name), exit: exitUsage, hint: "name another with --save-as"}
	}
	if err == nil {
		_, err = f.Write(code)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return &failure{text: fmt.Sprintf("Cannot create file '%s': %v", name, err), exit: exitUsage, hint: "name a file in a folder that you may write with --save-as"}
	}
	if full, err := filepath.Abs(name); err == nil {
		name = full
	}
	return a.ok(quote(name), "saved action code to %s", a.bold(name))
}
