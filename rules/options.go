package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// Options are what a rule's annotations ask for. The zero Filter lets every
// event pass.
type Options struct {
	Filter *Pattern
	Retry  whisk.Retry
}

// notYet are annotations of ours that mean something later. They are refused
// until then: what is accepted is obeyed.
var notYet = [...]string{"dead-letter", "transform", "order-by", "batch", "dedupe", "limit"}

// ParseOptions reads a rule's annotations. Keys that are not ours pass. The
// error is Invalid and tells every fault. All faults at once: whoever writes a
// rule should not have to try again for each.
func ParseOptions(annotations whisk.Params) (Options, error) {
	o := Options{Retry: whisk.StdRetry()}
	var faults []error
	for _, a := range annotations {
		switch {
		case a.Key == "filter":
			p, err := ParsePattern(a.Value)
			if err != nil {
				faults = append(faults, fmt.Errorf("filter: %s", whisk.Message(err)))
			}
			o.Filter = p
		case a.Key == "retry":
			r, errs := parseRetry(a.Value)
			for _, err := range errs {
				faults = append(faults, fmt.Errorf("retry%w", err))
			}
			o.Retry = r
		case slices.Contains(notYet[:], a.Key):
			faults = append(faults, fmt.Errorf("%s: this annotation is not supported yet", a.Key))
		}
	}
	if len(faults) > 0 {
		return Options{}, whisk.E(whisk.Invalid, "parse rule options", joined(faults))
	}
	return o, nil
}

// Bounds of the members of retry, all inclusive.
const (
	maxAttempts   = 100
	minBackoff    = 10 * time.Millisecond
	maxBackoff    = time.Hour
	maxMaxBackoff = 24 * time.Hour
	minMaxAge     = time.Second
	maxMaxAge     = 7 * 24 * time.Hour
)

// parseRetry reads the value of the annotation retry. Faults begin with the
// member that they are about. Members that are left out are as in
// whisk.StdRetry.
func parseRetry(text json.RawMessage) (whisk.Retry, []error) {
	r := whisk.StdRetry()
	var faults []error
	bad := func(member, format string, args ...any) {
		if member != "" {
			member = "." + member
		}
		faults = append(faults, fmt.Errorf("%s: %s", member, fmt.Sprintf(format, args...)))
	}
	given, err := members(text)
	if err != nil {
		bad("", "%v", err)
		return r, faults
	}
	// An unknown member may be a known one that is misspelled: it is refused,
	// since it would not be obeyed.
	known := []string{"attempts", "backoff", "maxBackoff", "maxAge", "on"}
	for _, m := range given {
		if !slices.Contains(known, m.Key) {
			bad(m.Key, "found an unknown member, expected one of %s", strings.Join(known, ", "))
		}
	}
	if v := given.Get("attempts"); v != nil {
		n, err := strconv.Atoi(string(v))
		if err != nil || n < 1 || n > maxAttempts {
			bad("attempts", "found %s, expected a whole number from 1 to %d", clip(v), maxAttempts)
		}
		r.Attempts = n
	}
	length := func(member string, into *time.Duration, least, most time.Duration) {
		v := given.Get(member)
		if v == nil {
			return
		}
		d, ok := parseDuration(v)
		if !ok || d < least || d > most {
			bad(member, `found %s, expected seconds or a text as "1m30s", from %s to %s`, clip(v), least, most)
			return
		}
		*into = d
	}
	length("backoff", &r.Backoff, minBackoff, maxBackoff)
	length("maxBackoff", &r.MaxBackoff, minBackoff, maxMaxBackoff)
	length("maxAge", &r.MaxAge, minMaxAge, maxMaxAge)
	// A backoff above the usual maximum raises it, unless a maximum was asked
	// for.
	if r.MaxBackoff < r.Backoff {
		if given.Get("maxBackoff") != nil {
			bad("maxBackoff", "found %s, expected at least the backoff, %s", r.MaxBackoff, r.Backoff)
		}
		r.MaxBackoff = r.Backoff
	}
	if v := given.Get("on"); v != nil {
		parseCauses(v, &r, bad)
	}
	// They would not be obeyed.
	if r.Attempts == 1 {
		for _, m := range []string{"backoff", "maxBackoff", "maxAge"} {
			if given.Get(m) != nil {
				bad(m, "means nothing when attempts is 1, expected it left out")
			}
		}
	}
	return r, faults
}

// parseCauses reads the failures that are retried.
func parseCauses(text json.RawMessage, r *whisk.Retry, bad func(member, format string, args ...any)) {
	const expected = `expected a list of "platform", "timeout", "application"`
	var causes []string
	if json.Unmarshal(text, &causes) != nil || len(causes) == 0 {
		bad("on", "found %s, %s", clip(text), expected)
		return
	}
	r.Platform, r.Timeout, r.Application = false, false, false
	for _, c := range causes {
		of := map[string]*bool{"platform": &r.Platform, "timeout": &r.Timeout, "application": &r.Application}[c]
		switch {
		case of == nil:
			bad("on", "found %q, %s", c, expected)
		case *of:
			bad("on", "found %q twice, expected it once", c)
		default:
			*of = true
		}
	}
}

// members returns the members of a JSON object, in order. One given twice is a
// fault. A map would hide which member was given twice.
func members(text json.RawMessage) (whisk.Params, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("found %s, expected an object", clip(text))
	}
	var out whisk.Params
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("not JSON: %w", err)
		}
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return nil, fmt.Errorf("not JSON: %w", err)
		}
		name, _ := key.(string)
		if out.Get(name) != nil {
			return nil, fmt.Errorf("found %s twice, expected it once", name)
		}
		out = append(out, whisk.Param{Key: name, Value: v})
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("found text after the object, expected none")
	}
	return out, nil
}

// parseDuration reads "1m30s" or a number of seconds.
func parseDuration(text json.RawMessage) (time.Duration, bool) {
	var s string
	// A text first: null would be read as a number of 0 seconds. As a text it
	// is "", which is no duration.
	if json.Unmarshal(text, &s) == nil {
		d, err := time.ParseDuration(s)
		return d, err == nil
	}
	var seconds float64
	if json.Unmarshal(text, &seconds) != nil || seconds < 0 || seconds > maxMaxAge.Seconds() {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)), true
}
