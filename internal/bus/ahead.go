package bus

import (
	"cmp"
	"context"
	"slices"
	"sync"
)

// Bounds of what is read ahead: the messages of one run, and how many runs are
// remembered, one for each queue that works through the archive.
const (
	aheadCount = 64
	aheadBytes = 1 << 20
	aheadRuns  = 16
	// aheadNear is how far from the end of a run a read may be and still go on
	// with it: a queue is not read in strict order, nor is every event its.
	aheadNear = 64
)

// readAhead answers reads of single messages of the archive. A queue that is
// far behind wants one event after the other, and each costs as much by itself
// as twenty together.
type readAhead struct {
	reading sync.Mutex // held while the store is asked; before mu

	mu   sync.Mutex
	runs []run // the one used last is last
}

// run is a part of the archive, from its first message on.
type run struct{ msgs []Message }

// last is the sequence of the newest message.
func (r *run) last() uint64 { return r.msgs[len(r.msgs)-1].Seq }

// archiveMessage returns the message of a sequence of EVENTS. NotFound.
func (b *Bus) archiveMessage(ctx context.Context, seq uint64) (Message, error) {
	a := &b.ahead
	if m, ok := a.find(seq); ok {
		return m, nil
	}
	// One read at a time: those who want the next messages of the same run come
	// together, and the first one's read serves them all.
	a.reading.Lock()
	defer a.reading.Unlock()
	if m, ok := a.find(seq); ok {
		return m, nil
	}
	// A first read is of one message alone: only a second one close behind it
	// shows that somebody works through.
	var r run
	var err error
	follows := a.follows(seq)
	if follows {
		r.msgs, err = b.Read(ctx, StreamEvents, seq, aheadCount, aheadBytes)
	} else {
		r.msgs, err = b.direct(ctx, StreamEvents, map[string]any{"seq": seq})
	}
	if err != nil {
		return Message{}, err
	}
	m, ok := r.get(seq)
	if !ok {
		return Message{}, notThere(StreamEvents, seq)
	}
	a.keep(r, follows)
	return m, nil
}

// find returns a message that was read.
func (a *readAhead) find(seq uint64) (Message, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.runs {
		if m, ok := a.runs[i].get(seq); ok {
			a.use(i)
			return m, true
		}
	}
	return Message{}, false
}

// near returns the run that a sequence goes on with; -1 for none. The caller
// holds mu.
func (a *readAhead) near(seq uint64) int {
	return slices.IndexFunc(a.runs, func(r run) bool { return seq > r.last() && seq-r.last() <= aheadNear })
}

func (a *readAhead) follows(seq uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.near(seq) >= 0
}

// keep remembers a run, in the place of the one that it follows.
func (a *readAhead) keep(r run, follows bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if follows {
		i := a.near(r.msgs[0].Seq)
		a.runs[i] = r
		a.use(i)
		return
	}
	if len(a.runs) == aheadRuns {
		// The one that was used longest ago.
		a.runs = slices.Delete(a.runs, 0, 1)
	}
	a.runs = append(a.runs, r)
}

// use moves a run to the end.
func (a *readAhead) use(i int) {
	r := a.runs[i]
	a.runs = append(slices.Delete(a.runs, i, i+1), r)
}

func (r *run) get(seq uint64) (Message, bool) {
	i, ok := slices.BinarySearchFunc(r.msgs, seq, func(m Message, seq uint64) int { return cmp.Compare(m.Seq, seq) })
	if !ok {
		return Message{}, false
	}
	return r.msgs[i], true
}
