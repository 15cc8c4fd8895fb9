package telemetry

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode"
)

// messageWidth is the column, counted from the message's first, at which the
// attributes begin when the message is not longer.
const messageWidth = 28

// Escape sequences of the colours in use.
const (
	colourOff    = "\x1b[0m"
	colourFaint  = "\x1b[2m"
	colourRed    = "\x1b[31m"
	colourYellow = "\x1b[33m"
	colourCyan   = "\x1b[36m"
)

// textHandler writes lines for people:
//
//	15:04:05.000 WARN  feed is late                 feed=abc lag=1.5s
//
// Attributes in groups get dotted keys; values that would be hard to tell apart
// are quoted.
type textHandler struct {
	mu     *sync.Mutex // one line at a time; shared by all that derive from one handler
	w      io.Writer
	level  slog.Leveler
	colour bool
	attrs  []byte // rendered already, each with a space before it
	prefix string // of keys: the open groups, each with a dot after it
}

func newTextHandler(w io.Writer, level slog.Leveler, colour bool) *textHandler {
	return &textHandler{mu: &sync.Mutex{}, w: w, level: level, colour: colour}
}

// Enabled implements slog.Handler.
func (h *textHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// WithAttrs implements slog.Handler.
func (h *textHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	out := *h
	out.attrs = slices.Clip(slices.Clone(h.attrs))
	for _, a := range attrs {
		out.attrs = h.appendAttr(out.attrs, h.prefix, a)
	}
	return &out
}

// WithGroup implements slog.Handler.
func (h *textHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	out := *h
	out.prefix += name + "."
	return &out
}

// Handle implements slog.Handler.
func (h *textHandler) Handle(_ context.Context, r slog.Record) error {
	line := make([]byte, 0, 160)
	if !r.Time.IsZero() {
		line = h.paint(line, colourFaint, r.Time.Format("15:04:05.000"))
		line = append(line, ' ')
	}
	line = h.paint(line, levelColour(r.Level), padded(r.Level.String(), 5))
	line = append(line, ' ')
	attrs := slices.Clip(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		attrs = h.appendAttr(attrs, h.prefix, a)
		return true
	})
	if len(attrs) > 0 {
		line = append(append(line, padded(r.Message, messageWidth)...), attrs...)
	} else {
		line = append(line, r.Message...)
	}
	// A message is one line, whatever is in it.
	line = append(bytes.ReplaceAll(line, []byte{'\n'}, []byte(`\n`)), '\n')
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := h.w.Write(line)
	return err
}

func (h *textHandler) appendAttr(b []byte, prefix string, a slog.Attr) []byte {
	a.Value = a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return b
	}
	if a.Value.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, g := range a.Value.Group() {
			b = h.appendAttr(b, prefix, g)
		}
		return b
	}
	b = append(b, ' ')
	b = h.paint(b, colourFaint, quoted(prefix+a.Key)+"=")
	return append(b, quoted(valueText(a.Value))...)
}

// valueText renders v shortly: times in UTC without what does not matter,
// durations to three digits or so.
func valueText(v slog.Value) string {
	switch v.Kind() {
	case slog.KindTime:
		return v.Time().UTC().Format(time.RFC3339Nano)
	case slog.KindDuration:
		return short(v.Duration()).String()
	default:
		return v.String()
	}
}

// short rounds d to what a person reads.
func short(d time.Duration) time.Duration {
	for _, unit := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if d >= unit || d <= -unit {
			return d.Round(unit / 100)
		}
	}
	return d
}

func quoted(s string) string {
	plain := s != ""
	for _, r := range s {
		if r == ' ' || r == '=' || r == '"' || r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	return strconv.Quote(s)
}

func padded(s string, width int) string {
	for len(s) < width {
		s += "        "[:min(8, width-len(s))]
	}
	return s
}

func levelColour(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return colourRed
	case l >= slog.LevelWarn:
		return colourYellow
	case l >= slog.LevelInfo:
		return colourCyan
	default:
		return colourFaint
	}
}

func (h *textHandler) paint(b []byte, colour, s string) []byte {
	if !h.colour {
		return append(b, s...)
	}
	return append(append(append(b, colour...), s...), colourOff...)
}
