package whisk

import (
	"strconv"
	"time"
)

// Retry says which failures of a match are tried again, how often and when.
type Retry struct {
	Attempts   int           // in all, the first one included; at least 1
	Backoff    time.Duration // the longest wait before the second attempt; it doubles with each further one
	MaxBackoff time.Duration // what the doubling stops at
	MaxAge     time.Duration // since the match: no attempt is planned beyond it

	Platform    bool // retries what was our fault
	Timeout     bool // retries attempts that ran out of time
	Application bool // retries the action's own errors, crashes included
}

// StdRetry is the retry of a rule that names none, and of non-blocking
// invocations.
func StdRetry() Retry {
	return Retry{
		Attempts: 3, Backoff: time.Second, MaxBackoff: 5 * time.Minute, MaxAge: 24 * time.Hour,
		Platform: true,
	}
}

// AttemptID returns the activation ID of attempt n of m, counted from 1. event
// is the ID of the matched event; an invocation ignores it. The ID depends on
// nothing else, so whoever asks, whenever, is given the same one.
func (m Match) AttemptID(event string, n int) string {
	if m.Invoke != "" {
		if n == 1 {
			return m.Invoke
		}
		return DeriveID(IDTime(m.Invoke), "invoke", m.Invoke, strconv.Itoa(n))
	}
	seq := strconv.FormatUint(m.Event, 10)
	return DeriveID(IDTime(event), "match", seq, event, m.Rule.String(), strconv.Itoa(n))
}
