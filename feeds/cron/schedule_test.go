package cron

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func mustZone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := loadZone(name)
	if err != nil {
		t.Fatalf("zone %q: %v", name, err)
	}
	return loc
}

func mustTime(t testing.TB, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func mustWall(t testing.TB, expr, zone, gap, overlap string) wall {
	t.Helper()
	e, err := parseExpr(expr)
	if err != nil {
		t.Fatalf("parseExpr(%q): %v", expr, err)
	}
	return wall{fields: e.fields, zone: mustZone(t, zone), gap: gap, overlap: overlap}
}

// The hand table: what each schedule does around a change of the clocks.
// Times are local with their offset, the first ones after from.
func TestNextAcrossClockChanges(t *testing.T) {
	const berlin, york, howe, apia = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"
	tests := []struct {
		name, expr, zone, gap, overlap, from, want string
	}{
		// 2026-03-29: 02:00+01:00 becomes 03:00+02:00 in Berlin.
		{
			"gap: fixed hour runs at its end", "30 2 * * *", berlin, gapRunAfter, overlapFirst, "2026-03-28T12:00:00Z",
			"2026-03-29T03:00:00+02:00 2026-03-30T02:30:00+02:00",
		},
		{
			"gap: skip", "30 2 * * *", berlin, gapSkip, overlapFirst, "2026-03-28T12:00:00Z",
			"2026-03-30T02:30:00+02:00 2026-03-31T02:30:00+02:00",
		},
		{
			"gap: many slots run once", "*/10 2 * * *", berlin, gapRunAfter, overlapFirst, "2026-03-28T12:00:00Z",
			"2026-03-29T03:00:00+02:00 2026-03-30T02:00:00+02:00",
		},
		{
			"gap: one with the slot after it", "0 2,3 * * *", berlin, gapRunAfter, overlapFirst, "2026-03-28T12:00:00Z",
			"2026-03-29T03:00:00+02:00 2026-03-30T02:00:00+02:00",
		},
		{
			"gap: every other hour", "0 */2 * * *", berlin, gapRunAfter, overlapFirst, "2026-03-28T22:30:00Z",
			"2026-03-29T00:00:00+01:00 2026-03-29T03:00:00+02:00 2026-03-29T04:00:00+02:00",
		},
		{
			"gap: wildcard hour runs every real hour", "30 * * * *", berlin, gapRunAfter, overlapFirst, "2026-03-28T23:40:00Z",
			"2026-03-29T01:30:00+01:00 2026-03-29T03:30:00+02:00 2026-03-29T04:30:00+02:00",
		},
		{
			"gap: on its edge before", "59 1 * * *", berlin, gapRunAfter, overlapFirst, "2026-03-28T12:00:00Z",
			"2026-03-29T01:59:00+01:00 2026-03-30T01:59:00+02:00",
		},
		{
			"gap: on its first instant", "0 2 * * *", berlin, gapRunAfter, overlapFirst, "2026-03-28T12:00:00Z",
			"2026-03-29T03:00:00+02:00 2026-03-30T02:00:00+02:00",
		},
		{
			"gap: asked from its end", "30 2 * * *", berlin, gapRunAfter, overlapFirst, "2026-03-29T01:00:00Z",
			"2026-03-30T02:30:00+02:00",
		},
		{
			"gap: day of week holds", "30 2 * * 0", berlin, gapRunAfter, overlapFirst, "2026-03-28T12:00:00Z",
			"2026-03-29T03:00:00+02:00 2026-04-05T02:30:00+02:00",
		},
		// 2026-10-25: 03:00+02:00 becomes 02:00+01:00.
		{
			"overlap: first", "30 2 * * *", berlin, gapRunAfter, overlapFirst, "2026-10-24T12:00:00Z",
			"2026-10-25T02:30:00+02:00 2026-10-26T02:30:00+01:00",
		},
		{
			"overlap: second", "30 2 * * *", berlin, gapRunAfter, overlapSecond, "2026-10-24T12:00:00Z",
			"2026-10-25T02:30:00+01:00 2026-10-26T02:30:00+01:00",
		},
		{
			"overlap: both", "30 2 * * *", berlin, gapRunAfter, overlapBoth, "2026-10-24T12:00:00Z",
			"2026-10-25T02:30:00+02:00 2026-10-25T02:30:00+01:00 2026-10-26T02:30:00+01:00",
		},
		{
			"overlap: wildcard hour runs every real hour", "30 * * * *", berlin, gapRunAfter, overlapFirst, "2026-10-24T23:40:00Z",
			"2026-10-25T02:30:00+02:00 2026-10-25T02:30:00+01:00 2026-10-25T03:30:00+01:00",
		},
		{
			"overlap: minutes of one hour", "0,30 2 * * *", berlin, gapRunAfter, overlapFirst, "2026-10-24T12:00:00Z",
			"2026-10-25T02:00:00+02:00 2026-10-25T02:30:00+02:00 2026-10-26T02:00:00+01:00",
		},
		{
			"overlap: its end runs once", "0 3 * * *", berlin, gapRunAfter, overlapFirst, "2026-10-24T12:00:00Z",
			"2026-10-25T03:00:00+01:00 2026-10-26T03:00:00+01:00",
		},
		{
			"overlap: asked within the second hour", "30 2 * * *", berlin, gapRunAfter, overlapFirst, "2026-10-25T01:10:00Z",
			"2026-10-26T02:30:00+01:00",
		},
		{
			"overlap: New York", "30 1 * * *", york, gapRunAfter, overlapFirst, "2026-10-31T12:00:00Z",
			"2026-11-01T01:30:00-04:00 2026-11-02T01:30:00-05:00",
		},
		{
			"gap: New York", "30 2 * * *", york, gapRunAfter, overlapFirst, "2026-03-07T12:00:00Z",
			"2026-03-08T03:00:00-04:00 2026-03-09T02:30:00-04:00",
		},
		// Lord Howe moves by half an hour: 2026-04-05 02:00+11:00 becomes 01:30+10:30.
		{
			"overlap of half an hour", "45 1 * * *", howe, gapRunAfter, overlapBoth, "2026-04-04T12:00:00Z",
			"2026-04-05T01:45:00+11:00 2026-04-05T01:45:00+10:30 2026-04-06T01:45:00+10:30",
		},
		{
			"gap of half an hour", "15 2 * * *", howe, gapRunAfter, overlapFirst, "2026-10-03T12:00:00Z",
			"2026-10-04T02:30:00+11:00 2026-10-05T02:15:00+11:00",
		},
		// Samoa had no 30 December 2011: it went from UTC-10 to UTC+14.
		{
			"a day that was not", "0 12 * * *", apia, gapRunAfter, overlapFirst, "2011-12-29T00:00:00Z",
			"2011-12-29T12:00:00-10:00 2011-12-31T00:00:00+14:00 2011-12-31T12:00:00+14:00",
		},
		{
			"a day that was not, skipped", "0 12 * * *", apia, gapSkip, overlapFirst, "2011-12-29T00:00:00Z",
			"2011-12-29T12:00:00-10:00 2011-12-31T12:00:00+14:00",
		},
		// Midnight that is not: Beirut, 2026-03-29.
		{
			"gap at midnight", "0 0 * * *", "Asia/Beirut", gapRunAfter, overlapFirst, "2026-03-28T12:00:00Z",
			"2026-03-29T01:00:00+03:00 2026-03-30T00:00:00+03:00",
		},
		{
			"29 February", "0 9 29 2 *", berlin, gapRunAfter, overlapFirst, "2026-01-01T00:00:00Z",
			"2028-02-29T09:00:00+01:00 2032-02-29T09:00:00+01:00",
		},
		{
			"29 February over 2100", "0 9 29 2 *", "UTC", gapRunAfter, overlapFirst, "2096-03-01T00:00:00Z",
			"2104-02-29T09:00:00Z",
		},
		{
			"the last day of a far leap year", "0 12 31 12 *", berlin, gapRunAfter, overlapFirst, "2040-12-01T00:00:00Z",
			"2040-12-31T12:00:00+01:00 2041-12-31T12:00:00+01:00",
		},
		{
			"29 February, far", "0 9 29 2 *", berlin, gapRunAfter, overlapFirst, "2040-03-01T00:00:00Z",
			"2044-02-29T09:00:00+01:00 2048-02-29T09:00:00+01:00",
		},
		{
			"31st only", "0 0 31 * *", "UTC", gapRunAfter, overlapFirst, "2026-02-01T00:00:00Z",
			"2026-03-31T00:00:00Z 2026-05-31T00:00:00Z",
		},
		{"never", "0 0 30 2 *", "UTC", gapRunAfter, overlapFirst, "2026-01-01T00:00:00Z", "-"},
		{
			"every second", "* * * * * *", berlin, gapRunAfter, overlapFirst, "2026-03-29T00:59:58.5Z",
			"2026-03-29T01:59:59+01:00 2026-03-29T03:00:00+02:00 2026-03-29T03:00:01+02:00",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := mustWall(t, tt.expr, tt.zone, tt.gap, tt.overlap)
			at := mustTime(t, tt.from)
			for _, want := range strings.Fields(tt.want) {
				at = w.next(at)
				got := "-"
				if !at.IsZero() {
					got = at.In(w.zone).Format(time.RFC3339)
				}
				if got != want {
					t.Fatalf("%q in %s (%s, %s) after %s: got %s, want %s", tt.expr, tt.zone, tt.gap, tt.overlap, tt.from, got, want)
				}
			}
		})
	}
}

// Whatever the schedule: instants rise, lie on the wall clock where the
// schedule says or at the end of a gap, and next skips none.
func TestNextLosesAndRepeatsNothing(t *testing.T) {
	zones := []string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut", "Africa/Casablanca", "America/Sao_Paulo"}
	exprs := []string{"*/7 * * * *", "30 2 * * *", "0 */3 * * *", "15 0,1,2,3 * * *", "0 0 * * 0", "*/20 1-3 * * *"}
	rapid.Check(t, func(t *rapid.T) {
		w := wall{
			zone:    mustZoneRapid(t, rapid.SampledFrom(zones).Draw(t, "zone")),
			gap:     rapid.SampledFrom([]string{gapRunAfter, gapSkip}).Draw(t, "gap"),
			overlap: rapid.SampledFrom([]string{overlapFirst, overlapSecond, overlapBoth}).Draw(t, "overlap"),
		}
		expr := rapid.SampledFrom(exprs).Draw(t, "expr")
		e, err := parseExpr(expr)
		if err != nil {
			t.Fatal(err)
		}
		w.fields = e.fields
		from := time.Unix(rapid.Int64Range(1.5e9, 1.9e9).Draw(t, "from"), 0).UTC()
		to := from.Add(48 * time.Hour)
		var got []time.Time
		for at := w.next(from); at.Before(to); at = w.next(at) {
			if len(got) > 0 && !at.After(got[len(got)-1]) {
				t.Fatalf("%s does not come after %s", at, got[len(got)-1])
			}
			got = append(got, at)
		}
		// The slow way: each minute by itself.
		var want []time.Time
		for at := from.Truncate(time.Minute).Add(time.Minute); at.Before(to); at = at.Add(time.Minute) {
			if w.dueAt(at) {
				want = append(want, at)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%q from %s: %d instants %v, want %d %v", expr, from.In(w.zone), len(got), got, len(want), want)
		}
		for i := range got {
			if !got[i].Equal(want[i]) {
				t.Fatalf("%q: instant %d is %s, want %s", expr, i, got[i].In(w.zone), want[i].In(w.zone))
			}
		}
	})
}

func mustZoneRapid(t *rapid.T, name string) *time.Location {
	loc, err := loadZone(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// dueAt says of one whole minute whether it is due, by the rules as one would
// tell them.
func (w wall) dueAt(at time.Time) bool {
	matches := func(clock time.Time) bool { return w.fields.Next(clock.Add(-time.Second)).Equal(clock) }
	clockOf := func(at time.Time) time.Time { return at.Add(offsetAt(at.In(w.zone))) }
	clock := clockOf(at)
	if !w.hourly() && w.gap == gapRunAfter {
		before := clockOf(at.Add(-time.Minute)).Add(time.Minute)
		for c := before; c.Before(clock); c = c.Add(time.Minute) {
			if matches(c) {
				return true
			}
		}
	}
	if !matches(clock) {
		return false
	}
	if w.hourly() || w.overlap == overlapBoth {
		return true
	}
	again := func(step time.Duration) bool {
		for d := step; d.Abs() <= 3*time.Hour; d += step {
			if clockOf(at.Add(d)).Equal(clock) {
				return true
			}
		}
		return false
	}
	if w.overlap == overlapFirst {
		return !again(-time.Minute)
	}
	return !again(time.Minute)
}

func TestEvery(t *testing.T) {
	anchor := mustTime(t, "2026-01-01T00:00:10Z")
	e := every{anchor: anchor, period: 90 * time.Second}
	tests := []struct{ after, want string }{
		{"2025-12-31T23:00:00Z", "2026-01-01T00:00:10Z"},
		{"2026-01-01T00:00:10Z", "2026-01-01T00:01:40Z"},
		{"2026-01-01T00:01:39Z", "2026-01-01T00:01:40Z"},
		{"2526-01-01T00:00:00Z", "2526-01-01T00:00:10Z"},
	}
	for _, tt := range tests {
		if got := e.next(mustTime(t, tt.after)); !got.Equal(mustTime(t, tt.want)) {
			t.Errorf("after %s: got %s, want %s", tt.after, got, tt.want)
		}
	}
}
