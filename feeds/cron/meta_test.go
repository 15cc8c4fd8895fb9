package cron

import (
	"testing"
	"time"
)

// TestMetaIsInTheZoneOfTheSchedule checks the parts of the scheduled time that
// filters can match.
func TestMetaIsInTheZoneOfTheSchedule(t *testing.T) {
	zone, err := time.LoadLocation("Asia/Kolkata")
	if err != nil {
		t.Fatal(err)
	}
	slot := time.Date(2026, 12, 31, 20, 15, 42, 0, time.UTC)
	f := &feed{def: definition{sched: wall{zone: zone}}}
	ev := f.event(slot, slot.Add(1500*time.Millisecond), 2)
	want := `{"scheduled":"2027-01-01T01:45:42+05:30","lateBy":1500,"missedCount":2,` +
		`"year":2027,"month":1,"day":1,"weekday":5,"hour":1,"minute":45,"second":42}`
	if string(ev.Meta) != want {
		t.Errorf("meta = %s, want %s", ev.Meta, want)
	}
}
