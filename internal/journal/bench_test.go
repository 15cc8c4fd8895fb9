package journal_test

import (
	"log/slog"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/journal"
	"github.com/millrace/millrace/internal/whisk"
)

func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u) //nolint:errcheck // it can't fail for the process itself
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// perEntry reports entries a second and the CPU of each.
func perEntry(b *testing.B, entries int, began time.Duration) {
	b.ReportMetric(float64(entries)/b.Elapsed().Seconds(), "entries/s")
	b.ReportMetric(float64((cpu()-began).Microseconds())/float64(entries), "cpu-µs/entry")
}

// BenchmarkRoad is the journal's part of an event's road: verdicts in batches
// of 64 by one judge, a start and a record by each of 64 that run.
func BenchmarkRoad(b *testing.B) {
	for _, d := range []struct {
		name string
		bus.Durability
	}{{"disk", bus.Disk}, {"process", bus.Process}} {
		b.Run(d.name, func(b *testing.B) {
			n := start(b, b.TempDir(), d.Durability)
			const batch, runners = 64, 64
			var evs []whisk.Event
			for i := 0; len(evs) < b.N; i += 1000 {
				some := newEvents(i, 1000)
				places, err := n.bus.Accept(b.Context(), some...)
				if err != nil {
					b.Fatal(err)
				}
				for k := range some {
					some[k].Seq = places[k].Seq
				}
				evs = append(evs, some...)
			}
			evs = evs[:b.N]
			queue := make(chan *whisk.Event, 4096)
			done := make(chan error, runners)
			runtime.GC()
			began := cpu()
			b.ResetTimer()
			for range runners {
				go func() {
					for ev := range queue {
						if err := n.j.Append(b.Context(), startEntry(ev)); err != nil {
							done <- err
							return
						}
						if err := n.j.Append(b.Context(), recordEntry(ev)); err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}()
			}
			for i := 0; i < len(evs); i += batch {
				part := evs[i:min(i+batch, len(evs))]
				vs := make([]whisk.Verdict, len(part))
				for k := range part {
					vs[k] = verdictOf(&part[k])
				}
				if err := n.j.Verdicts(b.Context(), part[0].Seq, vs[len(vs)-1].Event, vs); err != nil {
					b.Fatal(err)
				}
				for k := range part {
					queue <- &part[k]
				}
			}
			close(queue)
			for range runners {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
			perEntry(b, 3*b.N, began)
			b.StopTimer()
		})
	}
}

// BenchmarkAlone is one append after the other: what a start or a record adds
// to a quiet event.
func BenchmarkAlone(b *testing.B) {
	n := start(b, b.TempDir(), bus.Disk)
	evs := newEvents(0, 1)
	evs[0].Seq = 1
	began := cpu()
	b.ResetTimer()
	for range b.N {
		if err := n.j.Append(b.Context(), startEntry(&evs[0])); err != nil {
			b.Fatal(err)
		}
	}
	perEntry(b, b.N, began)
}

// BenchmarkStart opens a journal of 60,000 entries that has to be read from its
// beginning: all undone, or all done but the first.
func BenchmarkStart(b *testing.B) {
	for _, undone := range []bool{true, false} {
		name, events := "done", 20_000
		if undone {
			name = "undone"
		}
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			n := start(b, dir, bus.Process)
			evs := newEvents(0, events)
			places, err := n.bus.Accept(b.Context(), evs...)
			if err != nil {
				b.Fatal(err)
			}
			var vs []whisk.Verdict
			var es []whisk.Entry
			for i := range evs {
				evs[i].Seq = places[i].Seq
				vs = append(vs, verdictOf(&evs[i]))
				es = append(es, startEntry(&evs[i]))
				if i > 0 && !undone {
					es = append(es, recordEntry(&evs[i]))
				}
			}
			if err := n.j.Verdicts(b.Context(), 1, vs[events-1].Event, vs); err != nil {
				b.Fatal(err)
			}
			if err := n.j.AppendDurable(b.Context(), es...); err != nil {
				b.Fatal(err)
			}
			st, err := n.bus.State(b.Context(), bus.StreamJournal)
			if err != nil {
				b.Fatal(err)
			}
			n.stop(b)
			log := slog.New(slog.DiscardHandler)
			server, err := bus.Open(b.Context(), bus.Options{Dir: dir, Durability: bus.Process, Log: log, Metrics: prometheus.NewRegistry()})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { server.Close() }) //nolint:errcheck // nothing is written
			for b.Loop() {
				j, err := journal.Open(b.Context(), server, journal.Options{Index: filepath.Join(dir, "index.db"), Log: log, Metrics: prometheus.NewRegistry()})
				if err != nil {
					b.Fatal(err)
				}
				if got := len(j.Undone()); got != 1 && got != events {
					b.Fatalf("%d undone", got)
				}
				if err := j.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(st.Bytes)*float64(b.N)/1e6/b.Elapsed().Seconds(), "MB/s")
			b.ReportMetric(float64(len(vs)+len(es))*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}
