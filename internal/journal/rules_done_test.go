package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/whisk"
)

func deadLetterOf(ev *whisk.Event, attempts int) whisk.DeadLetter {
	d := whisk.DeadLetter{Time: ev.Time.Add(time.Minute), Match: matchOf(ev), Revision: 7, Action: theAction, Reason: "3 attempts", Event: ev}
	for n := range attempts {
		d.Attempts = append(d.Attempts, whisk.Attempt{
			ActivationID: attemptID(ev, theRule, n+1), Started: ev.Time, Ended: ev.Time.Add(time.Second), Status: "whisk internal error",
		})
	}
	d.ID = whisk.DeadLetterID(d.Match, d.Attempts, d.Time)
	return d
}

func TestRule07WhatIsDone(t *testing.T) {
	for name, tt := range map[string]struct {
		entry func(ev *whisk.Event) whisk.Entry
		done  bool
	}{
		"success": {func(ev *whisk.Event) whisk.Entry { return recordOf(ev, 1, whisk.Success) }, true},
		"failure, final": {func(ev *whisk.Event) whisk.Entry {
			e := recordOf(ev, 1, whisk.ApplicationError)
			e.Final = true
			return e
		}, true},
		"dead": {func(ev *whisk.Event) whisk.Entry {
			return whisk.Entry{Kind: whisk.EntryDead, Match: matchOf(ev), Dead: ev.ID}
		}, true},
		"failure, exhausted":     {func(ev *whisk.Event) whisk.Entry { return recordOf(ev, 1, whisk.WhiskError) }, false},
		"failure, to be retried": {func(ev *whisk.Event) whisk.Entry { e := recordOf(ev, 1, whisk.WhiskError); e.Due = epoch; return e }, false},
		"start":                  {func(ev *whisk.Event) whisk.Entry { return startOf(ev, 1) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newFakeBus(64 << 20)
			j := openOn(t, b, testOptions(t))
			evs := b.accept(t, anEvent(1))
			j.judgeAll(evs...)
			j.append(tt.entry(&evs[0]))
			if got := len(j.Undone()) == 0; got != tt.done {
				t.Errorf("done: %v, want %v", got, tt.done)
			}
			if got := len(opened(t, b.kill(), testOptions(t)).Undone()) == 0; got != tt.done {
				t.Errorf("done after a restart: %v, want %v", got, tt.done)
			}
		})
	}
}

func TestRule07TheDeadLetterIsFlushedBeforeDead(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, anEvent(1))
	d := deadLetterOf(&evs[0], 3)
	if err := j.Bury(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	c := b.cut()
	if n := len(c.streams[bus.StreamDead].msgs); n != 1 {
		t.Fatalf("%d dead letters after a power cut, want 1", n)
	}
	if got := c.streams[bus.StreamDead].msgs[0].Subject; got != "dead.guest.t.r" {
		t.Errorf("subject %q", got)
	}
	got, err := opened(t, c, testOptions(t)).DeadLetter(t.Context(), "guest", d.ID)
	if err != nil || got.Event.Seq != evs[0].Seq || len(got.Attempts) != 3 || got.Reason != d.Reason {
		t.Errorf("read back: %+v, %v", got, err)
	}
}

func TestRule07DeadLettersWithOneLastAttemptAreOne(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, someEvents(0, 3)...)
	for _, d := range []whisk.DeadLetter{
		deadLetterOf(&evs[0], 3), deadLetterOf(&evs[0], 3), // once more after a crash
		deadLetterOf(&evs[0], 6), // redriven, and dead again
		deadLetterOf(&evs[1], 1),
	} {
		if err := j.Bury(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	other := deadLetterOf(&evs[2], 1)
	other.Match.Rule.Namespace = "else"
	if err := j.Bury(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	check := func(what string) {
		t.Helper()
		got, err := j.DeadLetters(t.Context(), "guest", 0, 0)
		var last []string
		for _, d := range got {
			last = append(last, d.Attempts[len(d.Attempts)-1].ActivationID)
		}
		want := []string{attemptID(&evs[1], theRule, 1), attemptID(&evs[0], theRule, 6), attemptID(&evs[0], theRule, 3)}
		if err != nil || !slices.Equal(last, want) {
			t.Errorf("%s: last attempts %v, %v; want %v", what, last, err, want)
		}
		if got, err := j.DeadLetters(t.Context(), "guest", 1, 1); err != nil || len(got) != 1 || len(got[0].Attempts) != 6 {
			t.Errorf("%s: second page %v, %v", what, got, err)
		}
	}
	check("at once")
	eventually(t, "indexed", func() bool { return j.index.lag() == 0 })
	check("indexed")
}

func TestRule07DeadLettersPushedOutAreCounted(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	s := b.streams[bus.StreamDead]
	evs := b.accept(t, someEvents(0, 4)...)
	for i := range evs {
		if err := j.Bury(t.Context(), deadLetterOf(&evs[i], 1)); err != nil {
			t.Fatal(err)
		}
	}
	b.mu.Lock()
	s.limit = s.bytes // full; the stream drops the oldest two
	s.msgs = s.msgs[2:]
	b.mu.Unlock()
	eventually(t, "counted", func() bool { return j.metric("dead_letters_lost_total") == 2 })
}

func TestRule08AStartThatMustNotBeForgottenIsFlushed(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := opened(t, b, testOptions(t))
	j.pace.settle = time.Hour
	j.run()
	evs := b.accept(t, anEvent(1))
	j.judgeAll(evs...)
	j.durable(startOf(&evs[0], 1))
	got := opened(t, b.cut(), testOptions(t)).Undone()
	if len(got) != 1 || !got[0].Started {
		t.Errorf("after a power cut: %+v", got)
	}
}

func TestRule09AMatchHoldsItsRevision(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	j.judgeAll(b.accept(t, anEvent(1))...)
	got := opened(t, b.kill(), testOptions(t)).Undone()
	if len(got) != 1 || got[0].Rule != 7 || got[0].Action != theAction || got[0].Since.IsZero() {
		t.Errorf("undone: %+v", got)
	}
}

func TestRule09LogTextIsAnObjectFlushedBeforeItsRecord(t *testing.T) {
	b := newFakeBus(64 << 20)
	o := testOptions(t)
	j := openOn(t, b, o)
	evs := b.accept(t, anEvent(1))
	j.judgeAll(evs...)
	rec := recordOf(&evs[0], 1, whisk.Success)
	for range 40 {
		rec.Record.Logs = append(rec.Record.Logs, strings.Repeat("x", 5<<10))
	}
	b.mu.Lock()
	b.order = nil
	b.mu.Unlock()
	j.append(rec)
	b.mu.Lock()
	order := strings.Join(b.order, ",")
	b.mu.Unlock()
	_, after, _ := strings.Cut(order, "object,")
	if between, _, ok := strings.Cut(after, "publish JOURNAL"); !ok || !strings.Contains(between, "flush") {
		t.Errorf("order: %s", order)
	}
	for _, m := range b.streams[bus.StreamJournal].msgs {
		if len(m.Data) > maxLogs {
			t.Errorf("a message of %d bytes", len(m.Data))
		}
	}
	digest := ""
	for d := range b.objects {
		digest = d
	}
	check := func(j *running) {
		t.Helper()
		a, err := j.Activation(t.Context(), "guest", rec.Record.ID)
		if err != nil || !slices.Equal(a.Logs, rec.Record.Logs) {
			t.Errorf("%d log lines, %v", len(a.Logs), err)
		}
		if !j.ObjectInUse(digest) {
			t.Error("the record's object is said not to be used")
		}
	}
	check(j)
	eventually(t, "indexed", func() bool { return j.index.lag() == 0 })
	check(j)
	j.stop()
	j = openOn(t, b.kill(), o)
	check(j)
	if j.ObjectInUse(strings.Repeat("0", 64)) {
		t.Error("an object that nothing names is said to be used")
	}
}

func TestRule09ADeadLetterKeepsALargeEvent(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	ev := anEvent(1)
	ev.Payload = append(append([]byte(`{"s":"`), bytes.Repeat([]byte("x"), 3<<20)...), `"}`...)
	evs := b.accept(t, ev)
	d := deadLetterOf(&evs[0], 1)
	if err := j.Bury(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if n := len(b.streams[bus.StreamDead].msgs[0].Data); n > maxBody {
		t.Errorf("a dead letter of %d bytes", n)
	}
	got, err := j.DeadLetter(t.Context(), "guest", d.ID)
	if err != nil || !bytes.Equal(got.Event.Payload, ev.Payload) || got.Event.Seq != evs[0].Seq {
		t.Errorf("%d bytes came back, %v", len(got.Event.Payload), err)
	}
	for digest := range b.objects {
		eventually(t, "indexed", func() bool { return j.index.lag() == 0 })
		if !j.ObjectInUse(digest) {
			t.Error("the dead letter's object is said not to be used")
		}
	}
}

func TestRule10TheDueTimeOfARetryIsInItsRecord(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, anEvent(1))
	j.judgeAll(evs...)
	rec := recordOf(&evs[0], 1, whisk.WhiskError)
	rec.Due = epoch.Add(1234567891 * time.Nanosecond)
	j.append(rec)
	got := opened(t, b.kill(), testOptions(t)).Undone()
	if len(got) != 1 || !got[0].Due.Equal(rec.Due) || !got[0].Attempts[0].Due.Equal(rec.Due) {
		t.Errorf("undone: %+v", got)
	}
}

func TestRule11CallsHaveAStreamOfTheirOwn(t *testing.T) {
	b := newFakeBus(64 << 20)
	o := testOptions(t)
	j := openOn(t, b, o)
	a := activation(whisk.NewID(epoch), epoch)
	if err := j.RecordCall(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if n, m := len(b.streams[bus.StreamCalls].msgs), len(b.streams[bus.StreamJournal].msgs); n != 1 || m != 0 {
		t.Fatalf("%d messages in CALLS, %d in JOURNAL", n, m)
	}
	check := func(j *running) {
		t.Helper()
		got, err := j.Activation(t.Context(), "guest", a.ID)
		if err != nil || got.ID != a.ID || len(got.Logs) != 1 {
			t.Errorf("the call's record: %+v, %v", got, err)
		}
		if list, err := j.Activations(t.Context(), Query{Namespace: "guest", Name: "p/a"}); err != nil || len(list) != 1 {
			t.Errorf("list: %v, %v", list, err)
		}
	}
	check(j)
	eventually(t, "indexed", func() bool { return j.index.lag() == 0 })
	check(j)
	check(openOn(t, b.kill(), testOptions(t)))
}

func TestRule11AnInvocationIsPendingUntilItsRecord(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	m, e := anInvoke(1)
	e.Invoke.Retry = false
	j.durable(e)
	j2 := openOn(t, b.cut(), testOptions(t))
	p, err := j2.Pending(t.Context(), m)
	if err != nil || p.Invoke == nil || p.Invoke.Retry || string(p.Invoke.Invocation.Payload) != `{"x":1}` || p.Action != theAction {
		t.Fatalf("Pending = %+v, %v", p, err)
	}
	a := activation(m.Invoke, epoch)
	j2.append(whisk.Entry{Kind: whisk.EntryRecord, Match: m, Attempt: 1, Record: &a, Final: true})
	if _, err := j2.Pending(t.Context(), m); !errors.Is(err, whisk.NotFound) {
		t.Errorf("Pending of what is done: %v", err)
	}
	if got, id, err := j2.Attempts(t.Context(), m); err != nil || id != "" || len(got) != 1 || got[0].ActivationID != m.Invoke {
		t.Errorf("Attempts = %v, %q, %v", got, id, err)
	}
}

// One event costs a message for its verdict, one for its start, one for its
// record, and no flush that anybody waits for.
func TestRule12ADispatchWaitsForWritesAlone(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := opened(t, b, testOptions(t))
	j.pace.settle = time.Hour
	j.run()
	evs := b.accept(t, anEvent(1))
	b.mu.Lock()
	b.order = nil
	b.mu.Unlock()
	j.judgeAll(evs...)
	j.append(startOf(&evs[0], 1))
	j.append(recordOf(&evs[0], 1, whisk.Success))
	b.mu.Lock()
	defer b.mu.Unlock()
	writes := 0
	for _, o := range b.order {
		if o == "publish JOURNAL" {
			writes++
		}
	}
	if writes != 3 || slices.Contains(b.order, "flush") {
		t.Errorf("%d writes, want 3 and no flush: %v", writes, b.order)
	}
}

func TestTriggerActivation(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, someEvents(0, 3)...)
	second := whisk.Name{Namespace: "guest", Entity: "r2"}
	third := whisk.Name{Namespace: "guest", Entity: "r3"}
	v := judge(&evs[0], theRule)
	v.Rules = append(v.Rules,
		whisk.RuleVerdict{Rule: second, Action: theAction, Decision: whisk.Filtered, Reason: "n is 0"},
		whisk.RuleVerdict{Rule: third, Action: theAction, Decision: whisk.Off})
	none, off := judge(&evs[1]), judge(&evs[2])
	off.Rules = []whisk.RuleVerdict{{Rule: third, Action: theAction, Decision: whisk.Off}}
	if err := j.Verdicts(t.Context(), 1, off.Event, []whisk.Verdict{v, none, off}); err != nil {
		t.Fatal(err)
	}
	a, err := j.Activation(t.Context(), "guest", evs[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"activationId":"` + evs[0].ID + `","annotations":[],"logs":[` +
		`"{\"statusCode\":0,\"success\":true,\"rule\":\"guest/r\",\"action\":\"guest/p/a\",\"activationId\":\"` + attemptID(&evs[0], theRule, 1) + `\"}",` +
		`"{\"statusCode\":1,\"success\":false,\"rule\":\"guest/r2\",\"action\":\"guest/p/a\",\"error\":\"Rule 'guest/r2' did not pass the event, action 'guest/p/a' was not activated: n is 0\"}",` +
		`"{\"statusCode\":1,\"success\":false,\"rule\":\"guest/r3\",\"action\":\"guest/p/a\",\"error\":\"Rule 'guest/r3' is inactive, action 'guest/p/a' was not activated.\"}"` +
		`],"name":"t","namespace":"guest","publish":false,"response":{"result":{"n":0},"status":"success","success":true},"start":1790000000000,"subject":"guest","version":"0.0.1"}`
	if string(got) != want {
		t.Errorf("record\n%s, want\n%s", got, want)
	}
	for _, ev := range evs[1:] {
		if _, err := j.Activation(t.Context(), "guest", ev.ID); !errors.Is(err, whisk.NotFound) {
			t.Errorf("an event that no active rule saw has a record: %v", err)
		}
		if v, err := j.Verdict(t.Context(), "guest", ev.ID); err != nil || v.Event.ID != ev.ID {
			t.Errorf("its verdict: %v, %v", v, err)
		}
	}
	if _, err := j.Activation(t.Context(), "other", evs[0].ID); !errors.Is(err, whisk.NotFound) {
		t.Errorf("another namespace sees the record: %v", err)
	}
	if list, err := j.Activations(t.Context(), Query{Namespace: "guest", Name: "t"}); err != nil || len(list) != 1 {
		t.Errorf("%d trigger records listed, %v", len(list), err)
	}
	if list, err := j.Events(t.Context(), Query{Namespace: "guest", Trigger: "t"}); err != nil || len(list) != 3 || list[0].Event.ID != evs[2].ID {
		t.Errorf("%d events listed, %v", len(list), err)
	}
}
