package cli

import (
	"testing"
	"time"
)

// A header names the zone of its times, and does not lie where two are.
func TestZoneOf(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	was := time.Local
	t.Cleanup(func() { time.Local = was })
	time.Local = berlin
	summer, winter := time.Date(2026, 7, 1, 10, 0, 0, 0, time.UTC), time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		times []time.Time
		want  string
	}{
		{nil, ""},
		{[]time.Time{{}}, ""},
		{[]time.Time{summer, {}, summer}, " (CEST)"},
		{[]time.Time{winter}, " (CET)"},
		{[]time.Time{winter, summer}, " (local time)"},
	} {
		if got := zoneOf(tt.times...); got != tt.want {
			t.Errorf("zoneOf(%v) = %q, want %q", tt.times, got, tt.want)
		}
	}
	if got := moment(summer); got != "2026-07-01 12:00:00.000 CEST" {
		t.Errorf("moment = %q", got)
	}
	if got := moment(time.Time{}); got != "-" {
		t.Errorf("no moment = %q", got)
	}
}
