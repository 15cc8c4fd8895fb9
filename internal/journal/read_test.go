package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

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
