package controller

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/auth"
	"github.com/millrace/millrace/internal/whisk"
)

// query returns the request's query parameters.
func (c *call) query() url.Values {
	if c.URL.RawQuery == "" {
		return nil
	}
	return c.URL.Query()
}

// queryBool reads a flag; std when it is not given.
func queryBool(q url.Values, name string, std bool) (bool, error) {
	if !q.Has(name) {
		return std, nil
	}
	// The words that OpenWhisk's framework takes for a Boolean.
	switch strings.ToLower(q.Get(name)) {
	case "true", "yes", "on", "1":
		return true, nil
	case "false", "no", "off", "0":
		return false, nil
	}
	return false, malformedQuery(name, "'"+q.Get(name)+"' is not a valid Boolean value")
}

const textTimeout = "Timeout must be number of milliseconds up to 60000."

// queryWait reads how long a blocking call may wait.
func queryWait(q url.Values) (time.Duration, error) {
	if !q.Has("timeout") {
		return whisk.MaxWait, nil
	}
	ms, err := strconv.Atoi(q.Get("timeout"))
	if err != nil || ms < 1 || ms > int(whisk.MaxWait/time.Millisecond) {
		return 0, malformedQuery("timeout", textTimeout)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

const stdLimit = 30 // items of a list when the caller does not say

// page is which part of a list is asked for.
type page struct {
	limit, skip int
	count       bool // only how many there are
}

// queryPage reads limit, skip and count.
func queryPage(q url.Values, of auth.Collection) (page, error) {
	p := page{limit: stdLimit}
	if q.Has("limit") {
		n, err := queryInt(q, "limit", of)
		if err != nil {
			return p, err
		}
		if n < 0 || n > whisk.MaxListLimit {
			return p, malformedQuery("limit", "The value '"+q.Get("limit")+"' is not in the range of 0 to 200 for "+string(of)+".")
		}
		// 0 asks for as many as there may be.
		if p.limit = n; n == 0 {
			p.limit = whisk.MaxListLimit
		}
	}
	if q.Has("skip") {
		n, err := queryInt(q, "skip", of)
		if err != nil {
			return p, err
		}
		if n < 0 {
			return p, malformedQuery("skip", "The value '"+q.Get("skip")+"' is not greater than or equal to 0 for "+string(of)+".")
		}
		p.skip = n
	}
	var err error
	p.count, err = queryBool(q, "count", false)
	return p, err
}

// maxInt is the largest whole number that a query parameter may be: what fits
// into a Scala Int.
const maxInt = 1<<31 - 1

// queryInt reads a whole number, in OpenWhisk's words for any other text.
func queryInt(q url.Values, name string, of auth.Collection) (int, error) {
	n, err := strconv.Atoi(q.Get(name))
	if err != nil || n > maxInt || n < -maxInt {
		return 0, malformedQuery(name, "The value '"+q.Get(name)+"' is not an integer for "+string(of)+".")
	}
	return n, nil
}

// entityList answers with a list of entities, newest first, as show shows them.
// all is the caller's own copy and is sorted in place.
func entityList[T any](c *call, of auth.Collection, all []T, rev func(whisk.Name) whisk.Revision, meta func(*T) *whisk.Meta, show func(*T) any) error {
	p, err := queryPage(c.query(), of)
	if err != nil {
		return err
	}
	if p.count {
		// No need to sort what is only counted.
		return c.json(http.StatusOK, map[string]int{string(of): max(len(all)-p.skip, 0)})
	}
	newestFirst(all, rev, meta)
	all = all[min(p.skip, len(all)):]
	all = all[:min(p.limit, len(all))]
	out := make([]any, len(all))
	for i := range all {
		out[i] = show(&all[i])
	}
	return c.json(http.StatusOK, out)
}

// newestFirst sorts entities in the order of every list. Times are compared in
// full, although answers show milliseconds.
func newestFirst[T any](all []T, rev func(whisk.Name) whisk.Revision, meta func(*T) *whisk.Meta) {
	slices.SortFunc(all, func(x, y T) int {
		mx, my := meta(&x), meta(&y)
		if o := my.Updated.Compare(mx.Updated); o != 0 {
			return o
		}
		return cmp.Compare(rev(my.Name), rev(mx.Name)) // a clock may stand still; revisions do not
	})
}

// revisionIn returns the revisions of a table's entities.
func revisionIn[T any](t Table[T]) func(whisk.Name) whisk.Revision {
	return func(n whisk.Name) whisk.Revision {
		_, rev, err := t.Get(n)
		if err != nil {
			return 0 // gone since it was listed
		}
		return rev
	}
}
