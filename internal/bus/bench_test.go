package bus_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/internal/bus"
)

// rawSyncAlways measures the engine's own way to be durable: a sync for every
// publish. It returns publishes per second.
func rawSyncAlways(b *testing.B, producers int, span time.Duration) float64 {
	srv, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, JetStream: true, StoreDir: b.TempDir(), SyncAlways: true})
	if err != nil {
		b.Fatal(err)
	}
	srv.Start()
	defer srv.Shutdown()
	if !srv.ReadyForConnections(10 * time.Second) {
		b.Fatal("the raw server did not start")
	}
	nc, err := nats.Connect("", nats.InProcessServer(srv))
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := js.CreateStream(b.Context(), jetstream.StreamConfig{Name: "RAW", Subjects: []string{"raw"}}); err != nil {
		b.Fatal(err)
	}
	payload := make([]byte, 256)
	return perSecond(producers, span, func(int) error {
		_, err := js.Publish(b.Context(), "raw", payload)
		return err
	}, b)
}

// perSecond runs f from a number of goroutines for about a span.
func perSecond(producers int, span time.Duration, f func(n int) error, b *testing.B) float64 {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		total int
	)
	start := time.Now()
	for p := range producers {
		wg.Go(func() {
			n := 0
			for ; time.Since(start) < span; n++ {
				if err := f(p<<32 | n); err != nil {
					b.Error(err)
					return
				}
			}
			mu.Lock()
			total += n
			mu.Unlock()
		})
	}
	wg.Wait()
	return float64(total) / time.Since(start).Seconds()
}

// BenchmarkAlone compares one durable accept at a time with a bare append and
// fdatasync, taking turns, since others use the disk too.
func BenchmarkAlone(b *testing.B) {
	bb := openForBench(b)
	f, err := os.Create(filepath.Join(b.TempDir(), "bare"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, 512)
	var ours, bare []time.Duration
	for n := 0; b.Loop(); n++ {
		start := time.Now()
		if _, err := bb.Accept(b.Context(), event(n)); err != nil {
			b.Fatal(err)
		}
		mid := time.Now()
		if _, err := f.Write(data); err != nil {
			b.Fatal(err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
		ours, bare = append(ours, mid.Sub(start)), append(bare, time.Since(mid))
	}
	slices.Sort(ours)
	slices.Sort(bare)
	p50, flush := ours[len(ours)/2], bare[len(bare)/2]
	b.ReportMetric(float64(p50.Microseconds()), "p50-us")
	b.ReportMetric(float64(flush.Microseconds()), "flush-us")
	b.ReportMetric(float64(p50)/float64(flush), "x-one-flush")
}

// BenchmarkAccept compares durable accepts from many with raw publishes that
// the engine syncs one by one, taking turns.
func BenchmarkAccept(b *testing.B) {
	const turns, span = 5, 400 * time.Millisecond
	for _, producers := range []int{1, 64, 1024} {
		b.Run(fmt.Sprint(producers), func(b *testing.B) {
			bb := openForBench(b)
			var raw, ours float64
			for range turns {
				raw += rawSyncAlways(b, producers, span) / turns
				ours += perSecond(producers, span, func(n int) error {
					_, err := bb.Accept(b.Context(), event(n))
					return err
				}, b) / turns
			}
			for b.Loop() { //nolint:revive // the figures are the rates, measured above
			}
			b.ReportMetric(raw, "raw/s")
			b.ReportMetric(ours, "accepts/s")
			b.ReportMetric(ours/raw, "x-raw")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func openForBench(b *testing.B) *bus.Bus {
	bb, err := bus.Open(b.Context(), bus.Options{Dir: b.TempDir(), Log: slog.New(slog.DiscardHandler), EventsLimit: 4 << 30})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { bb.Close() })
	return bb
}

// BenchmarkReadEvents reads events as the judge does: from memory, and from the
// store when it is far behind.
func BenchmarkReadEvents(b *testing.B) {
	const count = 60_000
	bb := openForBench(b)
	for n := 0; n < count; n += 1000 {
		if _, err := bb.Accept(b.Context(), events(n, n+1000)...); err != nil {
			b.Fatal(err)
		}
	}
	for name, first := range map[string]uint64{"store": 1, "memory": count - 10_000} {
		b.Run(name, func(b *testing.B) {
			read := 0
			for b.Loop() {
				for next := first; next < min(first+10_000, count); {
					evs, err := bb.ReadEvents(b.Context(), next, 500)
					if err != nil {
						b.Fatal(err)
					}
					read += len(evs)
					next = evs[len(evs)-1].Seq + 1
				}
			}
			b.ReportMetric(float64(read)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
