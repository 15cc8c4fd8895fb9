package controller

import (
	"net/http"

	"github.com/millrace/millrace/internal/auth"
	"github.com/millrace/millrace/internal/whisk"
)

// linkTries is how often linking a rule is tried when its trigger is written by
// somebody else meanwhile.
const linkTries = 5

// ruleJSON is a rule as answers show it; lists leave the status out, which is
// why clients ask for each rule by itself.
type ruleJSON struct {
	metaJSON
	Status  whisk.Status `json:"status,omitempty"`
	Trigger refJSON      `json:"trigger"`
	Action  refJSON      `json:"action"`
}

func showRule(r *whisk.Rule, status whisk.Status) ruleJSON {
	return ruleJSON{showMeta(&r.Meta), status, showRef(r.Trigger), showRef(r.Action)}
}

// metaOfRule is for entityList, as metaOfAction is.
func metaOfRule(r *whisk.Rule) *whisk.Meta { return &r.Meta }

// effective returns a rule's status as it shows: inactive when its trigger is
// not the one that it was linked to.
func (a *api) effective(r *whisk.Rule) whisk.Status {
	// Any error: the name may have become another entity's.
	t, _, err := a.Triggers.Get(r.Trigger)
	if err != nil {
		return whisk.Inactive
	}
	return r.Effective(&t)
}

func (a *api) listRules(c *call) error {
	return entityList(c, auth.Rules, a.Rules.List(c.name.Namespace), revisionIn(a.Rules), metaOfRule,
		func(r *whisk.Rule) any { return showRule(r, "") })
}

func (a *api) getRule(c *call) error {
	r, _, err := a.Rules.Get(c.name)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, showRule(&r, a.effective(&r)))
}

// ruleBody is what the body of a PUT says of a rule. A trigger or an action
// that the body leaves out stays as it was.
type ruleBody struct {
	content
	trigger, action       whisk.Name
	hasTrigger, hasAction bool
}

// readRule reads the body of a PUT. Options that the rule engine would not
// understand are refused here, before anything is stored.
func (a *api) readRule(c *call, m members) (in ruleBody, err error) {
	if in.content, err = readContent(m); err != nil {
		return in, err
	}
	if in.trigger, in.hasTrigger, err = m.name("trigger", c.name.Namespace); err != nil {
		return in, err
	}
	if in.action, in.hasAction, err = m.name("action", c.name.Namespace); err != nil {
		return in, err
	}
	// An update without annotations keeps those that were checked before.
	if in.annotations != nil {
		if err := a.CheckRule(*in.annotations); err != nil {
			return in, err
		}
	}
	return in, nil
}

// putRule makes a rule, which is active at once whatever the body says, or
// changes one, which keeps the status that it shows.
func (a *api) putRule(c *call) error {
	return a.entityBody(c, func(m members) error {
		in, err := a.readRule(c, m)
		if err != nil {
			return err
		}
		overwrite, err := queryBool(c.query(), "overwrite", false)
		if err != nil {
			return err
		}
		// Rights before existence: a caller who may not read the action does
		// not learn whether it is there.
		if err := a.mayRefer(c.id, &in); err != nil {
			return err
		}
		old, rev, err := a.Rules.Get(c.name)
		exists, err := mayPut(err, overwrite)
		if err != nil {
			return err
		}
		r := old
		// What it shows, not what is stored: a rule whose trigger is gone shows
		// as inactive and must not come to life by a change of its parameters.
		if r.Status = whisk.Active; exists {
			r.Status = a.effective(&old)
		}
		r.Meta = in.meta(c.name, old.Meta)
		if in.hasTrigger {
			r.Trigger = in.trigger
		}
		if in.hasAction {
			r.Action = in.action
		}
		// Only a new rule can lack one.
		if r.Trigger.IsZero() || r.Action.IsZero() {
			return refuse(whisk.Invalid, "rule requires a valid trigger and a valid action")
		}
		return a.storeRule(c, r, rev)
	})
}

// mayRefer checks that the caller may read what the rule refers to. For an
// action in a package that is the package.
func (a *api) mayRefer(id auth.Identity, in *ruleBody) error {
	var refs []auth.Resource
	if in.hasTrigger {
		refs = append(refs, auth.Resource{Collection: auth.Triggers, Name: in.trigger})
	}
	pkg := whisk.Name{Namespace: in.action.Namespace, Entity: in.action.Package}
	switch {
	case in.hasAction && in.action.Package == "":
		refs = append(refs, auth.Resource{Collection: auth.Actions, Name: in.action})
	case in.hasAction:
		refs = append(refs, auth.Resource{Collection: auth.Packages, Name: pkg})
	}
	if err := a.allow(id, auth.Read, refs...); err != nil {
		return err
	}
	if in.hasAction && in.action.Package != "" {
		if _, _, err := a.Packages.Get(pkg); err != nil {
			return err
		}
	}
	return nil
}

// storeRule links a rule to its trigger, stores it and answers with it.
func (a *api) storeRule(c *call, r whisk.Rule, prev whisk.Revision) error {
	if _, _, err := a.Triggers.Get(r.Trigger); err != nil {
		return absent("trigger", r.Trigger, err)
	}
	if _, err := a.Store.Resolve(r.Action); err != nil {
		return absent("action", r.Action, err)
	}
	if err := a.link(c, &r, prev); err != nil {
		return err
	}
	return c.json(http.StatusOK, showRule(&r, r.Status))
}

// absent is what a rule is refused with when a part of it is missing, or when
// something else has the name.
func absent(what string, n whisk.Name, err error) error {
	// Invalid, not NotFound: the address of the request, the rule, is in order.
	if kind := whisk.KindOf(err); kind == whisk.NotFound || kind == whisk.Conflict {
		return refuse(whisk.Invalid, "%s %s does not exist", what, n)
	}
	return err
}

// link stores r as linked to its trigger as it is now. The trigger is written
// only if no rule was ever linked to it; when somebody else writes it first,
// link looks again. NotFound when there is no trigger.
func (a *api) link(c *call, r *whisk.Rule, prev whisk.Revision) error {
	for try := 1; ; try++ {
		t, trev, err := a.Triggers.Get(r.Trigger)
		if err != nil {
			return err
		}
		// Without it the rule would fire for another trigger that is made under
		// the same name later.
		r.Incarnation = t.Incarnation
		// The common case costs one write. Should the trigger be deleted in
		// between, its incarnation goes with it and the rule shows as inactive.
		if t.Linked {
			_, err := a.Rules.Put(c.Context(), r.Name, *r, prev)
			return err
		}
		t.Linked = true
		err = a.Store.Link(c.Context(), *r, prev, t, trev)
		if err == nil || whisk.KindOf(err) != whisk.Conflict || try == linkTries {
			return err
		}
		if _, rev, getErr := a.Rules.Get(r.Name); rev != prev || getErr != nil && whisk.KindOf(getErr) != whisk.NotFound {
			return err // it was the rule that changed
		}
	}
}

// setRule makes a rule active or inactive: POST rules/name.
func (a *api) setRule(c *call) error {
	return a.entityBody(c, func(m members) error {
		if _, there := m["status"]; !there {
			return malformed("key not found: status")
		}
		text, ok := m.text("status")
		want := whisk.Status(text)
		if !ok || want != whisk.Active && want != whisk.Inactive {
			if !ok {
				text = string(m["status"])
			}
			return malformed("requirement failed: " + text + " is not a recognized rule state")
		}
		r, rev, err := a.Rules.Get(c.name)
		if err != nil {
			return err
		}
		// Nothing is written: a client that repeats itself makes no revisions.
		if a.effective(&r) == want {
			return c.ok()
		}
		// A rule whose trigger was made anew is linked to the new one by this.
		r.Status = want
		if err := a.link(c, &r, rev); err != nil {
			if whisk.KindOf(err) == whisk.NotFound && want == whisk.Active {
				return refuse(whisk.NotFound, "Only rules with existing triggers can be activated")
			}
			return err
		}
		return c.ok()
	})
}

// deleteRule needs no unlinking: links are counted from the rules. What it
// answers is inactive, as the rule is from now on.
func (a *api) deleteRule(c *call) error {
	r, rev, err := a.Rules.Get(c.name)
	if err != nil {
		return err
	}
	if err := a.Rules.Delete(c.Context(), c.name, rev); err != nil {
		return err
	}
	return c.json(http.StatusOK, showRule(&r, whisk.Inactive))
}
