package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/whisk"
)

func TestRule19TrimNeverPassesTheIndexNorWhatIsUndone(t *testing.T) {
	b := newFakeBus(64 << 10)
	b.streams[bus.StreamEvents].limit = 1 << 30
	j := opened(t, b, testOptions(t))
	j.index.mu.Lock()
	j.index.done[inJournal].seq = 20 // as if it had not come further
	j.index.mu.Unlock()
	for i := range 60 {
		b.mu.Lock()
		s := b.streams[bus.StreamJournal]
		s.last++
		s.msgs = append(s.msgs, bus.Message{Seq: s.last, Time: time.Now(), Data: make([]byte, 1000)})
		s.bytes += 1000 + messageOverhead
		b.mu.Unlock()
		j.ledger.settle(uint64(i + 1))
	}
	for range 5 {
		if err := j.trim(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	st, _ := b.State(t.Context(), bus.StreamJournal)
	if st.First > 20 {
		t.Errorf("the first message is %d, the index is at 20", st.First)
	}
	j.index.mu.Lock()
	j.index.done[inJournal].seq = 60
	j.index.mu.Unlock()
	ev := anEvent(1)
	ev.Seq = 1
	v := judge(&ev, theRule)
	j.ledger.apply(&stored{Entry: whisk.Entry{Kind: whisk.EntryVerdict, Verdict: &v}}, at(inJournal, 30, 0), 0)
	j.limit = 16 << 10
	for range 20 {
		if err := j.trim(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// The message below Low stays too: it tells how far judging had come.
	if st, _ := b.State(t.Context(), bus.StreamJournal); st.First != 29 {
		t.Errorf("the first message is %d, 30 holds something undone", st.First)
	}
	j.ledger.finish(matchOf(&ev), at(inJournal, 60, 0))
	j.ledger.settle(60)
	for range 20 {
		if err := j.trim(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if st, _ := b.State(t.Context(), bus.StreamJournal); st.Messages == 0 || st.Last != 60 || st.First < 40 {
		t.Errorf("left %d..%d: room was wanted, and the last message stays", st.First, st.Last)
	}
}

func TestRule19WhatIsOlderThanSevenDaysGoes(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	j.fill(b, 0, 20, 10)
	eventually(t, "all indexed", func() bool { return j.index.lag() == 0 && j.Low() == j.lastOf(inJournal)+1 })
	b.mu.Lock()
	s := b.streams[bus.StreamJournal]
	for i := range s.msgs[:30] {
		s.msgs[i].Time = time.Now().Add(-8 * 24 * time.Hour)
	}
	b.mu.Unlock()
	eventually(t, "trimmed", func() bool { st, _ := b.State(t.Context(), bus.StreamJournal); return st.First == 31 })
	eventually(t, "expired", func() bool {
		n, err := j.CountActivations(t.Context(), Query{Namespace: "guest", Name: "p/a"})
		return err == nil && n == 5
	})
}

func TestRule20FloorLeavesCursorsToTheBus(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, anEvent(1))
	if _, err := b.Publish(t.Context(), bus.Message{Subject: "cur.x"}, nil); err != nil {
		t.Fatal(err)
	}
	// A range that ends in a cursor: its place has no ID.
	if err := j.Verdicts(t.Context(), 1, whisk.Place{Seq: 2}, []whisk.Verdict{judge(&evs[0])}); err != nil {
		t.Fatal(err)
	}
	if err := j.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f := j.Floor(); f != 3 {
		t.Errorf("Floor = %d, want 3", f)
	}
	if got := opened(t, b.kill(), testOptions(t)).Judged(); got.Seq != 2 {
		t.Errorf("Judged after a restart = %v", got)
	}
}

func TestRule21MessagesAreBounded(t *testing.T) {
	b := newFakeBus(1 << 30)
	b.streams[bus.StreamEvents].limit = 1 << 30
	j := openOn(t, b, testOptions(t))
	// 2,500 events, each verdict with 20 rules: about 7 MB in one call.
	evs := b.accept(t, someEvents(0, 2500)...)
	var vs []whisk.Verdict
	for i := range evs {
		var rules []whisk.Name
		for r := range 20 {
			rules = append(rules, whisk.Name{Namespace: "guest", Entity: fmt.Sprint("rule-", r)})
		}
		vs = append(vs, judge(&evs[i], rules...))
	}
	if err := j.Verdicts(t.Context(), 1, vs[2499].Event, vs); err != nil {
		t.Fatal(err)
	}
	next := uint64(1)
	for _, m := range b.streams[bus.StreamJournal].msgs {
		h, err := readHeaders(&m)
		if err != nil {
			t.Fatal(err)
		}
		es, err := decodeEntries(m.Data)
		if err != nil || len(es) == 0 || len(es) > maxEntries || len(m.Data) > maxMessage {
			t.Fatalf("message %d: %d entries, %d bytes, %v", m.Seq, len(es), len(m.Data), err)
		}
		first, last := es[0].Verdict, es[len(es)-1].Verdict
		if h.from != next || first.Event.Seq != next || h.until != last.Event.Seq || h.judged != last.Event {
			t.Fatalf("message %d judges %d..%d and says %d..%d %v", m.Seq, first.Event.Seq, last.Event.Seq, h.from, h.until, h.judged)
		}
		for _, e := range es {
			if len(e.Verdict.Rules) != 20 {
				t.Fatalf("a verdict with %d rules", len(e.Verdict.Rules))
			}
		}
		next = h.until + 1
	}
	if next != 2501 {
		t.Errorf("judged up to %d", next-1)
	}
	// One entry alone may be larger.
	a := activation(whisk.NewID(epoch), epoch)
	a.Result = append(append([]byte{'"'}, bytes.Repeat([]byte("x"), 1<<20)...), '"')
	j.append(whisk.Entry{Kind: whisk.EntryRecord, Record: &a, Final: true})
	if got, err := j.Activation(t.Context(), "guest", a.ID); err != nil || len(got.Result) != len(a.Result) {
		t.Errorf("%d bytes came back, %v", len(got.Result), err)
	}
	// Many entries of one call are several messages, none lost.
	var es []whisk.Entry
	for i := range 2100 {
		es = append(es, startOf(&evs[i], 1))
	}
	before := j.lastOf(inJournal)
	j.append(es...)
	if n := j.lastOf(inJournal) - before; n < 3 {
		t.Errorf("%d messages for 2,100 entries", n)
	}
	n := 0
	for _, p := range j.Undone() {
		if p.Started {
			n++
		}
	}
	if n != 0 { // these matches are of another rule
		t.Errorf("%d started", n)
	}
}

func TestRule21WhatComesMeanwhileIsOneMessage(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, someEvents(0, 100)...)
	j.judgeAll(evs...)
	hold, held := make(chan struct{}), make(chan struct{}, 1)
	var once sync.Once
	b.mu.Lock()
	b.before = func(*bus.Message) error {
		once.Do(func() {
			b.mu.Unlock()
			held <- struct{}{}
			<-hold
			b.mu.Lock()
		})
		return nil
	}
	b.mu.Unlock()
	before := j.lastOf(inJournal)
	var wg sync.WaitGroup
	write := func(i int) { defer wg.Done(); j.append(startOf(&evs[i], 1)) }
	wg.Add(1)
	go write(0)
	<-held
	for i := 1; i < 100; i++ {
		wg.Add(1)
		go write(i)
	}
	eventually(t, "all wait", func() bool { j.writer.mu.Lock(); defer j.writer.mu.Unlock(); return len(j.writer.inbox) == 99 })
	close(hold)
	wg.Wait()
	if n := j.lastOf(inJournal) - before; n != 2 {
		t.Errorf("%d messages for 100 entries of which 99 came together", n)
	}
}

func TestRule21TheInboxIsBounded(t *testing.T) {
	b := newFakeBus(1 << 30)
	j := opened(t, b, testOptions(t)) // nobody writes
	a := activation(whisk.NewID(epoch), epoch)
	a.Result = append(append([]byte{'"'}, bytes.Repeat([]byte("x"), 1<<20)...), '"')
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() { j.Append(ctx, whisk.Entry{Kind: whisk.EntryRecord, Record: &a, Final: true}) }) //nolint:errcheck // it is cancelled
	}
	full := func() bool {
		j.writer.mu.Lock()
		defer j.writer.mu.Unlock()
		return len(j.writer.inbox) == 7
	}
	eventually(t, "the inbox is full", full)
	if !full() {
		t.Error("more came in")
	}
	cancel()
	wg.Wait()
}

func TestRule21ALostAnswerIsReadBack(t *testing.T) {
	for _, arrived := range []bool{true, false} {
		b := newFakeBus(64 << 20)
		j := openOn(t, b, testOptions(t))
		evs := b.accept(t, someEvents(0, 2)...)
		j.judgeAll(evs...)
		lost := errors.New("no answer")
		fail := func(m *bus.Message) error {
			b.before, b.after = nil, nil
			return lost
		}
		b.mu.Lock()
		if arrived {
			b.after = fail
		} else {
			b.before = fail
		}
		b.mu.Unlock()
		j.append(startOf(&evs[0], 1))
		j.append(startOf(&evs[1], 1))
		es := 0
		for _, m := range b.streams[bus.StreamJournal].msgs {
			got, err := decodeEntries(m.Data)
			if err != nil {
				t.Fatal(err)
			}
			es += len(got)
		}
		if es != 4 || len(b.streams[bus.StreamJournal].msgs) != 3 {
			t.Errorf("arrived %v: %d entries in %d messages, want 4 in 3", arrived, es, len(b.streams[bus.StreamJournal].msgs))
		}
	}
}

func TestRule21ASecondWriterEndsTheFirst(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := opened(t, b, testOptions(t))
	j.run()
	evs := b.accept(t, anEvent(1))
	j.judgeAll(evs...)
	if _, err := b.Publish(t.Context(), bus.Message{Subject: bus.SubjectJournal, Data: []byte{format}}, nil); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(t.Context(), startOf(&evs[0], 1)); err == nil {
		t.Error("an entry was written behind somebody else's")
	}
	err := <-j.ended
	if !errors.Is(err, errForeign) {
		t.Errorf("Run = %v, want that somebody else writes", err)
	}
	j.ended <- nil
	if err := j.Append(t.Context(), startOf(&evs[0], 1)); !errors.Is(err, whisk.Unavailable) {
		t.Errorf("Append after the end = %v", err)
	}
}

// Message ids are not used in the journal: what comes again is told by its
// match and attempt, whatever the time in its ID.
func TestRule23WhatComesAgainIsKnownByItsMatch(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, anEvent(1))
	j.judgeAll(evs...)
	rec := recordOf(&evs[0], 1, whisk.WhiskError)
	rec.Due = epoch.Add(time.Hour)
	j.append(startOf(&evs[0], 1), rec)
	again := rec
	a := *rec.Record
	a.ID = whisk.DeriveID(epoch.Add(5*time.Second), "late")
	again.Record, again.Due = &a, epoch.Add(2*time.Hour)
	j.append(startOf(&evs[0], 1), again)
	got := j.Undone()
	if len(got) != 1 || len(got[0].Attempts) != 1 || !got[0].Due.Equal(rec.Due) {
		t.Errorf("undone %+v", got)
	}
	for _, m := range b.streams[bus.StreamJournal].msgs {
		if m.Header.Get("Nats-Msg-Id") != "" {
			t.Errorf("message %d has an id", m.Seq)
		}
	}
}
