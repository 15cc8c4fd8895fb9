package journal

import (
	"slices"

	"github.com/millrace/millrace/internal/whisk"
)

// phase is how far the last attempt of a match has come.
type phase uint8

const (
	// The order counts: a later phase of one attempt outranks an earlier one.
	waiting   phase = iota // the next attempt has not begun; there may be earlier ones
	started                // it runs, or the process died while it ran
	recorded               // it failed and another follows when it is due
	exhausted              // it was the last one and a dead letter is to follow
	done
)

// originShift leaves room for 2^20 matches in one message.
//
// An origin is the sequence of the message that made a match, and the match's
// number in it. It is the order of dispatch, and a carry keeps it: nothing
// loses its turn by being written again.
const originShift = 20

// node is one match that is not done, or not yet known to be done for good.
type node struct {
	match    whisk.Match
	event    string        // its event's ID; empty for an invocation
	pending  whisk.Pending // without event, invoke, Started and Exhausted
	phase    phase
	origin   uint64 // 0: only a start or a record is known, its verdict is lost
	held     uint64 // the message that must not be trimmed because of it
	body     place  // where its invoke or its carry lies
	size     int64  // bytes that carrying it takes, about
	carried  bool
	filled   int64 // the ledger's count of others' bytes when it was last carried
	released bool  // done, and flushed: no longer held
}

// rank orders the states of a match: of two the higher one counts. Entries may
// come twice or late: a carry says again what a start or record said, and a
// judged gap comes after records that outlived their verdicts. Taking the
// maximum makes the result the same in every order.
func (n *node) rank() int { return rankOf(len(n.pending.Attempts), n.phase) }

func rankOf(attempt int, p phase) int {
	if p == done {
		// Nothing follows done, whatever the number of the attempt.
		return int(^uint(0) >> 1)
	}
	return attempt*int(done) + int(p)
}

// afterFlush is what happens to a node once everything up to seq is flushed.
// Until then the old message holds: after a power cut it may be all there is.
type afterFlush struct {
	seq     uint64
	node    *node
	carried bool // else it is done
}

// ledger knows what became of every match since Low. It is pure: told of the
// entries in the order of the journal, and of flushes. Not safe for concurrent
// use.
//
// Of two truths it keeps both apart: what is written (phases, which decide what
// runs) and what is flushed (queues, which decide what may be trimmed).
type ledger struct {
	nodes map[whisk.Match]*node
	// What is undone holds up the trim of JOURNAL by its message, and that of
	// EVENTS by its event until it is carried.
	fresh   queue // by message, not carried yet
	carried queue // by message of the carry
	events  queue // by event, not carried yet
	after   []afterFlush

	flushed uint64 // the last message known to be on stable storage
	bytes   int64  // the bodies of all that is undone
	filled  int64  // bytes of messages that were not carries, ever, as the stream counts them
	undone  int

	// While the journal is read at start, finals whose verdict has not been
	// seen are kept: they count if the verdict turns out to be lost.
	replaying bool
}

func newLedger() *ledger {
	return &ledger{
		nodes:   map[whisk.Match]*node{},
		carried: queue{carried: true},
		events:  queue{byEvent: true},
	}
}

// apply takes note of entry number n of message seq. matches is how many
// matches that message's earlier entries made; apply returns the new count.
func (l *ledger) apply(e *stored, at place, matches int) int {
	seq := at.seq()
	switch e.Kind {
	case whisk.EntryVerdict:
		for i := range e.Verdict.Rules {
			r := &e.Verdict.Rules[i]
			if r.Decision == whisk.Matched {
				l.match(e.Verdict, r, at, seq<<originShift|uint64(matches))
				// Only matches count, alike in writing and in replay: both must
				// give a match the same origin.
				matches++
			}
		}
	case whisk.EntryInvoke:
		l.invoke(e, at, seq<<originShift|uint64(matches))
		matches++
	case whisk.EntryStart:
		l.start(e)
	case whisk.EntryRecord:
		l.record(e, at)
	case whisk.EntryDead:
		l.finish(e.Match, at)
	case whisk.EntryCarry:
		l.carry(e, at)
	}
	return matches
}

func (l *ledger) match(v *whisk.Verdict, r *whisk.RuleVerdict, at place, origin uint64) {
	m := whisk.Match{Event: v.Event.Seq, Rule: r.Rule}
	n := l.nodes[m]
	if n != nil && !n.of(v.Event.ID, r.ActivationID) {
		// The sequence was given out again after a power cut: this is
		// another event, and what became of the first says nothing about it.
		l.release(n)
		n = nil
	}
	// The node may also stem from a record alone, whose verdict a power cut
	// took: then origin is 0, and this verdict completes it.
	if n != nil && n.origin != 0 {
		return // judged already: that verdict stands
	}
	if n == nil {
		n = l.node(m)
	}
	n.event, n.origin = v.Event.ID, origin
	n.pending.Rule, n.pending.Action, n.pending.Since = r.Revision, r.Action, v.At
	l.hold(n, at.seq(), int64(v.Size))
}

// of reports whether n may be a match of the event with this ID, whose first
// attempt has that one.
//
// A node that knows only starts and records has no event ID. The ID of a first
// attempt is derived from the event, so it tells as well. What can't be told
// apart is taken for the same: an attempt that ran is not run again.
func (n *node) of(event, first string) bool {
	if n.event != "" {
		return n.event == event
	}
	a := n.pending.Attempts
	return len(a) == 0 || a[0].ActivationID == "" || first == "" || a[0].ActivationID == first
}

func (l *ledger) invoke(e *stored, at place, origin uint64) {
	n := l.nodes[e.Match]
	if n == nil {
		n = l.node(e.Match)
	}
	if n.origin != 0 {
		return
	}
	n.origin, n.body = origin, at
	n.pending.Action, n.pending.Since = e.Invoke.Action, e.Invoke.Invocation.Received
	l.hold(n, at.seq(), int64(len(e.Invoke.Invocation.Payload)))
}

func (l *ledger) start(e *stored) {
	n := l.nodes[e.Match]
	if n == nil {
		// A late start of a match that is done and gone. While the journal is
		// read its verdict may still come.
		if !l.replaying {
			return
		}
		n = l.node(e.Match)
	}
	// It tells of something older than is known, from before a carry.
	if rankOf(e.Attempt, started) <= n.rank() {
		return
	}
	a := n.attempt(e.Attempt)
	a.ActivationID, a.Started = e.ActivationID, e.At
	n.phase, n.pending.Due = started, e.Due
}

func (l *ledger) record(e *stored, at place) {
	if e.Final {
		l.finish(e.Match, at)
		return
	}
	n := l.nodes[e.Match]
	if n == nil {
		if !l.replaying {
			return
		}
		n = l.node(e.Match)
	}
	// A record that is not final and has no due time: no attempts are left, and
	// a dead letter must follow. A start that finds this finishes it.
	p := recorded
	if e.Due.IsZero() {
		p = exhausted
	}
	if rankOf(e.Attempt, p) <= n.rank() {
		return
	}
	a := n.attempt(e.Attempt)
	if e.Record != nil {
		*a = e.Record.Attempt(e.Due)
	}
	a.Due = e.Due
	n.phase, n.pending.Due = p, e.Due
}

// attempt returns the attempt with this number, from 1, making room for it.
func (n *node) attempt(number int) *whisk.Attempt {
	number = max(number, 1)
	for len(n.pending.Attempts) < number {
		n.pending.Attempts = append(n.pending.Attempts, whisk.Attempt{})
	}
	return &n.pending.Attempts[number-1]
}

func (l *ledger) finish(m whisk.Match, at place) {
	n := l.nodes[m]
	if n == nil {
		if !l.replaying {
			return
		}
		n = l.node(m)
	}
	if n.phase == done {
		return
	}
	n.phase = done
	// It runs no more from here on, but holds its messages until the record is
	// flushed: a power cut must find either the match undone or its record.
	l.after = append(l.after, afterFlush{seq: at.seq(), node: n})
}

func (l *ledger) carry(e *stored, at place) {
	p := e.Carry
	n := l.nodes[p.Match]
	// As in match: the sequence has been given out again to another event.
	if n != nil && n.event != "" && n.event != p.EventID {
		l.release(n)
		n = nil
	}
	if n == nil {
		// Its verdict lies below Low: the carry is all there is to know.
		n = l.node(p.Match)
	}
	if n.origin == 0 {
		n.event, n.origin = p.EventID, p.Origin
		n.pending.Rule, n.pending.Action, n.pending.Since = p.Rule, p.Action, p.Since
		l.hold(n, at.seq(), carriedSize(p))
	} else if n.held != 0 {
		// The first size was the payload as the archive has it; from here on
		// what the carry takes counts.
		l.bytes -= n.size
		n.size = carriedSize(p) + nodeOverhead
		if e.body != "" {
			n.size = nodeOverhead // an object has it
		}
		l.bytes += n.size
	}
	if ph := phaseOf(p); rankOf(len(p.Attempts), ph) > n.rank() {
		n.pending.Attempts, n.pending.Due, n.phase = p.Attempts, p.Due, ph
	}
	// The body is read from the carry at once, but the trim goes by the old
	// place until the carry is flushed.
	n.body, n.filled = at, l.filled
	l.after = append(l.after, afterFlush{seq: at.seq(), node: n, carried: true})
}

// phaseOf is the phase that a carry tells: view in reverse.
func phaseOf(p *whisk.Pending) phase {
	switch {
	case p.Exhausted:
		return exhausted
	case p.Started:
		return started
	case len(p.Attempts) > 0:
		return recorded
	}
	return waiting
}

// carriedSize is about what p takes in the journal.
func carriedSize(p *whisk.Pending) int64 {
	n := 0
	if p.Event != nil {
		n = len(p.Event.Payload) + len(p.Event.Meta)
	}
	if p.Invoke != nil {
		n = len(p.Invoke.Invocation.Payload)
	}
	return int64(n)
}

// node makes a node that holds nothing up: its origin is 0 until a verdict, an
// invoke or a carry is known.
func (l *ledger) node(m whisk.Match) *node {
	n := &node{match: m}
	l.nodes[m] = n
	return n
}

// nodeOverhead is what a carry takes besides its body, about, in bytes.
const nodeOverhead = 512

// hold makes n hold up the trims: its verdict, invoke or carry is in message
// seq. A match that is done already (its record outlived its verdict) holds
// nothing.
func (l *ledger) hold(n *node, seq uint64, size int64) {
	if n.phase == done {
		l.release(n)
		return
	}
	n.held, n.size = seq, size+nodeOverhead
	l.bytes += n.size
	l.undone++
	l.fresh.push(n)
	if n.match.Event != 0 {
		l.events.push(n)
	}
}

// release ends what hold began.
func (l *ledger) release(n *node) {
	delete(l.nodes, n.match)
	if n.released {
		return
	}
	n.released = true
	if n.held == 0 {
		return
	}
	l.bytes -= n.size
	l.undone--
	l.leave(n, n.carried)
}

// leave tells the queues that n was in that it is there no more.
//
// Queues are only told the number: searching them would cost as much as they
// are long.
func (l *ledger) leave(n *node, carried bool) {
	if carried {
		l.carried.gone()
		return
	}
	l.fresh.gone()
	if n.match.Event != 0 {
		l.events.gone()
	}
}

// settle is told that all messages up to seq are flushed: what was done in
// them is released, and what was carried in them is held there.
func (l *ledger) settle(seq uint64) {
	l.flushed = max(l.flushed, seq)
	i := 0
	// after is in the order of messages, so what is flushed is its beginning.
	for ; i < len(l.after) && l.after[i].seq <= l.flushed; i++ {
		n := l.after[i].node
		switch {
		case n.released:
		case !l.after[i].carried:
			// While reading, a final without verdict stays: if its event lies
			// in a gap and is judged again, this keeps it from running again.
			if !l.replaying || n.origin != 0 {
				l.release(n)
			}
		default:
			l.moved(n, l.after[i].seq)
		}
	}
	l.after = slices.Delete(l.after, 0, i)
}

// moved makes n be held by its carry in message seq instead.
func (l *ledger) moved(n *node, seq uint64) {
	before := n.carried
	n.carried, n.held = true, seq
	l.leave(n, before)
	l.carried.push(n)
}

// low is the oldest message that is still needed: one that holds something
// undone, else the one after the last that is flushed.
//
// It only grows while the process lives: new entries lie above flushed, and a
// carry moves its match up.
func (l *ledger) low() uint64 {
	low := l.flushed + 1
	for _, q := range []*queue{&l.fresh, &l.carried} {
		if n := q.head(); n != nil {
			low = min(low, n.held)
		}
	}
	return low
}

// floor is the oldest event that something undone needs; 0 for none.
func (l *ledger) floor() uint64 {
	if n := l.events.head(); n != nil {
		return n.match.Event
	}
	return 0
}

// endReplay forgets the finals and starts that were kept for verdicts which
// may be lost, save for events that are to be judged again.
func (l *ledger) endReplay(gaps ranges) {
	l.replaying = false
	for m, n := range l.nodes {
		lost := n.origin == 0
		// What is done holds nothing. What has no verdict and lies in no gap
		// belongs to a match that ended below Low.
		if n.phase == done && !lost || lost && !gaps.has(m.Event) {
			l.release(n)
		}
	}
}

// void forgets every match of an event above last: the archive does not have
// those events any more. Those sequences will be given out again, and a new
// event must not inherit the attempts of a lost one.
func (l *ledger) void(last uint64) {
	for m, n := range l.nodes {
		if m.Event > last {
			l.release(n)
		}
	}
}

// view returns what n is as its users see it, without body.
func (n *node) view() whisk.Pending {
	p := n.pending
	p.Match, p.Seq, p.Origin, p.EventID = n.match, n.match.Event, n.origin, n.event
	// The caller may keep it, and the ledger goes on writing into its own.
	p.Attempts = slices.Clone(p.Attempts)
	p.Started, p.Exhausted = n.phase == started, n.phase == exhausted
	return p
}

// pendings returns all that is undone, by original place.
func (l *ledger) pendings() []whisk.Pending {
	out := make([]whisk.Pending, 0, l.undone)
	for _, n := range l.nodes {
		if n.origin != 0 && n.phase != done {
			out = append(out, n.view())
		}
	}
	slices.SortFunc(out, func(a, b whisk.Pending) int {
		if a.Origin < b.Origin {
			return -1
		}
		return 1
	})
	return out
}
