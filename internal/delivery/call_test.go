package delivery

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

func invocation() whisk.Invocation {
	return whisk.Invocation{
		ActivationID: whisk.NewID(time.Now()), Namespace: "guest", Subject: "me", Payload: []byte(`{"n":1}`), Received: now(),
	}
}

func TestCallAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start(1, always(whisk.WhiskError).run)
		inv := invocation()
		act, done, err := w.delivery.Call(t.Context(), runnable("a"), inv, time.Minute)
		if err != nil || !done || act.ID != inv.ActivationID || act.Outcome != whisk.WhiskError {
			t.Errorf("Call = %+v, %v, %v; want the record", act, done, err)
		}
		if len(w.journal.entries) != 0 || len(w.journal.calls) != 1 {
			t.Errorf("%d entries and %d records of calls, want 0 and 1: no start, no retry", len(w.journal.entries), len(w.journal.calls))
		}
		synctest.Wait()
		if w.count() != 0 {
			t.Errorf("%d undone, want 0", w.count())
		}
		w.end()
	})
}

// TestCallOutlivesItsWait ends the wait before the run begins, while it runs,
// and while its end waits for the turning.
func TestCallOutlivesItsWait(t *testing.T) {
	for _, tt := range []struct {
		name          string
		queued        time.Duration // before it begins
		runs          time.Duration
		turning       time.Duration // how long the journal takes
		entries       string
		startIsInTurn bool
	}{
		{"while it runs", 0, time.Hour, 0, "invoke start1 record1final", true},
		{"before it begins", time.Hour, time.Hour, 0, "invoke start1 record1final", false},
		{"begins during the turning", 90 * time.Second, time.Hour, time.Minute, "invoke start1 record1final", false},
		{"ends during the turning", 0, 90 * time.Second, time.Minute, "invoke start1 record1final", true},
		{"begins and ends during the turning", 70 * time.Second, time.Second, time.Minute, "invoke start1 record1final", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				ran := 0
				w.opts = append(w.opts, WithFault(func(p string) {
					if p == "delivery begin" {
						time.Sleep(tt.queued)
					}
				}))
				w.start(1, func(inv whisk.Invocation) (whisk.Activation, error) {
					ran++
					time.Sleep(tt.runs)
					return ended(inv, whisk.WhiskError), nil // which is not retried
				})
				w.journal.gate = make(chan struct{})
				go func() {
					time.Sleep(time.Minute + tt.turning)
					close(w.journal.gate)
				}()
				inv := invocation()
				_, done, err := w.delivery.Call(t.Context(), runnable("a"), inv, time.Minute)
				if err != nil || done {
					t.Errorf("Call = %v, %v; want neither a record nor an error", done, err)
				}
				m := whisk.Match{Invoke: inv.ActivationID}
				if got := w.journal.kinds(m) == "invoke start1"; tt.turning == 0 && got != tt.startIsInTurn {
					t.Errorf("entries at the answer: %s", w.journal.kinds(m))
				}
				time.Sleep(3 * time.Hour)
				synctest.Wait()
				if got := w.journal.kinds(m); got != tt.entries {
					t.Errorf("entries = %s, want %s", got, tt.entries)
				}
				if len(w.journal.calls) != 0 || ran != 1 {
					t.Errorf("%d records of calls and %d runs, want 0 and 1", len(w.journal.calls), ran)
				}
				for _, e := range w.journal.of(whisk.EntryInvoke) {
					if e.Invoke.Retry || e.Invoke.Action != name("a") {
						t.Errorf("invoke = %+v, want one that is not retried", e.Invoke)
					}
				}
				if rec := w.journal.of(whisk.EntryRecord)[0]; rec.Record.ID != inv.ActivationID {
					t.Errorf("record %s, want %s", rec.Record.ID, inv.ActivationID)
				}
				if w.journal.durable < 2 {
					t.Errorf("%d entries flushed, want the invoke and the start", w.journal.durable)
				}
				w.end()
			})
		})
	}
}

// TestCallEndsWithItsWait lets the end of the run and of the wait come
// together, many times: there is one record, and the answer tells which.
func TestCallEndsWithItsWait(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.start(1, func(inv whisk.Invocation) (whisk.Activation, error) {
				time.Sleep(time.Minute)
				return ended(inv, whisk.Success), nil
			})
			_, done, err := w.delivery.Call(t.Context(), runnable("a"), invocation(), time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			calls, records := len(w.journal.calls), len(w.journal.of(whisk.EntryRecord))
			if calls+records != 1 || done != (calls == 1) {
				t.Errorf("done = %v with %d records of calls and %d in the journal", done, calls, records)
			}
			w.end()
		})
	}
}

func TestCallThatCannotBeTurned(t *testing.T) {
	for _, begun := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			ran := 0
			w.opts = append(w.opts, WithFault(func(p string) {
				if p == "delivery begin" && !begun {
					time.Sleep(time.Hour)
				}
			}))
			w.start(1, func(inv whisk.Invocation) (whisk.Activation, error) {
				ran++
				time.Sleep(time.Hour)
				return ended(inv, whisk.Success), nil
			})
			w.journal.full = true
			_, _, err := w.delivery.Call(t.Context(), runnable("a"), invocation(), time.Minute)
			if !errors.Is(err, whisk.Unavailable) {
				t.Errorf("Call = %v, want Unavailable", err)
			}
			time.Sleep(5 * time.Hour)
			synctest.Wait()
			// What ran leaves its record; what was refused before does not run.
			want := map[bool]int{true: 1, false: 0}[begun]
			if ran != want || len(w.journal.calls) != want || len(w.journal.entries) != 0 || w.count() != 0 {
				t.Errorf("begun %v: %d runs, %d records, %d entries, %d undone", begun, ran, len(w.journal.calls), len(w.journal.entries), w.count())
			}
			w.end()
		})
	}
}

func TestCallerHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start(1, func(inv whisk.Invocation) (whisk.Activation, error) {
			time.Sleep(time.Second)
			return ended(inv, whisk.Success), nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		if _, _, err := w.delivery.Call(ctx, runnable("a"), invocation(), time.Minute); !errors.Is(err, context.Canceled) {
			t.Errorf("Call = %v, want Canceled", err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(w.journal.calls) != 1 {
			t.Errorf("%d records, want the run's", len(w.journal.calls))
		}
		w.end()
	})
}

func TestCallsInLineAtTheStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		hold := make(chan struct{})
		w.start(1, func(inv whisk.Invocation) (whisk.Activation, error) {
			<-hold
			return ended(inv, whisk.Success), nil
		})
		const n = window + 10
		errs := make(chan error, n)
		for range n {
			go func() {
				_, _, err := w.delivery.Call(t.Context(), runnable("a"), invocation(), time.Hour)
				errs <- err
			}()
		}
		synctest.Wait()
		w.stop()
		synctest.Wait()
		for range 10 { // those that no invoker has
			if err := <-errs; !errors.Is(err, whisk.Unavailable) {
				t.Errorf("Call = %v, want Unavailable", err)
			}
		}
		close(hold)
		answered := 0
		for range window {
			switch err := <-errs; {
			case err == nil:
				answered++
			case !errors.Is(err, whisk.Unavailable):
				t.Errorf("Call = %v, want Unavailable", err)
			}
		}
		if answered != 1 || len(w.journal.calls) != 1 {
			t.Errorf("%d answered, %d recorded; want the one that ran", answered, len(w.journal.calls))
		}
		w.end()
	})
}

func TestCalledThroughBinding(t *testing.T) {
	run := runnable("a")
	run.Action.Name.Package = "provider"
	if got, want := calledName(&run).String(), "/guest/provider/a"; got != want {
		t.Errorf("calledName = %s, want %s", got, want)
	}
	run.Binding = whisk.Name{Namespace: "mine", Entity: "bound"}
	if got, want := calledName(&run).String(), "/mine/bound/a"; got != want {
		t.Errorf("calledName = %s, want %s", got, want)
	}
}

func TestInvoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(t), always(whisk.WhiskError)
		w.start(1, r.run)
		inv := invocation()
		inv.Cause = "c"
		if err := w.delivery.Invoke(t.Context(), name("a"), inv); err != nil {
			t.Fatal(err)
		}
		if w.journal.durable != 1 {
			t.Errorf("%d entries flushed before the answer, want 1", w.journal.durable)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		m := whisk.Match{Invoke: inv.ActivationID}
		if got, want := w.journal.kinds(m), "invoke start1 record1due start2 record2due start3 record3 dead"; got != want {
			t.Errorf("entries = %s, want %s", got, want)
		}
		for i, got := range r.all {
			if got.ActivationID != m.AttemptID("", i+1) || got.Cause != "c" || string(got.Payload) != `{"n":1}` {
				t.Errorf("run %d = %+v", i+1, got)
			}
		}
		if l := w.journal.letters; len(l) != 1 || l[0].Invoke == nil || l[0].Invoke.Action != name("a") {
			t.Errorf("letters = %+v, want one with the invocation", l)
		}
		w.journal.full = true
		if err := w.delivery.Invoke(t.Context(), name("a"), invocation()); !errors.Is(err, whisk.Unavailable) {
			t.Errorf("Invoke with a full journal = %v, want Unavailable", err)
		}
		if w.count() != 0 {
			t.Errorf("%d undone, want 0", w.count())
		}
		w.end()
	})
}

func TestInvokeOfAVanishedAction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(t), &runs{}
		w.start(1, r.run)
		inv := invocation()
		if err := w.delivery.Invoke(t.Context(), name("gone"), inv); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		recs := w.journal.of(whisk.EntryRecord)
		if len(recs) != 1 || !recs[0].Final || recs[0].Record.ID != inv.ActivationID || recs[0].Record.Outcome != whisk.DeveloperError ||
			recs[0].Record.Subject != "me" || len(w.journal.letters) != 0 {
			t.Errorf("records = %+v; want one final, that says so", recs)
		}
		w.end()
	})
}

func TestInvocationsResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(t), &runs{}
		retried, once, lost := invocation(), invocation(), invocation()
		for _, e := range []struct {
			inv   whisk.Invocation
			retry bool
		}{{retried, true}, {once, false}, {lost, false}} {
			w.journal.Append(t.Context(), whisk.Entry{
				Kind: whisk.EntryInvoke, Match: whisk.Match{Invoke: e.inv.ActivationID},
				Invoke: &whisk.Invoke{Action: name("a"), Invocation: e.inv, Retry: e.retry},
			})
		}
		w.journal.Append(t.Context(), whisk.Entry{
			Kind: whisk.EntryStart, Match: whisk.Match{Invoke: lost.ActivationID}, Attempt: 1, ActivationID: lost.ActivationID, At: now(),
		})
		w.start(1, r.run)
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(r.all) != 2 || r.all[0].ActivationID != retried.ActivationID || r.all[1].ActivationID != once.ActivationID {
			t.Errorf("runs = %+v, want the two that had not begun, in order", r.all)
		}
		for inv, want := range map[*whisk.Invocation]string{
			&retried: "invoke start1 record1final", &once: "invoke start1 record1final", &lost: "invoke start1 record1final",
		} {
			if got := w.journal.kinds(whisk.Match{Invoke: inv.ActivationID}); got != want {
				t.Errorf("entries = %s, want %s", got, want)
			}
		}
		if w.journal.durable != 1 {
			t.Errorf("%d entries flushed, want the start of the one that runs at most once", w.journal.durable)
		}
		w.end()
	})
}
