package journal

import "slices"

// queue holds nodes in the order of what they hold up, oldest first. What has
// gone is skipped, and swept out when it is half of all: every step is O(1) in
// the mean, whatever stays undone for long.
type queue struct {
	items   []item
	from    int // items before it are used up
	stale   int // gone ones at or after from
	byEvent bool
	carried bool // holds nodes that were carried; the others leave when they are
}

// item remembers under which message n was pushed: one that is carried again
// has left its old place although it is still undone.
type item struct {
	n    *node
	held uint64
}

// left reports whether an item stands for nothing any more: its match is over,
// or held in another place.
func (q *queue) left(i item) bool {
	if q.carried {
		return i.n.released || i.n.held != i.held
	}
	return i.n.released || i.n.carried
}

// key is what the queue is in order of.
func (q *queue) key(i item) uint64 {
	if q.byEvent {
		return i.n.match.Event
	}
	return i.held
}

// push puts n in its place: nearly always the end. Only events of a gap are
// judged later than younger ones.
func (q *queue) push(n *node) {
	it := item{n, n.held}
	i := len(q.items)
	for i > q.from && q.key(q.items[i-1]) > q.key(it) {
		i--
	}
	q.items = slices.Insert(q.items, i, it)
}

// gone is told that a node has left.
func (q *queue) gone() {
	q.stale++
	// A short queue is not worth a sweep.
	if n := len(q.items) - q.from; q.stale > 64 && q.stale > n/2 {
		q.sweep()
	}
}

// sweep moves what stays to the front, in order, and lets the rest be
// collected.
func (q *queue) sweep() {
	kept := q.items[:0]
	for _, it := range q.items[q.from:] {
		if !q.left(it) {
			kept = append(kept, it)
		}
	}
	clear(q.items[len(kept):])
	q.items, q.from, q.stale = kept, 0, 0
}

// head returns the oldest node, nil if there is none.
func (q *queue) head() *node {
	for q.from < len(q.items) {
		if it := q.items[q.from]; !q.left(it) {
			return it.n
		}
		// The array lives on: it must not keep the node alive.
		q.items[q.from] = item{}
		q.from++
		q.stale = max(q.stale-1, 0)
	}
	q.items, q.from, q.stale = q.items[:0], 0, 0
	return nil
}

// each calls fn for the nodes from the oldest on until it returns false.
func (q *queue) each(fn func(*node) bool) {
	for _, it := range q.items[q.from:] {
		if !q.left(it) && !fn(it.n) {
			return
		}
	}
}
