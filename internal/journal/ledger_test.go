package journal

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/internal/whisk"
)

// modelJournal is a journal of messages and the simplest ledger over it: it
// keeps every entry since the beginning and asks them all.
type modelJournal struct {
	messages [][]stored // message seq is messages[seq-1]
	lows     []uint64   // Low as message seq would tell it
	flushed  uint64
	ledger   *ledger
	events   uint64
	invokes  int
}

func (m *modelJournal) write(es ...stored) {
	m.lows = append(m.lows, m.ledger.low())
	m.messages = append(m.messages, es)
	seq, matches := uint64(len(m.messages)), 0
	for n := range es {
		matches = m.ledger.apply(&es[n], at(inJournal, seq, n), matches)
	}
}

// modelState is what the model knows of a match.
type modelState struct {
	origin  uint64
	attempt int
	phase   phase
	due     time.Time
}

// states asks every entry ever written.
func (m *modelJournal) states() map[whisk.Match]*modelState {
	all := map[whisk.Match]*modelState{}
	for i, es := range m.messages {
		matches := uint64(0)
		for _, e := range es {
			switch e.Kind {
			case whisk.EntryVerdict:
				for _, r := range e.Verdict.Rules {
					all[whisk.Match{Event: e.Verdict.Event.Seq, Rule: r.Rule}] = &modelState{origin: uint64(i+1)<<originShift | matches}
					matches++
				}
			case whisk.EntryInvoke:
				all[e.Match] = &modelState{origin: uint64(i+1)<<originShift | matches}
				matches++
			}
			s := all[e.Match]
			if s == nil || s.phase == done {
				continue
			}
			switch {
			case e.Kind == whisk.EntryStart:
				s.attempt, s.phase, s.due = e.Attempt, started, time.Time{}
			case e.Kind == whisk.EntryDead || e.Kind == whisk.EntryRecord && e.Final:
				s.phase = done
			case e.Kind == whisk.EntryRecord && e.Due.IsZero():
				s.attempt, s.phase, s.due = e.Attempt, exhausted, e.Due
			case e.Kind == whisk.EntryRecord:
				s.attempt, s.phase, s.due = e.Attempt, recorded, e.Due
			}
		}
	}
	return all
}

func (m *modelJournal) undone() []whisk.Match {
	all := m.states()
	var out []whisk.Match
	for match, s := range all {
		if s.phase != done {
			out = append(out, match)
		}
	}
	slices.SortFunc(out, func(a, b whisk.Match) int { return cmp.Compare(all[a].origin, all[b].origin) })
	return out
}

// restart replays from Low into a new ledger, as a start does.
func (m *modelJournal) restart() {
	l := newLedger()
	l.replaying = true
	from := uint64(1)
	if n := len(m.lows); n > 0 {
		from = m.lows[n-1]
	}
	for seq := from; seq <= uint64(len(m.messages)); seq++ {
		es, matches := m.messages[seq-1], 0
		for n := range es {
			matches = l.apply(&es[n], at(inJournal, seq, n), matches)
		}
		l.settle(seq)
	}
	l.settle(uint64(len(m.messages)))
	l.endReplay(nil)
	m.ledger, m.flushed = l, uint64(len(m.messages))
}

func (m *modelJournal) check(t *rapid.T) {
	want := m.undone()
	got := m.ledger.pendings()
	if !slices.Equal(matchesOf(got), want) {
		t.Fatalf("undone = %v, want %v", matchesOf(got), want)
	}
	states := m.states()
	bytes, fresh := int64(0), uint64(0)
	for _, p := range got {
		s := states[p.Match]
		n := m.ledger.nodes[p.Match]
		if n.phase != s.phase || len(p.Attempts) != s.attempt || !p.Due.Equal(s.due) || p.Origin != s.origin {
			t.Fatalf("%v: phase %d attempts %d due %v origin %d, want %+v", p.Match, n.phase, len(p.Attempts), p.Due, p.Origin, s)
		}
		if p.Started != (s.phase == started) || p.Exhausted != (s.phase == exhausted) {
			t.Fatalf("%v: started %v exhausted %v in phase %d", p.Match, p.Started, p.Exhausted, s.phase)
		}
		if low := m.ledger.low(); low > n.held {
			t.Fatalf("Low %d is above %d, which holds %v", low, n.held, p.Match)
		}
		if !n.carried && p.Match.Event != 0 && (fresh == 0 || p.Match.Event < fresh) {
			fresh = p.Match.Event
		}
		bytes += n.size
	}
	if low := m.ledger.low(); low > m.flushed+1 {
		t.Fatalf("Low %d is above what is flushed, %d", low, m.flushed)
	}
	if floor := m.ledger.floor(); fresh != 0 && (floor == 0 || floor > fresh) {
		t.Fatalf("floor %d is above event %d, which is undone", floor, fresh)
	}
	if m.ledger.bytes < bytes {
		t.Fatalf("%d bytes undone, at least %d are", m.ledger.bytes, bytes)
	}
}

// settled checks what holds when everything is flushed.
func (m *modelJournal) settled(t *rapid.T) {
	if len(m.ledger.after) != 0 || m.ledger.undone != len(m.undone()) || len(m.ledger.nodes) != len(m.undone()) {
		t.Fatalf("%d after, %d undone, %d nodes; %d are undone", len(m.ledger.after), m.ledger.undone, len(m.ledger.nodes), len(m.undone()))
	}
	low, floor := uint64(len(m.messages))+1, uint64(0)
	for _, n := range m.ledger.nodes {
		low = min(low, n.held)
		if !n.carried && n.match.Event != 0 && (floor == 0 || n.match.Event < floor) {
			floor = n.match.Event
		}
	}
	if m.ledger.low() != low || m.ledger.floor() != floor {
		t.Fatalf("Low %d floor %d, want %d %d", m.ledger.low(), m.ledger.floor(), low, floor)
	}
}

// pick returns one of the matches that are undone.
func (m *modelJournal) pick(t *rapid.T) (whisk.Match, *modelState) {
	all := m.undone()
	if len(all) == 0 {
		t.Skip("nothing is undone")
	}
	match := rapid.SampledFrom(all).Draw(t, "match")
	return match, m.states()[match]
}

func TestLedgerAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &modelJournal{ledger: newLedger()}
		other := whisk.Name{Namespace: "guest", Entity: "r2"}
		t.Repeat(map[string]func(*rapid.T){
			"verdicts": func(t *rapid.T) {
				var es []stored
				for range rapid.IntRange(1, 3).Draw(t, "events") {
					m.events++
					ev := anEvent(int(m.events))
					ev.Seq = m.events
					v := judge(&ev, []whisk.Name{theRule, other}[:rapid.IntRange(0, 2).Draw(t, "rules")]...)
					es = append(es, stored{Entry: whisk.Entry{Kind: whisk.EntryVerdict, Verdict: &v}})
				}
				m.write(es...)
			},
			"invoke": func(*rapid.T) {
				m.invokes++
				_, e := anInvoke(m.invokes)
				m.write(stored{Entry: e})
			},
			"start": func(t *rapid.T) {
				match, s := m.pick(t)
				if s.phase == started || s.phase == exhausted {
					t.Skip("it has begun")
				}
				m.write(stored{Entry: whisk.Entry{Kind: whisk.EntryStart, Match: match, Attempt: s.attempt + 1, At: epoch}})
			},
			"record": func(t *rapid.T) {
				match, s := m.pick(t)
				if s.phase == exhausted {
					t.Skip("there was the last record")
				}
				e := whisk.Entry{Kind: whisk.EntryRecord, Match: match, Attempt: s.attempt, Final: rapid.Bool().Draw(t, "final")}
				if s.phase != started {
					e.Attempt++
				}
				a := activation(anEvent(1).ID, epoch)
				e.Record = &a
				if !e.Final && rapid.Bool().Draw(t, "again") {
					e.Due = epoch.Add(time.Duration(e.Attempt) * time.Minute)
				}
				m.write(stored{Entry: e})
			},
			"dead": func(t *rapid.T) {
				match, _ := m.pick(t)
				m.write(stored{Entry: whisk.Entry{Kind: whisk.EntryDead, Match: match, Dead: anEvent(1).ID}})
			},
			"carry": func(t *rapid.T) {
				match, _ := m.pick(t)
				p := m.ledger.nodes[match].view()
				m.write(stored{Entry: whisk.Entry{Kind: whisk.EntryCarry, Match: match, Carry: &p}})
			},
			"flush": func(t *rapid.T) {
				m.flushed = uint64(len(m.messages))
				m.ledger.settle(m.flushed)
				m.settled(t)
			},
			"kill": func(t *rapid.T) {
				m.restart()
				m.settled(t)
			},
			"power cut": func(t *rapid.T) {
				m.messages, m.lows = m.messages[:m.flushed], m.lows[:m.flushed]
				m.restart()
				m.settled(t)
				m.events = 0
				for _, es := range m.messages {
					for _, e := range es {
						if e.Verdict != nil {
							m.events = max(m.events, e.Verdict.Event.Seq)
						}
					}
				}
			},
			"": m.check,
		})
	})
}

func TestRangesAgainstSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r ranges
		set := map[uint64]bool{}
		for range rapid.IntRange(0, 12).Draw(t, "steps") {
			from := rapid.Uint64Range(0, 40).Draw(t, "from")
			to := rapid.Uint64Range(0, 40).Draw(t, "to")
			if rapid.IntRange(0, 4).Draw(t, "cut") == 0 {
				r.cut(to)
				for v := range set {
					if v > to {
						delete(set, v)
					}
				}
			} else {
				r.add(from, to)
				for v := from; v <= to; v++ {
					set[v] = true
				}
			}
			for i := 1; i < len(r); i++ {
				if r[i][0] <= r[i-1][1]+1 {
					t.Fatalf("%v is not in order", r)
				}
			}
			missing := map[uint64]bool{}
			for _, g := range r.gaps(5, 30) {
				for v := g[0]; v <= g[1]; v++ {
					missing[v] = true
				}
			}
			for v := range uint64(45) {
				if r.has(v) != set[v] {
					t.Fatalf("%v has %d: %v, want %v", r, v, r.has(v), set[v])
				}
				if in := v >= 5 && v <= 30 && !set[v]; missing[v] != in {
					t.Fatalf("gaps of %v: %d %v, want %v", r, v, missing[v], in)
				}
			}
		}
	})
}

func TestVolumeIsNeverTooLow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := volume{grain: 1000}
		var sizes []int64
		for range rapid.IntRange(1, 200).Draw(t, "messages") {
			n := rapid.IntRange(0, 700).Draw(t, "bytes")
			v.add(uint64(len(sizes)+1), n)
			sizes = append(sizes, int64(n)+messageOverhead)
		}
		low := rapid.Uint64Range(1, uint64(len(sizes))+1).Draw(t, "low")
		v.forget(low)
		exact := int64(0)
		for seq := low; seq <= uint64(len(sizes)); seq++ {
			exact += sizes[seq-1]
		}
		if got := v.since(low); got < exact || got > exact+2*v.grain {
			t.Fatalf("since %d = %d, exactly %d", low, got, exact)
		}
	})
}
