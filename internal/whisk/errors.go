package whisk

import (
	"errors"
	"net/http"
)

// Kind says what sort of failure an error is. It decides the HTTP status of an
// answer and the exit code of the command line, and is itself an error, so
// errors.Is(err, whisk.NotFound) asks for it.
type Kind string

// The kinds of failure. The zero Kind is Internal.
const (
	Invalid       Kind = "invalid"        // 400: the request itself is wrong
	Unauthorized  Kind = "unauthorized"   // 401: who is asking?
	Forbidden     Kind = "forbidden"      // 403: known, and not allowed
	NotFound      Kind = "not found"      // 404
	NotAcceptable Kind = "not acceptable" // 406: no representation that the caller accepts
	Conflict      Kind = "conflict"       // 409: exists already, or changed meanwhile
	TooLarge      Kind = "too large"      // 413
	Unsupported   Kind = "unsupported"    // 415: media type
	Unprocessable Kind = "unprocessable"  // 422
	Throttled     Kind = "throttled"      // 429
	Internal      Kind = "internal"       // 500: our fault
	Unavailable   Kind = "unavailable"    // 503: try again later
)

var kindStatus = map[Kind]int{
	Invalid:       http.StatusBadRequest,
	Unauthorized:  http.StatusUnauthorized,
	Forbidden:     http.StatusForbidden,
	NotFound:      http.StatusNotFound,
	NotAcceptable: http.StatusNotAcceptable,
	Conflict:      http.StatusConflict,
	TooLarge:      http.StatusRequestEntityTooLarge,
	Unsupported:   http.StatusUnsupportedMediaType,
	Unprocessable: http.StatusUnprocessableEntity,
	Throttled:     http.StatusTooManyRequests,
	Internal:      http.StatusInternalServerError,
	Unavailable:   http.StatusServiceUnavailable,
}

func (k Kind) Error() string { return string(k) }

// Status returns the HTTP status that stands for k.
func (k Kind) Status() int {
	if s, ok := kindStatus[k]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// KindOfStatus returns the kind that an HTTP status stands for: Internal when
// none does.
func KindOfStatus(status int) Kind {
	for k, s := range kindStatus {
		if s == status {
			return k
		}
	}
	return Internal
}

// Error is a failure with its kind. Err holds the text for the caller, Op what
// was being done, for operators, and Hint, if any, the remedy.
type Error struct {
	Kind Kind
	Op   string
	Err  error
	Hint string
}

func (e *Error) Error() string {
	if e.Op == "" {
		return e.Err.Error()
	}
	return e.Op + ": " + e.Err.Error()
}

// Unwrap lets errors.Is and errors.As see both the kind and the cause.
func (e *Error) Unwrap() []error { return []error{e.Kind, e.Err} }

// E returns an error of kind k that occurred while doing op.
func E(k Kind, op string, err error) error { return &Error{Kind: k, Op: op, Err: err} }

// WithHint returns err with the remedy that a person is told after the cause.
func WithHint(err error, hint string) error {
	return &Error{Kind: KindOf(err), Err: err, Hint: hint}
}

// KindOf returns the kind of the outermost Error in err's chain: Internal when
// there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) && e.Kind != "" {
		return e.Kind
	}
	return Internal
}

// ErrCorrupt says that something stored can't be read. It is an Internal error
// of which callers are told, as OpenWhisk tells them.
var ErrCorrupt = errors.New("Resource is corrupted and cannot be read.")

// Message returns the text of err that its caller may see: the cause without
// the operations that led to it, and nothing of an internal error's inside.
func Message(err error) string {
	if KindOf(err) == Internal {
		if errors.Is(err, ErrCorrupt) {
			return ErrCorrupt.Error()
		}
		return "There was an internal server error."
	}
	var e *Error
	for errors.As(err, &e) {
		err = e.Err
	}
	return err.Error()
}

// HintOf returns the remedy that err carries, or "".
func HintOf(err error) string {
	var e *Error
	for errors.As(err, &e) {
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}
