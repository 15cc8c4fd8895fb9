package cron

import (
	"time"

	robfig "github.com/robfig/cron/v3"
)

// schedule gives the instants at which something is due, all on whole seconds
// or on the millisecond that it is anchored to.
type schedule interface {
	// next returns the first instant after t, or the zero time when there is
	// none within the horizon.
	next(t time.Time) time.Time
}

// once is a single instant.
type once time.Time

func (o once) next(t time.Time) time.Time {
	if at := time.Time(o); at.After(t) {
		return at
	}
	return time.Time{}
}

// every is an anchor and each multiple of a period after it. Periods are real
// time: no zone moves them.
type every struct {
	anchor time.Time
	period time.Duration
}

func (e every) next(t time.Time) time.Time {
	if t.Before(e.anchor) {
		return e.anchor
	}
	// In milliseconds: a Duration would end after 292 years.
	ms, p := t.UnixMilli()-e.anchor.UnixMilli(), e.period.Milliseconds()
	return time.UnixMilli(e.anchor.UnixMilli() + (ms/p+1)*p).UTC()
}

// What becomes of a slot that a change of the clocks removes, and of one that
// it makes happen twice.
const (
	gapRunAfter   = "runAfter" // at the first instant after the gap
	gapSkip       = "skip"
	overlapFirst  = "first"
	overlapSecond = "second"
	overlapBoth   = "both"
)

// wall is slots on a wall clock, seen from a zone. A schedule with a wildcard
// hour means every real hour: it has nothing to do in a gap and runs in both
// hours of an overlap, whatever the policy.
type wall struct {
	fields  *robfig.SpecSchedule
	zone    *time.Location
	gap     string
	overlap string
}

// The low 24 bits of the parser's set of hours. A wildcard sets a higher bit as
// well.
const allHours = 1<<24 - 1

func (w wall) hourly() bool { return w.fields.Hour&allHours == allHours }

// A span is a stretch of time with one offset from UTC, and the offsets beside
// it. A zero start or end means for ever.
type span struct {
	start, end          time.Time
	offset, prior, next time.Duration
}

func spanAt(t time.Time, zone *time.Location) span {
	local := t.In(zone)
	start, end := local.ZoneBounds()
	// In leap years beyond a zone's table Go's bounds lack the last day. No
	// clock changes then, so any bound that goes forward will do.
	if !end.IsZero() && !end.After(t) {
		end = local.Truncate(time.Hour).Add(24 * time.Hour)
	}
	s := span{start: start.UTC(), end: end.UTC(), offset: offsetAt(local)}
	s.prior, s.next = s.offset, s.offset
	if start.IsZero() {
		s.start = time.Time{}
	} else {
		s.prior = offsetAt(start.Add(-1))
	}
	if end.IsZero() {
		s.end = time.Time{}
	} else {
		s.next = offsetAt(end)
	}
	return s
}

func offsetAt(t time.Time) time.Duration {
	_, secs := t.Zone()
	return time.Duration(secs) * time.Second
}

// next walks from one span to the next, so that each wall time is read with
// the offset that holds there.
func (w wall) next(t time.Time) time.Time {
	t = t.UTC()
	limit := t.AddDate(horizonYears, 0, 0)
	// Slots are on whole seconds, so this is the first candidate after t.
	from := t.Truncate(time.Second).Add(time.Second)
	for !from.After(limit) {
		s := spanAt(from, w.zone)
		// At the first instant after the gap, once, however many slots fell
		// into it.
		if from.Equal(s.start) && w.inGap(s) {
			return s.start
		}
		if u := w.within(s, from, limit); !u.IsZero() {
			return u
		}
		if s.end.IsZero() {
			break
		}
		from = s.end
	}
	return time.Time{}
}

// inGap reports whether a slot fell into the gap at the beginning of s and is
// to run now.
func (w wall) inGap(s span) bool {
	if s.offset <= s.prior || w.gap == gapSkip || w.hourly() {
		return false
	}
	slot := w.slot(s.start.Add(s.prior), s.start.Add(s.offset))
	return !slot.IsZero() && slot.Before(s.start.Add(s.offset))
}

// within returns the first instant in s that is due, from an instant on.
func (w wall) within(s span, from, limit time.Time) time.Time {
	end := limit
	if !s.end.IsZero() && s.end.Before(limit) {
		end = s.end
	}
	clock := from.Add(s.offset)
	// Wall times before twice came in the span before this one too.
	twice := s.start.Add(s.prior)
	if !s.start.IsZero() && clock.Before(twice) && w.overlap == overlapFirst && !w.hourly() {
		clock = twice
	}
	slot := w.slot(clock, end.Add(s.offset))
	if slot.IsZero() || slot.Add(-s.offset).After(end) || slot.Add(-s.offset).Equal(s.end) {
		return time.Time{}
	}
	// Wall times from again on come in the span after this one too.
	again := s.end.Add(s.next)
	if !s.end.IsZero() && !slot.Before(again) && w.overlap == overlapSecond && !w.hourly() {
		return time.Time{}
	}
	return slot.Add(-s.offset)
}

// slot returns the first slot at or after a wall time, or the zero time when
// there is none up to another.
func (w wall) slot(from, upto time.Time) time.Time {
	for t := from.Add(-time.Second); !t.After(upto); {
		if n := w.fields.Next(t); !n.IsZero() {
			return n
		}
		// The parser's own search ends with the fifth year after t.
		t = time.Date(t.Year()+5, time.December, 31, 23, 59, 59, 0, time.UTC)
	}
	return time.Time{}
}
