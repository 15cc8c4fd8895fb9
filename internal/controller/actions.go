package controller

import (
	"net/http"

	"github.com/millrace/millrace/internal/auth"
	"github.com/millrace/millrace/internal/whisk"
)

// limitsJSON is how answers show the limits of an action.
type limitsJSON struct {
	Timeout     int `json:"timeout"`
	Memory      int `json:"memory"`
	Logs        int `json:"logs"`
	Concurrency int `json:"concurrency"`
	Instances   int `json:"instances,omitempty"`
}

// execJSON is how answers show an exec. Code is nil where it is not asked for.
// Empty and absent code differ: a client that asked for code gets the member.
type execJSON struct {
	Kind   string  `json:"kind,omitempty"`
	Code   *string `json:"code,omitempty"`
	Binary bool    `json:"binary"`
	Main   string  `json:"main,omitempty"`
	Image  string  `json:"image,omitempty"`
}

// actionJSON is an action as answers show it. Lists leave the parameters out;
// any member more than these fails OpenWhisk's own tests.
type actionJSON struct {
	metaJSON
	Parameters *whisk.Params `json:"parameters,omitempty"`
	Limits     limitsJSON    `json:"limits"`
	Exec       execJSON      `json:"exec"`
	Binding    string        `json:"binding,omitempty"` // path of the binding that it was read through
}

// showAction shows an action without its code.
func showAction(a *whisk.Action) actionJSON {
	return actionJSON{
		metaJSON: showMeta(&a.Meta), Parameters: &a.Parameters, Limits: limitsJSON(a.Limits),
		Exec: execJSON{Kind: a.Exec.Kind, Binary: a.Exec.Binary, Main: a.Exec.Main, Image: a.Exec.Image},
	}
}

// showActionItem shows an action as lists do.
func showActionItem(a *whisk.Action) any {
	return actionJSON{metaJSON: showMeta(&a.Meta), Limits: limitsJSON(a.Limits), Exec: execJSON{Binary: a.Exec.Binary}}
}

// withCode shows an action with its code. The caller calls done when it has
// answered: large code has one of few places in memory.
func (a *api) withCode(c *call, act *whisk.Action) (out actionJSON, done func(), err error) {
	out, done = showAction(act), func() {}
	code := act.Exec.Code
	// Code that was just stored is still at hand, without a digest.
	if act.Exec.Digest != "" {
		if act.Exec.Size > whisk.MaxPayload {
			if done, err = c.place(a.codes); err != nil {
				return out, nil, err
			}
		}
		if code, err = a.Store.Code(c.Context(), act.Exec.Digest); err != nil {
			done()
			return out, nil, err
		}
	}
	// An image may come without code, and then shows none.
	if code != "" || act.Exec.Kind != whisk.KindBlackbox {
		out.Exec.Code = &code
	}
	return out, done, nil
}

// metaOfAction is for entityList, as its siblings are: embedded fields can't be
// reached through a type parameter.
func metaOfAction(a *whisk.Action) *whisk.Meta { return &a.Meta }

// listActions lists a namespace's actions, those in packages included, or
// those of one package, which may be a binding.
func (a *api) listActions(c *call) error {
	all := a.Actions.List(c.name.Namespace)
	if c.name.Package != "" {
		at := whisk.Name{Namespace: c.name.Namespace, Entity: c.name.Package}
		p, _, err := a.Packages.Get(at)
		if err != nil {
			return err
		}
		// A binding has no actions of its own.
		if !p.Binding.IsZero() {
			at = p.Binding
		}
		all = a.actionsIn(at)
	}
	return entityList(c, auth.Actions, all, revisionIn(a.Actions), metaOfAction, showActionItem)
}

// actionsIn returns the actions of a package. It looks at all of a namespace:
// the tables have no other order.
func (a *api) actionsIn(pkg whisk.Name) []whisk.Action {
	var in []whisk.Action
	for _, act := range a.Actions.List(pkg.Namespace) {
		if act.Name.Package == pkg.Entity {
			in = append(in, act)
		}
	}
	return in
}

// getAction shows an action as it would run: found through packages and
// bindings, with the parameters of all of them.
func (a *api) getAction(c *call) error {
	code, err := queryBool(c.query(), "code", true)
	if err != nil {
		return err
	}
	run, err := a.Store.Resolve(c.name)
	if err != nil {
		return err
	}
	run.Action.Parameters = run.Params
	out := showAction(&run.Action)
	if code {
		var done func()
		if out, done, err = a.withCode(c, &run.Action); err != nil {
			return err
		}
		defer done()
	}
	if !run.Binding.IsZero() {
		out.Binding = run.Binding.Path()
	}
	return c.json(http.StatusOK, out)
}

// ownPackage checks that the package in n, if any, can be written to.
func (a *api) ownPackage(n whisk.Name) error {
	if n.Package == "" {
		return nil
	}
	p, _, err := a.Packages.Get(whisk.Name{Namespace: n.Namespace, Entity: n.Package})
	switch {
	case err != nil:
		return err
	case !p.Binding.IsZero():
		return refuse(whisk.Invalid, textOnBinding)
	}
	return nil
}

// insideOwn calls write, which writes the action n, while its package, if any,
// is there and stays there. Many may write at once, each with a share of one; a
// deletion takes all shares and waits for them.
func (a *api) insideOwn(c *call, n whisk.Name, write func() error) error {
	if n.Package == "" {
		return write()
	}
	if err := a.inside.Acquire(c.Context(), 1); err != nil {
		return err
	}
	defer a.inside.Release(1)
	// Asked again, although the handler has done so: only inside does the
	// answer hold until the write.
	if err := a.ownPackage(n); err != nil {
		return err
	}
	return write()
}

// putAction makes an action or changes one. The order of its checks is
// OpenWhisk's: of several faults the caller is told the same one.
func (a *api) putAction(c *call) error {
	return a.entityBody(c, func(m members) error {
		in, err := readContent(m)
		if err != nil {
			return err
		}
		exec, err := a.readExec(m)
		if err != nil {
			return err
		}
		if in.annotations != nil && in.annotations.Truthy("conductor") {
			return refuse(whisk.Invalid, "Actions with the annotation 'conductor' are not supported yet.")
		}
		var drop []string
		if err := m.read("delAnnotations", &drop); err != nil {
			return err
		}
		overwrite, err := queryBool(c.query(), "overwrite", false)
		if err != nil {
			return err
		}
		// Only for its error, at the place where OpenWhisk has it; the limits
		// are merged with the old ones when those are known.
		if _, err := readLimits(m, whisk.StdLimits()); err != nil {
			return err
		}
		if err := a.ownPackage(c.name); err != nil {
			return err
		}
		old, rev, err := a.Actions.Get(c.name)
		exists, err := mayPut(err, overwrite)
		if err != nil {
			return err
		}
		if !exists {
			old = whisk.Action{Limits: whisk.StdLimits()}
		}
		act, err := mergeAction(c.name, old, &in, exec, drop)
		if err != nil {
			return err
		}
		// A new exec was checked by readExec.
		if exec == nil && a.deprecated(act.Exec.Kind) {
			return errDeprecated(act.Exec.Kind)
		}
		return a.storeAction(c, act, rev)
	})
}

// mergeAction returns what old becomes with what a PUT says. A zero Version in
// old means that the action is new.
func mergeAction(n whisk.Name, old whisk.Action, in *content, exec *whisk.Exec, drop []string) (whisk.Action, error) {
	isNew := old.Version == ""
	if isNew && exec == nil {
		return old, refuse(whisk.Invalid, "exec undefined")
	}
	act := old
	// Annotations of actions are merged by key, which meta does not do.
	given := in.annotations
	// A copy without annotations: meta then keeps the old ones.
	rest := *in
	rest.annotations = nil
	act.Meta = rest.meta(n, old.Meta)
	for _, key := range drop {
		act.Annotations = act.Annotations.Without(key)
	}
	if given != nil {
		act.Annotations = given.Over(act.Annotations)
	}
	act.Parameters = in.params(old.Parameters)
	if exec != nil {
		act.Exec = *exec
	}
	var err error
	if act.Limits, err = readLimits(in.members, old.Limits); err != nil {
		return old, err
	}
	// Without the annotation an action would get a key; a new one gets none
	// unless it asks.
	if isNew && act.Annotations.Get("provide-api-key") == nil {
		act.Annotations = act.Annotations.Set("provide-api-key", "false")
	}
	kind, err := encode(act.Exec.Kind)
	if err != nil {
		return old, err
	}
	// Lists show no kind: it can be read from this annotation.
	act.Annotations = act.Annotations.Set("exec", string(kind))
	return act, nil
}

// storeAction stores an action, its code first, and answers with it.
func (a *api) storeAction(c *call, act whisk.Action, prev whisk.Revision) error {
	code := act.Exec.Code
	if code != "" {
		// Before the action that names it, and outside of insideOwn: a large
		// write must not keep a deletion waiting. What a refused action leaves
		// behind is swept.
		digest, err := a.Store.PutCode(c.Context(), code)
		if err != nil {
			return err
		}
		act.Exec.Code, act.Exec.Digest, act.Exec.Size = "", digest, len(code)
	}
	err := a.insideOwn(c, c.name, func() error {
		_, err := a.Actions.Put(c.Context(), c.name, act, prev)
		return err
	})
	if err != nil {
		return err
	}
	if code != "" {
		act.Exec.Code, act.Exec.Digest = code, "" // it is at hand: no need to read it
	}
	out, done, err := a.withCode(c, &act)
	if err != nil {
		return err
	}
	defer done()
	return c.json(http.StatusOK, out)
}

// deleteAction answers with what was deleted, code included: it is the caller's
// last chance to keep it.
func (a *api) deleteAction(c *call) error {
	// Before Get: through a binding the action is not there, and the caller is
	// told why.
	if err := a.ownPackage(c.name); err != nil {
		return err
	}
	act, rev, err := a.Actions.Get(c.name)
	if err != nil {
		return err
	}
	out, done, err := a.withCode(c, &act)
	if err != nil {
		return err
	}
	defer done()
	err = a.insideOwn(c, c.name, func() error { return a.Actions.Delete(c.Context(), c.name, rev) })
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, out)
}

// deprecated reports whether a kind may only be read and deleted.
func (a *api) deprecated(kind string) bool {
	if kind == whisk.KindBlackbox || kind == whisk.KindBuiltin {
		return false
	}
	rt, err := a.Runtimes.Find(kind)
	return err == nil && rt.Deprecated
}
