package delivery

import (
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/internal/whisk"
)

// plan is one history: processes that live one after the other over the same
// journal, each killed at one of its steps, the last one not.
type plan struct {
	retry    whisk.Retry
	outcomes []whisk.Outcome // of the attempts, by a digit of their IDs
	lives    []life
}

type life struct {
	fire    int // new events
	invokes int
	calls   int
	killAt  int    // after so many steps; 0: never
	change  string // what happens to the entities meanwhile
}

func plans(rt *rapid.T) plan {
	outcome := rapid.SampledFrom([]whisk.Outcome{whisk.Success, whisk.ApplicationError, whisk.DeveloperError, whisk.WhiskError, whisk.WhiskError})
	p := plan{
		retry: whisk.Retry{
			Attempts: rapid.IntRange(1, 4).Draw(rt, "attempts"), Backoff: time.Second, MaxBackoff: time.Minute, MaxAge: time.Hour,
			Platform: rapid.Bool().Draw(rt, "platform"), Application: rapid.Bool().Draw(rt, "application"),
		},
		outcomes: rapid.SliceOfN(outcome, 1, 8).Draw(rt, "outcomes"),
	}
	n := rapid.IntRange(1, 5).Draw(rt, "lives")
	for i := range n {
		l := life{
			fire:    rapid.IntRange(0, 5).Draw(rt, "fire"),
			invokes: rapid.IntRange(0, 2).Draw(rt, "invokes"),
			calls:   rapid.IntRange(0, 2).Draw(rt, "calls"),
			change:  rapid.SampledFrom([]string{"", "", "rule goes", "rule comes", "action goes", "action comes", "retry"}).Draw(rt, "change"),
		}
		if i < n-1 {
			l.killAt = rapid.IntRange(1, 40).Draw(rt, "kill")
		}
		p.lives = append(p.lives, l)
	}
	return p
}

func (l *life) apply(e *entities, retry whisk.Retry) {
	e.set(func() {
		switch l.change {
		case "rule goes":
			delete(e.retries, name("s"))
		case "rule comes":
			e.retries[name("s")] = retry
		case "action goes":
			delete(e.actions, name("b"))
		case "action comes":
			e.actions[name("b")] = true
		case "retry":
			retry.Attempts++
			e.retries[name("r")] = retry
		}
	})
}

// history is what happened outside: how often each activation ran.
type history struct {
	mu  sync.Mutex
	ran map[string]int
}

// TestEveryMatchEndsOnce plays random outcomes, kills and changes. Whatever
// comes, every match ends once, no activation runs twice or is recorded twice,
// and a dead letter belongs to a match that ended so.
func TestEveryMatchEndsOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := plans(rt)
		var faults []string
		synctest.Test(t, func(t *testing.T) { faults = p.play(t) })
		for _, f := range faults {
			rt.Error(f)
		}
	})
}

func (p *plan) play(t *testing.T) []string {
	w := newWorld(t)
	w.entities.retries[name("r")], w.entities.retries[name("s")] = p.retry, p.retry
	h := &history{ran: map[string]int{}}
	var matches []whisk.Match
	for i := range p.lives {
		l := &p.lives[i]
		var steps atomic.Int64
		w.opts = []Option{WithFault(func(string) {
			if int(steps.Add(1)) == l.killAt {
				w.journal.mu.Lock()
				w.journal.dead = true
				w.journal.mu.Unlock()
			}
		})}
		w.start(3, func(inv whisk.Invocation) (whisk.Activation, error) { return h.run(w, p, inv) })
		for n := range l.fire {
			ev := w.fire(`{}`, "r", "s")
			for _, rule := range []string{"r", "s"} {
				matches = append(matches, whisk.Match{Event: ev.Seq, Rule: name(rule)})
			}
			if n == l.fire/2 {
				l.apply(w.entities, p.retry)
			}
		}
		for range l.invokes {
			inv := invocation()
			if w.delivery.Invoke(t.Context(), name("b"), inv) == nil {
				matches = append(matches, whisk.Match{Invoke: inv.ActivationID})
			}
		}
		for range l.calls {
			inv := invocation()
			_, done, err := w.delivery.Call(t.Context(), runnable("a"), inv, time.Second)
			if err == nil && !done {
				matches = append(matches, whisk.Match{Invoke: inv.ActivationID})
			}
		}
		time.Sleep(time.Hour / 8)
		if i == len(p.lives)-1 {
			time.Sleep(24 * time.Hour)
		}
		synctest.Wait()
		w.journal.mu.Lock()
		w.journal.dead = true // the next life begins with what was written
		w.journal.mu.Unlock()
		w.end()
		w.journal.dead = false
	}
	return p.judge(w, h, matches)
}

// run plays an attempt. After the death of its process it did not happen.
func (h *history) run(w *world, p *plan, inv whisk.Invocation) (whisk.Activation, error) {
	w.journal.mu.Lock()
	dead := w.journal.dead
	w.journal.mu.Unlock()
	if dead {
		return whisk.Activation{}, errCrash
	}
	h.mu.Lock()
	h.ran[inv.ActivationID]++
	h.mu.Unlock()
	digit := int(inv.ActivationID[31])
	time.Sleep(time.Duration(digit%4) * 500 * time.Millisecond) // some calls outlive their wait of a second
	return ended(inv, p.outcomes[digit%len(p.outcomes)]), nil
}

// judge returns all that is wrong with the end of a history.
func (p *plan) judge(w *world, h *history, matches []whisk.Match) []string {
	var faults []string
	bad := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	ends, verdicts := map[whisk.Match]int{}, map[uint64]bool{}
	records, starts, dead := map[string]int{}, map[string]int{}, map[whisk.Match]bool{}
	for _, e := range w.journal.entries {
		switch e.Kind {
		case whisk.EntryVerdict:
			verdicts[e.Verdict.Event.Seq] = true
		case whisk.EntryStart:
			starts[e.ActivationID]++
		case whisk.EntryRecord:
			records[e.Record.ID]++
			if e.Final {
				ends[e.Match]++
			}
			if e.Final && e.Match.Invoke == "" && e.Record.Outcome == whisk.WhiskError {
				bad("match %v ended undelivered, and no dead letter tells", e.Match)
			}
		case whisk.EntryDead:
			ends[e.Match]++
			dead[e.Match] = true
		}
	}
	for _, a := range w.journal.calls {
		records[a.ID]++
	}
	for id, n := range h.ran {
		if n > 1 {
			bad("activation %s ran %d times", id, n)
		}
	}
	for id, n := range records {
		if n > 1 {
			bad("activation %s was recorded %d times", id, n)
		}
	}
	for id, n := range starts {
		if n > 1 {
			bad("activation %s was started %d times", id, n)
		}
		if records[id] == 0 {
			bad("activation %s was started and has no record", id)
		}
	}
	for _, m := range matches {
		if m.Event != 0 && !verdicts[m.Event] {
			continue // the process died before its verdict was written
		}
		if ends[m] != 1 {
			bad("match %v ended %d times: %s", m, ends[m], w.journal.kinds(m))
		}
	}
	letters := map[whisk.Match]map[string]bool{}
	for _, l := range w.journal.letters {
		if letters[l.Match] == nil {
			letters[l.Match] = map[string]bool{}
		}
		letters[l.Match][l.ID] = true
	}
	for m := range maps.Keys(letters) {
		if !dead[m] || len(letters[m]) != 1 {
			bad("match %v has %d different dead letters: %s", m, len(letters[m]), w.journal.kinds(m))
		}
	}
	for m := range dead {
		if len(letters[m]) == 0 {
			bad("match %v is dead without a letter", m)
		}
	}
	if n := w.count(); n != 0 {
		bad("%d are counted as undone at the end", n)
	}
	return faults
}
