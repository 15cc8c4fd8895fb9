package cron

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// maxMillis bounds dates: what JavaScript's Date can hold, cut at the year
// 9999, after which RFC 3339 has no spelling.
const maxMillis = 253402300799999

// dateLayouts are the spellings of a date that mean one instant. Those without
// a zone are read as UTC. Zones by abbreviation are not read: CST is three
// places.
func dateLayouts() []string {
	return []string{
		time.RFC3339Nano, // with or without a fraction
		"2006-01-02T15:04Z07:00",
		"2006-01-02T15:04:05.999999999Z0700",
		"2006-01-02T15:04:05.999999999",
		"2006-01-02T15:04",
		"2006-01-02 15:04:05.999999999Z07:00",
		"2006-01-02 15:04:05.999999999",
		"2006-01-02 15:04",
		"2006-01-02",
		"2006/01/02 15:04:05",
		"2006/01/02",
		"Mon, 2 Jan 2006 15:04:05 GMT",
		"Mon, 2 Jan 2006 15:04:05 -0700",
		"Mon Jan 2 2006 15:04:05 GMT-0700",
		"January 2, 2006 15:04:05",
		"January 2, 2006",
		"Jan 2, 2006 15:04:05",
		"Jan 2, 2006",
	}
}

// parseDate reads milliseconds since 1970 as a number, or a date as text. A
// number as text is no date.
func parseDate(v json.RawMessage) (time.Time, bool) {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return parseDateText(strings.TrimSpace(s))
	}
	// As a float, since JSON may spell a whole number as 1e12.
	ms, err := strconv.ParseFloat(string(v), 64)
	if err != nil || ms != float64(int64(ms)) || ms < 0 || ms > maxMillis {
		return time.Time{}, false
	}
	return time.UnixMilli(int64(ms)).UTC(), true
}

func parseDateText(s string) (time.Time, bool) {
	// Browsers add the zone's name: … GMT+0100 (Central European Standard Time)
	if i := strings.Index(s, " ("); i > 0 && strings.HasSuffix(s, ")") {
		s = s[:i]
	}
	for _, layout := range dateLayouts() {
		t, err := time.ParseInLocation(layout, s, time.UTC)
		if err == nil && t.UnixMilli() >= 0 && t.UnixMilli() <= maxMillis {
			return t.UTC().Truncate(time.Millisecond), true
		}
	}
	return time.Time{}, false
}
