package invoker

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// key tells apart what must not share a container. With the revision in it, an
// update of the action never meets the code from before. /init puts the init
// parameters into the environment, where the next job would find them. The
// records of a queue share what they say of the binding.
type key struct {
	namespace string // whose activations they are
	action    whisk.Name
	revision  whisk.Revision
	binding   whisk.Name
	env       string // hash of the init parameters
}

// keyOf returns the key of a job as far as it is known before it begins. The
// payload may still change the init parameters, and the invocation the
// namespace: see keyOfBegun.
func keyOf(run *whisk.Runnable, namespace string) key {
	if namespace == "" {
		namespace = run.Action.Name.Namespace
	}
	return key{namespace, run.Action.Name, run.Revision, run.Binding, envHash(initEnv(run.Params))}
}

// entry is a job in a queue.
type entry struct {
	job     whisk.Job
	arrived time.Time
	place   uint64            // in the order of arrival over all queues
	again   bool              // its /init found a dead container once: a second time is a failure
	inv     *whisk.Invocation // set once it has begun
	beginning
}

// queue holds the jobs of one key and knows its containers. All of it is under
// the invoker's lock but what is set when it is made.
type queue struct {
	key    key
	path   string // of the action, for logs and records
	spec   Spec
	memory int64 // bytes
	notes  notes
	err    *response // it can never run: every job gets this

	waiting  fifo
	hungry   bool      // in the invoker's list
	idle     []*worker // the one used last is last
	starting int
	working  int

	mean    time.Duration // how long a job holds a container, by a moving average
	calm    time.Duration // the same, of jobs that did not share a processor
	load    time.Duration // how long /init takes
	started startTimes
	grew    time.Time // when it was last given a container
}

// settle is how long the effect of one more container is watched at least.
const settle = 50 * time.Millisecond

// notes are the annotations that all records of a queue share, and their
// sources.
type notes struct{ path, kind, limits, binding json.RawMessage }

// queueOf returns the queue of k, which is made if there is none, for jobs like
// run. The caller holds mu.
func (v *Invoker) queueOf(k key, run *whisk.Runnable) *queue {
	if q := v.queues[k]; q != nil {
		return q
	}
	q := v.newQueue(k, run)
	q.spec, q.err = v.specOf(&run.Action)
	q.spec.Owner = k.namespace + "/" + run.Action.Name.Entity
	// Larger than all the memory there is: such a queue would keep it reserved
	// and wait for ever.
	if q.err == nil && q.memory > v.memory {
		r := fail(whisk.WhiskError, textProvision)
		q.err = &r
	}
	v.queues[k] = q
	return q
}

// newQueue returns a queue that is in no list. What its records have in common
// is written once here, not for each of them.
func (v *Invoker) newQueue(k key, run *whisk.Runnable) *queue {
	a := &run.Action
	q := &queue{key: k, path: a.Name.Path(), memory: int64(a.Limits.Memory) << 20}
	q.notes = notes{
		path: quote(q.path),
		kind: quote(a.Exec.Kind),
		limits: fmt.Appendf(nil, `{"concurrency":%d,"logs":%d,"memory":%d,"timeout":%d}`,
			a.Limits.Concurrency, a.Limits.Logs, a.Limits.Memory, a.Limits.Timeout),
	}
	if b := run.Binding; !b.IsZero() {
		q.notes.binding = quote(b.Namespace + "/" + b.Entity)
	}
	return q
}

// skeleton is the image that stock clients name when they mean "run this
// program": what our native runtime does.
const skeleton = "openwhisk/dockerskeleton"

// specOf returns what container an action needs, or what its records say when
// there cannot be one.
func (v *Invoker) specOf(a *whisk.Action) (Spec, *response) {
	s := Spec{Kind: a.Exec.Kind, Memory: a.Limits.Memory, Env: v.environment()}
	kind := a.Exec.Kind
	if kind == whisk.KindBlackbox {
		s.Image = a.Exec.Image
		if imageName(s.Image) != skeleton {
			if v.noImages != nil {
				r := fail(whisk.DeveloperError, fmt.Sprintf(textNotPresent, kind))
				return s, &r
			}
			return s, nil
		}
		kind = "native:default"
	}
	r, err := v.runtimes.Find(kind)
	if err != nil {
		r := fail(whisk.WhiskError, fmt.Sprintf(textNotPresent, kind))
		return s, &r
	}
	// The kind that was found, not the one that was asked for: stem cells are
	// kept under that name.
	s.Kind, s.Image, s.Launcher = r.Kind, r.Image.String(), r.Launcher
	// Our launchers need no marks: their output is there before their answer.
	// OpenWhisk's default for other images is that they print them.
	s.Marked = r.Launcher == "" && (r.Sentinelled == nil || *r.Sentinelled)
	return s, nil
}

func (v *Invoker) environment() map[string]string {
	if v.apiHost == "" {
		return nil
	}
	return map[string]string{"__OW_API_HOST": v.apiHost}
}

// imageName returns an image's name without its tag and Docker's own registry.
func imageName(image string) string {
	for _, prefix := range []string{"docker.io/", "index.docker.io/"} {
		if len(image) > len(prefix) && image[:len(prefix)] == prefix {
			image = image[len(prefix):]
		}
	}
	// Not beyond the last slash: a colon before that belongs to a registry's
	// port.
	for i := len(image) - 1; i >= 0 && image[i] != '/'; i-- {
		if image[i] == ':' || image[i] == '@' {
			image = image[:i]
		}
	}
	return image
}

// have returns how many containers serve q or soon will.
func (q *queue) have() int { return q.starting + q.working + len(q.idle) }

// want returns how many more containers q should have: enough that no job
// waits longer than a start takes, unless those that it has will serve it
// sooner, or are slow only because they share the processors.
func (q *queue) want(now time.Time, start time.Duration, cores int) int {
	n, have := q.waiting.len(), q.have()
	if n == 0 {
		return 0
	}
	if have == 0 {
		return 1
	}
	each := q.mean
	if long, longest := q.started.beyond(now, max(8*each, 2*start)); long >= have-q.starting {
		each = max(each, longest) // the average tells nothing of what runs now
	}
	if each < start && q.mean == 0 {
		// Nothing is known of it: processors are all that can be used well.
		return min(n-q.starting, cores-have)
	}
	// Jobs that compute take longer the more of them share the processors. A
	// further container would slow the others by what it gains, and its memory
	// is lost to other actions.
	if have >= cores && q.calm > 0 && q.mean > q.calm+q.calm/2 {
		return 0
	}
	// How many jobs the containers at hand finish while a new one would start:
	// those need no new one.
	soon := int(int64(have) * int64(start) / int64(each+1))
	if n <= soon {
		return 0
	}
	if have >= cores && each < start {
		// More of what is short helps only if it waits for something else than
		// a processor: one more at a time shows whether it does.
		if q.starting > 0 || now.Sub(q.grew) < max(2*start, settle) {
			return 0
		}
		return 1
	}
	// The rest would have to wait for longer than a start. To be through with
	// it in about the time of a start takes late*each/start containers, and
	// never more than one for each of these jobs.
	late := n - soon
	return min(late-q.starting, int(int64(late)*int64(each)/int64(start))+1)
}

// ran tells q how long a job held its container. Calm says that no more jobs
// ran than there are processors, so that d is what the job takes by itself.
func (q *queue) ran(d time.Duration, calm bool) {
	q.mean = average(q.mean, d)
	if calm {
		q.calm = average(q.calm, d)
	}
}

// average is an exponential moving one over the last ten or so.
func average(mean, d time.Duration) time.Duration {
	if mean == 0 {
		// Never 0, which stands for nothing known.
		return max(d, 1)
	}
	return max(mean+(d-mean)/10, 1)
}

// startTimes are when the jobs that run now began, in no order.
type startTimes []time.Time

func (s *startTimes) add(t time.Time) { *s = append(*s, t) }

func (s *startTimes) drop(t time.Time) {
	for i, u := range *s {
		if u.Equal(t) {
			last := len(*s) - 1
			(*s)[i] = (*s)[last]
			*s = (*s)[:last]
			return
		}
	}
}

// beyond returns how many have run for longer than d, and the longest time.
func (s startTimes) beyond(now time.Time, d time.Duration) (n int, longest time.Duration) {
	for _, t := range s {
		run := now.Sub(t)
		longest = max(longest, run)
		if run > d {
			n++
		}
	}
	return n, longest
}

// fifo is a queue of entries that can be put back at its front. Len counts from
// head: what was taken leaves a gap in front, which costs less than moving the
// rest at each pop, and lets put back into it for free.
type fifo struct {
	list []*entry
	head int
}

func (f *fifo) len() int      { return len(f.list) - f.head }
func (f *fifo) first() *entry { return f.list[f.head] }
func (f *fifo) all() []*entry { return f.list[f.head:] }
func (f *fifo) push(e *entry) { f.list = append(f.list, e) }

func (f *fifo) pop() *entry {
	e := f.list[f.head]
	// The array must not keep a finished job, and its payload, alive.
	f.list[f.head] = nil
	f.head++
	if f.head == len(f.list) {
		f.list, f.head = f.list[:0], 0
		// Only when more than half is gap: each entry is then moved once at most
		// on the average, however long the queue is.
	} else if f.head > 64 && f.head > len(f.list)/2 {
		n := copy(f.list, f.list[f.head:])
		clear(f.list[n:])
		f.list, f.head = f.list[:n], 0
	}
	return e
}

// put puts e back where it belongs by its arrival: mostly before all others.
func (f *fifo) put(e *entry) {
	i, _ := slices.BinarySearchFunc(f.all(), e.place, func(o *entry, place uint64) int { return cmp.Compare(o.place, place) })
	if i == 0 && f.head > 0 {
		f.head--
		f.list[f.head] = e
		return
	}
	f.list = slices.Insert(f.list, f.head+i, e)
}
