package journal

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/whisk"
)

// The tests are named after the rules that the journal keeps, in their order.

func realBus(t testing.TB, dir string, onFlush func(bus.Flush)) *bus.Bus {
	t.Helper()
	b, err := bus.Open(t.Context(), bus.Options{
		Dir: dir, OnFlush: onFlush, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		EventsLimit: 64 << 20, JournalLimit: 64 << 20, CallsLimit: 16 << 20, DeadLimit: 16 << 20, SyncInterval: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() }) //nolint:errcheck // closed by the test, too
	return b
}

// copyTree copies a live store as kill -9 leaves it.
func copyTree(t testing.TB, from string) string {
	t.Helper()
	to := t.TempDir()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was there a moment ago
		}
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func acceptReal(t testing.TB, b *bus.Bus, evs ...whisk.Event) []whisk.Event {
	t.Helper()
	places, err := b.Accept(t.Context(), evs...)
	if err != nil {
		t.Fatal(err)
	}
	for i := range evs {
		evs[i].Seq = places[i].Seq
	}
	return evs
}

func TestRule01TheStoreIsSyncedBeforeTheJournalTrustsIt(t *testing.T) {
	dir := t.TempDir()
	b := realBus(t, dir, nil)
	j := openOn(t, b, testOptions(t))
	evs := acceptReal(t, b, someEvents(0, 2)...)
	j.judgeAll(evs...) // written, and flushed by nobody yet
	left := copyTree(t, dir)

	var mu sync.Mutex
	var synced []string
	b2 := realBus(t, left, func(f bus.Flush) {
		mu.Lock()
		defer mu.Unlock()
		if !f.All {
			return
		}
		for file := range f.Files {
			if strings.Contains(file, bus.StreamJournal) && strings.HasSuffix(file, ".blk") {
				synced = append(synced, file)
			}
		}
	})
	mu.Lock()
	n := len(synced)
	mu.Unlock()
	if n == 0 {
		t.Error("the journal's blocks were not synced before it was opened")
	}
	j2 := opened(t, b2, testOptions(t))
	if got := j2.Judged(); got.Seq != evs[1].Seq || j2.Floor() != evs[0].Seq {
		t.Errorf("Judged %v, Floor %d: want what was written, as flushed", got, j2.Floor())
	}
	if got := j2.Undone(); len(got) != 2 {
		t.Errorf("%d undone, want 2", len(got))
	}
}

func TestRule02JudgedThatTheArchiveDoesNotHave(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, someEvents(0, 6)...)
	j.judgeAll(evs[:3]...)
	j.judgeAll(evs[3:]...)
	j.durable(recordOf(&evs[4], 1, whisk.Success))

	c := b.kill()
	c.streams[bus.StreamEvents].truncate(4)
	again := c.accept(t, anEvent(100), anEvent(101)) // sequences 5 and 6 are given out again
	j2 := openOn(t, c, testOptions(t))
	if got := j2.Judged(); got.Seq != 4 || got.ID != evs[3].ID {
		t.Fatalf("Judged = %v, want the last event that both have, 4", got)
	}
	if got, want := matchesOf(j2.Undone()), []whisk.Match{matchOf(&evs[0]), matchOf(&evs[1]), matchOf(&evs[2]), matchOf(&evs[3])}; !slices.Equal(got, want) {
		t.Errorf("undone %v, want %v: nothing of events that are gone", got, want)
	}
	j2.judgeAll(again...)
	check := func(j *running) {
		t.Helper()
		if got := j.Judged(); got.Seq != 6 || got.ID != again[1].ID {
			t.Errorf("Judged = %v, want the new event 6", got)
		}
		p, err := j.Pending(t.Context(), matchOf(&again[0]))
		if err != nil || p.Event.ID != again[0].ID {
			t.Errorf("the new event 5: %v, %v; what became of the old one must not count", p.Event, err)
		}
		if n := len(j.Undone()); n != 6 || len(j.Gaps()) != 0 {
			t.Errorf("%d undone, gaps %v", n, j.Gaps())
		}
	}
	check(j2)
	check(opened(t, c.kill(), testOptions(t)))
}

// The event that took the place of a lost one matches less: what the lost one
// matched does not come back.
func TestRule02WhatALostEventMatchedIsVoid(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, someEvents(0, 3)...)
	j.judgeAll(evs...)
	c := b.kill()
	c.streams[bus.StreamEvents].truncate(2)
	again := c.accept(t, anEvent(100))
	j2 := openOn(t, c, testOptions(t))
	v := judge(&again[0])
	if err := j2.Verdicts(t.Context(), 3, v.Event, []whisk.Verdict{v}); err != nil {
		t.Fatal(err)
	}
	for _, j := range []*running{j2, opened(t, c.kill(), testOptions(t))} {
		if got := j.Undone(); len(got) != 2 || j.Judged().ID != again[0].ID {
			t.Errorf("undone %v, Judged %v", matchesOf(got), j.Judged())
		}
	}
}

func TestRule02AllJudgedEventsAreGone(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	j.judgeAll(b.accept(t, someEvents(0, 3)...)...)
	c := b.kill()
	c.streams[bus.StreamEvents] = &fakeStream{first: 1, limit: 1 << 20}
	j2 := opened(t, c, testOptions(t))
	if got := j2.Judged(); got != (whisk.Place{}) || len(j2.Undone()) != 0 || len(j2.Gaps()) != 0 {
		t.Errorf("Judged %v, undone %v, gaps %v", got, j2.Undone(), j2.Gaps())
	}
}

func TestRule02TrimmedEventsAgree(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, someEvents(0, 3)...)
	j.judgeAll(evs...)
	for i := range evs {
		j.durable(recordOf(&evs[i], 1, whisk.Success))
	}
	if _, err := b.Publish(t.Context(), bus.Message{Subject: "cur.x"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.Purge(t.Context(), bus.StreamEvents, 4); err != nil {
		t.Fatal(err)
	}
	if got := opened(t, b.kill(), testOptions(t)).Judged(); got.Seq != 3 {
		t.Errorf("Judged = %v, want 3", got)
	}
}

// A torn journal: message 2 of three is lost, with the verdicts on events 3, 4.
func TestRule03AGapIsJudgedAgain(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, someEvents(0, 6)...)
	j.judgeAll(evs[:2]...)
	j.judgeAll(evs[2:4]...)
	j.judgeAll(evs[4:]...)
	j.append(startOf(&evs[2], 1))

	c := b.kill()
	c.tear(bus.StreamJournal, 2)
	j2 := openOn(t, c, testOptions(t))
	if got, want := j2.Gaps(), [][2]uint64{{3, 4}}; !slices.Equal(got, want) {
		t.Fatalf("Gaps = %v, want %v", got, want)
	}
	if got := j2.Judged(); got.Seq != 6 {
		t.Errorf("Judged = %v, want 6", got)
	}
	if floor := j2.Floor(); floor > 1 {
		t.Errorf("Floor = %d", floor)
	}
	// Judged again, with one verdict too many: that on event 5 stands.
	vs := []whisk.Verdict{judge(&evs[2], theRule), judge(&evs[3], theRule), judge(&evs[4])}
	if err := j2.Verdicts(t.Context(), 3, vs[1].Event, vs[:2]); err != nil {
		t.Fatal(err)
	}
	if err := j2.Verdicts(t.Context(), 5, whisk.Place{Seq: 6, ID: evs[5].ID}, vs[2:]); err != nil {
		t.Fatal(err)
	}
	check := func(j *running) {
		t.Helper()
		if len(j.Gaps()) != 0 || j.Judged().Seq != 6 {
			t.Errorf("gaps %v, Judged %v", j.Gaps(), j.Judged())
		}
		if n := len(j.Undone()); n != 6 {
			t.Errorf("%d undone, want every event's match once", n)
		}
		p, err := j.Pending(t.Context(), matchOf(&evs[2]))
		if err != nil || !p.Started {
			t.Errorf("event 3: started %v, %v; its start outlived its verdict", p.Started, err)
		}
		v, err := j.Verdict(t.Context(), "guest", evs[4].ID)
		if err != nil || len(v.Rules) != 1 {
			t.Errorf("the verdict on event 5 = %v, %v; the first one stands", v, err)
		}
	}
	check(j2)
	check(openOn(t, c.kill(), testOptions(t)))
}

func TestRule03AMatchWhoseRecordOutlivedItsVerdictIsDone(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, someEvents(0, 3)...)
	j.judgeAll(evs[0])
	j.judgeAll(evs[1])
	j.judgeAll(evs[2])
	j.append(recordOf(&evs[1], 1, whisk.Success))
	c := b.kill()
	c.tear(bus.StreamJournal, 2)
	j2 := openOn(t, c, testOptions(t))
	j2.judgeAll(evs[1])
	if got, want := matchesOf(j2.Undone()), []whisk.Match{matchOf(&evs[0]), matchOf(&evs[2])}; !slices.Equal(got, want) {
		t.Errorf("undone %v, want %v", got, want)
	}
	if _, err := j2.Pending(t.Context(), matchOf(&evs[1])); !errors.Is(err, whisk.NotFound) {
		t.Errorf("Pending of what is done: %v", err)
	}
}

// A gap stays visible to every start until what fills it is flushed.
func TestRule03LowAndFloorStayBelowAGap(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, someEvents(0, 3)...)
	for i := range evs {
		j.judgeAll(evs[i])
		j.durable(recordOf(&evs[i], 1, whisk.Success))
	}
	c := b.kill() // before Low could tell of what was done last
	c.streams[bus.StreamJournal].truncate(5)
	c.tear(bus.StreamJournal, 3) // the verdict on event 2
	m := &c.streams[bus.StreamJournal].msgs[len(c.streams[bus.StreamJournal].msgs)-1]
	m.Header.Set(headerLow, "1")
	for range 2 {
		j2 := openOn(t, c, testOptions(t))
		eventually(t, "a flush", func() bool { j2.mu.Lock(); defer j2.mu.Unlock(); return j2.ledger.flushed >= 5 })
		j2.append(startOf(&evs[2], 1)) // tells Low
		if err := j2.flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(j2.Gaps(), [][2]uint64{{2, 2}}) || j2.Floor() != 2 || j2.Low() != 1 {
			t.Fatalf("gaps %v floor %d low %d", j2.Gaps(), j2.Floor(), j2.Low())
		}
		j2.stop()
		c = c.kill()
	}
	j3 := openOn(t, c, testOptions(t))
	j3.judgeAll(evs[1])
	if err := j3.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if j3.Low() == 1 {
		t.Error("Low stays although the gap is filled and flushed")
	}
}

func TestRule04ReplayMergesByMaximumAndKeepsTheOrder(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, someEvents(0, 5)...)
	j.judgeAll(evs[:3]...)
	_, inv := anInvoke(1)
	j.append(inv)
	j.judgeAll(evs[3:]...)
	retry := recordOf(&evs[0], 1, whisk.WhiskError)
	retry.Due = epoch.Add(time.Hour)
	j.append(startOf(&evs[0], 1))
	j.append(retry)
	j.append(startOf(&evs[0], 1)) // a straggler: it says less than the record
	j.append(recordOf(&evs[1], 1, whisk.Success))
	j2 := opened(t, b.kill(), testOptions(t))
	got := j2.Undone()
	want := []whisk.Match{matchOf(&evs[0]), matchOf(&evs[2]), inv.Match, matchOf(&evs[3]), matchOf(&evs[4])}
	if !slices.Equal(matchesOf(got), want) {
		t.Fatalf("undone\n%v, want\n%v", matchesOf(got), want)
	}
	p := got[0]
	if p.Started || !p.Due.Equal(retry.Due) || len(p.Attempts) != 1 || p.Attempts[0].Error != "it broke" || p.Rule != 7 || p.Action != theAction {
		t.Errorf("the retry is %+v", p)
	}
}

func TestRule05StartWithoutRecordAndExhaustedWithoutDead(t *testing.T) {
	b := newFakeBus(64 << 20)
	j := openOn(t, b, testOptions(t))
	evs := b.accept(t, someEvents(0, 2)...)
	j.judgeAll(evs...)
	j.append(startOf(&evs[0], 1))
	j.append(startOf(&evs[1], 1))
	j.append(recordOf(&evs[1], 1, whisk.WhiskError)) // no due time: exhausted
	j2 := openOn(t, b.kill(), testOptions(t))
	got := j2.Undone()
	if len(got) != 2 || !got[0].Started || got[0].Exhausted || got[1].Started || !got[1].Exhausted {
		t.Fatalf("undone = %+v", got)
	}
	if a := got[0].Attempts; len(a) != 1 || a[0].ActivationID != attemptID(&evs[0], theRule, 1) || a[0].Status != "" {
		t.Errorf("the attempt that began: %+v", a)
	}
	// Finished as the delivery does it: dead letter, then dead.
	d := whisk.DeadLetter{Time: epoch, Match: got[1].Match, Action: theAction, Reason: "platform", Attempts: got[1].Attempts}
	d.ID = whisk.DeadLetterID(d.Match, d.Attempts, d.Time)
	if err := j2.Bury(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	j2.durable(whisk.Entry{Kind: whisk.EntryDead, Match: got[1].Match, Dead: d.ID})
	left := opened(t, b2(j2).kill(), testOptions(t)).Undone()
	if len(left) != 1 || left[0].Match != matchOf(&evs[0]) {
		t.Errorf("left: %v", left)
	}
}

func b2(r *running) *fakeBus { return r.bus.(*fakeBus) }

func TestRule06AFullJournalIsTrimmedFirst(t *testing.T) {
	b := newFakeBus(64 << 10)
	o := testOptions(t)
	j := openOn(t, b, o)
	evs := b.accept(t, someEvents(0, 1)...)
	j.judgeAll(evs...)
	for range 60 {
		j.durable(recordOf(&evs[0], 1, whisk.Success))
	}
	j.stop()
	c := b.kill()
	s := c.streams[bus.StreamJournal]
	s.limit = s.bytes + 10 // full to the last message
	o.Limit = s.limit
	j2 := opened(t, c, o)
	if len(c.purged) == 0 || s.bytes > o.Limit*15/16 {
		t.Errorf("%d bytes of %d held after the start, %d purges", s.bytes, o.Limit, len(c.purged))
	}
	j2.run()
	j2.durable(startOf(&evs[0], 1)) // there is room again
}
