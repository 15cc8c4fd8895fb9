package server

import (
	"context"
	"errors"
	"time"

	"github.com/millrace/millrace/internal/journal"
	"github.com/millrace/millrace/internal/store"
	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/rules"
)

// entities shows the store to those who judge and deliver.
type entities struct{ *store.Store }

// Trigger returns a stored trigger.
func (e *entities) Trigger(n whisk.Name) (whisk.Trigger, error) {
	t, _, err := e.Entities().Triggers.Get(n)
	return t, err
}

// Snapshot returns all triggers and rules. Not one moment for all: a change in
// between moves the generation, and whoever asked looks again.
func (e *entities) Snapshot() ([]whisk.Trigger, []rules.Entry) {
	table := e.Entities()
	var out []rules.Entry
	for _, r := range table.Rules.List("") {
		// Read again for the revision; a rule deleted meanwhile is no entry.
		if rule, rev, err := table.Rules.Get(r.Name); err == nil {
			out = append(out, rules.Entry{Rule: rule, Revision: rev})
		}
	}
	return table.Triggers.List(""), out
}

// feedTriggers shows the triggers to the feeds. It knows the journal because a
// trigger may go only when its last event is done.
type feedTriggers struct {
	store   *store.Store
	journal *journal.Journal
}

func (t *feedTriggers) Get(n whisk.Name) (whisk.Trigger, whisk.Revision, error) {
	return t.store.Entities().Triggers.Get(n)
}

// settleCheck is how often Retire looks whether an event's story has ended.
const settleCheck = 200 * time.Millisecond

// Retire deletes a trigger once all that its last event led to has ended.
func (t *feedTriggers) Retire(ctx context.Context, n whisk.Name, event string, withRules bool) error {
	tick := time.NewTicker(settleCheck)
	defer tick.Stop()
	for {
		// Asked again and again, not followed: an event may take days.
		over, err := t.over(ctx, n.Namespace, event)
		if err != nil {
			return err
		}
		if over {
			return t.remove(ctx, n, withRules)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// over reports whether an event was judged and each of its matches is done.
// It returns Conflict when one of them became a dead letter.
func (t *feedTriggers) over(ctx context.Context, ns, event string) (bool, error) {
	v, err := t.journal.Verdict(ctx, ns, event)
	// Not judged yet.
	if errors.Is(err, whisk.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, r := range v.Rules {
		if r.Decision != whisk.Matched {
			continue
		}
		m := whisk.Match{Event: v.Event.Seq, Rule: r.Rule}
		_, dead, err := t.journal.Attempts(ctx, m)
		if err != nil && !errors.Is(err, whisk.NotFound) {
			return false, err
		}
		if dead != "" {
			return false, whisk.E(whisk.Conflict, "retire trigger", errors.New("its last event ended in a dead letter"))
		}
		if _, err := t.journal.Pending(ctx, m); err == nil {
			return false, nil
		} else if !errors.Is(err, whisk.NotFound) {
			return false, err
		}
	}
	return true, nil
}

// removeTries is how often a trigger is deleted anew when somebody writes it, or
// one of its rules, meanwhile.
const removeTries = 5

// remove deletes a trigger and, if asked to, its rules, in one step.
func (t *feedTriggers) remove(ctx context.Context, n whisk.Name, withRules bool) error {
	table := t.store.Entities()
	for try := 1; ; try++ {
		_, rev, err := table.Triggers.Get(n)
		if errors.Is(err, whisk.NotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		var ops []store.Op
		// Read anew in each try: somebody may have added one.
		for _, r := range table.Rules.List(n.Namespace) {
			if !withRules || r.Trigger != n {
				continue
			}
			// One that has gone meanwhile needs nothing more.
			if _, rev, err := table.Rules.Get(r.Name); err == nil {
				ops = append(ops, table.Rules.DeleteOp(r.Name, rev))
			}
		}
		// The trigger last: a crash in between leaves it, and the next try goes
		// on.
		err = applyAll(ctx, t.store, append(ops, table.Triggers.DeleteOp(n, rev)))
		race := errors.Is(err, whisk.Conflict) || errors.Is(err, whisk.NotFound)
		switch {
		case !race:
			return err
		case try == removeTries:
			return whisk.E(whisk.Unavailable, "retire trigger", err) // no Conflict: that says that its event is lost
		}
	}
}
