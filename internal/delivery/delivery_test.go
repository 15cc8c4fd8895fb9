package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/whisk"
)

// runs collects what was run; outcome decides how, Success if nil.
type runs struct {
	mu      sync.Mutex
	all     []whisk.Invocation
	outcome func(n int) whisk.Outcome // of the n-th run, from 1
}

func (r *runs) run(inv whisk.Invocation) (whisk.Activation, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, inv)
	o := whisk.Success
	if r.outcome != nil {
		o = r.outcome(len(r.all))
	}
	return ended(inv, o), nil
}

func always(o whisk.Outcome) *runs { return &runs{outcome: func(int) whisk.Outcome { return o }} }

// kinds tells the entries of a match, as in "start1 record1 due".
func (j *journal) kinds(m whisk.Match) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []string
	for _, e := range j.entries {
		if e.Match != m {
			continue
		}
		s := string(e.Kind)
		if e.Attempt > 0 {
			s += fmt.Sprint(e.Attempt)
		}
		switch {
		case e.Final:
			s += "final"
		case !e.Due.IsZero():
			s += "due"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func TestDeliverRunsAMatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(t), &runs{}
		w.entities.params = whisk.Params{}.Set("a", "1").Set("b", "2")
		w.start(1, r.run)
		if err := w.delivery.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		ev := w.archive.add(`{"b":3}`)
		ev.Headers = map[string]string{"x": "y"}
		w.archive.events[ev.Seq] = ev
		v := whisk.Verdict{Event: whisk.Place{Seq: ev.Seq, ID: ev.ID}, At: now(), Rules: []whisk.RuleVerdict{
			{Rule: name("r"), Action: name("a"), Decision: whisk.Matched},
			{Rule: name("s"), Action: name("a"), Decision: whisk.Filtered},
			{Rule: name("u"), Action: name("a"), Decision: whisk.Off},
		}}
		w.journal.Append(t.Context(), whisk.Entry{Kind: whisk.EntryVerdict, Verdict: &v})
		if err := w.delivery.Deliver(t.Context(), &v); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(r.all) != 1 {
			t.Fatalf("%d runs, want 1", len(r.all))
		}
		m := whisk.Match{Event: ev.Seq, Rule: name("r")}
		inv := r.all[0]
		if want := m.AttemptID(ev.ID, 1); inv.ActivationID != want {
			t.Errorf("activation ID = %s, want the verdict's, %s", inv.ActivationID, want)
		}
		if inv.Namespace != "guest" || inv.Subject != "owner-of-guest" || inv.Cause != "" {
			t.Errorf("run as %q in %q, cause %q; want the namespace's owner and no cause", inv.Subject, inv.Namespace, inv.Cause)
		}
		if want := (whisk.Origin{Cause: inv.ActivationID, Correlation: ev.ID, Hops: 1}); inv.Origin() != want {
			t.Errorf("it is the origin %+v of what it asks for, want %+v", inv.Origin(), want)
		}
		if got, want := string(inv.Payload), `{"__ow_headers":{"x":"y"},"a":1,"b":3}`; got != want {
			t.Errorf("payload = %s, want %s", got, want)
		}
		if got, want := w.journal.kinds(m), "start1 record1final"; got != want {
			t.Errorf("entries = %s, want %s", got, want)
		}
		if w.journal.durable != 0 {
			t.Errorf("%d entries flushed, want none: a match may run again after a power cut", w.journal.durable)
		}
		if w.count() != 0 || len(w.delivery.lines) != 0 {
			t.Errorf("%d undone in %d lines, want none", w.count(), len(w.delivery.lines))
		}
		w.end()
	})
}

func TestRetries(t *testing.T) {
	std, one := whisk.StdRetry(), whisk.StdRetry()
	one.Attempts = 1
	apps := whisk.Retry{Attempts: 2, Backoff: time.Second, MaxBackoff: time.Second, MaxAge: time.Hour, Application: true}
	timeouts := apps
	timeouts.Application, timeouts.Timeout = false, true
	brief := whisk.Retry{Attempts: 100, Backoff: time.Hour, MaxBackoff: time.Hour, MaxAge: time.Nanosecond, Platform: true}
	for _, tt := range []struct {
		name    string
		retry   whisk.Retry
		outcome []whisk.Outcome // the last one repeats
		timeout bool
		entries string
		reason  string // of the dead letter
	}{
		{"success", std, []whisk.Outcome{whisk.Success}, false, "start1 record1final", ""},
		{"platform failures", std, []whisk.Outcome{whisk.WhiskError}, false, "start1 record1due start2 record2due start3 record3 dead", "all 3 attempts failed, the last with whisk internal error: whisk internal error of a test"},
		{"recovered", std, []whisk.Outcome{whisk.WhiskError, whisk.Success}, false, "start1 record1due start2 record2final", ""},
		{"application error is an answer", std, []whisk.Outcome{whisk.ApplicationError}, false, "start1 record1final", ""},
		{"crash of the action", std, []whisk.Outcome{whisk.DeveloperError}, false, "start1 record1final", ""},
		{"at most once", one, []whisk.Outcome{whisk.WhiskError}, false, "start1 record1 dead", "its only attempt failed with whisk internal error: whisk internal error of a test"},
		{"application errors if asked for", apps, []whisk.Outcome{whisk.ApplicationError}, false, "start1 record1due start2 record2 dead", "all 2 attempts failed, the last with application error: application error of a test"},
		{"crashes count as the application's", apps, []whisk.Outcome{whisk.DeveloperError, whisk.Success}, false, "start1 record1due start2 record2final", ""},
		{"platform left out", apps, []whisk.Outcome{whisk.WhiskError}, false, "start1 record1 dead", "its rule does not retry failures of the platform; its only attempt failed with whisk internal error: whisk internal error of a test"},
		{"platform left out, after a retry", apps, []whisk.Outcome{whisk.ApplicationError, whisk.WhiskError}, false, "start1 record1due start2 record2 dead", "its rule does not retry failures of the platform; all 2 attempts failed, the last with whisk internal error: whisk internal error of a test"},
		{"application left out, after a retry", std, []whisk.Outcome{whisk.WhiskError, whisk.ApplicationError}, false, "start1 record1due start2 record2final", ""},
		{"timeouts if asked for", timeouts, []whisk.Outcome{whisk.DeveloperError}, true, "start1 record1due start2 record2 dead", "all 2 attempts failed, the last with action developer error: action developer error of a test"},
		{"no timeout", timeouts, []whisk.Outcome{whisk.DeveloperError}, false, "start1 record1final", ""},
		{"too old", brief, []whisk.Outcome{whisk.WhiskError}, false, "start1 record1 dead", "it is older than 1ns; its only attempt failed with whisk internal error: whisk internal error of a test"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.entities.retries[name("r")] = tt.retry
				r := &runs{outcome: func(n int) whisk.Outcome { return tt.outcome[min(n, len(tt.outcome))-1] }}
				w.start(1, func(inv whisk.Invocation) (whisk.Activation, error) {
					a, err := r.run(inv)
					a.Annotations = whisk.Params{}.Set("timeout", fmt.Sprint(tt.timeout))
					return a, err
				})
				ev := w.fire(`{}`, "r")
				time.Sleep(time.Hour)
				synctest.Wait()
				m := whisk.Match{Event: ev.Seq, Rule: name("r")}
				if got := w.journal.kinds(m); got != tt.entries {
					t.Errorf("entries = %s, want %s", got, tt.entries)
				}
				for i, inv := range r.all {
					if want := m.AttemptID(ev.ID, i+1); inv.ActivationID != want {
						t.Errorf("attempt %d ran as %s, want %s", i+1, inv.ActivationID, want)
					}
				}
				reason := ""
				for _, l := range w.journal.letters {
					reason += l.Reason
					if len(l.Attempts) != len(r.all) || l.Event == nil || l.Event.ID != ev.ID || l.Revision != 3 || l.Action != name("a") {
						t.Errorf("letter = %+v, want the event, the revision and all attempts", l)
					}
				}
				if reason != tt.reason {
					t.Errorf("dead letters say %q, want %q", reason, tt.reason)
				}
				if got, want := w.journal.durable > 0, tt.retry.Attempts == 1; got != want {
					t.Errorf("start flushed = %v, want %v", got, want)
				}
				if w.count() != 0 {
					t.Errorf("%d undone, want 0", w.count())
				}
				w.end()
			})
		})
	}
}

func TestBackoff(t *testing.T) {
	p := whisk.Retry{Backoff: time.Second, MaxBackoff: 10 * time.Second}
	for n, most := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 5: 10 * time.Second, 99: 10 * time.Second} {
		var sum time.Duration
		for range 1000 {
			d := backoff(&p, n)
			if d < 0 || d > most {
				t.Fatalf("backoff after attempt %d = %v, want at most %v", n, d, most)
			}
			sum += d
		}
		if mean := sum / 1000; mean < most*2/5 || mean > most*3/5 {
			t.Errorf("mean backoff after attempt %d = %v, want about %v", n, mean, most/2)
		}
	}
}

// What is doubled so often that no Duration holds it is still at most the most.
func TestBackoffOfLongTimes(t *testing.T) {
	p := whisk.Retry{Backoff: time.Hour, MaxBackoff: 24 * time.Hour}
	for n := 1; n <= 100; n++ {
		longest := time.Duration(0)
		for range 100 {
			longest = max(longest, backoff(&p, n))
		}
		if longest < 10*time.Minute || longest > p.MaxBackoff {
			t.Errorf("the longest of 100 backoffs after attempt %d is %v", n, longest)
		}
	}
}

func TestGone(t *testing.T) {
	for _, tt := range []struct {
		name   string
		take   func(w *world)
		reason string
	}{
		{"rule", func(w *world) { delete(w.entities.retries, name("r")) }, "its rule was deleted"},
		{"action", func(w *world) { delete(w.entities.actions, name("a")) }, "its action cannot be found: The requested resource does not exist"},
		{"trigger", func(w *world) { w.entities.trigger = false }, "its trigger was deleted, and with it the parameters that the action expects"},
		{"event", func(w *world) { delete(w.archive.events, 1) }, "its event is in the store no more"},
		{"payload", func(w *world) { w.archive.events[1] = whisk.Event{ID: w.archive.events[1].ID} }, "its payload is missing from the store"},
		{"owner", func(w *world) {
			ev := w.archive.events[1]
			ev.Trigger.Namespace = "nobody"
			w.archive.events[1] = ev
		}, "its namespace has no owner to run as"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, r := newWorld(t), &runs{}
				ev := w.archive.add(`{}`)
				m := whisk.Match{Event: ev.Seq, Rule: name("r")}
				v := whisk.Verdict{Event: whisk.Place{Seq: ev.Seq, ID: ev.ID}, At: now(), Rules: []whisk.RuleVerdict{
					{Rule: m.Rule, Action: name("a"), Decision: whisk.Matched},
				}}
				w.journal.Append(t.Context(), whisk.Entry{Kind: whisk.EntryVerdict, Verdict: &v})
				tt.take(w)
				w.start(1, r.run)
				synctest.Wait()
				if len(r.all) != 0 {
					t.Errorf("it ran")
				}
				if got := w.journal.kinds(m); got != "record1 dead" {
					t.Errorf("entries = %s, want record1 dead", got)
				}
				rec := w.journal.of(whisk.EntryRecord)[0].Record
				if rec.ID != m.AttemptID(ev.ID, 1) || !strings.Contains(string(rec.Result), tt.reason) {
					t.Errorf("record = %+v, want the first attempt's, with the reason", rec)
				}
				if l := w.journal.letters; len(l) != 1 || l[0].Reason != tt.reason {
					t.Errorf("letters = %+v, want one with %q", l, tt.reason)
				}
				if w.count() != 0 || len(w.delivery.lines) != 0 {
					t.Errorf("%d undone, want 0", w.count())
				}
				w.end()
			})
		})
	}
}

func TestRuleDeletedWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start(1, func(inv whisk.Invocation) (whisk.Activation, error) {
			w.entities.set(func() { delete(w.entities.retries, name("r")) })
			return ended(inv, whisk.WhiskError), nil
		})
		ev := w.fire(`{}`, "r")
		synctest.Wait()
		if got := w.journal.kinds(whisk.Match{Event: ev.Seq, Rule: name("r")}); got != "start1 record1 dead" {
			t.Errorf("entries = %s, want start1 record1 dead", got)
		}
		if got := w.journal.letters[0].Reason; !strings.HasPrefix(got, "its rule was deleted; its only attempt failed") {
			t.Errorf("reason = %q", got)
		}
		w.end()
	})
}

func TestFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(t), &runs{}
		var want []string
		// More than the invoker is given at once, left by an earlier process
		// and new ones behind them.
		for i := range 3 * window {
			ev := w.archive.add(fmt.Sprintf(`{"i":%d}`, i))
			want = append(want, string(ev.Payload))
			v := whisk.Verdict{Event: whisk.Place{Seq: ev.Seq, ID: ev.ID}, At: now(), Rules: []whisk.RuleVerdict{
				{Rule: name("r"), Action: name("a"), Decision: whisk.Matched},
			}}
			w.journal.Append(t.Context(), whisk.Entry{Kind: whisk.EntryVerdict, Verdict: &v})
		}
		w.start(1, r.run)
		for i := range 10 {
			ev := w.fire(fmt.Sprintf(`{"new":%d}`, i), "r")
			want = append(want, string(ev.Payload))
		}
		synctest.Wait()
		if len(r.all) != len(want) {
			t.Fatalf("%d runs, want %d", len(r.all), len(want))
		}
		for i := range want {
			if got := string(r.all[i].Payload); got != want[i] {
				t.Fatalf("run %d is of %s, want %s", i, got, want[i])
			}
		}
		w.end()
	})
}

func TestBacklogOfOneActionHoldsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		hold := make(chan struct{})
		w.start(1, func(inv whisk.Invocation) (whisk.Activation, error) {
			if inv.Namespace == "guest" { // rule-fired: action a
				<-hold
			}
			return ended(inv, whisk.Success), nil
		})
		for range 2 * window {
			w.fire(`{}`, "r")
		}
		_, done, err := w.delivery.Call(t.Context(), runnable("b"), whisk.Invocation{ActivationID: whisk.NewID(now())}, time.Minute)
		if err != nil || !done {
			t.Errorf("call of another action = %v, %v; want it done", done, err)
		}
		close(hold)
		synctest.Wait()
		w.end()
	})
}

func TestWaitHoldsTheJudge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		w := newWorld(t, WithLimits(3, 1<<20), WithMetrics(reg))
		hold := make(chan struct{})
		w.start(1, func(inv whisk.Invocation) (whisk.Activation, error) {
			<-hold
			return ended(inv, whisk.Success), nil
		})
		for range 3 {
			w.fire(`{}`, "r")
		}
		waited := make(chan error, 1)
		go func() { waited <- w.delivery.Wait(t.Context()) }()
		synctest.Wait()
		select {
		case err := <-waited:
			t.Fatalf("Wait returned %v with three undone of three", err)
		default:
		}
		if got, want := gauges(t, reg), "millrace_judge_held{/guest/a}=1 millrace_line_undone{/guest/a}=3 millrace_undone=3"; got != want {
			t.Errorf("metrics = %s, want %s", got, want)
		}
		for range 3 { // callers are let in while the judge waits
			if err := w.delivery.Invoke(t.Context(), name("a"), invocation()); err != nil {
				t.Errorf("Invoke = %v", err)
			}
		}
		err := w.delivery.Invoke(t.Context(), name("a"), invocation())
		if !errors.Is(err, whisk.Unavailable) {
			t.Errorf("Invoke while full = %v, want Unavailable", err)
		}
		for range 4 {
			hold <- struct{}{}
		}
		if err := <-waited; err != nil {
			t.Errorf("Wait = %v", err)
		}
		close(hold)
		synctest.Wait()
		if got, want := gauges(t, reg), "millrace_undone=0"; got != want {
			t.Errorf("metrics = %s, want %s", got, want)
		}
		w.end()
	})
}

func TestWaitByBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, WithLimits(1000, 10_000))
		hold := make(chan struct{})
		w.start(1, func(inv whisk.Invocation) (whisk.Activation, error) {
			<-hold
			return ended(inv, whisk.Success), nil
		})
		w.fire(`{"x":"`+strings.Repeat("x", 10_000)+`"}`, "r")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := w.delivery.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait = %v, want it to last", err)
		}
		close(hold)
		synctest.Wait()
		if err := w.delivery.Wait(t.Context()); err != nil {
			t.Errorf("Wait = %v", err)
		}
		if w.delivery.bytes != 0 {
			t.Errorf("%d bytes undone, want 0", w.delivery.bytes)
		}
		w.end()
	})
}

func TestArguments(t *testing.T) {
	for _, tt := range []struct{ params, payload, headers, want string }{
		{`[]`, `{"a": 1}`, ``, `{"a": 1}`},
		{`[]`, `null`, ``, `{}`},
		{`[{"key":"a","value":1},{"key":"b","value":2}]`, `{"b":3}`, ``, `{"a":1,"b":3}`},
		{`[{"key":"__ow_headers","value":1}]`, `{}`, `h`, `{"__ow_headers":{"h":"1"}}`},
		{`[]`, `{"__ow_headers":7}`, `h`, `{"__ow_headers":7}`},
	} {
		var params whisk.Params
		if err := json.Unmarshal([]byte(tt.params), &params); err != nil {
			t.Fatal(err)
		}
		ev := &whisk.Event{Payload: json.RawMessage(tt.payload)}
		if tt.headers != "" {
			ev.Headers = map[string]string{tt.headers: "1"}
		}
		got, err := arguments(params, ev)
		if err != nil || string(got) != tt.want {
			t.Errorf("arguments(%s, %s) = %s, %v, want %s", tt.params, tt.payload, got, err, tt.want)
		}
	}
}

func TestFifo(t *testing.T) {
	var q fifo[int]
	in, out := 0, 0
	for round := range 200 {
		for range round % 17 * 100 {
			q.push(in)
			in++
		}
		for range round % 13 * 100 {
			v, ok := q.pop()
			if !ok {
				break
			}
			if v != out {
				t.Fatalf("pop = %d, want %d", v, out)
			}
			out++
		}
		if q.len() != in-out {
			t.Fatalf("len = %d, want %d", q.len(), in-out)
		}
	}
}

// gauges tells what is undone as the metrics do, bytes left out.
func gauges(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if m.GetGauge() == nil || strings.HasSuffix(f.GetName(), "_bytes") {
				continue
			}
			s := f.GetName()
			for _, l := range m.GetLabel() {
				s += "{" + l.GetValue() + "}"
			}
			out = append(out, fmt.Sprintf("%s=%v", s, m.GetGauge().GetValue()))
		}
	}
	return strings.Join(out, " ")
}
