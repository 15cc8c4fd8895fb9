package bus

import (
	"sync"

	"github.com/millrace/millrace/internal/whisk"
)

// Bounds of the events kept at hand, so that the judge and the queues seldom
// read the store.
const (
	recentCount = 16_384
	recentBytes = 48 << 20
)

// recent holds the newest events by sequence, without gaps, and knows how far
// the archive is acknowledged and flushed.
//
// Events are shared: what get and from return must not be changed.
type recent struct {
	mu      sync.Mutex
	ring    [recentCount]*whisk.Event // by sequence modulo; nil for a cursor
	low     uint64                    // the oldest sequence in the ring
	last    uint64                    // the newest acknowledged sequence, in the ring if low <= last
	durable uint64                    // the newest flushed sequence
	bytes   int
	grown   chan struct{} // closed when durable rises
}

// newRecent starts after a sequence that is on stable storage.
func newRecent(last uint64) *recent {
	return &recent{low: last + 1, last: last, durable: last, grown: make(chan struct{})}
}

// add takes the event, or nil for a cursor, that was given a sequence. Calls
// come in the order of the sequences.
func (r *recent) add(seq uint64, ev *whisk.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if seq != r.last+1 { // an acknowledgement was lost: begin anew behind it
		for s := r.low; s <= r.last; s++ {
			r.ring[s%recentCount] = nil
		}
		r.low, r.bytes = seq, 0
	}
	// Room is made before the event is put in: its place may be another's.
	r.last = seq
	for r.low+recentCount <= seq || r.bytes > recentBytes && r.low < seq {
		if old := r.ring[r.low%recentCount]; old != nil {
			r.bytes -= len(old.Payload)
			r.ring[r.low%recentCount] = nil
		}
		r.low++
	}
	if ev != nil {
		r.ring[seq%recentCount] = ev
		r.bytes += len(ev.Payload)
	}
}

// acked returns the newest acknowledged sequence. Answers come in the order of
// the stream, so all below it are acknowledged too.
func (r *recent) acked() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// flushed says that everything up to a sequence is on stable storage.
func (r *recent) flushed(seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if seq > r.durable {
		r.durable = seq
		close(r.grown)
		r.grown = make(chan struct{})
	}
}

// get returns the event of a sequence if it is at hand, and whether anything
// of that sequence may be shown.
func (r *recent) get(seq uint64) (ev *whisk.Event, flushed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// Below the ring the store has it; above durable nobody may see it.
	if seq < r.low || seq > r.durable {
		return nil, seq <= r.durable
	}
	return r.ring[seq%recentCount], true
}

// from returns up to most flushed events from a sequence on. When the ring
// does not reach back that far, known is false; when nothing is there yet, grown tells.
func (r *recent) from(seq uint64, most int) (evs []whisk.Event, durable uint64, known bool, grown <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if seq > r.durable {
		return nil, r.durable, true, r.grown
	}
	if seq < r.low {
		return nil, r.durable, false, nil
	}
	for ; seq <= r.durable && len(evs) < most; seq++ {
		if ev := r.ring[seq%recentCount]; ev != nil {
			evs = append(evs, *ev)
		}
	}
	return evs, r.durable, true, r.grown
}
