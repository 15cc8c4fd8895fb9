package telemetry

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"sync"

	"github.com/millrace/millrace/internal/whisk"
)

// errStarting is the reason of a part that has not reported yet.
var errStarting = errors.New("starting")

// Health is what the server's parts say about themselves. A part is ready or
// not, and the server is ready when all are. It is alive until a part says
// that only a new process can help. The zero value has no parts: it is alive
// and ready. Safe for concurrent use.
type Health struct {
	mu    sync.RWMutex
	parts map[string]partState
}

type partState struct {
	err  error // nil: ready
	dead bool
}

// Expect names parts that must report before the server is ready: until they
// do, their reason is "starting". A part that has reported already keeps what
// it said.
func (h *Health) Expect(parts ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range parts {
		if _, ok := h.parts[p]; !ok {
			h.set(p, partState{err: errStarting})
		}
	}
}

// Report sets the state of a part: nil when it can do its work, else why not.
// The reason is shown to whoever asks, so it holds no secrets.
func (h *Health) Report(part string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.parts[part].dead {
		return // there is no way back
	}
	h.set(part, partState{err: err})
}

// Fail says that a part has failed for good: the server is neither ready nor
// alive from now on. err must not be nil.
func (h *Health) Fail(part string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.set(part, partState{err: err, dead: true})
}

func (h *Health) set(part string, s partState) {
	if h.parts == nil {
		h.parts = map[string]partState{}
	}
	h.parts[part] = s
}

// Ready returns nil when every part is ready, else Unavailable with the parts
// that are not and their reasons.
func (h *Health) Ready() error {
	return h.check(func(s partState) bool { return s.err == nil })
}

// Live returns nil unless a part has failed for good, else Unavailable with
// the reasons.
func (h *Health) Live() error {
	return h.check(func(s partState) bool { return !s.dead })
}

func (h *Health) check(good func(partState) bool) error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var bad []error
	for _, p := range slices.Sorted(maps.Keys(h.parts)) {
		if s := h.parts[p]; !good(s) {
			bad = append(bad, errors.New(p+": "+s.err.Error()))
		}
	}
	if bad == nil {
		return nil
	}
	return whisk.E(whisk.Unavailable, "", errors.Join(bad...))
}

// LiveHandler answers 200 while the server is alive, else 503, with the state
// of every part.
func (h *Health) LiveHandler() http.Handler { return h.handler(h.Live) }

// ReadyHandler answers 200 while the server is ready, else 503, with the state
// of every part.
func (h *Health) ReadyHandler() http.Handler { return h.handler(h.Ready) }

func (h *Health) handler(check func() error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		body := struct {
			Status string            `json:"status"` // ok or unavailable
			Parts  map[string]string `json:"parts"`  // ok, or why not
		}{"ok", h.states()}
		status := http.StatusOK
		if err := check(); err != nil {
			body.Status, status = "unavailable", whisk.KindOf(err).Status()
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(body) //nolint:errcheck // the caller has gone
	})
}

func (h *Health) states() map[string]string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	out := make(map[string]string, len(h.parts))
	for p, s := range h.parts {
		out[p] = "ok"
		if s.err != nil {
			out[p] = s.err.Error()
		}
	}
	return out
}
