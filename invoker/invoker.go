// Package invoker runs actions in containers.
//
// A queue holds the waiting jobs of one action (of one namespace, at one
// revision, with one set of init parameters), first come, first served. The
// pool lends a container to the head of a queue: a warm one of its own, else a
// stem cell of the right kind and memory, else a new one, as the memory budget
// allows. The code is loaded by /init unless the container is warm, called by
// /run, and the answer, the output and the times become an activation record.
//
// What differs between ways to make a container is behind Driver; what differs
// between our launchers and stock images is behind an unexported runner. The
// package does not know where jobs come from or where records go.
package invoker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// Invoker runs jobs. Its methods are safe for concurrent use.
type Invoker struct {
	driver   Driver
	runtimes whisk.Runtimes // those that the driver offers
	missing  map[string]error
	noImages error // why blackbox images cannot be run; nil if they can
	code     Code
	log      *slog.Logger
	settings

	// Base ends when nothing may work any more: later than the context of
	// Run, by the drain time. All that a job waits for is under it.
	calls  atomic.Int64   // jobs submitted and not done
	jobs   sync.WaitGroup // the same, to be waited for
	busy   sync.WaitGroup // goroutines
	crew   crew           // those for what takes a moment
	base   context.Context
	cancel context.CancelFunc

	// Guards all that follows and the fields of queues, workers and cell sets
	// that say so. It is never held while a driver, a container or a job's
	// functions are called: these may take long, and Done may submit another
	// job.
	mu      sync.Mutex
	phase   phase
	queues  map[key]*queue
	hungry  []*queue // those with jobs that wait, in no order
	cells   map[cellKey]*cellSet
	all     map[*worker]struct{}
	used    int64 // bytes of containers that are, or are being made or removed
	leaving int64 // bytes of those being removed
	running int   // containers that work
	begun   int   // containers being made
	arrival uint64
	startup map[string]time.Duration // by kind: how long until a new container answers
	recheck *time.Timer
}

// phase is where the invoker is in its life. It only goes up.
type phase int

const (
	fresh    phase = iota // jobs may come, none runs yet
	open                  // Run is in charge
	draining              // no new jobs; those that have begun run
	closed                // what still runs is being killed
)

// runs reports whether jobs may be given containers.
func (p phase) runs() bool { return p == open || p == draining }

// errStopped is the cause of every Unavailable of a stop: the job was not run
// to its end here and may be tried elsewhere, or after a restart.
var errStopped = errors.New("the invoker was stopped")

// New returns an invoker of containers made by d. Of the runtimes rt it offers
// those that d can make, which it finds out now, until ctx ends. It starts
// nothing: jobs wait for Run.
func New(ctx context.Context, d Driver, rt whisk.Runtimes, code Code, log *slog.Logger, opts ...Option) *Invoker {
	v := &Invoker{
		driver: d, code: code, log: log, settings: defaults(), missing: map[string]error{},
		queues: map[key]*queue{}, cells: map[cellKey]*cellSet{}, all: map[*worker]struct{}{},
		startup: map[string]time.Duration{},
	}
	for _, o := range opts {
		o(&v.settings)
	}
	// All kinds are asked at once: an answer may take as long as the download
	// of an image.
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, r := range rt.All() {
		wg.Go(func() {
			if err := d.Offers(ctx, r); err != nil {
				mu.Lock()
				v.missing[r.Kind] = err
				mu.Unlock()
			}
		})
	}
	v.noImages = d.Offers(ctx, whisk.Runtime{Kind: whisk.KindBlackbox})
	wg.Wait()
	v.runtimes = rt.Keep(func(r whisk.Runtime) bool { return v.missing[r.Kind] == nil })
	v.base, v.cancel = context.WithCancel(context.WithoutCancel(ctx)) // ends with Run, which outlives its own context by the drain
	v.crew = crew{work: make(chan func()), quit: v.base.Done()}
	return v
}

// Kinds returns the runtimes on offer.
func (v *Invoker) Kinds() whisk.Runtimes { return v.runtimes }

// Missing returns why the other kinds of the runtimes it was given are not on
// offer, by kind.
func (v *Invoker) Missing() map[string]error { return v.missing }

// Submit puts a job into its action's queue. It returns Unavailable once the
// invoker is told to stop. It does not wait for anything.
func (v *Invoker) Submit(job whisk.Job) error {
	run := &job.Runnable
	if run.Action.Exec.Kind == whisk.KindBuiltin {
		return v.submitBuiltin(job)
	}
	k := keyOf(run, job.Namespace)
	v.mu.Lock()
	defer v.mu.Unlock()
	// Refused under the same lock that leave takes: a job is either in a queue
	// before the phase changes, and then handed back, or never accepted.
	if v.phase > open {
		return whisk.E(whisk.Unavailable, "submit", errStopped)
	}
	v.calls.Add(1)
	v.jobs.Add(1)
	q := v.queueOf(k, run)
	v.arrival++
	v.push(q, &entry{job: job, arrived: time.Now(), place: v.arrival})
	return nil
}

// Busy returns how many jobs were submitted and are not done.
func (v *Invoker) Busy() int { return int(v.calls.Load()) }

// Run lets jobs run until ctx ends. Then what waits is handed back with an
// Unavailable error, what runs may finish within the drain time, and all
// containers are removed.
func (v *Invoker) Run(ctx context.Context) error {
	// Before any container of this life is made. What a dead process left
	// behind holds memory that the budget does not know of; that it cannot be
	// removed is no reason not to serve.
	if n, err := v.driver.Sweep(ctx); err != nil {
		v.log.WarnContext(ctx, "sweep of old containers", slog.Any("err", err))
	} else if n > 0 {
		v.log.InfoContext(ctx, "old containers removed", slog.Int("count", n))
	}
	v.mu.Lock()
	if v.phase != fresh {
		v.mu.Unlock()
		return fmt.Errorf("run invoker: it ran before")
	}
	v.phase = open
	v.setCells()
	v.pump()
	v.planCells()
	v.mu.Unlock()

	// Fine enough for the shortest time set, and at least once a second: the
	// tick also wakes queues that nothing else would look at.
	every := time.NewTicker(min(time.Second, max(v.idle/4, time.Millisecond), max(v.grace/2, time.Millisecond)))
	defer every.Stop()
	for {
		select {
		case now := <-every.C:
			v.tend(now)
			continue
		case <-ctx.Done():
		}
		break
	}
	v.stop()
	return nil
}

// stop is what follows the end of Run's context.
func (v *Invoker) stop() {
	// First the phase, so that nobody adds to what is waited for.
	for _, e := range v.leave(draining) {
		v.handBack(e)
	}
	drained := make(chan struct{})
	// WaitGroup has no wait with a limit. The goroutine ends in any case: stop
	// itself waits for drained at the end.
	go func() {
		v.jobs.Wait()
		close(drained)
	}()
	timer := time.NewTimer(v.drain)
	defer timer.Stop()
	select {
	case <-drained:
	case <-timer.C:
		v.log.Warn("activations cut off by the end of the drain time", slog.Int("count", v.Busy()))
	}
	// The order matters. Phase closed lets no container go back to its queue;
	// removing the containers ends the calls of the jobs that run; the end of
	// base ends what waits for anything else. Only then can every job have
	// been told its end, and only then is nothing left that could start a
	// goroutine.
	back := v.leave(closed)
	v.mu.Lock()
	if v.recheck != nil {
		v.recheck.Stop()
	}
	for w := range v.all {
		v.remove(w, "stop")
	}
	v.mu.Unlock()
	v.cancel()
	for _, e := range back {
		v.busy.Go(func() { v.handBack(e) })
	}
	<-drained
	v.busy.Wait()
}
