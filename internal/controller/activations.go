package controller

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/auth"
	"github.com/millrace/millrace/internal/whisk"
)

// listActivations lists records newest first: in short, or in full with docs.
func (a *api) listActivations(c *call) error {
	q := c.query()
	p, err := queryPage(q, auth.Activations)
	if err != nil {
		return err
	}
	docs, err := queryBool(q, "docs", false)
	if err != nil {
		return err
	}
	ask := Query{Namespace: c.name.Namespace}
	if ask.Name, err = queryName(q); err != nil {
		return err
	}
	if ask.Since, err = queryTime(q, "since"); err != nil {
		return err
	}
	if ask.Upto, err = queryTime(q, "upto"); err != nil {
		return err
	}
	if p.count {
		if docs {
			return refuse(whisk.Invalid, "The parameter 'docs' is not permitted with 'count'.")
		}
		n, err := a.Journal.CountActivations(c.Context(), ask)
		if err != nil {
			return err
		}
		return c.json(http.StatusOK, map[string]int{"activations": max(n-p.skip, 0)})
	}
	ask.Skip, ask.Limit = p.skip, p.limit
	list, err := a.Journal.Activations(c.Context(), ask)
	if err != nil {
		return err
	}
	out := make([]any, len(list))
	for i := range list {
		// A pointer: a record in full encodes itself.
		if out[i] = list[i].Summary(); docs {
			out[i] = &list[i]
		}
	}
	return c.json(http.StatusOK, out)
}

// queryName reads the name that activations are filtered by: name or
// package/name; empty for all.
func queryName(q url.Values) (string, error) {
	given := q.Get("name")
	if given == "" {
		return "", nil
	}
	parts := strings.Split(given, "/")
	ok := len(parts) <= 2
	for _, s := range parts {
		ok = ok && whisk.CheckSegment(s) == nil
	}
	if !ok {
		return "", malformedQuery("name", "Parameter may be a 'simple' name or 'package-name/simple' name: "+given)
	}
	return given, nil
}

// queryTime reads a time in milliseconds since 1970; zero when it is not given.
func queryTime(q url.Values, name string) (time.Time, error) {
	if !q.Has(name) {
		return time.Time{}, nil
	}
	ms, err := strconv.ParseInt(q.Get(name), 10, 64)
	// The text says seconds because OpenWhisk's does.
	if err != nil || ms < 0 || ms > maxMillis {
		return time.Time{}, malformedQuery(name, "Parameter is not a valid value for epoch seconds: "+q.Get(name))
	}
	return time.UnixMilli(ms).UTC(), nil
}

// maxMillis is the end of the year 9999: what lies beyond has no text form.
const maxMillis = 253402300799999

// find returns the record that the request names. Its text is OpenWhisk's,
// whatever the journal's was.
func (a *api) find(c *call) (whisk.Activation, error) {
	act, err := a.Journal.Activation(c.Context(), c.name.Namespace, c.name.Entity)
	if whisk.KindOf(err) == whisk.NotFound {
		return act, errMissing()
	}
	return act, err
}

func (a *api) getActivation(c *call) error {
	act, err := a.find(c)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, act)
}

// getLogs shows the log lines alone, as "wsk activation logs" asks for them.
func (a *api) getLogs(c *call) error {
	act, err := a.find(c)
	if err != nil {
		return err
	}
	logs := act.Logs
	// An array in any case, as in the record.
	if logs == nil {
		logs = []string{}
	}
	return c.json(http.StatusOK, map[string][]string{"logs": logs})
}

// getResult shows the response alone: status and success besides the result.
func (a *api) getResult(c *call) error {
	act, err := a.find(c)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, act.Response())
}
