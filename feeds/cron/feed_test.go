package cron

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/feeds"
	"github.com/millrace/millrace/feeds/feedtest"
	"github.com/millrace/millrace/internal/whisk"
)

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func number64(n int64) string { return strconv.FormatInt(n, 10) }

// params makes parameters of pairs of key and JSON.
func params(pairs ...string) whisk.Params {
	var ps whisk.Params
	for i := 0; i < len(pairs); i += 2 {
		ps = ps.Set(pairs[i], pairs[i+1])
	}
	return ps
}

// openAt opens a feed defined at a time, as CREATE would.
func openAt(t *testing.T, p *Provider, kind string, at time.Time, ps whisk.Params) *feed {
	t.Helper()
	def, err := p.Define(t.Context(), feeds.Change{Event: feeds.Create, Feed: "alarms/" + kind, Given: ps, Now: at})
	if err != nil {
		t.Fatalf("define: %v", err)
	}
	f, err := p.Open(t.Context(), feeds.Spec{ID: "f", Feed: "alarms/" + kind, Params: def.Params, Since: at})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return f.(*feed)
}

// The misfire matrix: what a feed makes of due times that went by.
func TestMisfire(t *testing.T) {
	const start = "2026-01-01T00:00:00Z"
	tests := []struct {
		name   string
		kind   string
		ps     whisk.Params
		now    string
		fire   string // seconds after start
		missed uint64
		last   int // seconds after start; -1 when nothing is decided
	}{
		{"nothing due", kindAlarm, params("cron", `"* * * * *"`), "2026-01-01T00:00:59Z", "", 0, -1},
		{"on time", kindAlarm, params("cron", `"* * * * *"`), "2026-01-01T00:01:00Z", "60", 0, 60},
		{"latest: one late", kindAlarm, params("cron", `"@hourly"`), "2026-01-01T01:30:00Z", "3600", 0, 3600},
		{"latest: three late", kindAlarm, params("cron", `"* * * * *"`), "2026-01-01T00:03:40Z", "180", 2, 180},
		{"skip: on time", kindAlarm, params("cron", `"* * * * *"`, "misfire", `"skip"`), "2026-01-01T00:01:09Z", "60", 0, 60},
		{"skip: late", kindAlarm, params("cron", `"* * * * *"`, "misfire", `"skip"`), "2026-01-01T00:01:30Z", "", 1, 60},
		{"skip: the last in time", kindAlarm, params("cron", `"* * * * *"`, "misfire", `"skip"`), "2026-01-01T00:03:01Z", "180", 2, 180},
		{"all", kindAlarm, params("cron", `"* * * * *"`, "misfire", `"all"`), "2026-01-01T00:03:40Z", "60 120 180", 0, 180},
		{"all: over the maximum", kindAlarm, params("cron", `"* * * * *"`, "misfire", `"all"`, "misfireMax", `2`), "2026-01-01T00:05:40Z", "240 300", 3, 300},
		{"all: as many as left", kindAlarm, params("cron", `"* * * * *"`, "misfire", `"all"`, "maxTriggers", `2`), "2026-01-01T00:05:40Z", "60 120", 0, 120},
		{"interval: latest", kindInterval, params("minutes", `1`), "2026-01-01T00:02:35Z", "150", 2, 150},
		{"interval: starts after 30 s", kindInterval, params("minutes", `1`), "2026-01-01T00:00:30Z", "30", 0, 30},
		{"once: late", kindOnce, params("date", `"2026-01-01T00:01:00Z"`), "2026-01-02T00:00:00Z", "60", 0, 60},
		{"once: skip", kindOnce, params("date", `"2026-01-01T00:01:00Z"`, "misfire", `"skip"`), "2026-01-02T00:00:00Z", "", 1, 60},
		{"stop date", kindAlarm, params("cron", `"* * * * *"`, "misfire", `"all"`, "stopDate", `"2026-01-01T00:02:00Z"`), "2026-01-01T00:09:00Z", "60 120", 0, 120},
		{"start date", kindAlarm, params("cron", `"* * * * *"`, "misfire", `"all"`, "startDate", `"2026-01-01T00:02:00Z"`), "2026-01-01T00:03:00Z", "120 180", 0, 180},
	}
	at := mustTime(t, start)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := openAt(t, New(), tt.kind, at, tt.ps)
			d, err := f.decide(t.Context(), f.pos, mustTime(t, tt.now))
			if err != nil {
				t.Fatal(err)
			}
			var fire []string
			for _, s := range d.fire {
				fire = append(fire, strconv.Itoa(int(s.Sub(at).Seconds())))
			}
			last := -1
			if !d.last.IsZero() {
				last = int(d.last.Sub(at).Seconds())
			}
			if got := strings.Join(fire, " "); got != tt.fire || d.missed != tt.missed || last != tt.last {
				t.Errorf("fires %q, missed %d, last %d; want %q, %d, %d", got, d.missed, last, tt.fire, tt.missed, tt.last)
			}
		})
	}
}

func TestManyMissedStayCheap(t *testing.T) {
	at := mustTime(t, "2026-01-01T00:00:00Z")
	f := openAt(t, New(), kindAlarm, at, params("cron", `"* * * * * *"`, "misfire", `"all"`))
	d, err := f.decide(t.Context(), f.pos, at.Add(10*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if len(d.fire) != stdMisfireMax || d.missed != 10*86400-stdMisfireMax {
		t.Errorf("fires %d, missed %d", len(d.fire), d.missed)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.decide(ctx, f.pos, at.Add(1000*24*time.Hour)); !errors.Is(err, context.Canceled) {
		t.Errorf("a stopped feed goes on counting: %v", err)
	}
}

// rig runs a feed on fake time against a sink in memory.
type rig struct {
	sink feedtest.Sink
	spec feeds.Spec
}

func newRig(t *testing.T, p *Provider, kind string, ps whisk.Params) *rig {
	t.Helper()
	now := time.Now().UTC()
	def, err := p.Define(t.Context(), feeds.Change{Event: feeds.Create, Feed: "alarms/" + kind, Given: ps, Now: now})
	if err != nil {
		t.Fatalf("define: %v", err)
	}
	return &rig{spec: feeds.Spec{ID: "f", Feed: "alarms/" + kind, Params: def.Params, Since: now}}
}

// run runs the feed for a while and returns its error.
func (r *rig) run(t *testing.T, p *Provider, d time.Duration) error {
	t.Helper()
	cur, _, err := r.sink.Cursor(t.Context(), "f")
	if err != nil {
		t.Fatal(err)
	}
	r.spec.Position = cur.Position
	f, err := p.Open(t.Context(), r.spec)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	return f.Run(ctx, func(ctx context.Context, pos string, evs ...whisk.Event) error {
		cur, _, err := r.sink.Cursor(ctx, "f")
		if err != nil {
			return err
		}
		return r.sink.AcceptBatch(ctx, whisk.Cursor{Feed: "f", Position: pos, Previous: cur.Position, Count: len(evs)}, evs...)
	})
}

func metaOf(t *testing.T, ev whisk.Event) (m meta) {
	t.Helper()
	if err := json.Unmarshal(ev.Meta, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestEachSlotOnceAcrossRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New()
		r := newRig(t, p, kindAlarm, params("cron", `"* * * * * *"`, "misfire", `"all"`, "trigger_payload", `{"b":1,"a":2}`))
		begin := time.Now()
		for range 40 {
			if err := r.run(t, p, 2700*time.Millisecond); err != nil {
				t.Fatal(err)
			}
			time.Sleep(1900 * time.Millisecond)
		}
		evs := r.sink.Events()
		seen := map[string]bool{}
		for i, ev := range evs {
			if want := begin.Add(time.Duration(i+1) * time.Second); !ev.Time.Equal(want) {
				t.Fatalf("event %d is of %s, want %s", i, ev.Time, want)
			}
			if seen[ev.ID] {
				t.Fatalf("event %s came twice", ev.ID)
			}
			seen[ev.ID] = true
			if string(ev.Payload) != `{"b":1,"a":2}` {
				t.Fatalf("payload = %s", ev.Payload)
			}
		}
		if len(evs) < 180 {
			t.Errorf("%d events in %s", len(evs), time.Since(begin))
		}
	})
}

func TestLateEventTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New()
		r := newRig(t, p, kindAlarm, params("cron", `"0 * * * *"`, "timezone", `"Europe/Berlin"`))
		time.Sleep(3*time.Hour + 30*time.Minute)
		if err := r.run(t, p, time.Second); err != nil {
			t.Fatal(err)
		}
		evs := r.sink.Events()
		if len(evs) != 1 {
			t.Fatalf("%d events, want the latest alone", len(evs))
		}
		m := metaOf(t, evs[0])
		if m.MissedCount != 2 || m.LateBy != (30*time.Minute).Milliseconds() || m.Scheduled != "2000-01-01T04:00:00+01:00" {
			t.Errorf("meta = %+v", m)
		}
	})
}

func TestSkippedAreToldLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New()
		r := newRig(t, p, kindAlarm, params("cron", `"0 * * * *"`, "misfire", `"skip"`))
		time.Sleep(3*time.Hour + 30*time.Minute)
		if err := r.run(t, p, time.Second); err != nil {
			t.Fatal(err)
		}
		if n := len(r.sink.Events()); n != 0 {
			t.Fatalf("%d late events were fired", n)
		}
		if err := r.run(t, p, time.Hour); err != nil {
			t.Fatal(err)
		}
		evs := r.sink.Events()
		if len(evs) != 1 || metaOf(t, evs[0]).MissedCount != 3 {
			t.Fatalf("events = %+v", evs)
		}
	})
}

func TestMaxTriggersAcrossRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New()
		r := newRig(t, p, kindAlarm, params("cron", `"* * * * * *"`, "maxTriggers", `3`))
		for range 2 {
			if err := r.run(t, p, 1200*time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		err := r.run(t, p, time.Minute)
		var end *feeds.Completed
		if want := "Automatically disabled after reaching max triggers"; !errors.As(err, &end) || end.Reason != want {
			t.Fatalf("error = %v, want %q", err, want)
		}
		if n := len(r.sink.Events()); n != 3 {
			t.Errorf("%d events, want 3", n)
		}
		if err := r.run(t, p, time.Minute); !errors.As(err, &end) {
			t.Errorf("after its end: %v", err)
		}
	})
}

func TestEnds(t *testing.T) {
	soon := func(d time.Duration) string { return number64(time.Now().Add(d).UnixMilli()) }
	tests := []struct {
		name, kind string
		ps         func() whisk.Params
		reason     string
		events     int
	}{
		{"alarm at its stop date", kindAlarm, func() whisk.Params { return params("cron", `"* * * * *"`, "stopDate", soon(150*time.Second)) }, "Automatically disabled after firing last scheduled cron trigger", 2},
		{"interval at its stop date", kindInterval, func() whisk.Params { return params("minutes", `1`, "stopDate", soon(150*time.Second)) }, "Automatically disabled after firing last scheduled interval trigger", 3},
		{"once", kindOnce, func() whisk.Params { return params("date", soon(time.Minute)) }, "Automatically disabled after firing once", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := New()
				r := newRig(t, p, tt.kind, tt.ps())
				err := r.run(t, p, time.Hour)
				var end *feeds.Completed
				if !errors.As(err, &end) || end.Reason != tt.reason || len(r.sink.Events()) != tt.events {
					t.Errorf("%d events and %v, want %d and %q", len(r.sink.Events()), err, tt.events, tt.reason)
				}
			})
		})
	}
}

func TestOnceRetires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New()
		r := newRig(t, p, kindOnce, params("date", number64(time.Now().Add(time.Minute).UnixMilli()), "deleteAfterFire", `" Rules "`))
		var end *feeds.Completed
		if err := r.run(t, p, time.Hour); !errors.As(err, &end) {
			t.Fatal(err)
		}
		if ev := r.sink.Events()[0]; !end.Retire || !end.Rules || end.Event != ev.ID {
			t.Errorf("end = %+v, want retirement of the event %s", end, ev.ID)
		}
		missed := newRig(t, p, kindOnce, params("date", number64(time.Now().Add(time.Minute).UnixMilli()), "deleteAfterFire", `true`, "misfire", `"skip"`))
		time.Sleep(time.Hour)
		const why = "Automatically disabled after receiving error on trigger initialization: the fire once date has expired"
		if err := missed.run(t, p, time.Hour); !errors.As(err, &end) || end.Retire || end.Reason != why {
			t.Errorf("a missed one ends with %+v, want %q", end, why)
		}
	})
}

// The machine's clock is set: forwards, the feed notices at once; backwards,
// nothing fires twice.
func TestClockJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New()
		start := time.Now()
		var shift time.Duration
		set := make(chan struct{}, 1)
		set <- struct{}{}
		p.clock.wall = func() time.Time {
			<-set
			defer func() { set <- struct{}{} }()
			return time.Now().Round(0).Add(shift)
		}
		jumpBy := func(d time.Duration) {
			<-set
			shift += d
			set <- struct{}{}
		}
		r := newRig(t, p, kindAlarm, params("cron", `"0 * * * *"`, "misfire", `"all"`))
		done := make(chan error, 1)
		go func() { done <- r.run(t, p, 4*time.Hour) }()
		time.Sleep(30 * time.Minute)
		jumpBy(time.Hour) // 01:30
		time.Sleep(5 * time.Second)
		if n := len(r.sink.Events()); n != 1 {
			t.Fatalf("%d events soon after the jump, want 1", n)
		}
		time.Sleep(31 * time.Minute) // 02:01
		jumpBy(-time.Hour)           // 01:01
		time.Sleep(70 * time.Minute) // 02:11
		if n := len(r.sink.Events()); n != 2 {
			t.Fatalf("%d events after the clock went back, want 2", n)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for i, ev := range r.sink.Events() {
			if want := start.Add(time.Duration(i+1) * time.Hour); !ev.Time.Equal(want) {
				t.Errorf("event %d is of %s, want %s", i, ev.Time, want)
			}
		}
	})
}

func TestReport(t *testing.T) {
	at := mustTime(t, "2026-10-24T10:00:00Z")
	p := New()
	p.clock.wall = func() time.Time { return at }
	f := openAt(t, p, kindAlarm, at, params("cron", `"30 2 * * *"`, "timezone", `"Europe/Berlin"`, "maxTriggers", `3`))
	var got []string
	for _, n := range f.Report().NextFire {
		got = append(got, n.Format(time.RFC3339))
	}
	want := "2026-10-25T02:30:00+02:00 2026-10-26T02:30:00+01:00 2026-10-27T02:30:00+01:00"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("next = %s, want %s", s, want)
	}
}

func TestContract(t *testing.T) {
	for _, kind := range []string{kindAlarm, kindInterval} {
		t.Run(kind, func(t *testing.T) {
			feedtest.Run(t, func(*testing.T) feedtest.Source {
				src := feedtest.Source{
					Provider: New(), Feed: "alarms/" + kind, Records: 250, Since: time.Now().Add(-24 * time.Hour),
					Params: params("cron", `"* * * * *"`, "misfire", `"all"`),
					Bad:    []whisk.Params{params(), params("cron", `"TZ="`), params("cron", `"* * * * *"`, "jitter", `"1m"`)},
				}
				if kind == kindInterval {
					src.Params = params("minutes", `1`, "misfire", `"all"`)
					src.Bad = []whisk.Params{params(), params("minutes", `-1`), params("minutes", `1`, "cron", `"* * * * *"`)}
				}
				return src
			})
		})
	}
}
