package cron

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	robfig "github.com/robfig/cron/v3"

	"github.com/millrace/millrace/internal/whisk"
)

// maxExpr bounds an expression, in bytes. Far more than a person writes.
// Without a bound, lists of values would cost time and memory by their length.
const maxExpr = 1024

// horizonYears is how far ahead a schedule must have a slot. Even a 29 February
// comes back within eight years.
const horizonYears = 10

var (
	errZone    = errors.New("Invalid timezone.") //nolint:staticcheck // upstream's wording
	errNoSlot  = fmt.Errorf("it has no slot in the next %d years", horizonYears)
	errTooLong = fmt.Errorf("it is longer than %d bytes", maxExpr)
)

// expression is a parsed schedule: either fields on a wall clock, or a period.
type expression struct {
	fields *robfig.SpecSchedule
	every  time.Duration
	zone   string // of a TZ= or CRON_TZ= before it; "" for none
}

// The fields of an expression, in order, with what their values may be.
type field struct {
	name     string
	min, max int
	names    string // three letters each, from min on
}

func fieldAt(i int) field {
	return [...]field{
		{"second", 0, 59, ""},
		{"minute", 0, 59, ""},
		{"hour", 0, 23, ""},
		{"day of month", 1, 31, ""},
		{"month", 1, 12, "janfebmaraprmayjunjulaugsepoctnovdec"},
		{"day of week", 0, 7, "sunmontuewedthufrisat"},
	}[i]
}

// parseExpr reads 5 fields (minute first), 6 (second first), @hourly to
// @yearly, or @every with a duration, each with a zone before it or without.
// The parser underneath takes more than it should and panics on a zone alone,
// so it is given nothing that was not checked here.
func parseExpr(s string) (expression, error) {
	if len(s) > maxExpr {
		return expression{}, errTooLong
	}
	words := strings.Fields(s)
	var e expression
	if len(words) > 0 {
		if zone, ok := cutZone(words[0]); ok {
			if zone == "" {
				return e, errZone
			}
			e.zone, words = zone, words[1:]
		}
	}
	if len(words) == 0 {
		return e, errors.New("it is empty")
	}
	if words[0] == "@every" {
		return e.parseEvery(words[1:])
	}
	if strings.HasPrefix(words[0], "@") {
		if err := checkDescriptor(words[0]); err != nil {
			return e, err
		}
		if len(words) > 1 {
			return e, fmt.Errorf("nothing may follow %s", words[0])
		}
		return e.parseFields(words[0])
	}
	if len(words) != 5 && len(words) != 6 {
		return e, fmt.Errorf("it has %d fields, not 5 or 6", len(words))
	}
	// Five fields lack the seconds, the first: they count from the end.
	for i := range words {
		fixed, err := checkField(words[i], fieldAt(i+6-len(words)))
		if err != nil {
			return e, err
		}
		words[i] = fixed
	}
	return e.parseFields(strings.Join(words, " "))
}

// checkDescriptor refuses what is none of the names of schedules.
func checkDescriptor(word string) error {
	names := []string{"@every", "@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"}
	switch near := whisk.Nearest(word, names...); {
	case near == word:
		return nil
	case near != "":
		return fmt.Errorf("'%s' is unknown; did you mean '%s'?", word, near)
	}
	return fmt.Errorf("'%s' is unknown: there are %s", word, strings.Join(names, ", "))
}

func cutZone(word string) (string, bool) {
	if z, ok := strings.CutPrefix(word, "CRON_TZ="); ok {
		return z, true
	}
	return strings.CutPrefix(word, "TZ=")
}

func (e expression) parseFields(s string) (expression, error) {
	p := robfig.NewParser(robfig.SecondOptional | robfig.Minute | robfig.Hour | robfig.Dom |
		robfig.Month | robfig.Dow | robfig.Descriptor)
	sched, err := p.Parse(s)
	if err != nil {
		return e, err
	}
	// Only an @every makes another type, and it was taken out before.
	fields, ok := sched.(*robfig.SpecSchedule)
	if !ok {
		return e, fmt.Errorf("%s is not supported", s)
	}
	fields.Location = time.UTC // slots are times on a clock without zone
	e.fields = fields
	return e, nil
}

func (e expression) parseEvery(words []string) (expression, error) {
	if len(words) != 1 {
		return e, errors.New("@every needs one duration, such as 90s or 1h30m")
	}
	d, err := time.ParseDuration(words[0])
	switch {
	case err != nil && strings.Trim(words[0], "0123456789") == "":
		return e, fmt.Errorf("'%s' has no unit: write @every %ss", words[0], words[0])
	case err != nil:
		return e, fmt.Errorf("'%s' is not a duration, such as 90s or 1h30m", words[0])
	// The parser would round up and down in silence.
	case d < time.Second:
		return e, errors.New("@every needs at least one second")
	case d%time.Second != 0:
		return e, errors.New("@every needs whole seconds")
	case d > horizonYears*365*24*time.Hour:
		return e, errNoSlot
	}
	e.every = d
	return e, nil
}

// checkField refuses what the parser would take and misread, and spells out a
// day of week 7, which it does not know.
func checkField(s string, f field) (string, error) {
	parts := strings.Split(s, ",")
	for i, p := range parts {
		fixed, err := checkPart(p, f)
		if err != nil {
			return "", fmt.Errorf("%s: %w", f.name, err)
		}
		parts[i] = fixed
	}
	return strings.Join(parts, ","), nil
}

func checkPart(p string, f field) (string, error) {
	span, stepText, stepped := strings.Cut(p, "/")
	step := 1
	if stepped {
		var err error
		if step, err = number(stepText); err != nil {
			return "", fmt.Errorf("the step of %q is not a number", p)
		}
		if step == 0 {
			return "", fmt.Errorf("the step of %q is zero", p)
		}
	}
	lo, hi := f.min, f.max
	star := span == "*" || span == "?"
	if f.max == 7 && star {
		hi = 6 // 0 and 7 are one day
	}
	if span == "?" && !strings.HasPrefix(f.name, "day") {
		return "", fmt.Errorf("%q may stand for a day only", p)
	}
	if !star {
		first, last, ranged := strings.Cut(span, "-")
		var err error
		if lo, err = f.value(first); err != nil {
			return "", err
		}
		switch {
		case ranged:
			if hi, err = f.value(last); err != nil {
				return "", err
			}
		case !stepped:
			hi = lo
		case f.max == 7 && lo < 7:
			hi = 6 // from lo to Saturday: Sunday only as 0
		}
	}
	if lo > hi {
		return "", fmt.Errorf("%q ends before it begins", p)
	}
	// Such a step names the first value alone, which is hardly what was meant.
	if step > max(hi-lo, 1) {
		return "", fmt.Errorf("the step of %q is larger than its range", p)
	}
	// Only a range that reaches 7 must be spelled out, day by day.
	if f.max != 7 || star || hi < 7 {
		return p, nil
	}
	var days []string
	for d := lo; d <= hi; d += step {
		days = append(days, strconv.Itoa(d%7))
	}
	return strings.Join(days, ","), nil
}

// value reads a number or a name of f, within its bounds.
func (f field) value(s string) (int, error) {
	if len(s) == 3 && f.names != "" {
		// The names stand end to end, so a hit counts at the beginning of one
		// only.
		if i := strings.Index(f.names, strings.ToLower(s)); i >= 0 && i%3 == 0 {
			return f.min + i/3, nil
		}
	}
	n, err := number(s)
	switch {
	case err != nil && f.special(s):
		return 0, fmt.Errorf("%q: L, W and # are not supported yet", s)
	case err != nil:
		return 0, fmt.Errorf("%q is not a value", s)
	}
	if n < f.min || n > f.max {
		return 0, fmt.Errorf("%d is not between %d and %d", n, f.min, f.max)
	}
	return n, nil
}

// special reports whether s is what other schedulers take for the last day, a
// working day or a weekday of a week: L, 15W, LW, 5L, FRI#2.
func (f field) special(s string) bool {
	if !strings.HasPrefix(f.name, "day") {
		return false
	}
	s = strings.ToUpper(s)
	if day, _, ok := strings.Cut(s, "#"); ok {
		s = day + "L"
	}
	day := strings.TrimRight(s, "LW")
	if day == s || day == "" {
		return day == "" && s != ""
	}
	_, err := f.value(day)
	return err == nil
}

// number reads decimal digits and nothing else.
func number(s string) (int, error) {
	// Atoi would take a sign as well. Nine digits never overflow.
	if s == "" || len(s) > 9 || strings.Trim(s, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.Atoi(s)
}

// loadZone returns an IANA zone. The machine's own zone is no answer: a
// schedule means the same wherever it runs.
func loadZone(name string) (*time.Location, error) {
	if name == "" || name == "Local" || len(name) > 64 {
		return nil, errZone
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, errZone
	}
	return loc, nil
}
