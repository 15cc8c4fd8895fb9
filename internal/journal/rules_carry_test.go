package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/whisk"
)

// fill writes n matches that are done at once, each about size bytes.
func (r *running) fill(b *fakeBus, from, n, size int) {
	r.t.Helper()
	for i := range n {
		evs := b.accept(r.t, anEvent(from+i))
		r.judgeAll(evs...)
		rec := recordOf(&evs[0], 1, whisk.Success)
		rec.Record.Result = append(append([]byte(`{"s":"`), bytes.Repeat([]byte("y"), size)...), `"}`...)
		r.append(rec)
	}
}

func TestRule13ACarryForgetsNothing(t *testing.T) {
	for _, large := range []bool{false, true} {
		b := newFakeBus(64 << 20)
		b.streams[bus.StreamEvents].limit = 1 << 30
		j := openOn(t, b, testOptions(t))
		ev := anEvent(1)
		if large {
			ev.Payload = append(append([]byte(`{"s":"`), bytes.Repeat([]byte("x"), 1<<20)...), `"}`...)
		}
		evs := b.accept(t, ev, anEvent(2))
		j.judgeAll(evs...)
		m, inv := anInvoke(1)
		j.append(inv)
		retry := recordOf(&evs[0], 1, whisk.WhiskError)
		retry.Due = epoch.Add(24 * time.Hour)
		j.append(startOf(&evs[0], 1), retry)
		j.append(startOf(&evs[1], 1))
		before := j.Undone()
		j.mu.Lock()
		last := j.last[inJournal]
		j.mu.Unlock()
		r, err := j.oldest(t.Context(), 1<<40, last+1)
		if err != nil || len(r.parts) != 3 {
			t.Fatalf("%d to carry, %v", len(r.parts), err)
		}
		if err := j.writer.write(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if err := j.flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if low := j.Low(); low != last+1 {
			t.Errorf("Low = %d, want %d: nothing older is needed", low, last+1)
		}
		if floor := j.Floor(); floor != 3 {
			t.Errorf("Floor = %d, want 3: the carries hold the events", floor)
		}
		c := b.kill()
		for name := range map[string]bool{bus.StreamJournal: true, bus.StreamEvents: true} {
			first := map[string]uint64{bus.StreamJournal: last + 1, bus.StreamEvents: 99}[name]
			if err := c.Purge(t.Context(), name, first); err != nil {
				t.Fatal(err)
			}
		}
		j2 := opened(t, c, testOptions(t))
		after := j2.Undone()
		if len(after) != len(before) {
			t.Fatalf("%d undone, were %d", len(after), len(before))
		}
		for i := range before {
			x, y := before[i], after[i]
			if x.Match != y.Match || x.Origin != y.Origin || x.Started != y.Started || !x.Due.Equal(y.Due) || x.Rule != y.Rule ||
				x.Action != y.Action || x.EventID != y.EventID || !x.Since.Equal(y.Since) || len(x.Attempts) != len(y.Attempts) {
				t.Errorf("was  %+v\nis now %+v", x, y)
			}
		}
		p, err := j2.Pending(t.Context(), matchOf(&evs[0]))
		if err != nil || !bytes.Equal(p.Event.Payload, ev.Payload) || p.Event.Seq != evs[0].Seq || p.Event.Accepted.IsZero() || p.Event.ID != ev.ID {
			t.Errorf("the carried event: %v", err)
		}
		if p, err := j2.Pending(t.Context(), m); err != nil || string(p.Invoke.Invocation.Payload) != `{"x":1}` {
			t.Errorf("the carried invocation: %+v, %v", p, err)
		}
		for digest := range b.objects {
			if !j.ObjectInUse(digest) {
				t.Error("the carried event's object is said not to be used")
			}
		}
		j.stop()
	}
}

// What is written while a carry is being made counts: the carry tells the state
// at its own place in the journal.
func TestRule13ACarryTellsWhatIsTrueWhenItIsWritten(t *testing.T) {
	b := newFakeBus(8 << 20)
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, anEvent(1), anEvent(2))
	j.judgeAll(evs...)
	r, err := j.oldest(t.Context(), 1<<40, 1<<40)
	if err != nil || len(r.parts) != 2 {
		t.Fatalf("%d to carry, %v", len(r.parts), err)
	}
	j.append(startOf(&evs[0], 1))
	j.append(recordOf(&evs[1], 1, whisk.Success))
	if err := j.writer.write(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := j.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := opened(t, b.kill(), testOptions(t)).Undone()
	if len(got) != 1 || got[0].Match != matchOf(&evs[0]) || !got[0].Started {
		t.Errorf("undone: %+v", got)
	}
}

// One match stays undone while the journal is written several times over:
// neither trim is held up, and a start reads less than the limit.
func TestRule14WhatStaysUndoneHoldsUpNoTrim(t *testing.T) {
	const limit = 256 << 10
	b := newFakeBus(limit)
	b.streams[bus.StreamEvents].limit = 64 << 10
	o := testOptions(t)
	j := openOn(t, b, o)
	evs := b.accept(t, anEvent(0))
	j.judgeAll(evs...)
	retry := recordOf(&evs[0], 1, whisk.WhiskError)
	retry.Due = epoch.Add(24 * time.Hour)
	j.append(retry)
	worst := int64(0)
	for i := range 40 {
		eventually(t, "room in the archive", func() bool {
			if err := b.Purge(t.Context(), bus.StreamEvents, j.Floor()); err != nil {
				t.Error(err)
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			s := b.streams[bus.StreamEvents]
			return s.bytes < s.limit*3/4
		})
		j.fill(b, 1+20*i, 20, 1000)
		j.mu.Lock()
		worst = max(worst, j.held())
		j.mu.Unlock()
	}
	if j.metric("carries_total") < 3 {
		t.Errorf("%v carries", j.metric("carries_total"))
	}
	if worst > limit*3/4 {
		t.Errorf("a start would have read %d bytes of %d", worst, limit)
	}
	if n := j.metric("carries_total"); n > 20 {
		t.Errorf("%v carries of one match in %d bytes: it was carried again too soon", n, 800*1500)
	}
	p, err := opened(t, b.kill(), testOptions(t)).Pending(t.Context(), matchOf(&evs[0]))
	if err != nil || p.Event == nil || len(p.Attempts) != 1 || !p.Due.Equal(retry.Due) {
		t.Errorf("what stayed undone: %+v, %v", p, err)
	}
}

func TestRule14NothingIsCarriedAgainTooSoon(t *testing.T) {
	b := newFakeBus(1 << 20)
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, anEvent(1))
	j.judgeAll(evs...)
	carry := func() int {
		t.Helper()
		j.mu.Lock()
		nodes := j.chooseCarries(0, 1<<40)
		j.mu.Unlock()
		r, err := j.oldest(t.Context(), 0, 1<<40)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.parts) > 0 {
			if err := j.writer.write(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if err := j.flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		return len(nodes)
	}
	if n := carry(); n != 1 {
		t.Fatalf("%d carried, want 1", n)
	}
	if n := carry(); n != 0 {
		t.Errorf("%d carried again at once", n)
	}
	j.fill(b, 10, 300, 1000) // more than a quarter
	if n := carry(); n != 1 {
		t.Errorf("%d carried again after a quarter of the limit, want 1", n)
	}
}

// Many undone matches fill the journal with messages so small that most of each
// is what the stream adds. A quarter of the journal is a quarter of that, too:
// counted by entries alone, the matches were carried again so late that nothing
// could be trimmed any more, and the writer waited for good.
func TestRule14SmallMessagesFillAQuarterToo(t *testing.T) {
	const limit = 1 << 20
	b := newFakeBus(limit)
	b.streams[bus.StreamEvents].limit = 1 << 30
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, someEvents(0, 400)...)
	j.judgeAll(evs...)
	// Each entry is a message of its own: nobody else writes meanwhile.
	for round := range 20 {
		for i := range evs {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			err := j.Append(ctx, startOf(&evs[i], 1))
			cancel()
			if err != nil {
				t.Fatalf("round %d, start %d: %v; %v bytes are held, %v are undone", round, i, err, j.metric("held_bytes"), j.metric("undone_bytes"))
			}
		}
	}
	if got := len(j.Undone()); got != len(evs) {
		t.Errorf("%d are undone, want %d", got, len(evs))
	}
}

func TestRule15VerdictsWaitAndInvokesAreRefusedWhenFull(t *testing.T) {
	const limit = 256 << 10
	b := newFakeBus(limit)
	b.streams[bus.StreamEvents].limit = 1 << 30
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, someEvents(0, 12)...)
	for i := range evs {
		v := judge(&evs[i], theRule)
		v.Size = 4 << 10 // twelve of them: more than an eighth of the limit
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := j.Verdicts(ctx, evs[i].Seq, v.Event, []whisk.Verdict{v})
		cancel()
		if err != nil && (i < 7 || !errors.Is(err, context.DeadlineExceeded)) {
			t.Fatalf("verdict %d: %v", i, err)
		}
		if err != nil {
			evs = evs[:i]
			break
		}
	}
	if len(evs) == 12 {
		t.Fatal("nothing waits although too much is undone")
	}
	_, inv := anInvoke(1)
	if err := j.Append(t.Context(), inv); !errors.Is(err, whisk.Unavailable) {
		t.Errorf("an invoke gives %v, want Unavailable", err)
	}
	waits := make(chan error, 1)
	next := b.accept(t, anEvent(50))
	go func() {
		v := judge(&next[0], theRule)
		waits <- j.Verdicts(t.Context(), next[0].Seq, v.Event, []whisk.Verdict{v})
	}()
	for i := range evs { // these are not refused, and make room
		j.append(startOf(&evs[i], 1))
		j.append(recordOf(&evs[i], 1, whisk.Success))
	}
	if err := <-waits; err != nil {
		t.Fatal(err)
	}
	eventually(t, "there is room", func() bool { return !j.full() })
	j.append(inv)
}

func TestRule15StartsAndRecordsWaitForATrimWhenTheStreamIsFull(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, anEvent(1))
	j.judgeAll(evs...)
	refused := 0
	b.mu.Lock()
	b.before = func(m *bus.Message) error {
		if refused++; refused <= 10 {
			return whisk.E(whisk.Unavailable, "publish", errors.New("maximum bytes exceeded"))
		}
		return nil
	}
	b.mu.Unlock()
	j.append(startOf(&evs[0], 1))
	if refused <= 10 {
		t.Errorf("%d publishes", refused)
	}
}

// A message may be larger than what the thresholds keep free on a small disk:
// the trim makes the room that it takes.
func TestRule15ALargeMessageFindsRoomInASmallJournal(t *testing.T) {
	const limit = 256 << 10
	b := newFakeBus(limit)
	b.streams[bus.StreamEvents].limit = 1 << 30
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, someEvents(0, 1)...)
	j.judgeAll(evs...)
	held := func() int64 {
		st, _ := b.State(t.Context(), bus.StreamJournal)
		return st.Bytes
	}
	// All done, and just below where a trim begins by itself.
	for held() < limit*15/16-1024 {
		j.durable(recordOf(&evs[0], 1, whisk.Success))
	}
	large := recordOf(&evs[0], 1, whisk.Success)
	large.Record.Result = fmt.Appendf(nil, `{"text":%q}`, strings.Repeat("x", limit/8))
	j.append(large)
	if held() > limit {
		t.Errorf("%d bytes are held, of %d", held(), limit)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.wanted != 0 {
		t.Errorf("room for %d bytes is still wanted", j.wanted)
	}
}

// Starts and records may not take the room that carries need: those go first,
// and make room for all. Else a small journal fills up while its oldest match
// is undone, and nobody can carry that any more.
func TestRule15RoomIsKeptForCarries(t *testing.T) {
	const limit = 1 << 20
	b := newFakeBus(limit)
	b.streams[bus.StreamEvents].limit = 1 << 30
	j := opened(t, b, testOptions(t))
	ev := b.accept(t, anEvent(1))[0]
	v := judge(&ev, theRule)
	v.Size = limit / 8
	j.ledger.apply(&stored{Entry: whisk.Entry{Kind: whisk.EntryVerdict, Verdict: &v}}, at(inJournal, 1, 0), 0)
	j.stored = limit - limit/8
	b.after = func(m *bus.Message) error {
		entries, err := decodeEntries(m.Data)
		if err == nil && entries[0].Kind == whisk.EntryCarry {
			go func() { // the trim comes by
				j.mu.Lock()
				defer j.mu.Unlock()
				j.stored = limit / 8
				j.ease()
			}()
		}
		return err
	}
	record, err := j.request(t.Context(), []whisk.Entry{recordOf(&ev, 1, whisk.WhiskError)})
	if err != nil {
		t.Fatal(err)
	}
	carry, err := j.oldest(t.Context(), ev.Seq+1, 0)
	if err != nil || len(carry.parts) != 1 {
		t.Fatalf("%d carries, %v, want 1", len(carry.parts), err)
	}
	var wg sync.WaitGroup
	for i, r := range []*request{record, carry} {
		wg.Go(func() {
			if err := j.writer.write(t.Context(), r); err != nil {
				t.Error(err)
			}
		})
		eventually(t, "it is in the inbox", func() bool {
			j.writer.mu.Lock()
			defer j.writer.mu.Unlock()
			return len(j.writer.inbox) == i+1
		})
	}
	if err := j.writer.drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if carry.seq != 1 || record.seq != 2 {
		t.Errorf("the carry is message %d and the record %d, want the carry first", carry.seq, record.seq)
	}
}

// The archive's own reserve (rule 16) begins where its floor is not in the way:
// what waits for a retry gives way to new events.
func TestRule16AFullArchiveIsRelievedByCarries(t *testing.T) {
	b := newFakeBus(8 << 20)
	b.streams[bus.StreamEvents].limit = 32 << 10
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, someEvents(0, 60)...) // over a half
	j.judgeAll(evs...)
	eventually(t, "the oldest are carried", func() bool { return j.Floor() > 5 })
	if floor := j.Floor(); floor > 50 {
		t.Errorf("Floor = %d: more is carried than is in the way", floor)
	}
	if n := len(j.Undone()); n != 60 {
		t.Errorf("%d undone", n)
	}
}

func TestRule17TheLimitIsThatOfTheStream(t *testing.T) {
	b := newFakeBus(12345678)
	if j := opened(t, b, testOptions(t)); j.limit != 12345678 {
		t.Errorf("limit %d", j.limit)
	}
	o := testOptions(t)
	o.Limit = 99 << 10
	if j := opened(t, b, o); j.limit != 99<<10 {
		t.Errorf("limit %d", j.limit)
	}
}

func TestRule18MetricsTellWhatIsUndone(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	j.judgeAll(b.accept(t, someEvents(0, 3)...)...)
	if n, size := j.metric("undone"), j.metric("undone_bytes"); n != 3 || size < 3*nodeOverhead {
		t.Errorf("%v undone, %v bytes", n, size)
	}
	if n := j.metric("held_bytes"); n == 0 {
		t.Error("nothing is held")
	}
}
