package cron

import (
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"github.com/millrace/millrace/feeds"
	"github.com/millrace/millrace/internal/whisk"
)

const (
	// onTime is how late an event may be and still count as on time.
	onTime = 10 * time.Second
	// batch is how many late events are stored at once.
	batch = 100
	// preview is how many coming times a feed shows.
	preview = 5
)

// Texts of a feed's end, as OpenWhisk words them.
const (
	endOnce     = "Automatically disabled after firing once"
	endMax      = "Automatically disabled after reaching max triggers"
	endCron     = "Automatically disabled after firing last scheduled cron trigger"
	endInterval = "Automatically disabled after firing last scheduled interval trigger"
	endMissed   = "Automatically disabled after receiving error on trigger initialization: the fire once date has expired"
)

// position is where a feed stands: stored with each event. Last is not enough:
// what was fired and given up must survive a restart with it, or maxTriggers
// would begin anew.
type position struct {
	Last   int64  `json:"last"`             // the last due time decided, milliseconds since 1970
	Fired  uint64 `json:"fired,omitempty"`  // events since the feed was made
	Missed uint64 `json:"missed,omitempty"` // due times given up since the feed was made
	Untold uint64 `json:"untold,omitempty"` // of those, given up since the last event
	Event  string `json:"event,omitempty"`  // ID of the last event
}

// feed is one schedule.
type feed struct {
	spec  feeds.Spec
	def   definition
	clock *clock

	mu  sync.Mutex
	pos position
}

// Run emits what is due, when it is due.
func (f *feed) Run(ctx context.Context, emit feeds.Emit) error {
	f.clock.watch()
	defer f.clock.unwatch()
	for {
		jumped := f.clock.jumps() // before the look at the clock
		now := f.clock.wall()
		if err := f.catchUp(ctx, emit, now); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		next := f.next(f.place())
		if next.IsZero() {
			return f.end(f.reason())
		}
		// The timer may fire a little early or late by the wall clock: then
		// nothing is due yet, or it is late by that, and the loop looks again.
		t := time.NewTimer(max(next.Sub(now), 0))
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		case <-jumped:
			t.Stop()
		}
	}
}

// place is the position now. Only Run moves it; Report reads it from other
// goroutines.
func (f *feed) place() position {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pos
}

// next returns the first due time that is not decided, or the zero time.
func (f *feed) next(p position) time.Time {
	if f.def.max > 0 && p.Fired >= f.def.max {
		return time.Time{}
	}
	return f.after(f.bound(p))
}

// bound returns the time up to which everything is decided. That is the latest
// of three: where the feed was told to begin, the last due time decided, and a
// moment before the start date, which may be due itself.
func (f *feed) bound(p position) time.Time {
	t := f.spec.Since
	if last := time.UnixMilli(p.Last).UTC(); p.Last > 0 && last.After(t) {
		t = last
	}
	if before := f.def.start.Add(-1); !f.def.start.IsZero() && before.After(t) {
		t = before
	}
	return t
}

// after returns the first due time after t that the stop date allows.
func (f *feed) after(t time.Time) time.Time {
	n := f.def.sched.next(t)
	if !f.def.stop.IsZero() && n.After(f.def.stop) {
		return time.Time{}
	}
	return n
}

// A decision is what becomes of all that is due.
type decision struct {
	fire   []time.Time // in order
	missed uint64      // given up, all of it before fire
	last   time.Time   // the last one decided; zero when nothing is due
}

// decide looks at what is due by now. Only as many of the latest due times are
// kept as could be fired, however many there are.
func (f *feed) decide(ctx context.Context, p position, now time.Time) (decision, error) {
	keep := 1
	if f.def.misfire == misfireAll {
		keep = f.def.misfireMax
	}
	var d decision
	var n uint64
	for t := f.next(p); !t.IsZero() && !t.After(now); t = f.after(t) {
		// Years of seconds may have gone by: a feed that is told to stop does
		// so in the middle of them.
		if n++; n%4096 == 0 && ctx.Err() != nil {
			return decision{}, ctx.Err()
		}
		// Cut at twice what is kept, so that each time is moved once on the
		// average.
		if len(d.fire) >= 2*keep {
			d.fire = append(d.fire[:0], d.fire[len(d.fire)-keep+1:]...)
		}
		d.fire = append(d.fire, t)
		d.last = t
	}
	if len(d.fire) > keep {
		d.fire = d.fire[len(d.fire)-keep:]
	}
	// All the due times are late if the last one is.
	if f.def.misfire == misfireSkip && now.Sub(d.last) > onTime {
		d.fire = nil
	}
	d.missed = n - uint64(len(d.fire))
	// The earliest count, as they would have been fired had nobody been late.
	// The rest is not decided: nothing is due after maxTriggers.
	if left := f.def.max - p.Fired; f.def.max > 0 && uint64(len(d.fire)) > left {
		d.fire = d.fire[:left]
		d.last = d.fire[left-1]
	}
	return d, nil
}

// catchUp decides and emits all that is due by now.
func (f *feed) catchUp(ctx context.Context, emit feeds.Emit, now time.Time) error {
	p := f.place()
	d, err := f.decide(ctx, p, now)
	if err != nil || d.last.IsZero() {
		return err
	}
	p.Missed += d.missed
	p.Untold += d.missed
	// What was given up is stored as well, so that it is not decided again.
	if len(d.fire) == 0 {
		p.Last = d.last.UnixMilli()
		return f.commit(ctx, emit, p, nil)
	}
	// Batches, each with its own position: a crash in between goes on after
	// the last batch that was stored.
	for len(d.fire) > 0 {
		n := min(len(d.fire), batch)
		evs := make([]whisk.Event, 0, n)
		for _, slot := range d.fire[:n] {
			ev := f.event(slot, now, p.Untold)
			p.Untold, p.Event = 0, ev.ID
			p.Fired++
			evs = append(evs, ev)
		}
		d.fire = d.fire[n:]
		p.Last = evs[n-1].Time.UnixMilli()
		if err := f.commit(ctx, emit, p, evs); err != nil {
			return err
		}
	}
	return nil
}

// commit emits evs with the position after them and moves on. The position in
// memory moves only when the store has it: after an error the feed is opened
// again at the stored one.
func (f *feed) commit(ctx context.Context, emit feeds.Emit, p position, evs []whisk.Event) error {
	b, err := json.Marshal(p)
	if err != nil {
		return whisk.E(whisk.Internal, "write position", err)
	}
	if err := emit(ctx, string(b), evs...); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pos = p
	return nil
}

// meta is what an event of time tells of itself in __ow_event. The parts of
// the scheduled time let filters, which match exact values, pick some of them:
// the full hours, the Mondays.
type meta struct {
	Scheduled   string `json:"scheduled"`   // when it was due, in the schedule's zone
	LateBy      int64  `json:"lateBy"`      // milliseconds
	MissedCount uint64 `json:"missedCount"` // due times given up since the event before

	Year    int `json:"year"`
	Month   int `json:"month"` // 1 to 12
	Day     int `json:"day"`
	Weekday int `json:"weekday"` // 0 to 6, 0 is Sunday
	Hour    int `json:"hour"`
	Minute  int `json:"minute"`
	Second  int `json:"second"`
}

// event is the event of a due time. Its ID follows from the feed and the slot,
// so the same slot is the same event, however often it is emitted.
func (f *feed) event(slot, now time.Time, missed uint64) whisk.Event {
	local := slot.In(f.zone())
	m, err := json.Marshal(meta{
		Scheduled: local.Format(time.RFC3339), LateBy: now.Sub(slot).Milliseconds(), MissedCount: missed,
		Year: local.Year(), Month: int(local.Month()), Day: local.Day(), Weekday: int(local.Weekday()),
		Hour: local.Hour(), Minute: local.Minute(), Second: local.Second(),
	})
	if err != nil {
		m = nil // cannot be: texts and numbers
	}
	return whisk.Event{
		ID:   whisk.DeriveID(slot, f.spec.ID, strconv.FormatInt(slot.UnixMilli(), 10)),
		Time: slot.UTC(), Payload: f.def.payload, Type: f.def.kind, Meta: m,
	}
}

// zone is in which zone times are shown.
func (f *feed) zone() *time.Location {
	if w, ok := f.def.sched.(wall); ok {
		return w.zone
	}
	return time.UTC
}

// reason tells why nothing more is due.
func (f *feed) reason() string {
	p := f.place()
	switch {
	case f.def.kind == kindOnce && p.Fired == 0:
		return endMissed
	case f.def.kind == kindOnce:
		return endOnce
	case f.def.max > 0 && p.Fired >= f.def.max:
		return endMax
	case f.def.kind == kindInterval:
		return endInterval
	}
	return endCron
}

func (f *feed) end(reason string) error {
	p := f.place()
	return &feeds.Completed{
		Reason: reason, Event: p.Event,
		// A once whose time was given up has no last event to wait for, and
		// keeps its trigger.
		Retire: f.def.retire && p.Fired > 0, Rules: f.def.rules,
	}
}

// Report tells the coming times and what was fired and given up.
func (f *feed) Report() feeds.Report {
	p := f.place()
	r := feeds.Report{Fired: p.Fired, Missed: p.Missed}
	left := uint64(preview)
	if f.def.max > 0 {
		left = min(left, f.def.max-min(p.Fired, f.def.max))
	}
	t := f.next(p)
	if lag := f.clock.wall().Sub(t); !t.IsZero() && lag > 0 {
		r.Lag = lag
	}
	for ; left > 0 && !t.IsZero(); left-- {
		r.NextFire = append(r.NextFire, t.In(f.zone()))
		t = f.after(t)
	}
	return r
}
