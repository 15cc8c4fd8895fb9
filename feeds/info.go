package feeds

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// Who stopped a feed.
const (
	Auto = "AUTO" // the feed itself, or its source
	User = "USER"
)

// How a feed is, in one word.
const (
	Running  = "running"
	Waiting  = "waiting"  // for room on the bus
	Degraded = "degraded" // failed several times in a row; it is tried again
	Paused   = "paused"
	Finished = "completed"
	Stopped  = "stopped" // the server is starting or stopping
)

// Info is how a feed is. As JSON it is what READ answers: OpenWhisk's config
// and status, and stats beside them.
type Info struct {
	Feed    string                     `json:"feed"` // path of the feed action
	Trigger string                     `json:"trigger"`
	ID      string                     `json:"id"`
	Config  map[string]json.RawMessage `json:"config"` // secrets are "***"
	Status  Status                     `json:"status"`
	Stats   Stats                      `json:"stats"`
}

// Status is a feed's state as OpenWhisk's feeds tell it, with State, Since and
// NextFire added.
type Status struct {
	Active         bool     `json:"active"`
	DateChanged    int64    `json:"dateChanged"` // milliseconds since 1970
	DateChangedISO string   `json:"dateChangedISO"`
	Reason         *Reason  `json:"reason,omitempty"`
	State          string   `json:"state"`
	NextFire       []string `json:"nextFire,omitempty"` // RFC 3339
}

// Reason says why a feed is not active.
type Reason struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
}

// Stats are a feed's figures. Fired and Missed count since the feed was made,
// for feeds that keep count; Events and Restarts since the server started.
type Stats struct {
	Events      uint64     `json:"events"`
	Fired       *uint64    `json:"fired,omitempty"`
	Missed      *uint64    `json:"missed,omitempty"`
	Restarts    int        `json:"restarts"`
	Failures    int        `json:"failures"` // in a row
	LagMillis   int64      `json:"lagMillis"`
	LastEventAt *time.Time `json:"lastEventAt,omitempty"`
	LastError   string     `json:"lastError,omitempty"`
	LastErrorAt *time.Time `json:"lastErrorAt,omitempty"`
	Cursor      string     `json:"cursor,omitempty"`
}

// hidden is shown in the place of every secret, as JSON.
const hidden = `"***"`

// info returns how st's feed is.
func (s *Supervisor) info(st State) Info {
	i := Info{
		Feed: "/" + whisk.SystemNamespace + "/" + st.Feed, Trigger: st.Trigger.String(), ID: st.ID,
		Config: map[string]json.RawMessage{},
		Status: Status{
			Active: true, State: Stopped, DateChanged: st.Changed.UnixMilli(),
			DateChangedISO: st.Changed.UTC().Format("2006-01-02T15:04:05Z"),
		},
	}
	for _, p := range st.Params {
		i.Config[p.Key] = p.Value
	}
	for _, key := range st.Hidden {
		i.Config[key] = json.RawMessage(hidden)
	}
	// The provider's own parameters.
	maps.DeleteFunc(i.Config, func(key string, _ json.RawMessage) bool { return strings.HasPrefix(key, "_") })
	// The instance may be that of a feed which is being replaced.
	if in := s.lookup(st.Trigger); in != nil && in.st.ID == st.ID {
		in.fill(&i)
	}
	switch {
	// The stored state has the last word: a feed that has ended or is paused
	// has an instance too.
	case st.Ended != nil:
		i.Status.Active, i.Status.State, i.Status.Reason, i.Status.NextFire = false, Finished, st.Ended, nil
	case st.Paused:
		i.Status.Active, i.Status.State, i.Status.NextFire = false, Paused, nil
		i.Status.Reason = &Reason{Kind: User, Message: "Paused by user"}
	}
	return i
}

// fill adds what only the running feed knows.
func (in *instance) fill(i *Info) {
	in.mu.Lock()
	defer in.mu.Unlock()
	i.Status.State = Running
	// Nothing else looks while the feed runs well.
	if in.recovered() {
		in.failures = 0
	}
	switch {
	case in.failures >= degradedAfter:
		i.Status.State = Degraded
	case in.waiting:
		i.Status.State = Waiting
	}
	i.Stats = Stats{Events: in.events, Restarts: in.restarts, Failures: in.failures, LastError: in.lastErr, Cursor: in.position}
	if t := in.lastEvent.UTC(); !in.lastEvent.IsZero() {
		i.Stats.LastEventAt = &t
	}
	if t := in.lastErrAt.UTC(); !in.lastErrAt.IsZero() {
		i.Stats.LastErrorAt = &t
	}
	r, ok := in.feed.(Reporter)
	if !ok {
		return
	}
	rep := r.Report()
	i.Stats.Fired, i.Stats.Missed, i.Stats.LagMillis = &rep.Fired, &rep.Missed, rep.Lag.Milliseconds()
	for _, t := range rep.NextFire {
		i.Status.NextFire = append(i.Status.NextFire, t.Format(time.RFC3339))
	}
}

// Actions returns the functions behind the feed actions of the built-in
// packages, by name, as in "alarms/alarm". An application error is a result
// with the member "error".
func (s *Supervisor) Actions() map[string]func(context.Context, whisk.Invocation, json.RawMessage) (json.RawMessage, error) {
	fs := make(map[string]func(context.Context, whisk.Invocation, json.RawMessage) (json.RawMessage, error), len(s.parts.Providers))
	for name := range s.parts.Providers {
		fs[name] = func(ctx context.Context, inv whisk.Invocation, args json.RawMessage) (json.RawMessage, error) {
			return json.Marshal(s.act(ctx, name, inv.Namespace, args))
		}
	}
	return fs
}

// act is the feed action of one feed.
func (s *Supervisor) act(ctx context.Context, feed, namespace string, args json.RawMessage) any {
	req, event, err := parseRequest(args)
	if err != nil {
		return refusal(nil, err)
	}
	ev, err := ParseLifecycleEvent(event)
	if err != nil {
		return refusal(nil, err) // a bare text in every package
	}
	req.Feed, req.Namespace = feed, namespace
	res, err := s.Handle(ctx, ev, req)
	if err != nil {
		// A user sees an ID at most; the cause is for the operator.
		if whisk.KindOf(err) == whisk.Internal {
			s.log.ErrorContext(ctx, "feed action failed", slog.String("feed", feed), slog.String("trigger", req.TriggerName), slog.Any("err", err))
		}
		return refusal(s.parts.Providers[feed], err)
	}
	return res
}

func refusal(p Provider, err error) any {
	if a, ok := p.(Answerer); ok {
		return a.Refuse(err)
	}
	return PlainRefusal(err)
}

// PlainRefusal returns the result {"error":text} for an error, with every
// fault in the text: what a feed answers that no OpenWhisk package wants
// otherwise. Records keep no other member of a result that is an error.
func PlainRefusal(err error) any {
	text := whisk.Message(err)
	var r *Refusal
	if errors.As(err, &r) {
		text = r.Text
		if len(r.Details) > 0 {
			text = strings.Join(r.Details, "; ")
		}
		if r.Message != "" {
			text += ": " + r.Message
		}
	}
	return map[string]string{"error": text}
}

// parseRequest divides the arguments of a feed action into those of the
// lifecycle and those of the feed. What clients and packages add to every call
// is left out.
func parseRequest(args json.RawMessage) (req Request, event string, err error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(args, &all); err != nil {
		return req, "", invalid(err)
	}
	text := func(key string) string {
		var t string
		if json.Unmarshal(all[key], &t) != nil {
			return ""
		}
		return t
	}
	event, req.TriggerName, req.AuthKey = text("lifecycleEvent"), text("triggerName"), text("authKey")
	keys := make([]string, 0, len(all))
	for k := range all {
		if !ambient(k) {
			keys = append(keys, k)
		}
	}
	// In one order, so that faults are told in the same order each time.
	slices.Sort(keys)
	for _, k := range keys {
		req.Params = append(req.Params, whisk.Param{Key: k, Value: all[k]})
	}
	return req, event, nil
}

// ambient reports whether a parameter is not meant for the feed.
func ambient(key string) bool {
	switch key {
	case "lifecycleEvent", "triggerName", "authKey", "additionalData", "apihost":
		return true
	}
	return len(key) > 5 && (key[:5] == "__ow_" || key[:5] == "__bx_")
}

func cmpNames(a, b whisk.Name) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Entity, b.Entity))
}
