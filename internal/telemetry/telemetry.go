// Package telemetry builds what the other rooms are handed to tell how they
// fare: the logger, the registry of metrics and the health.
//
// A room writes to the logger with constant messages and typed attributes,
// declares its own metrics on the registry, and reports through Health whether
// it can do its work. The package does not know any of them.
package telemetry

import (
	"io"
	"log/slog"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Format is how a log line looks.
type Format string

// Text is for people: short aligned lines, in colour on a terminal. JSON is
// for machines: one object a line, with the members of log/slog.
const (
	Text Format = "text"
	JSON Format = "json"
)

// NewLogger returns a logger that writes lines of at least level to w. Any
// format but JSON is Text. Colour is used when w is a terminal and NO_COLOR is
// not in the environment.
func NewLogger(w io.Writer, f Format, level slog.Leveler) *slog.Logger {
	if f == JSON {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
	}
	return slog.New(newTextHandler(w, level, colourful(w)))
}

// colourful reports whether escape sequences for colour make sense on w.
func colourful(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	// A device that takes characters is a terminal, or /dev/null, which does
	// not mind.
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

// NewRegistry returns a registry that holds the metrics of the Go runtime and
// of the process.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}

// Handler serves the metrics of r in Prometheus' format. What goes wrong while
// they are gathered is logged, and what could be gathered is served.
func Handler(r *prometheus.Registry, log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{
		ErrorLog:      slog.NewLogLogger(log.Handler(), slog.LevelError),
		ErrorHandling: promhttp.ContinueOnError,
		Registry:      r,
	})
}
