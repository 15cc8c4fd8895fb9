package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/millrace/millrace/internal/auth"
	"github.com/millrace/millrace/internal/whisk"
)

// OpenWhisk's texts that more than one place needs.
const (
	textMissing     = "The requested resource does not exist."
	textNoRoute     = "The requested resource could not be found."
	textUnavailable = "The server is currently unavailable (because it is overloaded or down for maintenance)."
	textExists      = "resource already exists"
	textOnBinding   = "Operation not permitted on package binding."
	textReserved    = "Request defines parameters that are not allowed (e.g., reserved properties)."
)

// rejection is an error of a request that no handler took up: who sent it is
// not known, no endpoint has its address, or it can't be read. OpenWhisk's
// framework answers these, and the answer lacks the headers that its own ones
// have (CORS).
type rejection struct{ error }

func (r rejection) Unwrap() error { return r.error }

// refuse returns an error with a text for the caller.
func refuse(kind whisk.Kind, format string, args ...any) error {
	return whisk.E(kind, "", fmt.Errorf(format, args...))
}

// reject is refuse for a rejection with a fixed text.
func reject(kind whisk.Kind, text string) error {
	return rejection{whisk.E(kind, "", errors.New(text))}
}

// errMissing and errNoRoute are the two ways not to be found: the address makes
// sense or it does not.
func errMissing() error { return refuse(whisk.NotFound, textMissing) }
func errNoRoute() error { return reject(whisk.NotFound, textNoRoute) }

// malformed refuses a body.
func malformed(detail string) error {
	return reject(whisk.Invalid, "The request content was malformed:\n"+detail)
}

// malformedQuery refuses a query parameter.
func malformedQuery(name, detail string) error {
	return reject(whisk.Invalid, "The query parameter '"+name+"' was malformed:\n"+detail)
}

// tooLarge refuses something of n bytes where most are allowed.
func tooLarge(what string, n, most int64) error {
	return refuse(whisk.TooLarge, "%s larger than allowed: %d > %d bytes.", what, n, most)
}

// fail answers with err: its kind is the status, its text the body's error.
// What is our own fault is logged, and the caller sees a text that tells
// nothing and an ID to ask with.
func (a *api) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, text := a.explain(w, r, err)
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", auth.Challenge)
	}
	var rej rejection
	if !errors.As(err, &rej) {
		restCORS(w.Header())
	}
	writeError(w, status, text)
}

// explain returns the status and the text that stand for err, and logs what
// only an operator may see.
func (a *api) explain(w http.ResponseWriter, r *http.Request, err error) (status int, text string) {
	kind := whisk.KindOf(err)
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		return http.StatusServiceUnavailable, textUnavailable // nobody reads it
	}
	text = whisk.Message(err)
	attrs := []slog.Attr{slog.String("transaction", transactionOn(w)), slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Any("err", err)}
	switch kind {
	// A handler logs nothing itself: it returns, and this is where it is told
	// once.
	case whisk.Internal:
		a.Log.LogAttrs(r.Context(), slog.LevelError, "request failed", attrs...)
	case whisk.Unavailable:
		// At overload there are thousands a second; who is full says so itself.
		a.Log.LogAttrs(r.Context(), slog.LevelDebug, "request refused", attrs...)
		text = textUnavailable
		if whisk.HintOf(err) != "" { // something that somebody can mend
			text = "The server is currently unavailable: " + whisk.Message(err) + "."
		}
	}
	return kind.Status(), text
}

// failure is the body of every error. Code is the transaction ID: with it an
// operator finds the log line.
type failure struct {
	Error string `json:"error"`
	Code  string `json:"code"`
}

// writeError answers with a status and a text.
func writeError(w http.ResponseWriter, status int, text string) {
	b, err := encode(failure{text, transactionOn(w)})
	if err != nil {
		b = nil // two strings always encode
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	write(w, status, typeJSON, b)
}
