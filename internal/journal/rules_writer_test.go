package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
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

func TestRule22WhatWasAnsweredCanBeRead(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := opened(t, b, testOptions(t))
	j.pace.settle = time.Hour // the index reaches nothing
	j.run()
	eventually(t, "whole", j.Complete)
	evs := b.accept(t, someEvents(0, 10)...)
	j.judgeAll(evs...)
	for i := range evs {
		j.append(recordOf(&evs[i], 1, whisk.Success))
		if _, err := j.Activation(t.Context(), "guest", attemptID(&evs[i], theRule, 1)); err != nil {
			t.Fatal(err)
		}
	}
	list, err := j.Activations(t.Context(), Query{Namespace: "guest", Name: "p/a", Since: evs[3].Time, Upto: evs[7].Time, Skip: 1, Limit: 2})
	if err != nil || len(list) != 2 || list[0].ID != attemptID(&evs[6], theRule, 1) || list[1].ID != attemptID(&evs[5], theRule, 1) {
		t.Errorf("list %v, %v", list, err)
	}
	if n, err := j.CountActivations(t.Context(), Query{Namespace: "guest"}); err != nil || n != 20 {
		t.Errorf("count %d, %v", n, err)
	}
	if v, err := j.Verdict(t.Context(), "guest", evs[4].ID); err != nil || v.Event.Seq != evs[4].Seq {
		t.Errorf("verdict %v, %v", v, err)
	}
	if j.index.lag() != 20 {
		t.Errorf("%d rows in memory, want 20", j.index.lag())
	}
}

func TestRule22TheWriterWaitsForTheIndex(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	eventually(t, "whole", j.Complete)
	j.index.mu.Lock()
	j.index.count += maxTail
	j.index.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	evs := b.accept(t, anEvent(1))
	v := judge(&evs[0], theRule)
	if err := j.Verdicts(ctx, 1, v.Event, []whisk.Verdict{v}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("written although the tail is full: %v", err)
	}
	j.index.mu.Lock()
	j.index.count -= maxTail
	j.index.clearTail(0)
	j.index.mu.Unlock()
	eventually(t, "written", func() bool { return j.Judged().Seq == 1 })
}

// While the index is made anew: a look-up by ID scans, lists say that they are
// not complete, and nothing fails.
func TestRule22WithoutIndexLookUpsScan(t *testing.T) {
	b := newFakeBus(64 << 20)
	o := testOptions(t)
	o.Index = filepath.Join(t.TempDir(), "no such folder", "index.db")
	j := openOn(t, b, o)
	evs := b.accept(t, someEvents(0, 5)...)
	j.judgeAll(evs...)
	for i := range evs {
		j.append(recordOf(&evs[i], 1, whisk.Success))
	}
	call := activation(whisk.NewID(epoch), epoch)
	if err := j.RecordCall(t.Context(), call); err != nil {
		t.Fatal(err)
	}
	if j.Complete() {
		t.Error("complete without an index")
	}
	for _, id := range []string{attemptID(&evs[2], theRule, 1), evs[3].ID, call.ID} {
		if a, err := j.Activation(t.Context(), "guest", id); err != nil || a.ID != id {
			t.Errorf("look-up of %s: %v, %v", id, a, err)
		}
	}
	if _, err := j.Activation(t.Context(), "guest", whisk.NewID(epoch)); !errors.Is(err, whisk.NotFound) {
		t.Errorf("look-up of nothing: %v", err)
	}
	if list, err := j.Activations(t.Context(), Query{Namespace: "guest"}); err != nil || len(list) != 0 {
		t.Errorf("list: %v, %v", list, err)
	}
}

func TestRule22TheIndexIsMadeAnewWhenInDoubt(t *testing.T) {
	b := newFakeBus(64 << 20)
	o := testOptions(t)
	j := openOn(t, b, o)
	evs := b.accept(t, someEvents(0, 30)...)
	j.judgeAll(evs...)
	for i := range evs {
		j.append(recordOf(&evs[i], 1, whisk.Success))
	}
	eventually(t, "indexed", func() bool { return j.index.lag() == 0 && j.index.reached(inJournal) == j.lastOf(inJournal) })
	live := copyIndex(t, o.Index)
	j.stop()
	execute := func(path, query string) {
		t.Helper()
		db, err := openDatabase(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.w.Exec(query); err != nil {
			t.Fatal(err)
		}
		if err := db.drop(); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		path  func(t *testing.T) string
		bus   func() *fakeBus
		anew  bool
		count int
	}{
		"closed well": {func(t *testing.T) string { return copyIndex(t, o.Index) }, b.kill, false, 30},
		"killed":      {func(t *testing.T) string { return copyIndex(t, live) }, b.kill, false, 30},
		"missing":     {func(t *testing.T) string { return filepath.Join(t.TempDir(), "index.db") }, b.kill, false, 30},
		"no index at all": {func(t *testing.T) string {
			p := copyIndex(t, o.Index)
			execute(p, "DROP TABLE meta")
			return p
		}, b.kill, true, 30},
		"the machine was stopped": {func(t *testing.T) string {
			p := copyIndex(t, o.Index)
			execute(p, "INSERT OR REPLACE INTO meta VALUES ('boot', 'another start'); DELETE FROM entries")
			return p
		}, b.kill, true, 30},
		"ahead of the journal": {func(t *testing.T) string { return copyIndex(t, o.Index) }, func() *fakeBus {
			c := b.kill()
			c.streams[bus.StreamJournal].truncate(11)
			return c
		}, true, 10},
		"another message there": {func(t *testing.T) string { return copyIndex(t, o.Index) }, func() *fakeBus {
			c := b.kill()
			m := &c.streams[bus.StreamJournal].msgs[30]
			e := recordOf(&evs[29], 1, whisk.Success)
			e.Record.ID = whisk.NewID(epoch)
			m.Data = encodeAll(t, []stored{{Entry: e}})
			return c
		}, true, 30},
		"not a database": {func(t *testing.T) string {
			p := filepath.Join(t.TempDir(), "index.db")
			writeFile(t, p, strings.Repeat("nonsense", 2000))
			return p
		}, b.kill, true, 30},
	} {
		t.Run(name, func(t *testing.T) {
			p := tt.path(t)
			j := openOn(t, tt.bus(), Options{Index: p, Log: o.Log})
			eventually(t, "whole", j.Complete)
			if n, err := j.CountActivations(t.Context(), Query{Namespace: "guest", Name: "p/a"}); err != nil || n != tt.count {
				t.Errorf("%d records, %v; want %d", n, err, tt.count)
			}
			if got := j.metric("index_rebuilds_total") > 0; got != tt.anew {
				t.Errorf("made anew: %v, want %v", got, tt.anew)
			}
			for i := range tt.count {
				if _, err := j.Activation(t.Context(), "guest", attemptID(&evs[i], theRule, 1)); err != nil && name != "another message there" {
					t.Errorf("record %d: %v", i, err)
				}
			}
		})
	}
}

func TestRule22AnErrorOfTheIndexEndsNothing(t *testing.T) {
	b := newFakeBus(64 << 20)
	o := testOptions(t)
	j := openOn(t, b, o)
	eventually(t, "whole", j.Complete)
	j.fill(b, 0, 5, 10)
	db, err := j.index.file()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.w.Exec("DROP TABLE entries"); err != nil {
		t.Fatal(err)
	}
	j.fill(b, 5, 20, 10)
	eventually(t, "whole again", func() bool {
		n, err := j.CountActivations(t.Context(), Query{Namespace: "guest", Name: "p/a"})
		return j.Complete() && err == nil && n == 25
	})
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

func TestAttempts(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, someEvents(0, 3)...)
	j.judgeAll(evs...)
	// The first succeeds at once, the second at the third attempt, the third
	// dies after two.
	j.append(startOf(&evs[0], 1), recordOf(&evs[0], 1, whisk.Success))
	failed := func(ev *whisk.Event, n int, again bool) whisk.Entry {
		e := recordOf(ev, n, whisk.WhiskError)
		if again {
			e.Due = epoch.Add(time.Duration(n) * time.Minute)
		}
		return e
	}
	j.append(startOf(&evs[1], 1), failed(&evs[1], 1, true), startOf(&evs[1], 2))
	if got, dead, err := j.Attempts(t.Context(), matchOf(&evs[1])); err != nil || dead != "" || len(got) != 2 || got[1].Status != "" {
		t.Errorf("while it runs: %+v, %q, %v", got, dead, err)
	}
	j.append(failed(&evs[1], 2, true), startOf(&evs[1], 3), recordOf(&evs[1], 3, whisk.Success))
	j.append(startOf(&evs[2], 1), failed(&evs[2], 1, true), startOf(&evs[2], 2), failed(&evs[2], 2, false))
	j.append(whisk.Entry{Kind: whisk.EntryDead, Match: matchOf(&evs[2]), Dead: evs[2].ID})
	check := func(what string) {
		t.Helper()
		for i, want := range []struct {
			attempts int
			status   string
			dead     string
		}{{1, "success", ""}, {3, "success", ""}, {2, "whisk internal error", evs[2].ID}} {
			got, dead, err := j.Attempts(t.Context(), matchOf(&evs[i]))
			if err != nil || dead != want.dead || len(got) != want.attempts || got[len(got)-1].Status != want.status {
				t.Errorf("%s: match %d: %+v, %q, %v", what, i, got, dead, err)
				continue
			}
			for n := range got {
				if got[n].ActivationID != attemptID(&evs[i], theRule, n+1) {
					t.Errorf("%s: match %d, attempt %d is %s", what, i, n+1, got[n].ActivationID)
				}
			}
		}
	}
	check("at once")
	eventually(t, "indexed", func() bool { return j.index.lag() == 0 })
	check("indexed")
	if _, _, err := j.Attempts(t.Context(), whisk.Match{Event: 99, Rule: theRule}); !errors.Is(err, whisk.NotFound) {
		t.Errorf("a match that never was: %v", err)
	}
}

func TestFollow(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan whisk.EntryKind, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- j.Follow(ctx, func(e whisk.Entry) error { seen <- e.Kind; return nil })
	}()
	eventually(t, "following", j.tails.some.Load)
	evs := b.accept(t, anEvent(1))
	j.judgeAll(evs...)
	j.append(startOf(&evs[0], 1))
	j.append(recordOf(&evs[0], 1, whisk.WhiskError))
	j.append(whisk.Entry{Kind: whisk.EntryDead, Match: matchOf(&evs[0]), Dead: evs[0].ID})
	if err := j.RecordCall(t.Context(), activation(whisk.NewID(epoch), epoch)); err != nil {
		t.Fatal(err)
	}
	var got []whisk.EntryKind
	for range 5 {
		got = append(got, <-seen)
	}
	want := []whisk.EntryKind{whisk.EntryVerdict, whisk.EntryStart, whisk.EntryRecord, whisk.EntryDead, whisk.EntryRecord}
	if !slices.Equal(got, want) {
		t.Errorf("saw %v, want %v", got, want)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Follow = %v", err)
	}
	if j.tails.some.Load() {
		t.Error("still followed")
	}
}

func TestFollowTellsASlowReader(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, anEvent(1))
	j.judgeAll(evs...)
	hold := make(chan struct{})
	n := 0
	ended := make(chan error, 1)
	go func() {
		ended <- j.Follow(t.Context(), func(whisk.Entry) error { <-hold; n++; return nil })
	}()
	eventually(t, "following", j.tails.some.Load)
	for range followBuffer/100 + 2 {
		j.append(slices.Repeat([]whisk.Entry{startOf(&evs[0], 1)}, 100)...)
	}
	close(hold)
	if err := <-ended; !errors.Is(err, ErrLost) {
		t.Errorf("Follow = %v, want ErrLost", err)
	}
	if n < followBuffer || n > followBuffer+1 {
		t.Errorf("%d entries seen before the loss", n)
	}
}

func TestListsOfManyNames(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	var ids []string
	for i := range 300 {
		when := epoch.Add(time.Duration(i*7919%300) * time.Second)
		a := activation(whisk.DeriveID(when, fmt.Sprint(i)), when)
		a.Annotations = whisk.Params{}.Set("path", fmt.Sprintf("%q", fmt.Sprint("guest/a", i%17)))
		a.Name = fmt.Sprint("a", i%17)
		a.Result = json.RawMessage(fmt.Sprint(i))
		if err := j.RecordCall(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, a.ID)
	}
	slices.Sort(ids)
	slices.Reverse(ids)
	check := func() {
		t.Helper()
		list, err := j.Activations(t.Context(), Query{Namespace: "guest", Skip: 40, Limit: 30})
		var got []string
		for _, a := range list {
			got = append(got, a.ID)
		}
		if err != nil || !slices.Equal(got, ids[40:70]) {
			t.Errorf("page: %v\nwant %v, %v", got, ids[40:70], err)
		}
		if list, err := j.Activations(t.Context(), Query{Namespace: "guest", Name: "a3", Limit: 200}); err != nil || len(list) != 18 {
			t.Errorf("%d of one name, %v", len(list), err)
		}
		if n, err := j.CountActivations(t.Context(), Query{Namespace: "guest", Skip: 290}); err != nil || n != 10 {
			t.Errorf("count beyond 290: %d, %v", n, err)
		}
		if list, err := j.Activations(t.Context(), Query{Namespace: "else"}); err != nil || len(list) != 0 {
			t.Errorf("another namespace: %d, %v", len(list), err)
		}
	}
	check()
	eventually(t, "indexed", func() bool { return j.index.lag() == 0 })
	check()
}
