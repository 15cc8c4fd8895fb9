package hub

import (
	"errors"
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/millrace/millrace/internal/whisk"
)

// events lists what was judged, newest first.
func (h *hub) events(r *http.Request) (any, error) {
	skip, limit, err := page(r)
	if err != nil {
		return nil, err
	}
	from, err := since(r)
	if err != nil {
		return nil, err
	}
	trigger, err := triggerOf(r)
	if err != nil {
		return nil, err
	}
	list, err := h.Journal.Events(r.Context(), Query{
		Namespace: namespaceOf(r), Trigger: trigger, Since: from, Skip: skip, Limit: limit,
	})
	if err != nil {
		return nil, err
	}
	// Clients expect an array, not null.
	if list == nil {
		list = []whisk.Verdict{}
	}
	return map[string]any{"events": list}, nil
}

// triggerOf reads the query parameter trigger: a bare name, or a full one of
// the caller's namespace. It is "" if there is none.
func triggerOf(r *http.Request) (string, error) {
	text := r.URL.Query().Get("trigger")
	if text == "" {
		return "", nil
	}
	n, err := whisk.ParseRelative(text, namespaceOf(r))
	if err != nil {
		return "", err
	}
	// Forbidden whether it exists or not.
	if n.Namespace != namespaceOf(r) || n.Package != "" {
		return "", whisk.E(whisk.Forbidden, "read query", errors.New("the trigger "+n.String()+" is not in your namespace"))
	}
	return n.Entity, nil
}

// story is one event with what is known of it.
type story struct {
	Event   whisk.Event    `json:"event"`
	Verdict *whisk.Verdict `json:"verdict,omitempty"`
}

// event shows one event, whole.
func (h *hub) event(r *http.Request) (any, error) {
	s, err := h.find(r)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// find reads the event that the path names. When the archive has let go of the
// event, its verdict is still told; when it is not judged yet, there is none.
func (h *hub) find(r *http.Request) (story, error) {
	id := chi.URLParam(r, "id")
	if err := whisk.CheckID(id); err != nil {
		return story{}, err
	}
	// Asked before the verdict: an event that is judged meanwhile is found.
	unjudged := h.Journal.Judged().Seq + 1
	// The verdict first: it knows the sequence under which the archive has the
	// event, and whose it is.
	v, err := h.Journal.Verdict(r.Context(), namespaceOf(r), id)
	if errors.Is(err, whisk.NotFound) {
		ev, ferr := h.Archive.FindEvent(r.Context(), unjudged, id)
		if ferr != nil || ev.Trigger.Namespace != namespaceOf(r) {
			return story{}, err
		}
		return story{Event: ev}, nil
	}
	if err != nil {
		return story{}, err
	}
	ev, err := h.Archive.Event(r.Context(), v.Event.Seq)
	// Another ID: after a power cut the sequence was given to another event.
	if errors.Is(err, whisk.NotFound) || err == nil && ev.ID != id {
		ev = whisk.Event{ID: id, Trigger: v.Trigger, Time: v.Time, Actor: v.Actor}
	} else if err != nil {
		return story{}, err
	}
	return story{Event: ev, Verdict: &v}, nil
}

// explanation is an event and, rule by rule, what came of it.
type explanation struct {
	Event   whisk.Event     `json:"event"`
	Waiting bool            `json:"waiting,omitempty"` // it is not judged yet
	Problem string          `json:"problem,omitempty"`
	Rules   []explainedRule `json:"rules"`
}

// explainedRule is a verdict with its attempts: those that have ended, and what
// is known of one that runs.
type explainedRule struct {
	whisk.RuleVerdict
	Attempts   []whisk.Attempt `json:"attempts,omitempty"`
	DeadLetter string          `json:"deadLetter,omitempty"`
}

// explain tells of one event why each rule did or did not run its action, and
// how that ended.
func (h *hub) explain(r *http.Request) (any, error) {
	s, err := h.find(r)
	if err != nil {
		return nil, err
	}
	ex := explanation{Event: s.Event, Rules: []explainedRule{}}
	if s.Verdict == nil {
		ex.Waiting = true
		return ex, nil
	}
	ex.Problem = s.Verdict.Problem
	for _, v := range s.Verdict.Rules {
		e := explainedRule{RuleVerdict: v}
		// Only a match has attempts to look for.
		if v.Decision == whisk.Matched {
			e.Attempts, e.DeadLetter, err = h.Journal.Attempts(r.Context(), whisk.Match{Event: s.Verdict.Event.Seq, Rule: v.Rule})
			if err != nil {
				return nil, err
			}
		}
		ex.Rules = append(ex.Rules, e)
	}
	return ex, nil
}

// feeds lists the feeds of the caller's namespace.
func (h *hub) feeds(r *http.Request) (any, error) {
	return map[string]any{"feeds": h.Feeds.List(namespaceOf(r))}, nil
}

// feed shows one feed. The address has the namespace because triggers are named
// so; "_" stands for the caller's own, and another is refused.
func (h *hub) feed(r *http.Request) (any, error) {
	ns, trigger := named(r, "namespace"), named(r, "trigger")
	if ns != whisk.Own && ns != namespaceOf(r) {
		return nil, whisk.E(whisk.Forbidden, "get feed", errors.New("The supplied authentication is not authorized to access '"+ns+"/"+trigger+"'."))
	}
	return h.Feeds.Get(namespaceOf(r), trigger)
}

// deadLetters lists what was given up, newest first.
func (h *hub) deadLetters(r *http.Request) (any, error) {
	skip, limit, err := page(r)
	if err != nil {
		return nil, err
	}
	list, err := h.Journal.DeadLetters(r.Context(), namespaceOf(r), skip, limit)
	if err != nil {
		return nil, err
	}
	if list == nil {
		list = []whisk.DeadLetter{}
	}
	return map[string]any{"deadLetters": list}, nil
}

// deadLetter shows one, with its event and all attempts.
func (h *hub) deadLetter(r *http.Request) (any, error) {
	id := chi.URLParam(r, "id")
	if err := whisk.CheckID(id); err != nil {
		return nil, err
	}
	return h.Journal.DeadLetter(r.Context(), namespaceOf(r), id)
}
