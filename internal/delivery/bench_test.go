package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// sink is a journal that forgets, as fast as a real one may be: it measures the
// road alone.
type sink struct{ records atomic.Int64 }

func (s *sink) Append(_ context.Context, es ...whisk.Entry) error {
	for i := range es {
		if es[i].Kind == whisk.EntryRecord {
			s.records.Add(1)
		}
	}
	return nil
}

func (s *sink) AppendDurable(ctx context.Context, es ...whisk.Entry) error {
	return s.Append(ctx, es...)
}
func (s *sink) Undone() []whisk.Pending { return nil }
func (s *sink) Pending(context.Context, whisk.Match) (whisk.Pending, error) {
	return whisk.Pending{}, whisk.E(whisk.NotFound, "pending", errCrash)
}
func (s *sink) RecordCall(context.Context, whisk.Activation) error { return nil }
func (s *sink) Bury(context.Context, whisk.DeadLetter) error       { return nil }

// BenchmarkRoad carries matches from verdict to record over fakes.
func BenchmarkRoad(b *testing.B) {
	for _, slots := range []int{1, 16} {
		b.Run(fmt.Sprintf("slots=%d", slots), func(b *testing.B) {
			ctx, cancel := context.WithCancel(b.Context())
			w, j := newWorld(b), &sink{}
			ev := w.archive.add(`{"hello":"world","n":1}`)
			w.entities.params = whisk.Params{}.Set("a", "1")
			inv := newInvoker(ctx, slots, func(inv whisk.Invocation) (whisk.Activation, error) {
				return ended(inv, whisk.Success), nil
			})
			d := New(Parts{
				Journal: j, Events: w.archive, Invoker: inv, Entities: w.entities, Rules: w.entities,
				Owner: func(string) (string, bool) { return "guest", true },
			}, slog.New(slog.DiscardHandler))
			stopped := make(chan error, 1)
			go func() { stopped <- d.Run(ctx) }()
			v := whisk.Verdict{Event: whisk.Place{Seq: ev.Seq, ID: ev.ID}, At: now(), Rules: []whisk.RuleVerdict{
				{Rule: name("r"), Action: name("a"), Decision: whisk.Matched},
			}}
			b.ResetTimer()
			for range b.N {
				if err := d.Wait(ctx); err != nil {
					b.Fatal(err)
				}
				if err := d.Deliver(ctx, &v); err != nil {
					b.Fatal(err)
				}
			}
			for j.records.Load() < int64(b.N) {
				runtime.Gosched()
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "matches/s")
			cancel()
			<-stopped
			inv.wg.Wait()
		})
	}
}

// BenchmarkWaiting tells what a waiting match costs in memory.
func BenchmarkWaiting(b *testing.B) {
	w := newWorld(b)
	d := New(Parts{Journal: &sink{}, Events: w.archive, Entities: w.entities, Rules: w.entities}, slog.New(slog.DiscardHandler))
	v := whisk.Verdict{Event: whisk.Place{Seq: 1, ID: whisk.NewID(time.Now())}, At: now(), Rules: []whisk.RuleVerdict{
		{Rule: name("r"), Action: name("a"), Decision: whisk.Matched},
	}}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range b.N {
		if err := d.Deliver(b.Context(), &v); err != nil {
			b.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(b.N), "B/match")
	runtime.KeepAlive(d)
}
