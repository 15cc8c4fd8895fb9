package delivery

import (
	"container/heap"
	"context"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// item is a match, or a blocking call, on its way to its end.
//
// It is small on purpose: a hundred thousand may wait. The event is fetched
// when its turn comes.
type item struct {
	match    whisk.Match
	event    string         // the ID of the event; empty for an invocation
	revision whisk.Revision // of the rule, when it matched
	line     *line
	since    time.Time       // when it was matched, or accepted
	due      time.Time       // when its next attempt is
	attempts []whisk.Attempt // those that have ended
	size     int64           // bytes of its body, about
	once     bool            // an invocation that is never retried
	invoke   *whisk.Invoke   // its body while it is kept in memory
	call     *call           // set for a blocking call
}

// line is what is undone of one action, first come, first served. The head of
// it is at the invoker: so many that no container ever waits for the next. It
// is made with its first item and forgotten with its last, so its memory goes
// by what is undone, not by how many actions there are.
type line struct {
	name    whisk.Name
	waiting fifo[*item]
	out     int  // at the invoker
	open    bool // it is among Delivery.open
	undone  int  // all: waiting, out, or to be tried later
}

// enqueue counts an item and puts it into the line of its action.
func (d *Delivery) enqueue(it *item, action whisk.Name) {
	d.hold(it, action)
	d.push(it)
}

// hold counts an item as undone.
func (d *Delivery) hold(it *item, action whisk.Name) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lines[action]
	if l == nil {
		l = &line{name: action}
		d.lines[action] = l
	}
	it.line = l
	l.undone++
	d.count++
	d.bytes += it.size + overhead
}

// finish ends an item: it is done, or left to the next start. It must be called
// once for each item that was held.
func (d *Delivery) finish(it *item) {
	d.mu.Lock()
	defer d.mu.Unlock()
	wasFull := d.full()
	l := it.line
	if l.undone--; l.undone == 0 {
		delete(d.lines, l.name)
	}
	d.count--
	d.bytes -= it.size + overhead
	// Only on the way down: closing wakes all who wait, and they ask anew.
	if wasFull && !d.full() {
		d.holding = nil
		close(d.room)
		d.room = make(chan struct{})
	}
}

// full must be called with mu held, as longest.
func (d *Delivery) full() bool { return d.count >= d.maxCount || d.bytes >= d.maxBytes }

// longest is the line that most of what is undone stands in.
func (d *Delivery) longest() *line {
	var most *line
	for _, l := range d.lines {
		if most == nil || l.undone > most.undone {
			most = l
		}
	}
	return most
}

// push puts a counted item at the end of its line.
func (d *Delivery) push(it *item) {
	d.mu.Lock()
	if d.stopped {
		d.mu.Unlock()
		if it.call != nil {
			it.call.refuse(errStopped())
		}
		return
	}
	it.line.waiting.push(it)
	d.offer(it.line)
	d.mu.Unlock()
	d.poke()
}

// offer lets the pump look at a line, with mu held.
func (d *Delivery) offer(l *line) {
	// Once among open, however many wait: the lines then take turns, and a long
	// one does not hold up a short one.
	if !l.open && l.out < window && l.waiting.len() > 0 {
		l.open = true
		d.open.push(l)
	}
}

// back notes that the invoker is through with a job of the line.
func (d *Delivery) back(l *line) {
	d.mu.Lock()
	l.out--
	d.offer(l)
	d.mu.Unlock()
	d.poke()
}

// postpone puts a counted item aside until it is due.
func (d *Delivery) postpone(it *item) {
	d.mu.Lock()
	heap.Push(&d.later, it)
	d.mu.Unlock()
	d.poke()
}

// next returns the item to submit next; or nil and when one is due, the zero
// time if none waits for its time. Lines take turns.
func (d *Delivery) next(now time.Time) (*item, time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.later) > 0 && !d.later[0].due.After(now) {
		it := heap.Pop(&d.later).(*item)
		// At the end: a retry does not overtake what has waited since.
		it.line.waiting.push(it)
		d.offer(it.line)
	}
	for l, ok := d.open.pop(); ok; l, ok = d.open.pop() {
		l.open = false
		it, ok := l.waiting.pop()
		if !ok {
			continue
		}
		l.out++
		d.offer(l)
		return it, time.Time{}
	}
	if len(d.later) > 0 {
		return nil, d.later[0].due
	}
	return nil, time.Time{}
}

// chore has f done by a worker.
func (d *Delivery) chore(f func(context.Context)) {
	d.mu.Lock()
	d.chores.push(f)
	d.mu.Unlock()
	d.poke()
}

// startWorker reports whether one more worker should start, and counts it.
func (d *Delivery) startWorker() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	// No more workers than there are chores: mostly there are none of either.
	if d.working >= min(workers, d.chores.len()) {
		return false
	}
	d.working++
	return true
}

// work does chores until there are none, or the delivery stops.
func (d *Delivery) work(ctx context.Context) {
	for {
		d.mu.Lock()
		f, ok := d.chores.pop()
		// What is left of the chores is in the journal, and the next start
		// finds it.
		if !ok || d.stopped {
			d.working--
			d.mu.Unlock()
			return
		}
		d.mu.Unlock()
		f(ctx)
	}
}

// fifo is a queue in one slice. The zero value is empty.
type fifo[T any] struct {
	items []T
	head  int
}

func (q *fifo[T]) len() int { return len(q.items) - q.head }

func (q *fifo[T]) push(v T) {
	// Moved to the front when more than half is used up: each value moves once
	// in the mean.
	if q.head > len(q.items)/2 {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, v)
}

func (q *fifo[T]) pop() (v T, ok bool) {
	if q.len() == 0 {
		return v, false
	}
	var none T
	// The slot is cleared, so that the array does not keep the value alive.
	v, q.items[q.head] = q.items[q.head], none
	if q.head++; q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
		if cap(q.items) > 1024 {
			q.items = nil // a long queue does not keep its memory for ever
		}
	}
	return v, true
}

// dueHeap holds the items that wait for their time, the next one first. It has
// no order among items that are due at the same time.
type dueHeap []*item

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(*item)) }
func (h *dueHeap) Pop() any {
	old := *h
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return it
}
