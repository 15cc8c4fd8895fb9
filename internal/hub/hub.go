// Package hub is Millrace's own HTTP interface, /hub/v1: what the OpenWhisk
// API has no word for. It shows the events that were accepted, what every rule
// made of them and what came of it, feeds and dead letters; a stream of
// server-sent events tells the same as it happens.
//
// Everything is of the caller's own namespace. The package reads; it changes
// nothing. Its OpenAPI document is openapi.json beside it.
package hub

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/millrace/millrace/internal/auth"
	"github.com/millrace/millrace/internal/whisk"
)

// Query asks for a page of a namespace's events, newest first.
type Query struct {
	Namespace string
	Trigger   string    // bare name; empty for all
	Since     time.Time // inclusive; zero for all
	Skip      int
	Limit     int
}

// Journal tells what became of events.
type Journal interface {
	Judged() whisk.Place // the last event judged
	Events(ctx context.Context, q Query) ([]whisk.Verdict, error)
	Verdict(ctx context.Context, namespace, eventID string) (whisk.Verdict, error)                    // NotFound
	Attempts(ctx context.Context, m whisk.Match) (list []whisk.Attempt, deadLetter string, err error) // in order
	DeadLetters(ctx context.Context, namespace string, skip, limit int) ([]whisk.DeadLetter, error)
	DeadLetter(ctx context.Context, namespace, id string) (whisk.DeadLetter, error) // NotFound
	// Follow calls fn with each entry as it is written, until ctx ends (nil).
	// lost says that entries just before were passed over because fn was slow.
	Follow(ctx context.Context, fn func(e whisk.Entry, lost bool) error) error
}

// Archive holds the events themselves.
type Archive interface {
	Event(ctx context.Context, seq uint64) (whisk.Event, error) // NotFound
	// FindEvent looks among the newest events, from a sequence on. NotFound.
	FindEvent(ctx context.Context, from uint64, id string) (whisk.Event, error)
}

// Feeds tells of the feeds of a namespace. Its answers are shown as JSON.
type Feeds interface {
	List(namespace string) any                  // a list
	Get(namespace, trigger string) (any, error) // NotFound
}

// Keys knows who calls.
type Keys interface {
	Authenticate(uuid, key string) (auth.Identity, error) // Unauthorized
}

// Deps are what the API shows. All are required. Interfaces, so that the API
// can be tried without a bus.
type Deps struct {
	Journal Journal
	Archive Archive
	Feeds   Feeds
	Keys    Keys
	Log     *slog.Logger
	// Stop ends the streams: a server that stops waits for no reader.
	Stop <-chan struct{}
}

//go:embed openapi.json
var openAPI []byte

type hub struct{ Deps }

// New returns the handler of everything under /hub/v1.
func New(d Deps) http.Handler {
	h := &hub{d}
	r := chi.NewRouter()
	r.Route("/hub/v1", func(r chi.Router) {
		// Open to strangers: it tells nothing of anybody.
		r.Get("/openapi.json", h.document)
		r.Group(func(r chi.Router) {
			r.Use(h.identify)
			r.Get("/events", h.answer(h.events))
			r.Get("/events/stream", h.stream)
			r.Get("/events/{id}", h.answer(h.event))
			r.Get("/events/{id}/explain", h.answer(h.explain))
			r.Get("/feeds", h.answer(h.feeds))
			r.Get("/feeds/{namespace}/{trigger}", h.answer(h.feed))
			r.Get("/dead-letters", h.answer(h.deadLetters))
			r.Get("/dead-letters/{id}", h.answer(h.deadLetter))
		})
	})
	// The router's own answers are plain text; clients of this API read JSON.
	r.NotFound(func(w http.ResponseWriter, r *http.Request) {
		h.refuse(w, r, whisk.E(whisk.NotFound, "", errors.New("The requested resource could not be found.")))
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", "GET")
		h.write(w, http.StatusMethodNotAllowed, map[string]string{"error": "HTTP method not allowed, supported methods: GET"})
	})
	return r
}

// document answers with the OpenAPI document, as it is built in.
func (h *hub) document(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openAPI) // the caller may be gone
}

// identityKey is where a request's context has its sender. A type of its own
// can't collide with a key of other packages.
type identityKey struct{}

// identify lets pass who has a key, and remembers them in the context.
func (h *hub) identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		uuid, key, err := auth.ParseBasic(r.Header.Get("Authorization"))
		var id auth.Identity
		if err == nil {
			id, err = h.Keys.Authenticate(uuid, key)
		}
		if err == nil {
			// What is shown here is what became of the namespace's events: who
			// may not read its activations may not read that either.
			own := auth.Resource{Collection: auth.Activations, Name: whisk.Name{Namespace: id.Namespace}}
			if err := auth.Allow(id, auth.Read, nil, own); err != nil {
				h.refuse(w, r, err)
				return
			}
		}
		if err != nil {
			w.Header().Set("WWW-Authenticate", `Basic realm="Millrace"`)
			h.refuse(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, id)))
	})
}

// namespaceOf is the namespace of the sender. Every query goes through it:
// nothing else bounds what a handler may show.
func namespaceOf(r *http.Request) string {
	id, _ := r.Context().Value(identityKey{}).(auth.Identity)
	return id.Namespace
}

// answer turns a function that gives a value or an error into a handler.
func (h *hub) answer(f func(r *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		if err != nil {
			h.refuse(w, r, err)
			return
		}
		h.write(w, http.StatusOK, v)
	}
}

// write sends v as JSON. It is encoded first, so that a failure can still
// become a status.
func (h *hub) write(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		h.Log.Error("answer not encoded", slog.Any("err", err))
		status, b = http.StatusInternalServerError, []byte(`{"error":"There was an internal server error."}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // the caller may be gone
}

// refuse answers an error in the shape of the OpenWhisk API, with the remedy
// where there is one.
func (h *hub) refuse(w http.ResponseWriter, r *http.Request, err error) {
	kind := whisk.KindOf(err)
	// Made here, since only errors need one: whoever asks about one gives it to
	// the operator, who finds it in the log.
	tid := whisk.NewID(time.Now())
	if kind == whisk.Internal {
		h.Log.ErrorContext(r.Context(), "request failed", slog.String("path", r.URL.Path), slog.String("transaction", tid), slog.Any("err", err))
	}
	body := map[string]string{"error": whisk.Message(err), "code": tid}
	if hint := whisk.HintOf(err); hint != "" {
		body["hint"] = hint
	}
	w.Header().Set("X-Request-ID", tid)
	h.write(w, kind.Status(), body)
}

// named returns a name in the path. The router goes by the path as it was sent
// where its escapes are not the usual ones, and leaves them in.
func named(r *http.Request, param string) string {
	text := chi.URLParam(r, param)
	if s, err := url.PathUnescape(text); err == nil {
		return s // no name has a % of its own
	}
	return text
}

// page reads limit (0 to 200, 0 for 200, 30 unless given) and skip.
func page(r *http.Request) (skip, limit int, err error) {
	limit = 30
	var errs []error
	// Both are read before anything is refused: a caller is told both faults.
	read := func(name string, into *int, most int) {
		text := r.URL.Query().Get(name)
		if text == "" {
			return
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > most {
			errs = append(errs, errors.New("the query parameter '"+name+"' must be a whole number from 0 to "+strconv.Itoa(most)+", not '"+text+"'"))
			return
		}
		*into = n
	}
	read("limit", &limit, whisk.MaxListLimit)
	read("skip", &skip, 1<<31-1)
	if limit == 0 {
		limit = whisk.MaxListLimit
	}
	if len(errs) > 0 {
		return 0, 0, whisk.E(whisk.Invalid, "read query", errors.Join(errs...))
	}
	return skip, limit, nil
}

// since reads a time: milliseconds since 1970, or RFC 3339.
func since(r *http.Request) (time.Time, error) {
	text := r.URL.Query().Get("since")
	if text == "" {
		return time.Time{}, nil
	}
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil && ms >= 0 {
		return time.UnixMilli(ms), nil
	}
	// A "+" of a zone that was not escaped arrives as a blank.
	t, err := time.Parse(time.RFC3339Nano, strings.ReplaceAll(text, " ", "+"))
	if err != nil {
		return time.Time{}, whisk.E(whisk.Invalid, "read query",
			errors.New("the query parameter 'since' must be milliseconds since 1970 or a time as in 2026-01-31T12:00:00Z, not '"+text+"'"))
	}
	return t, nil
}
