package invoker

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// worker is a container in the pool. All of it is under the invoker's lock
// but what is set when it is made and what only the job that holds it uses.
type worker struct {
	c      Container
	speak  runner
	logs   *logbook
	spec   Spec
	memory int64
	cell   *cellSet // the set it waits in; nil once it serves a queue

	q       *queue
	loaded  bool // its code is there
	since   time.Time
	used    bool // it ran a job: what it has printed is somebody's
	paused  bool
	busy    bool // a job, or a pause, holds it
	removed bool
}

// push puts e at the end of q, or straight into a container. An idle container
// is only taken past the queue when nobody waits in it: else a newcomer would
// overtake. Before Run everything waits. The caller holds mu.
func (v *Invoker) push(q *queue, e *entry) {
	if v.phase == open && q.waiting.len() == 0 && len(q.idle) > 0 {
		v.assign(q.takeIdle(), q, e)
		return
	}
	q.waiting.push(e)
	v.noteHungry(q)
	if v.phase == open {
		v.pump()
	}
}

// noteHungry puts q on the list that pump works through. A queue whose waiting
// jobs are on no such list would be forgotten until its next job, and its jobs
// not handed back at the end.
func (v *Invoker) noteHungry(q *queue) {
	if !q.hungry {
		q.hungry = true
		v.hungry = append(v.hungry, q)
	}
}

// takeIdle returns the container that was used last. The others grow old, so
// that a queue with little to do shrinks to what it needs.
func (q *queue) takeIdle() *worker {
	w := q.idle[len(q.idle)-1]
	q.idle = q.idle[:len(q.idle)-1]
	return w
}

// pump gives containers to jobs that wait: oldest job first, idle containers,
// then stem cells, then new ones. A queue without any container that must wait
// for memory keeps it reserved: nobody else gets a new one before it does.
func (v *Invoker) pump() {
	if !v.phase.runs() || len(v.hungry) == 0 {
		return
	}
	now := time.Now()
	// A queue may have emptied since it was listed: containers that finish
	// take jobs as well.
	v.hungry = slices.DeleteFunc(v.hungry, func(q *queue) bool {
		q.hungry = q.waiting.len() > 0
		return !q.hungry
	})
	if len(v.hungry) > 1 {
		slices.SortFunc(v.hungry, func(a, b *queue) int { return cmp.Compare(a.waiting.first().place, b.waiting.first().place) })
	}
	reserved, unmet := false, false
	for _, q := range slices.Clone(v.hungry) {
		for q.waiting.len() > 0 && len(q.idle) > 0 {
			v.assign(q.takeIdle(), q, q.waiting.pop())
		}
		// Told by goroutines: a job's Done may take long, and may come back
		// for the lock.
		if q.err != nil {
			for q.waiting.len() > 0 {
				e := q.waiting.pop()
				v.busy.Go(func() { v.refuse(q, e, *q.err) })
			}
			v.forget(q)
			continue
		}
		for n := q.want(now, v.startTime(q), v.cores); n > 0 && !reserved; n-- {
			if v.begun >= v.starts {
				unmet = true
				break
			}
			if !v.grow(q, now) {
				// Those behind q would take each piece of memory as it comes
				// free, and an action of large containers would starve among
				// small ones. A queue that has a container is served anyway
				// and reserves nothing.
				reserved = q.have() == 0
				unmet = true
				break
			}
		}
		unmet = unmet || q.waiting.len() > 0
	}
	if unmet {
		v.lookAgain()
		return
	}
	for _, q := range v.hungry { // nobody waits any more
		q.hungry = false
	}
	v.hungry = v.hungry[:0]
	v.planCells()
}

// lookAgain has pump called when jobs that run have run for longer: how long
// they take may only show by then.
func (v *Invoker) lookAgain() {
	const soon = 20 * time.Millisecond
	if v.recheck == nil {
		v.recheck = time.AfterFunc(soon, func() {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.pump()
		})
		return
	}
	v.recheck.Reset(soon)
}

// startTime is how long q would wait for one more container.
func (v *Invoker) startTime(q *queue) time.Duration {
	d := v.startup[q.spec.Kind]
	if d == 0 {
		// A guess for a kind of which none was started yet.
		d = 100 * time.Millisecond
	}
	return max(d+q.load, 10*time.Millisecond)
}

// grow gets q one more container and reports whether it could.
func (v *Invoker) grow(q *queue, now time.Time) bool {
	q.grew = now
	if w := v.takeCell(q); w != nil {
		v.assign(w, q, q.waiting.pop())
		return true
	}
	if !v.makeRoom(q, now) {
		return false
	}
	// Counted before the container is there: two of them must not be promised
	// the same memory.
	v.used += q.memory
	v.begun++
	q.starting++
	// The job stays in the queue meanwhile. A container that comes free
	// earlier may take it, and the new one then takes the next.
	e := q.waiting.first()
	v.busy.Go(func() { v.create(q, e) })
	return true
}

// makeRoom reports whether there is memory for one more container of q. If
// not, but idle ones of others would make enough room, it has them removed and
// q will be asked again. A queue that has containers already takes no stem
// cells and nothing that was used just now.
func (v *Invoker) makeRoom(q *queue, now time.Time) bool {
	short := v.used + q.memory - v.memory
	if short <= 0 {
		return true
	}
	// What is being removed will do. Memory is free when a container is gone,
	// not when its removal begins: until then its processes may still hold it.
	if short -= v.leaving; short <= 0 {
		return false
	}
	starving := q.have() == 0
	var list []*worker
	var sum int64
	for w := range v.all {
		old := starving || w.cell == nil && now.Sub(w.since) > time.Second
		if !w.busy && !w.removed && w.q != q && old {
			list = append(list, w)
			sum += w.memory
		}
	}
	// All of them would not be enough: then none goes for nothing.
	if sum < short {
		return false
	}
	// Warm containers go first, the one unused for longest before others, and
	// stem cells last: a cell serves every action of its kind.
	slices.SortFunc(list, func(a, b *worker) int {
		if (a.cell == nil) != (b.cell == nil) {
			if a.cell == nil {
				return -1
			}
			return 1
		}
		return a.since.Compare(b.since)
	})
	for _, w := range list {
		if short <= 0 {
			break
		}
		short -= w.memory
		v.remove(w, "memory")
	}
	return false
}

// create makes a container for q. If that fails and q has none, the job e it
// was made for gets the error.
func (v *Invoker) create(q *queue, e *entry) {
	began := time.Now()
	w, err := v.start(q.spec)
	v.mu.Lock()
	v.begun--
	q.starting--
	if err == nil && v.phase.runs() {
		v.startup[q.spec.Kind] = average(v.startup[q.spec.Kind], time.Since(began))
		v.adopt(w, q)
		if q.waiting.len() > 0 {
			v.assign(w, q, q.waiting.pop())
		} else {
			q.idle = append(q.idle, w)
		}
		v.pump()
		v.mu.Unlock()
		return
	}
	v.used -= q.memory
	var failed *entry
	if err != nil && q.have() == 0 && q.waiting.len() > 0 && q.waiting.first() == e {
		// Only the job that the container was meant for, and only if no other
		// container can serve it. Otherwise one failed start would fail jobs
		// that are about to run.
		failed = q.waiting.pop()
	}
	v.forget(q)
	v.pump()
	v.mu.Unlock()
	if err == nil {
		v.discard(w)
		return
	}
	v.log.Warn("container not started", slog.String("action", q.path), slog.String("kind", q.spec.Kind), slog.Any("err", err))
	if failed != nil {
		r := fail(whisk.WhiskError, textProvision)
		// The driver says so of what the action's developer can mend, such as
		// an image that cannot be pulled. They are told why; of our own faults
		// they are told only that there was one.
		if errors.Is(err, whisk.Invalid) {
			r = fail(whisk.DeveloperError, whisk.Message(err))
		}
		v.refuse(q, failed, r)
	}
}

// start makes a container and waits until it answers.
func (v *Invoker) start(spec Spec) (*worker, error) {
	c, err := v.driver.Create(v.base, spec)
	if err != nil {
		return nil, err
	}
	w := &worker{c: c, spec: spec, memory: int64(spec.Memory) << 20, since: time.Now()}
	if spec.Launcher == "" {
		// No launcher: the image serves HTTP.
		w.speak = &httpRunner{c: c}
	} else {
		w.speak = &frameRunner{c: c, native: spec.Launcher == nativeLauncher}
	}
	w.logs = newLogbook(c.Logs())
	ctx, cancel := context.WithTimeout(v.base, startTimeout)
	defer cancel()
	defer context.AfterFunc(v.base, w.speak.close)() // nobody waits for it after the end
	// A launcher must have answered once before the container counts as there.
	// One that dies while it starts fails here, where nothing of a job is
	// lost, and a stem cell has its start wholly behind it.
	if err := w.speak.ready(ctx); err != nil {
		lines := w.logs.take()
		v.discard(w)
		// The last line that it printed is the likeliest to tell why.
		if len(lines) > 0 {
			err = errors.Join(err, errors.New(lines[len(lines)-1]))
		}
		return nil, whisk.E(whisk.Internal, "wait for container", err)
	}
	return w, nil
}

// ended reports whether the container has ended by itself. What ends while no
// job holds it is removed at once; with a job, when that is done.
func (w *worker) ended() bool {
	select {
	case <-w.c.Done():
		return true
	default:
		return false
	}
}

// adopt puts w into the pool and watches for its end.
func (v *Invoker) adopt(w *worker, q *queue) {
	w.q = q
	v.all[w] = struct{}{}
	v.busy.Go(func() {
		<-w.c.Done()
		v.mu.Lock()
		defer v.mu.Unlock()
		// With a job it is for release to remove it: the job may still be
		// collecting its logs and the reason of its end.
		if !w.busy {
			v.remove(w, "ended")
			v.pump()
		}
	})
}

// assign has w run e, and what follows in the queue.
func (v *Invoker) assign(w *worker, q *queue, e *entry) {
	w.busy, w.q = true, q
	q.working++
	v.running++
	v.busy.Go(func() { v.serve(w, q, e) })
}

// release takes w back from a job and returns its next one, if that is at
// once. Keep says whether the container may be used again.
func (v *Invoker) release(w *worker, q *queue, keep bool) *entry {
	v.mu.Lock()
	defer v.mu.Unlock()
	// The next job of the same queue goes straight into the same container: no
	// goroutine, no list and no search is between two short jobs. Busy,
	// working and running stay as they are.
	if keep && v.phase.runs() && q.waiting.len() > 0 && !w.ended() && !v.yields(q, w) {
		return q.waiting.pop()
	}
	w.busy = false
	w.since = time.Now()
	q.working--
	v.running--
	switch {
	case !keep || v.phase > draining:
		v.remove(w, "failed")
	case w.ended():
		v.remove(w, "ended")
	case v.phase.runs() && v.yields(q, w):
		v.remove(w, "yielded")
	default:
		q.idle = append(q.idle, w)
	}
	v.pump()
	return nil
}

// yields reports whether w must go because another action has waited for
// memory much longer than q's next job has waited at all.
func (v *Invoker) yields(q *queue, w *worker) bool {
	// The usual case, told without a look at the list: nobody waits, or q
	// alone does.
	if len(v.hungry) < 2 && (q.waiting.len() > 0 || len(v.hungry) == 0) {
		return false
	}
	for _, o := range v.hungry {
		// Only a queue without any container starves. Others are slow at
		// worst.
		if o == q || o.have() > 0 || o.waiting.len() == 0 || o.err != nil {
			continue
		}
		short := v.used + o.memory - v.memory - v.leaving
		if short <= 0 {
			continue
		}
		waits := o.waiting.first().arrived
		if q.waiting.len() == 0 || q.waiting.first().arrived.Sub(waits) > patience || time.Since(waits) > 10*patience && q.waiting.first().place > o.waiting.first().place {
			return true
		}
	}
	return false
}

// remove takes w out of the pool and destroys it.
func (v *Invoker) remove(w *worker, why string) {
	if w.removed {
		return
	}
	w.removed = true
	delete(v.all, w)
	if w.cell != nil {
		w.cell.idle = without(w.cell.idle, w)
		// A cell that ends by itself counts as one that did not start. Else
		// one whose image ends after a moment would be replaced without end.
		if why == "ended" {
			w.cell.failed(time.Now())
		}
	}
	if q := w.q; q != nil {
		q.idle = without(q.idle, w)
		v.forget(q)
	}
	// The memory stays counted as used until the container is gone.
	v.leaving += w.memory
	v.log.Debug("container removed", slog.String("container", w.c.ID()), slog.String("kind", w.spec.Kind), slog.String("why", why))
	v.busy.Go(func() {
		v.discard(w)
		v.mu.Lock()
		defer v.mu.Unlock()
		v.leaving -= w.memory
		v.used -= w.memory
		v.planCells()
		v.pump()
	})
}

func without(list []*worker, w *worker) []*worker {
	return slices.DeleteFunc(list, func(o *worker) bool { return o == w })
}

// discard destroys a container that is in no list.
func (v *Invoker) discard(w *worker) {
	// Also after the end of base: a container that is not removed outlives the
	// server.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(v.base), removeTimeout)
	defer cancel()
	if err := w.c.Remove(ctx); err != nil {
		v.log.Warn("container not removed", slog.String("container", w.c.ID()), slog.Any("err", err))
	}
	w.speak.close()
	w.logs.close()
}

// forget drops a queue that nothing uses.
func (v *Invoker) forget(q *queue) {
	if q.waiting.len() == 0 && q.have() == 0 && q.working == 0 && v.queues[q.key] == q {
		delete(v.queues, q.key)
	}
}

// tend pauses and removes what was idle for long.
func (v *Invoker) tend(now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for w := range v.all {
		// Stem cells do not age: they cost memory alone, and are there to be
		// taken at once.
		if w.busy || w.cell != nil {
			continue
		}
		switch idle := now.Sub(w.since); {
		case idle >= v.idle:
			v.remove(w, "idle")
		case idle >= v.grace && !w.paused:
			v.pause(w)
		}
	}
	v.pump()
	v.planCells()
}

// pause stops an idle container. One that does not stop is removed: it might
// not go on either.
func (v *Invoker) pause(w *worker) {
	// Pausing takes a while and is done without the lock. Busy and working
	// keep the container from being taken, removed or found to be missing
	// meanwhile.
	w.busy = true
	w.q.idle = without(w.q.idle, w)
	w.q.working++
	v.busy.Go(func() {
		ctx, cancel := context.WithTimeout(v.base, pauseTimeout)
		defer cancel()
		err := w.c.Pause(ctx)
		v.mu.Lock()
		defer v.mu.Unlock()
		w.busy, w.paused = false, err == nil
		w.q.working--
		if err != nil || v.phase > draining || w.ended() {
			v.remove(w, "pause")
		} else {
			// At the front: those that still run are taken before those that
			// must be resumed first.
			w.q.idle = append([]*worker{w}, w.q.idle...)
		}
		v.pump()
	})
}
