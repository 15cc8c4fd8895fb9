package telemetry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/telemetry"
	"github.com/millrace/millrace/internal/whisk"
)

func TestTextLine(t *testing.T) {
	clock := regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d{3} `)
	var out bytes.Buffer
	log := telemetry.NewLogger(&out, telemetry.Text, slog.LevelInfo)
	tests := []struct {
		name string
		log  func()
		want string
	}{
		{"message alone", func() { log.Info("server is up") }, "INFO  server is up\n"},
		{
			"aligned attributes", func() {
				log.Warn("feed is late", slog.String("feed", "abc"), slog.Duration("lag", 1234567*time.Microsecond))
			},
			"WARN  feed is late                 feed=abc lag=1.23s\n",
		},
		{
			"long message", func() { log.Error("a message that is longer than its column is", slog.Int("n", 1)) },
			"ERROR a message that is longer than its column is n=1\n",
		},
		{
			"quoted values", func() {
				log.Info("m", slog.String("a", "b c"), slog.String("e", ""), slog.Any("err", errors.New("x\ny")))
			},
			`INFO  m                            a="b c" e="" err="x\ny"` + "\n",
		},
		{
			"groups", func() { log.WithGroup("g").With(slog.Int("a", 1)).Info("m", slog.Group("h", slog.Int("b", 2))) },
			"INFO  m                            g.a=1 g.h.b=2\n",
		},
		{"below the level", func() { log.Debug("m") }, ""},
		{"one line whatever is said", func() { log.Info("a\nb") }, `INFO  a\nb` + "\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out.Reset()
			tt.log()
			if got := clock.ReplaceAllString(out.String(), ""); got != tt.want {
				t.Errorf("line =\n%q, want\n%q", got, tt.want)
			}
		})
	}
}

// TestTextHandler runs the standard library's suite for handlers over ours.
func TestTextHandler(t *testing.T) {
	var out bytes.Buffer
	slogtest.Run(t, func(*testing.T) slog.Handler {
		out.Reset()
		return telemetry.NewLogger(&out, telemetry.Text, slog.LevelDebug).Handler()
	}, func(t *testing.T) map[string]any { return parseLine(t, out.String()) })
}

var lineForm = regexp.MustCompile(`^(\d\d:\d\d:\d\d\.\d{3} )?([A-Z]+) +(\S+)(.*)\n$`)

func parseLine(t *testing.T, line string) map[string]any {
	m := lineForm.FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("line %q has not the form of one", line)
	}
	got := map[string]any{slog.LevelKey: m[2], slog.MessageKey: m[3]}
	if m[1] != "" {
		got[slog.TimeKey] = m[1]
	}
	for _, f := range strings.Fields(m[4]) {
		key, value, _ := strings.Cut(f, "=")
		in := got
		path := strings.Split(key, ".")
		for _, g := range path[:len(path)-1] {
			next, ok := in[g].(map[string]any)
			if !ok {
				next = map[string]any{}
				in[g] = next
			}
			in = next
		}
		if u, err := strconv.Unquote(value); err == nil {
			value = u
		}
		in[path[len(path)-1]] = value
	}
	return got
}

func TestJSONLine(t *testing.T) {
	var out bytes.Buffer
	log := telemetry.NewLogger(&out, telemetry.JSON, slog.LevelInfo)
	log.Debug("no")
	log.Info("yes", slog.Int("n", 3))
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("line %q is not one object: %v", out.String(), err)
	}
	if got["msg"] != "yes" || got["level"] != "INFO" || got["n"] != 3.0 {
		t.Errorf("line = %v, want msg yes, level INFO, n 3", got)
	}
}

func TestNoColourOffATerminal(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	telemetry.NewLogger(f, telemetry.Text, slog.LevelInfo).Error("m", slog.Int("n", 1))
	b, err := os.ReadFile(f.Name())
	if err != nil || len(b) == 0 || bytes.ContainsRune(b, '\x1b') {
		t.Errorf("file holds %q, %v, want a line without escape sequences", b, err)
	}
}

func TestLoggerIsSafe(t *testing.T) {
	var out bytes.Buffer
	log := telemetry.NewLogger(&out, telemetry.Text, slog.LevelInfo).With(slog.Int("shared", 1))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				log.With(slog.Int("worker", i)).Info("line", slog.Int("own", i))
			}
		})
	}
	wg.Wait()
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 400 {
		t.Fatalf("%d lines, want 400", len(lines))
	}
	for _, l := range lines {
		m := regexp.MustCompile(`shared=1 worker=(\d) own=(\d)$`).FindStringSubmatch(l)
		if m == nil || m[1] != m[2] {
			t.Fatalf("line %q mixes two", l)
		}
	}
}

func TestMetrics(t *testing.T) {
	r := telemetry.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_test_total", Help: "Counts."})
	r.MustRegister(c)
	c.Inc()
	w := httptest.NewRecorder()
	telemetry.Handler(r, slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range []string{"millrace_test_total 1", "go_goroutines", "process_resident_memory_bytes"} {
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
			t.Errorf("metrics (%d) lack %s", w.Code, want)
		}
	}
}

func TestHealth(t *testing.T) {
	var h telemetry.Health
	get := func(handler http.Handler) (int, string) {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		return w.Code, strings.TrimSpace(w.Body.String())
	}
	steps := []struct {
		name        string
		do          func()
		live, ready int
		body        string
	}{
		{"no parts", func() {}, 200, 200, `{"status":"ok","parts":{}}`},
		{"expected", func() { h.Expect("bus", "journal") }, 200, 503, `{"status":"unavailable","parts":{"bus":"starting","journal":"starting"}}`},
		{"one reported", func() { h.Report("bus", nil) }, 200, 503, `{"status":"unavailable","parts":{"bus":"ok","journal":"starting"}}`},
		{"expected again", func() { h.Expect("bus") }, 200, 503, `{"status":"unavailable","parts":{"bus":"ok","journal":"starting"}}`},
		{"all reported", func() { h.Report("journal", nil) }, 200, 200, `{"status":"ok","parts":{"bus":"ok","journal":"ok"}}`},
		{"trouble", func() { h.Report("bus", errors.New("disk is full")) }, 200, 503, `{"status":"unavailable","parts":{"bus":"disk is full","journal":"ok"}}`},
		{"over", func() { h.Report("bus", nil) }, 200, 200, `{"status":"ok","parts":{"bus":"ok","journal":"ok"}}`},
		{"dead", func() { h.Fail("bus", errors.New("flush failed")) }, 503, 503, `{"status":"unavailable","parts":{"bus":"flush failed","journal":"ok"}}`},
		{"no way back", func() { h.Report("bus", nil) }, 503, 503, `{"status":"unavailable","parts":{"bus":"flush failed","journal":"ok"}}`},
	}
	for _, s := range steps {
		s.do()
		if code, _ := get(h.LiveHandler()); code != s.live {
			t.Errorf("%s: live = %d, want %d", s.name, code, s.live)
		}
		if code, body := get(h.ReadyHandler()); code != s.ready || body != s.body {
			t.Errorf("%s: ready = %d %s, want %d %s", s.name, code, body, s.ready, s.body)
		}
	}
	if err := h.Ready(); !errors.Is(err, whisk.Unavailable) || err.Error() != "bus: flush failed" {
		t.Errorf("Ready = %v, want Unavailable with the part and its reason", err)
	}
}
