package store

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// row is one stored value. It is never changed: a write replaces it. So it can
// be handed out without a lock.
type row struct {
	rev   uint64 // sequence in the bucket's stream
	kind  string
	value any   // of the kind's type; nil for a mark of deletion or when it can't be read
	err   error // why it can't be read
	gone  bool  // deleted: the mark stays until the stream's is removed
	since time.Time
}

// rows is the memory copy of a bucket. Safe for concurrent use.
//
// Rows are kept twice: by name for Get, by kind and namespace for List, which
// would otherwise look at all there is.
type rows struct {
	mu    sync.RWMutex
	all   map[whisk.Name]row // marks of deletions included
	index map[indexKey]map[whisk.Name]row

	watchers map[*watcher]struct{}
	changed  func(kind string) // told the kind of every change, under no lock
}

// indexKey is what lists ask for.
type indexKey struct{ kind, namespace string }

// change is a row for a name.
type change struct {
	name whisk.Name
	row  row
}

func newRows(changed func(kind string)) *rows {
	return &rows{
		all: map[whisk.Name]row{}, index: map[indexKey]map[whisk.Name]row{},
		watchers: map[*watcher]struct{}{}, changed: changed,
	}
}

// get returns the row of a name; the zero row when there never was one, or
// nothing is left of it.
func (r *rows) get(n whisk.Name) row {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.all[n]
}

// set takes changes in, all at once. One that is not newer than what is there
// is dropped: the writer has put it in already, or has gone further. All under
// one lock: what was written in one step is seen in one step.
func (r *rows) set(cs ...change) {
	var kinds []string
	r.mu.Lock()
	for _, c := range cs {
		old := r.all[c.name]
		// Both the writer and the reader of the stream put in what was written,
		// in any order.
		if c.row.rev <= old.rev {
			continue
		}
		r.all[c.name] = c.row
		r.unindex(c.name, old)
		if !c.row.gone {
			r.addIndex(c.name, c.row)
		}
		kinds = append(kinds, r.notify(c.name, old, c.row)...)
	}
	r.mu.Unlock()
	r.tell(kinds)
}

// tell says which kinds have changed, each once.
func (r *rows) tell(kinds []string) {
	slices.Sort(kinds)
	for _, k := range slices.Compact(kinds) {
		r.changed(k)
	}
}

// forget removes what is not newer than rev and not among seen: what a bucket
// read anew did not hold any more.
func (r *rows) forget(rev uint64, seen map[whisk.Name]struct{}) {
	var kinds []string
	r.mu.Lock()
	for n, old := range r.all {
		if _, ok := seen[n]; ok || old.rev > rev {
			continue
		}
		delete(r.all, n)
		r.unindex(n, old)
		kinds = append(kinds, r.notify(n, old, row{gone: true})...)
	}
	r.mu.Unlock()
	r.tell(kinds)
}

// unmark removes the mark of a deletion, if it is still the one with rev. A
// later write under the name has taken the mark's place already.
func (r *rows) unmark(n whisk.Name, rev uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.all[n]; old.gone && old.rev == rev {
		delete(r.all, n)
	}
}

// marks returns the marks of deletions made before a time.
func (r *rows) marks(before time.Time) []change {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []change
	for n, o := range r.all {
		if o.gone && o.since.Before(before) {
			out = append(out, change{n, o})
		}
	}
	return out
}

// list returns the rows of a kind in a namespace, or in all for "".
func (r *rows) list(kind, namespace string) []row {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if namespace != "" {
		return slices.Collect(maps.Values(r.index[indexKey{kind, namespace}]))
	}
	var out []row
	for k, set := range r.index {
		if k.kind == kind {
			out = slices.AppendSeq(out, maps.Values(set))
		}
	}
	return out
}

// addIndex and unindex keep the second order; the caller holds mu.
func (r *rows) addIndex(n whisk.Name, now row) {
	k := indexKey{now.kind, n.Namespace}
	if r.index[k] == nil {
		r.index[k] = map[whisk.Name]row{}
	}
	r.index[k][n] = now
}

func (r *rows) unindex(n whisk.Name, old row) {
	k := indexKey{old.kind, n.Namespace}
	delete(r.index[k], n)
	if len(r.index[k]) == 0 {
		delete(r.index, k)
	}
}

// notify tells the watchers of the kinds that a change concerns and returns
// those kinds. A name may change its kind: the old kind loses it, the new one
// gets it. The caller holds mu.
func (r *rows) notify(n whisk.Name, old, now row) []string {
	var kinds []string
	if old.rev != 0 && !old.gone {
		kinds = append(kinds, old.kind)
	}
	if !now.gone && !slices.Contains(kinds, now.kind) {
		kinds = append(kinds, now.kind)
	}
	for w := range r.watchers {
		if slices.Contains(kinds, w.kind) {
			w.add(n)
		}
	}
	return kinds
}

// watch adds a watcher that begins with all names of its kind.
func (r *rows) watch(kind string) *watcher {
	w := &watcher{kind: kind, pending: map[whisk.Name]struct{}{}, wake: make(chan struct{}, 1)}
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, set := range r.index {
		if k.kind == kind {
			w.initial = slices.AppendSeq(w.initial, maps.Keys(set))
		}
	}
	// Under the lock that the names were taken under: no change falls in
	// between.
	r.watchers[w] = struct{}{}
	return w
}

func (r *rows) unwatch(w *watcher) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.watchers, w)
}

// watcher collects the names that changed since its reader last asked. A slow
// reader costs no more than the names themselves: of several changes of one
// name it sees the last.
type watcher struct {
	kind    string
	initial []whisk.Name

	mu      sync.Mutex
	queue   []whisk.Name // in the order of their first unread change
	pending map[whisk.Name]struct{}
	wake    chan struct{}
}

func (w *watcher) add(n whisk.Name) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// It waits already, and will be read as it is then.
	if _, ok := w.pending[n]; ok {
		return
	}
	w.pending[n] = struct{}{}
	w.queue = append(w.queue, n)
	select {
	// The reader takes all names at once: one token is enough.
	case w.wake <- struct{}{}:
	default:
	}
}

// take returns the names that wait, and leaves none.
func (w *watcher) take() []whisk.Name {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.queue
	w.queue = nil
	clear(w.pending)
	return out
}
