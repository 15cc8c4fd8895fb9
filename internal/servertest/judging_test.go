package servertest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/servertest"
)

// faults are the points between the steps of the road, with how often the
// server passes each before it is killed there. "judge buried" is missing:
// it takes an event that came sixteen hops.
var faults = []string{
	"judge read#3", "judge judged#3", "judge written#3", "judge delivered#3",
	"delivery begin#4", "delivery started#4", "delivery ran#4", "delivery recorded#4",
	"delivery buried#3", "delivery dead#3", "delivery accepted#2", "delivery turned#2",
}

// TestJudging kills the server between each two steps of the road, while
// events are fired and rules are changed. Each event is judged once, and the
// judgement is the same ever after; what matched is delivered or dead.
func TestJudging(t *testing.T) {
	sink := servertest.NewSink(t, false)
	p := newProcess(t, "process")
	p.Start()
	p.PutAction(t, "work", "python:3", sink.SinkAction("fired"))
	p.PutAction(t, "bad", "python:3", "def main(args):\n    return {'error': 'always'}\n")
	p.PutAction(t, "slow", "python:3", "import time\n\ndef main(args):\n    time.sleep(0.2)\n    return {}\n")
	p.PutRule(t, "on-fired", "fired", "work", nil)
	p.PutRule(t, "on-fired-bad", "fired", "bad", map[string]any{
		"retry": map[string]any{"attempts": 2, "backoff": "10ms", "maxBackoff": "10ms", "on": []string{"platform", "application"}},
	})
	p.PutRule(t, "on-fired-odd", "fired", "work", map[string]any{"filter": map[string]any{"odd": []bool{true}}})
	acked := map[string]int64{}
	for _, fault := range faults {
		p.Kill()
		p.Launch("TEST_FAULT=" + fault)
		if err := p.AwaitReady(); err == nil && !fireUntilDead(t, p, acked) {
			t.Errorf("%s: the server never came to this point", fault)
			p.Kill()
		} else if code := p.Wait(); code != -1 {
			t.Errorf("%s: the server ended with %d, want a kill:\n%s", fault, code, p.Output())
		}
		p.Start()
		t.Logf("%s: %d events are acknowledged", fault, len(acked))
	}
	t.Logf("%d events were acknowledged over %d kills", len(acked), len(faults))

	first := map[string]string{}
	left := slices.Collect(maps.Keys(acked))
	servertest.Eventually(t, 2*time.Minute, "every match is delivered or dead", func() bool {
		left = slices.DeleteFunc(left, func(id string) bool { return settled(t, p, id) })
		return len(left) == 0
	})
	for id := range acked {
		first[id] = decisions(t, p, id)
	}
	p.Kill()
	p.Start()
	for id := range acked {
		if again := decisions(t, p, id); again != first[id] {
			t.Errorf("event %s was judged %s, and after a restart %s", id, first[id], again)
		}
	}
	checkRunsOnce(t, sink)
}

var fired atomic.Int64

// fireUntilDead fires events, invokes and changes rules until the server is
// gone, and notes what it acknowledged. False when it does not go.
func fireUntilDead(t *testing.T, p *servertest.Process, acked map[string]int64) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	var (
		mu sync.Mutex
		wg sync.WaitGroup
	)
	until := func(f func(i int) error) {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := f(i); err != nil {
					return // the server is gone
				}
			}
		})
	}
	for range 4 {
		until(func(int) error {
			n := fired.Add(1)
			a, err := p.Do(ctx, http.MethodPost, "/api/v1/namespaces/_/triggers/fired", fmt.Sprintf(`{"n":%d,"odd":%v}`, n, n%2 == 1))
			if err != nil || a.Status != http.StatusAccepted {
				return err
			}
			var got struct{ ActivationID string }
			if err := json.Unmarshal(a.Body, &got); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			acked[got.ActivationID] = n
			return nil
		})
	}
	until(func(i int) error {
		status := []string{"inactive", "active"}[i%2]
		_, err := p.Do(ctx, http.MethodPost, "/api/v1/namespaces/_/rules/on-fired-odd", `{"status":"`+status+`"}`)
		return err
	})
	until(func(int) error {
		if _, err := p.Do(ctx, http.MethodPost, "/api/v1/namespaces/_/actions/work", `{"n":0}`); err != nil {
			return err
		}
		_, err := p.Do(ctx, http.MethodPost, "/api/v1/namespaces/_/actions/slow?blocking=true&timeout=20", `{}`)
		return err
	})
	wg.Wait()
	return ctx.Err() == nil
}

// settled reports whether all that an event led to has ended.
func settled(t *testing.T, p *servertest.Process, id string) bool {
	ex := explain(t, p, id)
	if len(ex.Rules) != 3 {
		return false
	}
	for _, r := range ex.Rules {
		done := r.Decision != "matched" || r.DeadLetter != ""
		for _, a := range r.Attempts {
			done = done || a.Status == "success"
		}
		if !done {
			return false
		}
	}
	return true
}

// decisions is what every rule made of an event, as one text.
func decisions(t *testing.T, p *servertest.Process, id string) string {
	ex := explain(t, p, id)
	var out []string
	for _, r := range ex.Rules {
		out = append(out, r.Rule+" "+r.Decision+" "+r.ActivationID)
	}
	return strings.Join(out, ", ")
}

// TestRetrySurvives kills the server while a retry waits.
func TestRetrySurvives(t *testing.T) {
	sink := servertest.NewSink(t, false)
	p := newProcess(t, "process")
	p.Start()
	failing := strings.Replace(sink.SinkAction("flaky"), `return {"n": args.get("n")}`, `return {"error": "not yet"}`, 1)
	p.PutAction(t, "flaky-work", "python:3", failing)
	p.PutRule(t, "on-flaky", "flaky", "flaky-work", map[string]any{
		"retry": map[string]any{"attempts": 3, "backoff": "1s", "on": []string{"application"}},
	})
	var got struct{ ActivationID string }
	p.Must(t, http.StatusAccepted, http.MethodPost, "/api/v1/namespaces/_/triggers/flaky", `{"n":1}`, &got)
	for attempt := 1; attempt <= 2; attempt++ {
		servertest.Eventually(t, time.Minute, fmt.Sprintf("attempt %d has run", attempt), func() bool { return len(sink.Runs()) >= attempt })
		servertest.Eventually(t, time.Minute, "it is recorded", func() bool {
			ex := explain(t, p, got.ActivationID)
			return len(ex.Rules) == 1 && len(ex.Rules[0].Attempts) >= attempt && ex.Rules[0].Attempts[attempt-1].Status != ""
		})
		p.Kill()
		p.Start()
	}
	servertest.Eventually(t, time.Minute, "the match is a dead letter", func() bool {
		ex := explain(t, p, got.ActivationID)
		return len(ex.Rules) == 1 && ex.Rules[0].DeadLetter != ""
	})
	if ex := explain(t, p, got.ActivationID); len(ex.Rules[0].Attempts) != 3 || len(sink.Runs()) != 3 {
		t.Errorf("%d runs, attempts %+v, want 3 of each", len(sink.Runs()), ex.Rules[0].Attempts)
	}
	checkRunsOnce(t, sink)
}
