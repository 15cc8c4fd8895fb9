// Package cron is the feeds of time: alarm (cron expressions), interval and
// once, as OpenWhisk's alarms package has them.
//
// An expression gives slots on a wall clock without zone; the zone says which
// instants they are, with a rule for the hour that a change of the clocks
// removes and one for the hour that it repeats. Each instant is decided once:
// it is emitted, or given up by the misfire policy and counted. The last
// instant decided is the feed's position, stored with the event, and the next
// is computed from it and never from the time at which the feed happens to
// run. So nothing fires twice or goes unnoticed across restarts, pauses and
// changes of the machine's clock.
package cron

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // zones mean the same on machines without any

	"github.com/millrace/millrace/feeds"
	"github.com/millrace/millrace/internal/whisk"
)

// Provider makes the feeds alarms/alarm, alarms/interval and alarms/once. One
// serves all three: its feeds share the watch of the clock. It is safe for
// concurrent use.
type Provider struct{ clock *clock }

// New returns the provider of the alarms feeds.
func New() *Provider {
	// Round drops the monotonic reading. With it, times would be compared by
	// the machine's other clock, which does not see that the wall clock was
	// set.
	return &Provider{clock: &clock{wall: func() time.Time { return time.Now().Round(0) }}}
}

// Providers returns p under the names of its feeds.
func (p *Provider) Providers() map[string]feeds.Provider {
	return map[string]feeds.Provider{
		"alarms/" + kindAlarm: p, "alarms/" + kindInterval: p, "alarms/" + kindOnce: p,
	}
}

// kindOf returns what follows the package in a feed's name.
func kindOf(feed string) string { return feed[strings.LastIndexByte(feed, '/')+1:] }

// Open returns the feed of an accepted definition. Its dates may be past.
func (p *Provider) Open(_ context.Context, spec feeds.Spec) (feeds.Feed, error) {
	// Nothing is given by this call, so no date must lie ahead: a feed whose
	// start is past is opened again after each restart.
	r := reader{kind: kindOf(spec.Feed), ps: spec.Params, given: func(string) bool { return false }}
	def, err := r.read()
	if err != nil {
		return nil, err
	}
	f := &feed{spec: spec, def: def, clock: p.clock}
	if spec.Position != "" {
		if err := json.Unmarshal([]byte(spec.Position), &f.pos); err != nil {
			return nil, whisk.E(whisk.Internal, "read position", err)
		}
	}
	return f, nil
}

// Define checks a CREATE or UPDATE as OpenWhisk's alarms package does, text by
// text, and fills in what depends on the moment.
func (p *Provider) Define(_ context.Context, c feeds.Change) (feeds.Definition, error) {
	kind := kindOf(c.Feed)
	given, err := clean(kind, c)
	if err != nil {
		return feeds.Definition{}, err
	}
	ps := given
	if c.Event == feeds.Update {
		ps = given.Over(c.Old)
	}
	// A change of the payload or of an end keeps the place; a change of the
	// times does not, or slots of the new schedule that are long past would be
	// due.
	anew := c.Old == nil
	for _, key := range schedulers() {
		if kind == kindInterval && key == "startDate" && given.Get(key) == nil {
			continue // its default is no change
		}
		anew = anew || string(ps.Get(key)) != string(c.Old.Get(key))
	}
	ps = fillDates(kind, ps, c, anew)
	r := reader{
		kind: kind, ps: ps, now: c.Now, fresh: true,
		given: func(key string) bool { return given.Get(key) != nil },
	}
	if _, err := r.read(); err != nil {
		return feeds.Definition{}, err
	}
	return feeds.Definition{Params: ps, Anew: anew}, nil
}

// clean drops what counts as not given: to JavaScript an empty text, a zero
// and false are, and packages bind such values as defaults.
func clean(kind string, c feeds.Change) (whisk.Params, error) {
	theirs, ours := known(kind)
	var out whisk.Params
	updatable := false
	for _, e := range exported(c.Given) {
		if e.Key == "fireOnce" || e.Key == "isInterval" || strings.HasPrefix(e.Key, "_") {
			continue // bound to OpenWhisk's feed actions to tell them apart; or ours alone
		}
		e.Value = compact(e.Value)
		// Only OpenWhisk's own parameters are read so. Upstream refuses an
		// empty time zone at CREATE and ignores it at UPDATE.
		lax := slices.Contains(theirs, e.Key) && (e.Key != "timezone" || c.Event == feeds.Update)
		if lax && falsy(e.Value) || string(e.Value) == "null" {
			continue
		}
		updatable = updatable || slices.Contains(theirs, e.Key) || slices.Contains(ours, e.Key)
		out = append(out, e)
	}
	if c.Event == feeds.Update && !updatable {
		return nil, feeds.Refuse("no updatable parameters were specified")
	}
	return out, nil
}

// exported turns what READ shows back into parameters: exports of triggers are
// made of it.
func exported(ps whisk.Params) whisk.Params {
	payload := ps.Get("payload")
	if payload != nil && falsy(ps.Get("trigger_payload")) {
		ps = ps.With(whisk.Param{Key: "trigger_payload", Value: payload})
	}
	return ps.Without("payload").Without("name").Without("namespace")
}

// fillDates adds the dates that a definition has without being given them:
// where an interval starts, and where an @every counts from.
func fillDates(kind string, ps whisk.Params, c feeds.Change, anew bool) whisk.Params {
	switch {
	case kind == kindInterval && ps.Get("startDate") == nil:
		start := strconv.FormatInt(c.Now.Add(startDelay).UnixMilli(), 10)
		// The old start stays: the slots are counted from it.
		if old := c.Old.Get("startDate"); old != nil && !anew {
			start = string(old)
		}
		return ps.Set("startDate", start)
	case kind == kindAlarm && strings.Contains(ps.Text("cron"), "@every"):
		// Stored with the definition, as an anchor taken at each start would
		// shift the slots by every restart.
		anchor := strconv.FormatInt(c.Now.Truncate(time.Second).UnixMilli(), 10)
		if t, ok := parseDate(ps.Get("startDate")); ok {
			anchor = strconv.FormatInt(t.UnixMilli(), 10)
		} else if old := c.Old.Get(anchorKey); old != nil && !anew {
			anchor = string(old)
		}
		return ps.Set(anchorKey, anchor)
	}
	return ps.Without(anchorKey)
}

// compact drops the white space in a value, so that equal ones compare equal.
func compact(v json.RawMessage) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		return v
	}
	return b
}

// Answer gives OpenWhisk's shapes: {"status":"success"}, and for READ the
// config that its alarms package shows, with the parameters of ours.
func (p *Provider) Answer(ev feeds.LifecycleEvent, spec feeds.Spec, in feeds.Info) any {
	if ev != feeds.Read {
		return map[string]string{"status": "success"}
	}
	config := map[string]json.RawMessage{}
	for _, e := range spec.Params {
		if !strings.HasPrefix(e.Key, "_") {
			config[e.Key] = e.Value
		}
	}
	config["name"], _ = json.Marshal(spec.Trigger.Entity)
	config["namespace"], _ = json.Marshal(spec.Trigger.Namespace)
	// Upstream shows the payload as an object under this name.
	if pl, err := payloadOf(spec.Params.Get("trigger_payload")); err == nil {
		config["payload"] = pl
	}
	strict := strings.EqualFold(strings.TrimSpace(shown(spec.Params.Get("strict"))), "true")
	config["strict"], _ = json.Marshal(strict)
	in.Config = config
	return in
}

// Refuse nests errors as OpenWhisk's alarms package does.
func (p *Provider) Refuse(err error) any {
	var ref *feeds.Refusal
	if errors.As(err, &ref) {
		return map[string]any{"error": ref}
	}
	return map[string]any{"error": map[string]string{"error": whisk.Message(err)}}
}
