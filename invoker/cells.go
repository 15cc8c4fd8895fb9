package invoker

import (
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// cellKey is what a stem cell must have in common with the container that is
// wanted.
type cellKey struct {
	kind   string
	memory int // MiB
}

// cellSet are the stem cells of one sort: containers that are started and have
// no code yet.
type cellSet struct {
	spec     Spec
	want     int
	idle     []*worker
	starting int
	failures int       // in a row: it did not start, or ended before anybody took it
	rest     time.Time // no more are tried before, after too many of these
}

const (
	maxCellFailures = 3 // in a row, before a rest: the first job of the kind will tell why
	cellRest        = time.Minute
)

// failed counts a stem cell that nobody could use.
func (s *cellSet) failed(now time.Time) {
	if s.failures++; s.failures >= maxCellFailures {
		s.failures, s.rest = 0, now.Add(cellRest)
	}
}

// setCells reads from the runtimes which stem cells to keep. An amount of
// memory that cannot be read asks for no cell.
func (v *Invoker) setCells() {
	for _, r := range v.runtimes.All() {
		for _, c := range r.StemCells {
			// "256 MB", "256MB" and "256m" are all 256 MiB.
			digits, _, _ := strings.Cut(strings.TrimSpace(c.Memory), " ")
			memory, err := strconv.Atoi(strings.TrimRight(digits, "MBmb"))
			if n := min(c.Count, v.cellMax); err == nil && n > 0 {
				spec := Spec{Kind: r.Kind, Image: r.Image.String(), Launcher: r.Launcher, Memory: memory, Env: v.environment()}
				spec.Marked = r.Launcher == "" && (r.Sentinelled == nil || *r.Sentinelled)
				v.cells[cellKey{r.Kind, memory}] = &cellSet{spec: spec, want: n}
			}
		}
	}
}

// planCells starts stem cells that are missing, while nothing else needs to be
// started and there is memory that nobody uses. The caller holds mu.
func (v *Invoker) planCells() {
	// Jobs that wait come first: a cell would take the memory and the start
	// that they wait for.
	if v.phase != open || len(v.hungry) > 0 {
		return
	}
	for _, set := range v.cells {
		memory := int64(set.spec.Memory) << 20
		for len(set.idle)+set.starting < set.want && !time.Now().Before(set.rest) &&
			v.begun < v.starts && v.used+memory <= v.memory {
			v.used += memory
			v.begun++
			set.starting++
			v.busy.Go(func() { v.makeCell(set, memory) })
		}
	}
}

// makeCell starts one cell of set, for which memory was reserved.
func (v *Invoker) makeCell(set *cellSet, memory int64) {
	began := time.Now()
	w, err := v.start(set.spec)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.begun--
	set.starting--
	switch {
	case err != nil:
		v.used -= memory
		set.failed(time.Now())
		if v.phase == open {
			v.log.Warn("stem cell not started", slog.String("kind", set.spec.Kind), slog.Any("err", err))
		}
	case v.phase != open:
		v.used -= memory
		v.busy.Go(func() { v.discard(w) })
	default:
		v.startup[set.spec.Kind] = average(v.startup[set.spec.Kind], time.Since(began))
		w.cell = set
		set.idle = append(set.idle, w)
		v.adopt(w, nil)
	}
	v.planCells()
	v.pump()
}

// takeCell returns a stem cell that fits q, or nil, and has it replaced.
func (v *Invoker) takeCell(q *queue) *worker {
	set := v.cells[cellKey{q.spec.Kind, q.spec.Memory}]
	if set == nil || len(set.idle) == 0 {
		return nil
	}
	w := set.idle[0] // the oldest: it has had the most time to settle
	set.idle = set.idle[1:]
	// Somebody could use one: the row of failures has ended.
	set.failures = 0
	w.cell = nil
	return w
}
