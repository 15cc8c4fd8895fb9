package client

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/whisk"
)

// Page is which part of a list is asked for. A Limit of 0 asks for the most
// that one answer holds, whisk.MaxListLimit.
type Page struct{ Skip, Limit int }

func (p Page) query() url.Values {
	return url.Values{"limit": {strconv.Itoa(p.Limit)}, "skip": {strconv.Itoa(p.Skip)}}
}

// overwriting lets a PUT change what is there. Without it, that is a Conflict.
func overwriting(yes bool) url.Values { return url.Values{"overwrite": {strconv.FormatBool(yes)}} }

// Info is what a server says of itself.
type Info struct {
	Description string `json:"description"`
	Version     string `json:"api_version"`
	Build       string `json:"build"`
	BuildNo     string `json:"buildno"`
}

// Info asks for the build; it needs no key.
func (c *Client) Info(ctx context.Context) (Info, error) {
	var out Info
	_, _, err := c.do(ctx, call{method: http.MethodGet, path: c.root(), public: true}, &out)
	return out, err
}

// Kinds returns the kinds of actions on offer, by family; it needs no key.
func (c *Client) Kinds(ctx context.Context) (map[string][]string, error) {
	// The root of the server answers with OpenWhisk's document of what it
	// offers.
	var doc struct {
		Runtimes map[string][]struct {
			Kind string `json:"kind"`
		} `json:"runtimes"`
	}
	if _, _, err := c.do(ctx, call{method: http.MethodGet, path: "/", public: true}, &doc); err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for family, list := range doc.Runtimes {
		for _, r := range list {
			out[family] = append(out[family], r.Kind)
		}
	}
	return out, nil
}

// Ready returns nil when the server is ready to take requests.
func (c *Client) Ready(ctx context.Context) error {
	_, _, err := c.do(ctx, call{method: http.MethodGet, path: "/ready", public: true}, nil)
	return err
}

// Namespaces returns the namespaces that the key is for.
func (c *Client) Namespaces(ctx context.Context) ([]string, error) {
	var out []string
	_, _, err := c.do(ctx, call{method: http.MethodGet, path: c.root() + "/namespaces"}, &out)
	return out, err
}

// Actions lists the actions of a namespace or, if pkg is not empty, of one of
// its packages.
func (c *Client) Actions(ctx context.Context, namespace, pkg string, p Page) ([]Action, error) {
	path := c.rest(namespace, "actions")
	if pkg != "" {
		// The slash at the end makes it a list; without it, it is an action of
		// that name.
		path = c.rest(namespace, "actions", pkg, "")
	}
	var out []Action
	_, _, err := c.do(ctx, call{method: http.MethodGet, path: path, query: p.query()}, &out)
	return out, err
}

// Action returns one action, with its code if that is asked for.
func (c *Client) Action(ctx context.Context, n whisk.Name, code bool) (Action, error) {
	var out Action
	q := url.Values{"code": {strconv.FormatBool(code)}}
	_, _, err := c.do(ctx, call{method: http.MethodGet, path: c.in("actions", n), query: q}, &out)
	return out, err
}

// PutAction makes an action or, with overwrite, changes what is said in a.
func (c *Client) PutAction(ctx context.Context, n whisk.Name, a Action, overwrite bool) (Action, error) {
	a.Namespace, a.Name = n.Namespace, n.Local()
	var out Action
	_, _, err := c.do(ctx, call{method: http.MethodPut, path: c.in("actions", n), query: overwriting(overwrite), body: a}, &out)
	return out, err
}

// DeleteAction deletes an action and returns it as it was.
func (c *Client) DeleteAction(ctx context.Context, n whisk.Name) (Action, error) {
	var out Action
	_, _, err := c.do(ctx, call{method: http.MethodDelete, path: c.in("actions", n)}, &out)
	return out, err
}

// Invoked is the answer to an invocation.
type Invoked struct {
	ActivationID string          // empty when only the result was asked for
	Body         json.RawMessage // the record, the result, or the ID alone
}

// Invoke runs an action with payload, a JSON object. Blocking waits for its
// record, result for its result alone (and waits too). An action that failed
// is a Failure with Application, one that goes on a Failure with Pending: the
// answer is returned besides.
func (c *Client) Invoke(ctx context.Context, n whisk.Name, payload any, blocking, result bool) (Invoked, error) {
	q := url.Values{"blocking": {strconv.FormatBool(blocking)}, "result": {strconv.FormatBool(result)}}
	var ids struct {
		ActivationID string `json:"activationId"`
		Response     *struct {
			Success bool            `json:"success"`
			Result  json.RawMessage `json:"result"`
		} `json:"response"`
	}
	body, status, err := c.do(ctx, call{method: http.MethodPost, path: c.in("actions", n), query: q, body: payload}, nil)
	_ = json.Unmarshal(body, &ids) // a result may be anything
	out := Invoked{ids.ActivationID, body}
	switch {
	case err != nil:
		return out, err
	// The wait of a blocking call ends before the action does: the server
	// answers as for one that does not block.
	case blocking && status == http.StatusAccepted:
		return out, &whisk.Error{Kind: whisk.Unavailable, Err: &Failure{
			Status: status, Exit: exitPending, Pending: true, Body: body,
			Message: "Request accepted, but processing not completed yet.",
		}}
	// A whole record comes with status 200, whatever became of the action.
	// Only an answer with the result alone has the status of its failure.
	case blocking && !result && ids.Response != nil && !ids.Response.Success:
		return out, &whisk.Error{Kind: whisk.Internal, Err: &Failure{
			Status: status, Exit: exitOfStatus(http.StatusBadGateway), Application: true, Body: body,
			Message: "The following application error was received: " + applicationMessage(ids.Response.Result),
		}}
	}
	return out, nil
}

// Triggers lists the triggers of a namespace.
func (c *Client) Triggers(ctx context.Context, namespace string, p Page) ([]Trigger, error) {
	var out []Trigger
	_, _, err := c.do(ctx, call{method: http.MethodGet, path: c.rest(namespace, "triggers"), query: p.query()}, &out)
	return out, err
}

// Trigger returns one trigger.
func (c *Client) Trigger(ctx context.Context, n whisk.Name) (Trigger, error) {
	var out Trigger
	_, _, err := c.do(ctx, call{method: http.MethodGet, path: c.in("triggers", n)}, &out)
	return out, err
}

// PutTrigger makes a trigger or, with overwrite, changes what is said in t.
func (c *Client) PutTrigger(ctx context.Context, n whisk.Name, t Trigger, overwrite bool) (Trigger, error) {
	t.Namespace, t.Name = n.Namespace, n.Entity
	var out Trigger
	_, _, err := c.do(ctx, call{method: http.MethodPut, path: c.in("triggers", n), query: overwriting(overwrite), body: t}, &out)
	return out, err
}

// DeleteTrigger deletes a trigger and returns it as it was.
func (c *Client) DeleteTrigger(ctx context.Context, n whisk.Name) (Trigger, error) {
	var out Trigger
	_, _, err := c.do(ctx, call{method: http.MethodDelete, path: c.in("triggers", n)}, &out)
	return out, err
}

// Fire emits an event with payload, a JSON object, and returns its ID: empty
// when no active rule was there to take it.
func (c *Client) Fire(ctx context.Context, n whisk.Name, payload any) (string, error) {
	var out struct {
		ActivationID string `json:"activationId"`
	}
	_, _, err := c.do(ctx, call{method: http.MethodPost, path: c.in("triggers", n), body: payload}, &out)
	return out.ActivationID, err
}

// Rules lists the rules of a namespace, without their status.
func (c *Client) Rules(ctx context.Context, namespace string, p Page) ([]Rule, error) {
	var out []Rule
	_, _, err := c.do(ctx, call{method: http.MethodGet, path: c.rest(namespace, "rules"), query: p.query()}, &out)
	return out, err
}

// Rule returns one rule.
func (c *Client) Rule(ctx context.Context, n whisk.Name) (Rule, error) {
	var out Rule
	_, _, err := c.do(ctx, call{method: http.MethodGet, path: c.in("rules", n)}, &out)
	return out, err
}

// PutRule makes a rule or, with overwrite, changes what is said in r.
func (c *Client) PutRule(ctx context.Context, n whisk.Name, r RulePut, overwrite bool) (Rule, error) {
	r.Name = n.Entity
	var out Rule
	_, _, err := c.do(ctx, call{method: http.MethodPut, path: c.in("rules", n), query: overwriting(overwrite), body: r}, &out)
	return out, err
}

// SetRule enables or disables a rule.
func (c *Client) SetRule(ctx context.Context, n whisk.Name, s whisk.Status) error {
	// OpenWhisk's client sends the other two members as well, as null.
	body := struct {
		Status  whisk.Status `json:"status"`
		Trigger *string      `json:"trigger"`
		Action  *string      `json:"action"`
	}{Status: s}
	_, _, err := c.do(ctx, call{method: http.MethodPost, path: c.in("rules", n), body: body}, nil)
	return err
}

// DeleteRule deletes a rule and returns it as it was.
func (c *Client) DeleteRule(ctx context.Context, n whisk.Name) (Rule, error) {
	var out Rule
	_, _, err := c.do(ctx, call{method: http.MethodDelete, path: c.in("rules", n)}, &out)
	return out, err
}

// Packages lists the packages of a namespace.
func (c *Client) Packages(ctx context.Context, namespace string, p Page) ([]Package, error) {
	var out []Package
	_, _, err := c.do(ctx, call{method: http.MethodGet, path: c.rest(namespace, "packages"), query: p.query()}, &out)
	return out, err
}

// Package returns one package with what is in it.
func (c *Client) Package(ctx context.Context, n whisk.Name) (Package, error) {
	var out Package
	_, _, err := c.do(ctx, call{method: http.MethodGet, path: c.in("packages", n)}, &out)
	return out, err
}

// PutPackage makes a package or binding or, with overwrite, changes what is
// said in p.
func (c *Client) PutPackage(ctx context.Context, n whisk.Name, p Package, overwrite bool) (Package, error) {
	p.Namespace, p.Name = n.Namespace, n.Entity
	var out Package
	_, _, err := c.do(ctx, call{method: http.MethodPut, path: c.in("packages", n), query: overwriting(overwrite), body: p}, &out)
	return out, err
}

// DeletePackage deletes an empty package, or a binding, and returns it as it was.
func (c *Client) DeletePackage(ctx context.Context, n whisk.Name) (Package, error) {
	var out Package
	_, _, err := c.do(ctx, call{method: http.MethodDelete, path: c.in("packages", n)}, &out)
	return out, err
}

// RefreshPackages asks for the bindings of a namespace to be read anew. No
// server does: it answers with a Failure.
func (c *Client) RefreshPackages(ctx context.Context, namespace string) error {
	_, _, err := c.do(ctx, call{method: http.MethodPost, path: c.rest(namespace, "packages", "refresh")}, nil)
	return err
}

// ActivationQuery is which records are asked for: Since and Upto in
// milliseconds since 1970, 0 for no bound; Name as in pkg/name or name.
type ActivationQuery struct {
	Page
	Name        string
	Since, Upto int64
	Full        bool // whole records, not summaries
}

// Activations lists records of the key's own namespace, newest first.
func (c *Client) Activations(ctx context.Context, a ActivationQuery) ([]Activation, error) {
	q := a.query()
	if a.Name != "" {
		q.Set("name", a.Name)
	}
	if a.Since > 0 {
		q.Set("since", strconv.FormatInt(a.Since, 10))
	}
	if a.Upto > 0 {
		q.Set("upto", strconv.FormatInt(a.Upto, 10))
	}
	if a.Full {
		q.Set("docs", "true")
	}
	var out []Activation
	_, _, err := c.do(ctx, call{method: http.MethodGet, path: c.rest(whisk.Own, "activations"), query: q}, &out)
	return out, err
}

// Activation returns one record.
func (c *Client) Activation(ctx context.Context, id string) (Activation, error) {
	var out Activation
	_, _, err := c.do(ctx, call{method: http.MethodGet, path: c.rest(whisk.Own, "activations", id)}, &out)
	return out, err
}

// Logs returns the log lines of one activation.
func (c *Client) Logs(ctx context.Context, id string) ([]string, error) {
	var out struct {
		Logs []string `json:"logs"`
	}
	_, _, err := c.do(ctx, call{method: http.MethodGet, path: c.rest(whisk.Own, "activations", id, "logs")}, &out)
	return out.Logs, err
}

// Result returns what one activation answered.
func (c *Client) Result(ctx context.Context, id string) (Response, error) {
	var out Response
	_, _, err := c.do(ctx, call{method: http.MethodGet, path: c.rest(whisk.Own, "activations", id, "result")}, &out)
	return out, err
}

// ActionURL returns the address of an action: the public one of a web action,
// else where the REST API has it. One that was found through a binding has it
// there, with the binding's parameters.
func (c *Client) ActionURL(a Action) string {
	ns, pkg, _ := strings.Cut(cmp.Or(a.Binding, a.Namespace), "/")
	// A package, or a binding, stands in the namespace, after a slash.
	n := whisk.Name{Namespace: ns, Package: pkg, Entity: a.Name}
	if string(a.Annotations.Get("web-export")) != "true" {
		return c.base + c.in("actions", n)
	}
	if pkg == "" {
		n.Package = whisk.DefaultPackage
	}
	return c.base + c.root() + "/web/" + url.PathEscape(ns) + "/" + url.PathEscape(n.Package) + "/" + url.PathEscape(a.Name)
}
