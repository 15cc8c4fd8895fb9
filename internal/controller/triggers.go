package controller

import (
	"net/http"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/auth"
	"github.com/millrace/millrace/internal/whisk"
)

// triggerJSON is a trigger as answers show it. Limits is an empty object for
// ever: OpenWhisk's clients read the member.
type triggerJSON struct {
	metaJSON
	Parameters whisk.Params           `json:"parameters"`
	Limits     struct{}               `json:"limits"`
	Rules      *map[string]linkedJSON `json:"rules,omitempty"`
}

// linkedJSON is a rule as its trigger shows it.
type linkedJSON struct {
	Action refJSON      `json:"action"`
	Status whisk.Status `json:"status"`
}

// showTrigger shows a trigger with the rules that are linked to it: to this
// incarnation of it. The member is absent if there never was one.
func (a *api) showTrigger(t *whisk.Trigger) triggerJSON {
	out := triggerJSON{metaJSON: showMeta(&t.Meta), Parameters: t.Parameters}
	if !t.Linked {
		return out
	}
	// Found from the rules, not kept in the trigger: a rule that is deleted
	// needs no second write.
	rules := map[string]linkedJSON{}
	for _, r := range a.Rules.List(t.Name.Namespace) {
		if r.Trigger == t.Name && r.Incarnation == t.Incarnation {
			rules[r.Name.Path()] = linkedJSON{showRef(r.Action), r.Status}
		}
	}
	out.Rules = &rules
	return out
}

// metaOfTrigger is for entityList, as metaOfAction is.
func metaOfTrigger(t *whisk.Trigger) *whisk.Meta { return &t.Meta }

// listTriggers shows no parameters, limits or rules: OpenWhisk's schema has none
// in lists.
func (a *api) listTriggers(c *call) error {
	return entityList(c, auth.Triggers, a.Triggers.List(c.name.Namespace), revisionIn(a.Triggers), metaOfTrigger,
		func(t *whisk.Trigger) any { return showMeta(&t.Meta) })
}

func (a *api) getTrigger(c *call) error {
	t, _, err := a.Triggers.Get(c.name)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, a.showTrigger(&t))
}

// putTrigger makes a trigger or changes one. Only one that is made gets an
// incarnation, and has its feed annotation looked at: an update keeps its links
// and its feed whatever the annotations become.
func (a *api) putTrigger(c *call) error {
	return a.entityBody(c, func(m members) error {
		in, err := readContent(m)
		if err != nil {
			return err
		}
		overwrite, err := queryBool(c.query(), "overwrite", false)
		if err != nil {
			return err
		}
		old, rev, err := a.Triggers.Get(c.name)
		exists, err := mayPut(err, overwrite)
		if err != nil {
			return err
		}
		// From a copy of what is there: members that no body can set are kept.
		t := old
		t.Meta, t.Parameters = in.meta(c.name, old.Meta), in.params(old.Parameters)
		if !exists {
			t.Incarnation = whisk.NewID(time.Now())
			if !feedName(t.Annotations) {
				return refuse(whisk.Invalid, "Feed name is not valid")
			}
		}
		if _, err := a.Triggers.Put(c.Context(), c.name, t, rev); err != nil {
			return err
		}
		return c.json(http.StatusOK, a.showTrigger(&t))
	})
}

// feedName reports whether the feed annotation, if any, is a path. Whether
// there is such a feed is not asked.
func feedName(annotations whisk.Params) bool {
	if annotations.Get("feed") == nil {
		return true
	}
	path := strings.TrimPrefix(annotations.Text("feed"), "/")
	for s := range strings.SplitSeq(path, "/") {
		if whisk.CheckSegment(s) != nil {
			return false
		}
	}
	return true
}

// deleteTrigger leaves the rules alone. They refer to an incarnation that is
// gone, so they show as inactive, even when the name is used again.
func (a *api) deleteTrigger(c *call) error {
	t, rev, err := a.Triggers.Get(c.name)
	if err != nil {
		return err
	}
	out := a.showTrigger(&t)
	if err := a.Triggers.Delete(c.Context(), c.name, rev); err != nil {
		return err
	}
	return c.json(http.StatusOK, out)
}

// fire makes an event of the request. Whether a rule is concerned or not, the
// event is kept; only the answer differs.
func (a *api) fire(c *call) error {
	body, err := payload(c.w, c.Request)
	if err != nil {
		return err
	}
	// The body first: a request that is malformed is told so whether the
	// trigger exists or not.
	if _, _, err := a.Triggers.Get(c.name); err != nil {
		return err
	}
	now := time.Now().UTC()
	// The key of an activation tells what led to this event, so that circles
	// can be counted. Any other key has no origin, and the event begins a
	// story.
	from := c.id.Origin
	ev := whisk.Event{
		ID: whisk.NewID(now), Trigger: c.name, Time: now, Payload: body,
		Source: "api", Actor: c.id.Subject, Headers: headersOf(c.Request, secretHeader),
		Cause: from.Cause, Correlation: from.Correlation, Hops: from.Hops,
	}
	if _, err := a.Events.Accept(c.Context(), ev); err != nil {
		return err
	}
	// OpenWhisk records no activation where no rule is active, so there is no
	// ID to ask for. The archive has the event all the same.
	if !a.Engine.Active(c.name) {
		restCORS(c.w.Header())
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return c.activation(ev.ID)
}

// secretHeader reports whether a header may hold credentials. The headers of a
// fired event are archived, and that is no place for keys.
func secretHeader(name string) bool { return name == "authorization" || name == "cookie" }

// headersOf returns the request's headers as actions see them: names in lower
// case, Host among them, without those that drop names and those that only
// concern the connection.
func headersOf(r *http.Request, drop func(string) bool) map[string]string {
	out := make(map[string]string, len(r.Header)+1)
	for name, values := range r.Header {
		switch name = strings.ToLower(name); {
		case name == "content-length", name == "x-ow-extra-logging", drop(name):
		default:
			out[name] = strings.Join(values, ", ")
		}
	}
	// Go takes Host out of the headers.
	if r.Host != "" {
		out["host"] = r.Host
	}
	return out
}
