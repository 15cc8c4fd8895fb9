package delivery

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// TestResume starts over journals that a stopped process left.
func TestResume(t *testing.T) {
	m := whisk.Match{Event: 1, Rule: name("r")}
	for _, tt := range []struct {
		name string
		left func(ev whisk.Event) []whisk.Entry
		want string // what is added
		runs int
	}{
		{"waiting", func(whisk.Event) []whisk.Entry { return nil }, "start1 record1final", 1},
		{"started", func(ev whisk.Event) []whisk.Entry {
			return []whisk.Entry{{Kind: whisk.EntryStart, Match: m, Attempt: 1, ActivationID: m.AttemptID(ev.ID, 1), At: now()}}
		}, "record1due start2 record2final", 1},
		{"failed, the next is due", func(ev whisk.Event) []whisk.Entry {
			a := ended(whisk.Invocation{}, whisk.WhiskError)
			return []whisk.Entry{{Kind: whisk.EntryRecord, Match: m, Attempt: 1, Record: &a, Due: now().Add(time.Minute)}}
		}, "start2 record2final", 1},
		{"exhausted", func(ev whisk.Event) []whisk.Entry {
			a := ended(whisk.Invocation{}, whisk.WhiskError)
			return []whisk.Entry{{Kind: whisk.EntryRecord, Match: m, Attempt: 3, Record: &a}}
		}, "dead", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, r := newWorld(t), &runs{}
				ev := w.archive.add(`{}`)
				v := whisk.Verdict{Event: whisk.Place{Seq: 1, ID: ev.ID}, At: now(), Rules: []whisk.RuleVerdict{
					{Rule: name("r"), Action: name("a"), Decision: whisk.Matched},
				}}
				w.journal.Append(t.Context(), whisk.Entry{Kind: whisk.EntryVerdict, Verdict: &v})
				left := tt.left(ev)
				w.journal.Append(t.Context(), left...)
				before := w.journal.kinds(m)
				began := time.Now()
				w.start(1, func(inv whisk.Invocation) (whisk.Activation, error) {
					if d := time.Since(began); len(left) > 0 && !left[0].Due.IsZero() && d < time.Minute {
						t.Errorf("it ran after %v, before it was due", d)
					}
					return r.run(inv)
				})
				time.Sleep(time.Hour)
				synctest.Wait()
				if got := strings.TrimSpace(strings.TrimPrefix(w.journal.kinds(m), before)); got != tt.want {
					t.Errorf("added %s, want %s", got, tt.want)
				}
				if len(r.all) != tt.runs {
					t.Errorf("%d runs, want %d", len(r.all), tt.runs)
				}
				if tt.name == "started" {
					rec := w.journal.of(whisk.EntryRecord)[0].Record
					if rec.Outcome != whisk.WhiskError || rec.ID != left[0].ActivationID || rec.Version != "0.0.7" ||
						rec.Namespace != "guest" || rec.Subject != "owner-of-guest" || rec.Annotations.Text("path") != "guest/a" ||
						string(rec.Result) != `{"error":"The server stopped while the action was running."}` {
						t.Errorf("record of the lost attempt = %+v", rec)
					}
				}
				w.end()
			})
		})
	}
}

func TestCarriedEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(t), &runs{}
		hold := make(chan struct{})
		w.opts = append(w.opts, WithFault(func(p string) {
			if p == "delivery begin" {
				<-hold
			}
		}))
		w.start(1, r.run)
		ev := w.fire(`{"x":1}`, "r")
		synctest.Wait()
		// The archive forgets the event; the journal has carried it.
		delete(w.archive.events, ev.Seq)
		other := &archive{events: map[uint64]whisk.Event{ev.Seq: ev}}
		w.journal.events = other
		close(hold)
		synctest.Wait()
		if len(r.all) != 1 || string(r.all[0].Payload) != `{"x":1}` {
			t.Errorf("runs = %+v, want the carried event's", r.all)
		}
		w.end()
	})
}

func TestRedeliver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newWorld(t), &runs{}
		evs := []whisk.Event{w.archive.add(`{"n":0}`), w.archive.add(`{"n":1}`), w.archive.add(`{"n":2}`)}
		verdict := func(i int) *whisk.Verdict {
			v := &whisk.Verdict{Event: whisk.Place{Seq: evs[i].Seq, ID: evs[i].ID}, At: now(), Rules: []whisk.RuleVerdict{
				{Rule: name("r"), Action: name("a"), Decision: whisk.Matched},
			}}
			w.journal.Append(t.Context(), whisk.Entry{Kind: whisk.EntryVerdict, Verdict: v})
			return v
		}
		known := verdict(0) // the journal hands it back at start
		w.start(1, r.run)
		if err := w.delivery.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		done, lost := verdict(1), verdict(2)
		// Of the second, the record outlived the verdict.
		a := ended(whisk.Invocation{}, whisk.Success)
		w.journal.Append(t.Context(), whisk.Entry{Kind: whisk.EntryRecord, Match: whisk.Match{Event: evs[1].Seq, Rule: name("r")}, Attempt: 1, Record: &a, Final: true})
		for _, v := range []*whisk.Verdict{known, done, lost} {
			if err := w.delivery.Redeliver(t.Context(), v); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		var got []string
		for _, inv := range r.all {
			got = append(got, string(inv.Payload))
		}
		if s := strings.Join(got, " "); s != `{"n":0} {"n":2}` {
			t.Errorf("ran %s, want each undone one once", s)
		}
		w.end()
	})
}

func TestInvokerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start(1, (&runs{}).run)
		if err := w.delivery.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.invoker.closed = true
		ev := w.fire(`{}`, "r")
		_, _, err := w.delivery.Call(t.Context(), runnable("a"), whisk.Invocation{ActivationID: whisk.NewID(now())}, time.Minute)
		if !errors.Is(err, whisk.Unavailable) {
			t.Errorf("Call = %v, want Unavailable", err)
		}
		synctest.Wait()
		w.end()
		r := &runs{}
		w.start(1, r.run)
		synctest.Wait()
		if got := w.journal.kinds(whisk.Match{Event: ev.Seq, Rule: name("r")}); got != "start1 record1final" || len(r.all) != 1 {
			t.Errorf("after the next start: %s, %d runs; want it taken up", got, len(r.all))
		}
		w.end()
		if err := w.delivery.Invoke(t.Context(), name("a"), whisk.Invocation{}); !errors.Is(err, whisk.Unavailable) {
			t.Errorf("Invoke after the stop = %v, want Unavailable", err)
		}
	})
}
