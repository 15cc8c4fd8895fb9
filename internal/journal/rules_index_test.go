package journal

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/whisk"
)

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
		"of another schema": {func(t *testing.T) string {
			p := copyIndex(t, o.Index)
			execute(p, "UPDATE meta SET value = '0' WHERE key = 'version'; DELETE FROM entries")
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

// Where the machine does not name its starts, an index that was not closed may
// be of before a power cut.
func TestRule22WithoutNamesOfStartsAnOpenIndexIsInDoubt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index.db")
	for i, want := range []bool{true, false} {
		db, err := openDatabase(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if trusted, err := db.claim(t.Context(), ""); err != nil || trusted != want {
			t.Errorf("start %d: trusted = %v, %v, want %v", i+1, trusted, err, want)
		}
		if err := db.drop(); err != nil { // not closed
			t.Fatal(err)
		}
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
