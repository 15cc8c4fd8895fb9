package invoker

import (
	"sync"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// Bounds of what begins before a container is free for it. What has begun and
// not run when the process dies counts as a failed attempt, so it must be
// little: what one container runs in aheadTime.
const (
	aheadTime = 2 * time.Millisecond
	aheadMost = 16
)

// beginning is the beginning of one job, whoever asks for it first. A sync.Once
// serves: the container that takes the job waits for a beginning that is under
// way, and one that has begun finds the outcome.
type beginning struct {
	once  sync.Once
	asked bool // somebody is at it, or was; under the invoker's lock
	err   error
}

// begin has e begin, if it has not, and returns the error of that. It may wait
// for the job's store, so the caller does not hold mu.
func (v *Invoker) begin(e *entry) error {
	e.beginning.once.Do(func() {
		var inv whisk.Invocation
		if inv, e.beginning.err = e.job.Begin(v.base); e.beginning.err == nil {
			e.inv = &inv
		}
	})
	return e.beginning.err
}

// beginAhead has the next jobs of q begin while others run. A short job takes
// less time than its beginning, which writes that it has started: a container
// that waited for that before each job would be idle most of the time. The
// caller holds mu.
func (v *Invoker) beginAhead(q *queue) {
	// Nothing is known of how long its jobs take: none may begin that would
	// not run soon.
	if q.mean == 0 {
		return
	}
	next := q.waiting.all()
	for _, e := range next[:min(len(next), int(aheadTime/q.mean), aheadMost)] {
		if !e.beginning.asked {
			e.beginning.asked = true
			v.crew.do(func() { v.begin(e) }, v.busy.Go) //nolint:errcheck // whoever runs it is told
		}
	}
}

// leave enters a phase of the end and returns the jobs that will not run: those
// that have not begun, when the drain begins; all that wait, when it is over.
func (v *Invoker) leave(p phase) (back []*entry) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.phase = p
	for _, q := range v.hungry {
		var stay []*entry
		for _, e := range q.waiting.all() {
			if e.beginning.asked && p == draining {
				stay = append(stay, e)
			} else {
				back = append(back, e)
			}
		}
		// Those that have begun run within the drain: an attempt that was
		// begun and not run would count as one that failed.
		q.waiting = fifo{list: stay}
	}
	return back
}

// handBack tells a job that it will not run. One whose beginning is under way
// is waited for: what it writes must not come after its end.
func (v *Invoker) handBack(e *entry) {
	v.mu.Lock()
	asked := e.beginning.asked
	v.mu.Unlock()
	if asked {
		v.begin(e) //nolint:errcheck // it is not run either way
	}
	v.done(e, whisk.Activation{}, whisk.E(whisk.Unavailable, "run action", errStopped))
}
