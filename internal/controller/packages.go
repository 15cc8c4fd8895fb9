package controller

import (
	"errors"
	"net/http"

	"github.com/millrace/millrace/internal/auth"
	"github.com/millrace/millrace/internal/whisk"
)

// packageJSON is a package as answers show it. Binding is {} for a package in
// full and false for one in a list, as clients expect. Actions and Feeds are
// arrays in a package in full, even if empty, and absent in a list and in the
// answer of a PUT: hence the pointers.
type packageJSON struct {
	metaJSON
	Binding    any           `json:"binding"`
	Parameters *whisk.Params `json:"parameters,omitempty"`
	Actions    *[]memberJSON `json:"actions,omitempty"`
	Feeds      *[]memberJSON `json:"feeds,omitempty"`
}

// memberJSON is an action as its package shows it.
type memberJSON struct {
	Name        string       `json:"name"`
	Version     string       `json:"version"`
	Annotations whisk.Params `json:"annotations"`
}

// bindingJSON refers to a package, in OpenWhisk's second way to do so.
type bindingJSON struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// showPackage shows a package in full, without what is in it.
func showPackage(p *whisk.Package) packageJSON {
	out := packageJSON{metaJSON: showMeta(&p.Meta), Binding: struct{}{}, Parameters: &p.Parameters}
	if b := p.Binding; !b.IsZero() {
		out.Binding = bindingJSON{b.Namespace, b.Entity}
	}
	return out
}

// showPackageItem shows a package as lists do.
func showPackageItem(p *whisk.Package) any {
	out := packageJSON{metaJSON: showMeta(&p.Meta), Binding: false}
	if b := p.Binding; !b.IsZero() {
		out.Binding = bindingJSON{b.Namespace, b.Entity}
	}
	return out
}

// metaOfPackage is for entityList, as metaOfAction is.
func metaOfPackage(p *whisk.Package) *whisk.Meta { return &p.Meta }

// listPackages lists a namespace's packages; to others than its own, those
// that are shared.
func (a *api) listPackages(c *call) error {
	all := a.Packages.List(c.name.Namespace)
	if c.name.Namespace != c.id.Namespace {
		shared := all[:0]
		for _, p := range all {
			// A binding is never shared, whatever it says of itself.
			if p.Publish && p.Binding.IsZero() {
				shared = append(shared, p)
			}
		}
		all = shared
	}
	return entityList(c, auth.Packages, all, revisionIn(a.Packages), metaOfPackage, showPackageItem)
}

// getPackage shows a package with its actions and feeds: those of the provider,
// and its parameters below the binding's own, for a binding.
func (a *api) getPackage(c *call) error {
	p, _, err := a.Packages.Get(c.name)
	if err != nil {
		return err
	}
	at := c.name
	if !p.Binding.IsZero() {
		at = p.Binding
		provider, _, err := a.Packages.Get(at)
		if err != nil {
			return err
		}
		p.Parameters = p.Parameters.Over(provider.Parameters)
	}
	out := showPackage(&p)
	actions, feeds := []memberJSON{}, []memberJSON{}
	in := a.actionsIn(at)
	newestFirst(in, revisionIn(a.Actions), metaOfAction)
	for _, act := range in {
		m := memberJSON{act.Name.Entity, act.Version, act.Annotations}
		// A feed is an action with this annotation; clients list them apart.
		if act.Annotations.Get("feed") != nil {
			feeds = append(feeds, m)
		} else {
			actions = append(actions, m)
		}
	}
	out.Actions, out.Feeds = &actions, &feeds
	return c.json(http.StatusOK, out)
}

// putPackage makes a package or a binding, or changes one. A binding may become
// another, but a package with actions of its own never a binding.
func (a *api) putPackage(c *call) error {
	return a.entityBody(c, func(m members) error {
		in, err := readContent(m)
		if err != nil {
			return err
		}
		binding, err := m.binding(c.id.Namespace)
		if err != nil {
			return err
		}
		overwrite, err := queryBool(c.query(), "overwrite", false)
		if err != nil {
			return err
		}
		// In web addresses the word stands for no package.
		if c.name.Entity == whisk.DefaultPackage {
			return refuse(whisk.Invalid, "Package name 'default' is reserved.")
		}
		if !binding.IsZero() {
			// Before anything is said about it: whether others have a package
			// is told only to who may read it.
			err := a.allow(c.id, auth.Read, auth.Resource{Collection: auth.Packages, Name: binding})
			if err = unbindable(err); err != nil {
				return err
			}
		}
		old, rev, err := a.Packages.Get(c.name)
		exists, err := mayPut(err, overwrite)
		if err != nil {
			return err
		}
		if !binding.IsZero() {
			if err := a.mayBind(binding, exists && old.Binding.IsZero()); err != nil {
				return err
			}
		}
		p := mergePackage(c.name, old, &in, binding)
		if _, err := a.Packages.Put(c.Context(), c.name, p, rev); err != nil {
			return err
		}
		return c.json(http.StatusOK, showPackage(&p))
	})
}

// mergePackage returns what old becomes with what a PUT says. The annotation
// "binding" is the server's own.
func mergePackage(n whisk.Name, old whisk.Package, in *content, binding whisk.Name) whisk.Package {
	p := old
	p.Meta, p.Parameters = in.meta(n, old.Meta), in.params(old.Parameters)
	if !binding.IsZero() {
		p.Binding = binding
	}
	// A body may bring it along: it must not outlive the binding.
	p.Annotations = p.Annotations.Without("binding")
	if b := p.Binding; !b.IsZero() {
		// Names that may be used need no escapes in JSON.
		p.Annotations = p.Annotations.Set("binding", `{"namespace":"`+b.Namespace+`","name":"`+b.Entity+`"}`)
	}
	return p
}

// binding reads which package is to be bound: the zero Name for a plain
// package, which {} is, too.
func (m members) binding(own string) (whisk.Name, error) {
	var b members
	if err := m.read("binding", &b); err != nil {
		return whisk.Name{}, err
	}
	if len(b) == 0 {
		return whisk.Name{}, nil
	}
	ns, ok1 := b.text("namespace")
	name, ok2 := b.text("name")
	if !ok1 || !ok2 {
		return whisk.Name{}, malformed("binding malformed, namespace and name are needed")
	}
	if ns == whisk.Own {
		ns = own
	}
	if err := whisk.CheckNamespace(ns); err != nil {
		return whisk.Name{}, malformed(whisk.Message(err))
	}
	if err := whisk.CheckSegment(name); err != nil {
		return whisk.Name{}, malformed(whisk.Message(err))
	}
	return whisk.Name{Namespace: ns, Entity: name}, nil
}

// mayBind checks that a package can be bound to to. isPackage says that what
// is to become a binding has its own actions.
func (a *api) mayBind(to whisk.Name, isPackage bool) error {
	if isPackage {
		return refuse(whisk.Conflict, "Resource is a package and cannot be converted into a binding.")
	}
	provider, _, err := a.Packages.Get(to)
	if err == nil && !provider.Binding.IsZero() {
		return refuse(whisk.Invalid, "Cannot bind to another package binding.")
	}
	return unbindable(err)
}

// unbindable says of a package that can't be had why nothing can be bound to it.
func unbindable(err error) error {
	switch {
	case errors.Is(err, whisk.NotFound):
		return refuse(whisk.Invalid, "Binding references a package that does not exist.")
	case errors.Is(err, whisk.Conflict):
		return refuse(whisk.Conflict, "Cannot bind to a resource that is not a package.")
	}
	return err
}

// deletePackage deletes a package, with what is in it only when force is asked
// for. A binding holds nothing.
func (a *api) deletePackage(c *call) error {
	force, err := queryBool(c.query(), "force", false)
	if err != nil {
		return err
	}
	// It waits for every write inside a package, of other packages too.
	if err := a.inside.Acquire(c.Context(), everyone); err != nil {
		return err
	}
	defer a.inside.Release(everyone)
	p, rev, err := a.Packages.Get(c.name)
	if err != nil {
		return err
	}
	var in []Removal
	if p.Binding.IsZero() {
		if in, err = a.contents(c.name, force); err != nil {
			return err
		}
	}
	if err := a.Store.RemovePackage(c.Context(), Removal{c.name, rev}, in...); err != nil {
		return err
	}
	return c.json(http.StatusOK, showPackage(&p))
}

// contents returns the actions of a package that is to go with them, or refuses
// when there are any and force was not asked for. The caller holds all of
// inside.
func (a *api) contents(pkg whisk.Name, force bool) ([]Removal, error) {
	in := a.actionsIn(pkg)
	switch n := len(in); {
	case !force && n == 1:
		return nil, refuse(whisk.Conflict, "Package not empty (contains 1 entity). Set force param or delete package contents.")
	case !force && n > 1:
		return nil, refuse(whisk.Conflict, "Package not empty (contains %d entities). Set force param or delete package contents.", n)
	}
	out := make([]Removal, 0, len(in))
	for _, act := range in {
		_, rev, err := a.Actions.Get(act.Name)
		if err != nil {
			return nil, err
		}
		out = append(out, Removal{act.Name, rev})
	}
	return out, nil
}
