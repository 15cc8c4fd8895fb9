package servertest_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/servertest"
)

// streamLimit is how many bytes each stream may hold in TestReplayStaysShort:
// the events that pass fill the journal several times.
const streamLimit = 1 << 20

// askGate is the source of an action that fails as long as a gate, an HTTP
// server, is closed.
const askGate = `
import http.client

def main(args):
    c = http.client.HTTPConnection("%s")
    c.request("GET", "/" + args["n"])
    status = c.getresponse().status
    c.close()
    return {"n": args["n"], "passed": True} if status == 200 else {"error": "the gate is closed"}
`

// TestReplayStaysShort has many thousands of events pass while one match is
// tried again and again and another waits for hours. The journal and the
// archive are trimmed all the same; a start after a kill reads a part of the
// journal, not its story; and both matches are still what they were.
func TestReplayStaysShort(t *testing.T) {
	g := newGate(t)
	p := newProcess(t, "process")
	p.Env = []string{"TEST_STREAM_LIMIT=" + strconv.Itoa(streamLimit)}
	p.Start()
	p.PutAction(t, "ask", "python:3", fmt.Sprintf(askGate, g.addr))
	p.PutAction(t, "pass", "python:3", "def main(args):\n    return {'n': args['n']}\n")
	p.PutRule(t, "on-passing", "passing", "pass", nil)
	p.PutRule(t, "on-again", "again", "ask", map[string]any{
		"retry": map[string]any{"attempts": 100, "backoff": "2s", "maxBackoff": "2s", "on": []string{"platform", "application"}},
	})
	p.PutRule(t, "on-hours", "hours", "ask", map[string]any{
		"retry": map[string]any{"attempts": 100, "backoff": "1h", "maxBackoff": "1h", "on": []string{"platform", "application"}},
	})
	for _, trigger := range []string{"again", "hours"} {
		p.Must(t, http.StatusAccepted, "POST", "/api/v1/namespaces/_/triggers/"+trigger, `{"n":"`+trigger+`"}`, nil)
		servertest.Eventually(t, time.Minute, "the first attempt has failed", func() bool {
			refused, _ := g.asked(trigger)
			return refused > 0
		})
	}

	const passing = 6000
	fireThrough(t, p, "passing", passing)
	servertest.Eventually(t, time.Minute, "all others are done, and the trim has come by", func() bool {
		m := metrics(t, p)
		return m[`millrace_journal_entries_total{kind="verdict"}`] == passing+2 && m["millrace_journal_undone"] == 2 &&
			m["millrace_journal_held_bytes"] < streamLimit*3/4
	})
	m := metrics(t, p)
	written, messages := m["millrace_journal_bytes_total"], m["millrace_journal_messages_total"]
	if written < 2*streamLimit || m["millrace_journal_carries_total"] < 2 {
		t.Errorf("%v bytes were written to a journal of %d, and %v matches carried: the test shows nothing", written, streamLimit, m["millrace_journal_carries_total"])
	}
	servertest.Eventually(t, time.Minute, "it is tried again", func() bool {
		refused, _ := g.asked("again")
		return refused > 1
	})
	p.Kill()
	p.Start()

	m = metrics(t, p)
	t.Logf("of %v bytes in %v messages the start read %v in %v", written, messages, m["millrace_journal_replayed_bytes"], m["millrace_journal_replayed_messages"])
	// From half of the journal on what is undone is carried, and no verdict is
	// taken at three quarters: no start reads more.
	if got := m["millrace_journal_replayed_bytes"]; got == 0 || got > streamLimit*3/4 {
		t.Errorf("the start read %v bytes of the journal, want at most %d", got, streamLimit*3/4)
	}
	if got := m["millrace_journal_replayed_messages"]; got > messages/2 {
		t.Errorf("the start read %v messages of %v, want a part", got, messages)
	}
	if got := m["millrace_journal_undone"]; got != 2 {
		t.Errorf("%v matches are undone after the kill, want 2", got)
	}
	g.open.Store(true)
	// By now the verdicts of both are trimmed: what they did outside tells.
	servertest.Eventually(t, time.Minute, "the match that was tried again and again is done, and the other is not", func() bool {
		return metrics(t, p)["millrace_journal_undone"] == 1
	})
	if refused, passed := g.asked("again"); refused < 2 || passed != 1 {
		t.Errorf("the match that is tried again and again was refused %d times and passed %d times, want several and 1", refused, passed)
	}
	if refused, passed := g.asked("hours"); refused != 1 || passed != 0 {
		t.Errorf("the match that waits for hours was refused %d times and passed %d times, want 1 and 0", refused, passed)
	}
	fireThrough(t, p, "passing", 100) // and the road is open
}

// gate is an HTTP server that says no until it is open, and counts by path what
// it answered.
type gate struct {
	addr string
	open atomic.Bool

	mu              sync.Mutex
	refused, passed map[string]int
}

func newGate(t *testing.T) *gate {
	g := &gate{refused: map[string]int{}, passed: map[string]int{}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.open.Load() {
			g.passed[r.URL.Path[1:]]++
			return
		}
		g.refused[r.URL.Path[1:]]++
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(srv.Close)
	g.addr = srv.Listener.Addr().String()
	return g
}

func (g *gate) asked(what string) (refused, passed int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refused[what], g.passed[what]
}

// fireThrough fires so many events from several sides. A server that is full
// says so and is asked again.
func fireThrough(t *testing.T, p *servertest.Process, trigger string, n int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var (
		left atomic.Int64
		wg   sync.WaitGroup
	)
	left.Store(n)
	for range 8 {
		wg.Go(func() {
			for i := left.Add(-1); i >= 0; i = left.Add(-1) {
				for {
					a, err := p.Do(ctx, http.MethodPost, "/api/v1/namespaces/_/triggers/"+trigger, fmt.Sprintf(`{"n":%d}`, i))
					if err != nil {
						t.Errorf("fire: %v", err)
						return
					}
					if a.Status == http.StatusAccepted {
						break
					}
					if a.Status != http.StatusServiceUnavailable {
						t.Errorf("fire = %d %s", a.Status, a.Body)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

// metrics returns the server's metrics, by name and labels.
func metrics(t *testing.T, p *servertest.Process) map[string]float64 {
	t.Helper()
	a := p.Must(t, http.StatusOK, "GET", "/metrics", nil, nil)
	out := map[string]float64{}
	for line := range strings.Lines(string(a.Body)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil {
			out[name] = v
		}
	}
	return out
}
