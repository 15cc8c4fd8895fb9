package cron

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestParseExpr(t *testing.T) {
	tests := []struct {
		expr  string
		first string // after 2026-01-01 00:00 (a Thursday); "" when refused
	}{
		{"* * * * *", "2026-01-01T00:01:00Z"},
		{"*/2 * * * * *", "2026-01-01T00:00:02Z"},
		{"0 9 8 * *", "2026-01-08T09:00:00Z"},
		{"0 0 1 2 *", "2026-02-01T00:00:00Z"},
		{"0 0 * * 7", "2026-01-04T00:00:00Z"},
		{"0 0 * * 0", "2026-01-04T00:00:00Z"},
		{"0 0 * * SUN", "2026-01-04T00:00:00Z"},
		{"0 0 * * 5-7", "2026-01-02T00:00:00Z"},
		{"0 0 * * 6-7/1", "2026-01-03T00:00:00Z"},
		{"0 0 * * 7,1", "2026-01-04T00:00:00Z"},
		{"0 0 * * 3-7/2", "2026-01-02T00:00:00Z"},
		{"0 0 * * fri-sat", "2026-01-02T00:00:00Z"},
		{"0 0 13 * 5", "2026-01-02T00:00:00Z"}, // either day
		{"0 0 1 JAN-mar ?", "2026-02-01T00:00:00Z"},
		{"30/15 * * * *", "2026-01-01T00:30:00Z"},
		{"1-5,30 3 * * *", "2026-01-01T03:01:00Z"},
		{"@hourly", "2026-01-01T01:00:00Z"},
		{"@daily", "2026-01-02T00:00:00Z"},
		{"@midnight", "2026-01-02T00:00:00Z"},
		{"@weekly", "2026-01-04T00:00:00Z"},
		{"@monthly", "2026-02-01T00:00:00Z"},
		{"@yearly", "2027-01-01T00:00:00Z"},
		{"@annually", "2027-01-01T00:00:00Z"},
		{"@every 90s", "2026-01-01T00:01:30Z"},
		{"CRON_TZ=Europe/Berlin 0 9 * * *", "2026-01-01T08:00:00Z"},
		{"TZ=America/New_York 0 9 * * *", "2026-01-01T14:00:00Z"},
		{"  0   9  * * *  ", "2026-01-01T09:00:00Z"},

		{"", ""},
		{"   ", ""},
		{"TZ=", ""},
		{"CRON_TZ=", ""},
		{"TZ=UTC", ""},
		{"TZ= * * * * *", ""},
		{"CRON_TZ= 0 9 * * *", ""},
		{"CRON_TZ=Nowhere/Land 0 9 * * *", ""},
		{"TZ=Local * * * * *", ""},
		{"TZ=../../etc/passwd * * * * *", ""},
		{"* * * *", ""},
		{"* * * * * * *", ""},
		{"60 * * * *", ""},
		{"* 24 * * *", ""},
		{"* * 0 * *", ""},
		{"* * 32 * *", ""},
		{"* * * 13 *", ""},
		{"* * * 0 *", ""},
		{"* * * * 8", ""},
		{"*/0 * * * *", ""},
		{"*/60 * * * *", ""},
		{"*/100 * * * *", ""},
		{"* */24 * * *", ""},
		{"* * */31 * *", ""},
		{"10-20/11 * * * *", ""},
		{"55/10 * * * *", ""},
		{"* * * * */7", ""},
		{"* * * * 6-7/2", ""},
		{"5-1 * * * *", ""},
		{"1,,2 * * * *", ""},
		{", * * * *", ""},
		{"*-5 * * * *", ""},
		{"1-2-3 * * * *", ""},
		{"*/2/3 * * * *", ""},
		{"-1 * * * *", ""},
		{"+1 * * * *", ""},
		{"1.5 * * * *", ""},
		{"0x1 * * * *", ""},
		{"? * * * *", ""},
		{"* * L * *", ""},
		{"* * 15W * *", ""},
		{"* * * * 5#2", ""},
		{"* * * * 5L", ""},
		{"* * * feb-jan *", ""},
		{"H * * * *", ""},
		{"@reboot", ""},
		{"@Daily", ""},
		{"@daily 5", ""},
		{"@every", ""},
		{"@every 0s", ""},
		{"@every 999ms", ""},
		{"@every 1500ms", ""},
		{"@every -5s", ""},
		{"@every 100000h", ""},
		{"@every 1s 2s", ""},
		{"@every x", ""},
		{"0 0 30 2 *", ""},
		{"0 0 31 4,6,9,11 *", ""},
		{"RRULE:FREQ=DAILY", ""},
		{"0 0 1 1 *" + strings.Repeat(" ", maxExpr), ""},
		{"99999999999999999999 * * * *", ""},
		{"\x00 * * * *", ""},
		{"٣ * * * *", ""},
	}
	now := mustTime(t, "2026-01-01T00:00:00Z")
	for _, tt := range tests {
		first, err := firstOf(tt.expr, now)
		if tt.first == "" {
			if err == nil {
				t.Errorf("%q: accepted, first at %s", tt.expr, first)
			}
			continue
		}
		if err != nil || !first.Equal(mustTime(t, tt.first)) {
			t.Errorf("%q: first at %s (%v), want %s", tt.expr, first, err, tt.first)
		}
	}
}

// firstOf does what CREATE does with an expression.
func firstOf(expr string, now time.Time) (time.Time, error) {
	r := reader{kind: kindAlarm, now: now, fresh: true, given: func(string) bool { return true }}
	r.ps = r.ps.Set("cron", quote(expr)).Set(anchorKey, number64(now.UnixMilli()))
	def, err := r.read()
	if err != nil {
		return time.Time{}, err
	}
	return def.sched.next(now), nil
}

func FuzzExpr(f *testing.F) {
	for _, s := range []string{"* * * * *", "TZ=", "CRON_TZ=Europe/Berlin 0 2 * * *", "@every 1s", "*/7 1-5 ? jan-mar 5-7/2", "0 0 29 2 *"} {
		f.Add(s, "Europe/Berlin", int64(1774746000))
	}
	f.Fuzz(func(t *testing.T, expr, zone string, at int64) {
		now := time.Unix(at%4e9, 0).UTC()
		if loc, err := loadZone(zone); err == nil && loc == time.Local {
			t.Fatalf("zone %q is the machine's own", zone)
		}
		r := reader{kind: kindAlarm, now: now, fresh: true, given: func(string) bool { return true }}
		r.ps = r.ps.Set("cron", quote(expr)).Set("timezone", quote(zone)).Set(anchorKey, number64(max(now.UnixMilli(), 0)))
		def, err := r.read()
		if err != nil {
			return
		}
		for n, last := 0, now; n < 5; n++ {
			next := def.sched.next(last)
			if next.IsZero() && n == 0 {
				t.Fatalf("%q in %q has no slot after %s", expr, zone, now)
			}
			if next.IsZero() {
				return
			}
			if !next.After(last) || next.After(last.AddDate(horizonYears, 0, 1)) {
				t.Fatalf("%q in %q: %s after %s", expr, zone, next, last)
			}
			last = next
		}
	})
}

func FuzzDate(f *testing.F) {
	for _, s := range []string{`1517245917000`, `"2030-01-01"`, `"Mon, 02 Jan 2030 15:04:05 GMT"`, `"1517245917000"`, `{}`, `1e300`, `-1`, `null`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		at, ok := parseDate([]byte(s))
		if ok && (at.UnixMilli() < 0 || at.UnixMilli() > maxMillis || at.Location() != time.UTC) {
			t.Errorf("parseDate(%s) = %v", s, at)
		}
		again, ok2 := parseDate([]byte(quote(at.Format(time.RFC3339Nano))))
		if ok && (!ok2 || !again.Equal(at)) {
			t.Errorf("%s does not survive its own spelling: %v", at, again)
		}
	})
}

func TestParseDate(t *testing.T) {
	tests := []struct{ in, want string }{
		{`1517245917000`, "2018-01-29T17:11:57Z"},
		{`1517245917000.0`, "2018-01-29T17:11:57Z"},
		{`1.517245917e12`, "2018-01-29T17:11:57Z"},
		{`"2030-01-02"`, "2030-01-02T00:00:00Z"},
		{`"2030-01-02T03:04:05.678Z"`, "2030-01-02T03:04:05Z"},
		{`"2030-01-02T03:04:05+02:00"`, "2030-01-02T01:04:05Z"},
		{`"2030-01-02T03:04"`, "2030-01-02T03:04:00Z"},
		{`"2030-01-02 03:04:05"`, "2030-01-02T03:04:05Z"},
		{`"Wed, 02 Jan 2030 03:04:05 GMT"`, "2030-01-02T03:04:05Z"},
		{`"Wed Jan 02 2030 03:04:05 GMT+0100 (Central European Standard Time)"`, "2030-01-02T02:04:05Z"},
		{`"January 2, 2030 03:04:05"`, "2030-01-02T03:04:05Z"},
		{`"1517245917000"`, ""},
		{`"tomorrow"`, ""},
		{`"Wed, 02 Jan 2030 03:04:05 CST"`, ""},
		{`""`, ""},
		{`-5`, ""},
		{`1.5`, ""},
		{`1e18`, ""},
		{`true`, ""},
		{`[]`, ""},
		{`"2030-02-30"`, ""},
	}
	for _, tt := range tests {
		got, ok := parseDate([]byte(tt.in))
		if ok != (tt.want != "") || ok && got.Format(time.RFC3339) != tt.want {
			t.Errorf("parseDate(%s) = %s, %v; want %q", tt.in, got, ok, tt.want)
		}
	}
}

func TestLoadZone(t *testing.T) {
	for _, s := range []string{"", "Local", "Nope", "../UTC", strings.Repeat("A", 65), "TZ="} {
		if _, err := loadZone(s); !errors.Is(err, errZone) {
			t.Errorf("loadZone(%q) error = %v, want %v", s, err, errZone)
		}
	}
}

// What a person got wrong is told in the words of the expression.
func TestExprFaults(t *testing.T) {
	for expr, want := range map[string]string{
		"@every 5":       "'5' has no unit: write @every 5s",
		"@every x":       "'x' is not a duration, such as 90s or 1h30m",
		"@every":         "@every needs one duration, such as 90s or 1h30m",
		"@evry 5s":       "'@evry' is unknown; did you mean '@every'?",
		"@Daily":         "'@Daily' is unknown; did you mean '@daily'?",
		"@reboot":        "'@reboot' is unknown: there are @every, @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually",
		"0 0 L * *":      `day of month: "L": L, W and # are not supported yet`,
		"0 0 lw * *":     `day of month: "lw": L, W and # are not supported yet`,
		"0 0 L-3 * *":    `day of month: "L": L, W and # are not supported yet`,
		"0 0 1,15W * *":  `day of month: "15W": L, W and # are not supported yet`,
		"0 0 * * 5L":     `day of week: "5L": L, W and # are not supported yet`,
		"0 0 * * FRI#2":  `day of week: "FRI#2": L, W and # are not supported yet`,
		"0 0 * * #":      `day of week: "#": L, W and # are not supported yet`,
		"0 0 * * WEEK":   `day of week: "WEEK" is not a value`,
		"0 0 * * W2":     `day of week: "W2" is not a value`,
		"0 0 * L *":      `month: "L" is not a value`,
		"0 0 99W * *":    `day of month: "99W" is not a value`,
		"0 0 ? * * * *":  "it has 7 fields, not 5 or 6",
		"0 0 * * MON-WX": `day of week: "WX" is not a value`,
	} {
		if _, err := parseExpr(expr); err == nil || err.Error() != want {
			t.Errorf("%q: %v\nwant %s", expr, err, want)
		}
	}
}
