package rules

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// Bounds of what is judged at once: each batch becomes one message of the
// journal.
const (
	maxBatch   = 512  // events
	maxMatches = 4096 // matches, so that a batch of many rules does not overrun what delivery holds
)

// Events is the archive of flushed events.
type Events interface {
	// ReadEvents returns at most n events from a sequence on, in order. It waits
	// until there is one, or ctx ends.
	ReadEvents(ctx context.Context, from uint64, n int) ([]whisk.Event, error)
}

// Journal keeps the verdicts.
type Journal interface {
	Judged() whisk.Place // the last event that was judged
	// Gaps returns the closed ranges of sequences below Judged that have no
	// verdict.
	Gaps() [][2]uint64
	// Verdicts stores what became of the events from a sequence to judged. It
	// returns once they are written, and waits while the journal is too full.
	Verdicts(ctx context.Context, from uint64, judged whisk.Place, vs []whisk.Verdict) error
	// Bury stores a dead letter durably.
	Bury(ctx context.Context, d whisk.DeadLetter) error
}

// Deliverer carries matches to their end.
type Deliverer interface {
	// Wait blocks until Deliver may be called, and while too much is undone.
	Wait(ctx context.Context) error
	// Deliver takes the matches of a verdict that is written. It does not wait
	// for them.
	Deliver(ctx context.Context, v *whisk.Verdict) error
	// Redeliver is Deliver for a verdict that was lost and is given again: what
	// became of its matches may be known already.
	Redeliver(ctx context.Context, v *whisk.Verdict) error
}

// Entities are the stored triggers and rules.
type Entities interface {
	// Generation changes with every change of a trigger or rule, before the
	// one who made it is answered.
	Generation() uint64
	// Snapshot returns all triggers and rules, at least as new as the
	// generation before the call.
	Snapshot() ([]whisk.Trigger, []Entry)
}

// Engine judges events. All methods are safe for concurrent use. mu guards the
// table alone; judging itself is one goroutine, Run's.
type Engine struct {
	events    Events
	journal   Journal
	deliverer Deliverer
	entities  Entities
	log       *slog.Logger
	metrics   *metrics
	fault     func(point string)

	mu         sync.Mutex
	table      *Table
	generation uint64 // of table
}

// NewEngine returns an engine; Run starts it.
func NewEngine(ev Events, j Journal, d Deliverer, en Entities, log *slog.Logger, opts ...Option) *Engine {
	e := &Engine{events: ev, journal: j, deliverer: d, entities: en, log: log, fault: func(string) {}}
	for _, o := range opts {
		o(e)
	}
	if e.metrics == nil {
		e.metrics = newMetrics(nil)
	}
	return e
}

// Table returns the table of what is stored now: rules that were stored before
// the call are in it.
func (e *Engine) Table() *Table {
	e.mu.Lock()
	defer e.mu.Unlock()
	// The generation is read first: a change during the snapshot leaves it
	// behind, and the next call looks again.
	if g := e.entities.Generation(); e.table == nil || g != e.generation {
		e.table, e.generation = NewTable(e.entities.Snapshot()), g
	}
	return e.table
}

// Active reports whether the trigger has an active rule now.
func (e *Engine) Active(trigger whisk.Name) bool { return e.Table().Active(trigger) }

// Retry returns how a rule's failed matches are retried now; false when there
// is no such rule.
func (e *Engine) Retry(rule whisk.Name) (whisk.Retry, bool) { return e.Table().Retry(rule) }

// Run judges events, first those that an unclean stop left without a verdict,
// then all that come, until ctx ends (nil) or reading or writing fails.
func (e *Engine) Run(ctx context.Context) error {
	err := e.run(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (e *Engine) run(ctx context.Context) error {
	for _, gap := range e.journal.Gaps() {
		e.log.InfoContext(ctx, "judging events without a verdict", slog.Uint64("from", gap[0]), slog.Uint64("to", gap[1]))
		if err := e.judgeGap(ctx, gap[0], gap[1]); err != nil {
			return err
		}
	}
	// Asked after the gaps: they lie below.
	for from := e.journal.Judged().Seq + 1; ; {
		evs, err := e.read(ctx, from)
		if err != nil {
			return err
		}
		if from, err = e.judge(ctx, from, evs, e.deliverer.Deliver); err != nil {
			return err
		}
	}
}

// read returns the next events, once delivery takes more.
func (e *Engine) read(ctx context.Context, from uint64) ([]whisk.Event, error) {
	// Before reading, not before delivering: what was judged must be handed on,
	// and by then there might be no room.
	if err := e.deliverer.Wait(ctx); err != nil {
		return nil, err
	}
	evs, err := e.events.ReadEvents(ctx, from, maxBatch)
	e.fault("judge read")
	return evs, err
}

// judgeGap judges the events between two sequences, both included. There may be
// fewer events than numbers: those in between are then no events.
func (e *Engine) judgeGap(ctx context.Context, from, to uint64) error {
	for from <= to {
		evs, err := e.read(ctx, from)
		if err != nil {
			return err
		}
		// A read may go beyond the gap, into events that have a verdict.
		n := 0
		for n < len(evs) && evs[n].Seq <= to {
			n++
		}
		last := n < len(evs)
		if from, err = e.judge(ctx, from, evs[:n], e.deliverer.Redeliver); err != nil {
			return err
		}
		// The rest of the gap holds no events. It is called judged, so that the
		// gap is closed and the next start does not find it again.
		if last && from <= to {
			return e.journal.Verdicts(ctx, from, whisk.Place{Seq: to}, nil)
		}
	}
	return nil
}

// judge judges events, writes the verdicts and hands the matches on. It returns
// the sequence after the last of them.
func (e *Engine) judge(
	ctx context.Context, from uint64, evs []whisk.Event, deliver func(context.Context, *whisk.Verdict) error,
) (uint64, error) {
	// Taken after the events were read: whoever stored a rule before an event
	// was accepted finds it at work.
	table := e.Table()
	for len(evs) > 0 {
		var vs []whisk.Verdict
		// At least one event, however many rules match it: its verdict is not
		// divided.
		for matches := 0; len(vs) < len(evs) && matches < maxMatches; {
			v := table.Judge(&evs[len(vs)], time.Now().UTC())
			matches += e.metrics.count(&v)
			vs = append(vs, v)
		}
		e.fault("judge judged")
		if err := e.bury(ctx, vs, evs); err != nil {
			return from, err
		}
		judged := vs[len(vs)-1].Event
		// Written, not flushed: after a power cut that took the verdict the
		// event is judged again.
		if err := e.journal.Verdicts(ctx, from, judged, vs); err != nil {
			return from, err
		}
		e.fault("judge written")
		for i := range vs {
			if err := deliver(ctx, &vs[i]); err != nil {
				return from, err
			}
		}
		e.fault("judge delivered")
		// From the event after the last, so that the ranges of messages join:
		// numbers in between that are no events count as judged.
		from, evs = judged.Seq+1, evs[len(vs):]
	}
	return from, nil
}

// bury makes dead letters of events that could not be judged: before their
// verdicts are written, so that a crash in between repeats the letter, under
// the same ID, and never loses it.
func (e *Engine) bury(ctx context.Context, vs []whisk.Verdict, evs []whisk.Event) error {
	for i := range vs {
		v := &vs[i]
		if v.Problem == "" {
			continue
		}
		e.log.WarnContext(ctx, "event cannot be judged", slog.String("activation", v.Event.ID),
			slog.String("trigger", v.Trigger.String()), slog.String("reason", v.Problem))
		d := whisk.DeadLetter{
			ID:   whisk.DeriveID(whisk.IDTime(v.Event.ID), "dead", v.Event.ID),
			Time: v.At, Match: whisk.Match{Event: v.Event.Seq}, Reason: v.Problem, Event: &evs[i],
		}
		if err := e.journal.Bury(ctx, d); err != nil {
			return err
		}
		e.fault("judge buried")
	}
	return nil
}

// Option changes a default of an Engine.
type Option func(*Engine)

// WithFault has f called between the steps of judging: "judge read", "judge
// judged", "judge buried", "judge written", "judge delivered". It is there for
// tests that stop the process at such a point.
func WithFault(f func(point string)) Option { return func(e *Engine) { e.fault = f } }
