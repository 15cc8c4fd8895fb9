package cron

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/feeds"
	"github.com/millrace/millrace/internal/whisk"
)

// The feeds of the alarms package.
const (
	kindAlarm    = "alarm"
	kindInterval = "interval"
	kindOnce     = "once"
)

// What becomes of due times that went by while nobody could act.
const (
	misfireSkip   = "skip"
	misfireLatest = "latest"
	misfireAll    = "all"
)

const (
	stdMisfireMax = 1000
	maxMisfireMax = 10_000
	startDelay    = 30 * time.Second // of an interval without a startDate
	anchorKey     = "_anchor"        // where an @every counts from; ours, never shown
)

// definition is a checked set of parameters.
type definition struct {
	kind       string
	sched      schedule
	start      time.Time // nothing is due before; zero for no bound
	stop       time.Time // nothing is due after; zero for no bound
	max        uint64    // events in all; 0 for no bound
	payload    json.RawMessage
	misfire    string
	misfireMax int
	retire     bool
	rules      bool
}

// known returns the parameters of a kind of feed: first those of OpenWhisk's,
// then ours. Those that are in neither list are refused, as a misspelt one
// would be ignored otherwise.
func known(kind string) (theirs, ours []string) {
	ours = []string{"misfire", "misfireMax"}
	switch kind {
	case kindOnce:
		return []string{"trigger_payload", "date", "deleteAfterFire"}, ours[:1]
	case kindInterval:
		return []string{"trigger_payload", "minutes", "startDate", "stopDate", "maxTriggers"}, ours
	}
	return []string{"trigger_payload", "cron", "timezone", "strict", "startDate", "stopDate", "maxTriggers"}, append(ours, "dst")
}

// schedulers are the parameters that say when: another value makes another
// schedule, which begins at its change.
func schedulers() []string {
	return []string{"cron", "timezone", "minutes", "startDate", "date", "dst"}
}

// falsy is what JavaScript takes for "not given".
func falsy(v json.RawMessage) bool {
	switch string(v) {
	case "", "null", "false", "0", `""`:
		return true
	}
	return false
}

// reader checks parameters one after the other, in OpenWhisk's order, and keeps
// what is wrong with them. It goes on after a fault: a person is told of all of
// them at once. The first is worded and chosen as OpenWhisk's package would,
// since its clients show that one.
type reader struct {
	kind   string
	ps     whisk.Params
	given  func(key string) bool // by this change, so that dates must lie ahead
	now    time.Time
	fresh  bool // dates are checked against now
	def    definition
	faults []string
	detail string // of the first fault
}

func (r *reader) fault(format string, args ...any) {
	r.faults = append(r.faults, fmt.Sprintf(format, args...))
}

// faultf is fault with a cause, which is told beside the text if it is the
// first.
func (r *reader) faultf(cause error, format string, args ...any) {
	if len(r.faults) == 0 {
		r.detail = cause.Error()
	}
	r.fault(format, args...)
}

func (r *reader) err() error {
	if len(r.faults) == 0 {
		return nil
	}
	ref := &feeds.Refusal{Text: r.faults[0], Message: r.detail}
	if len(r.faults) > 1 {
		ref.Details = r.faults
	}
	return whisk.E(whisk.Invalid, "define schedule", ref)
}

// shown is a value as JavaScript's templates print it.
func shown(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s
	}
	return string(v)
}

// read checks all parameters.
func (r *reader) read() (definition, error) {
	r.def = definition{kind: r.kind, misfire: misfireLatest, misfireMax: stdMisfireMax}
	switch r.kind {
	case kindOnce:
		r.readOnce()
	case kindInterval:
		r.readInterval()
	default:
		r.readAlarm()
	}
	r.readMisfire()
	r.readPayload()
	theirs, ours := known(r.kind)
	for _, p := range r.ps {
		if !slices.Contains(theirs, p.Key) && !slices.Contains(ours, p.Key) && p.Key != anchorKey {
			r.fault("%s", feeds.Unknown(r.kind, p.Key, slices.Concat(theirs, ours)...))
		}
	}
	return r.def, r.err()
}

func (r *reader) readOnce() {
	v := r.ps.Get("date")
	if v == nil {
		r.fault("alarms once trigger feed is missing the date parameter")
	} else if t, ok := r.date("date", v); ok {
		r.def.sched = once(t)
	}
	if v := r.ps.Get("deleteAfterFire"); v != nil {
		switch strings.ToLower(strings.TrimSpace(shown(v))) {
		case "false":
		case "true":
			r.def.retire = true
		case "rules":
			r.def.retire, r.def.rules = true, true
		default:
			r.fault("deleteAfterFire parameter must be one of [false, true, rules].")
		}
	}
}

func (r *reader) readInterval() {
	v := r.ps.Get("minutes")
	n, err := strconv.ParseInt(strings.TrimSpace(shown(v)), 10, 64)
	switch {
	case v == nil:
		r.fault("interval trigger feed is missing the minutes parameter")
	case err != nil:
		r.fault("the minutes parameter must be an integer")
	case n <= 0:
		r.fault("the minutes parameter must be an integer greater than zero")
	// A longer period has no second slot within the horizon, and would
	// overflow a Duration.
	case n > horizonYears*365*24*60:
		r.faultf(errNoSlot, "the minutes parameter is too large")
	}
	r.readBounds()
	r.def.sched = every{anchor: r.def.start, period: time.Duration(max(n, 1)) * time.Minute}
}

func (r *reader) readAlarm() {
	r.readCron()
	r.readBounds()
	if v := r.ps.Get("strict"); v != nil {
		switch strings.ToLower(strings.TrimSpace(shown(v))) {
		case "true", "false": // without a spread of starts all crons are strict
		default:
			r.fault("strict parameter must be true or false")
		}
	}
	// An accepted definition may have come to its end since.
	if r.def.sched == nil || !r.fresh {
		return
	}
	from := r.now
	if r.def.start.After(from) {
		// The start itself may be a slot, and next looks after the time it is
		// given.
		from = r.def.start.Add(-1)
	}
	first := r.def.sched.next(from)
	switch {
	case first.IsZero():
		r.faultf(errNoSlot, "cron pattern '%s' is not valid", shown(r.ps.Get("cron")))
	case !r.def.stop.IsZero() && first.After(r.def.stop):
		r.fault("the first scheduled trigger fire is not until after the stop date")
	}
}

func (r *reader) readCron() {
	v := r.ps.Get("cron")
	if v == nil {
		r.fault("alarms trigger feed is missing the cron parameter")
		return
	}
	var text string
	if json.Unmarshal(v, &text) != nil {
		r.faultf(fmt.Errorf("it is not a text"), "cron pattern '%s' is not valid", shown(v))
		return
	}
	e, err := parseExpr(text)
	if err != nil {
		r.faultf(err, "cron pattern '%s' is not valid", text)
		return
	}
	// The zone may stand before the expression and in its own parameter, but
	// then it is the same one.
	zone := e.zone
	if v := r.ps.Get("timezone"); v != nil {
		var name string
		if json.Unmarshal(v, &name) != nil || name == "" || zone != "" && zone != name {
			r.fault("%s", errZone)
			return
		}
		zone = name
	}
	loc := time.UTC
	if zone != "" {
		if loc, err = loadZone(zone); err != nil {
			r.fault("%s", errZone)
			return
		}
	}
	gap, overlap := r.readDST()
	if e.every > 0 {
		anchor, _ := parseDate(r.ps.Get(anchorKey))
		r.def.sched = every{anchor: anchor, period: e.every}
		return
	}
	r.def.sched = wall{fields: e.fields, zone: loc, gap: gap, overlap: overlap}
}

// readDST reads what happens to slots when the clocks change. What is not named
// keeps its default.
func (r *reader) readDST() (gap, overlap string) {
	gap, overlap = gapRunAfter, overlapFirst
	v := r.ps.Get("dst")
	if v == nil {
		return gap, overlap
	}
	d := struct {
		Gap     string `json:"gap"`
		Overlap string `json:"overlap"`
	}{gap, overlap}
	dec := json.NewDecoder(bytes.NewReader(v))
	dec.DisallowUnknownFields()
	if dec.Decode(&d) != nil || !slices.Contains([]string{gapRunAfter, gapSkip}, d.Gap) ||
		!slices.Contains([]string{overlapFirst, overlapSecond, overlapBoth}, d.Overlap) {
		r.fault("dst parameter must be an object of gap (runAfter or skip) and overlap (first, second or both)")
	}
	return d.Gap, d.Overlap
}

// date reads a date that must lie ahead, if it was given just now.
func (r *reader) date(key string, v json.RawMessage) (time.Time, bool) {
	t, ok := parseDate(v)
	switch {
	case !ok:
		r.fault("%s parameter '%s' is not a valid Date", key, shown(v))
	case r.ahead(key) && !t.After(r.now):
		r.fault("%s parameter '%s' must be in the future", key, shown(v))
	default:
		return t, true
	}
	return time.Time{}, false
}

func (r *reader) ahead(key string) bool { return r.fresh && r.given(key) }

// readBounds reads startDate, maxTriggers and stopDate.
func (r *reader) readBounds() {
	startV, stopV, maxV := r.ps.Get("startDate"), r.ps.Get("stopDate"), r.ps.Get("maxTriggers")
	if startV != nil {
		r.def.start, _ = r.date("startDate", startV)
	}
	if maxV != nil {
		n, err := strconv.ParseInt(shown(maxV), 10, 64)
		switch {
		// Upstream's texts differ for the two feeds.
		case stopV != nil && r.kind == kindInterval:
			r.fault("maxTriggers is not supported for the interval trigger feed")
		case stopV != nil:
			r.fault("maxTriggers is not allowed when the stopDate parameter is specified")
		case err != nil || n < -1:
			r.fault("maxTriggers parameter must be an integer, or -1 for no limit")
		case n > 0:
			r.def.max = uint64(n)
		}
	}
	if stopV == nil {
		return
	}
	t, ok := parseDate(stopV)
	switch {
	case !ok:
		r.fault("stopDate parameter '%s' is not a valid Date", shown(stopV))
	// Of two dates that contradict each other, the one that was given now is
	// told as the wrong one.
	case !r.def.start.IsZero() && !t.After(r.def.start) && r.given("startDate") && !r.given("stopDate"):
		r.fault("startDate parameter '%s' must be less than the stopDate parameter '%s'", shown(startV), shown(stopV))
	case !r.def.start.IsZero() && !t.After(r.def.start) && r.fresh:
		r.fault("stopDate parameter '%s' must be greater than the startDate parameter '%s'", shown(stopV), shown(startV))
	case r.ahead("stopDate") && !t.After(r.now):
		r.fault("stopDate parameter '%s' must be in the future", shown(stopV))
	default:
		r.def.stop = t
	}
}

func (r *reader) readMisfire() {
	if v := r.ps.Get("misfire"); v != nil {
		var s string
		if json.Unmarshal(v, &s) != nil || !slices.Contains([]string{misfireSkip, misfireLatest, misfireAll}, s) {
			r.fault("misfire parameter must be one of [skip, latest, all]")
		}
		r.def.misfire = s
	}
	if v := r.ps.Get("misfireMax"); v != nil {
		n, err := strconv.Atoi(shown(v))
		if err != nil || n < 1 || n > maxMisfireMax {
			r.fault("misfireMax parameter must be an integer between 1 and %d", maxMisfireMax)
			return
		}
		// A setting without effect is refused.
		if r.def.misfire != misfireAll {
			r.fault("misfireMax parameter needs misfire: all")
		}
		r.def.misfireMax = n
	}
}

func (r *reader) readPayload() {
	p, err := payloadOf(r.ps.Get("trigger_payload"))
	if err != nil {
		r.fault("%s", err)
	}
	r.def.payload = p
}

// payloadOf returns the body of every event: an object as it is, a text as
// {"payload": text}.
func payloadOf(v json.RawMessage) (json.RawMessage, error) {
	switch v = bytes.TrimSpace(v); {
	case falsy(v):
		return json.RawMessage("{}"), nil
	case len(v) > whisk.MaxPayload:
		return nil, fmt.Errorf("trigger_payload parameter is larger than %d bytes", whisk.MaxPayload)
	case v[0] == '{':
		return v, nil
	case v[0] == '"':
		return json.RawMessage(`{"payload":` + string(v) + `}`), nil
	}
	return nil, fmt.Errorf("trigger_payload parameter must be an object or a string")
}
