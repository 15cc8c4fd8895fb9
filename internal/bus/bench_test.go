package bus_test

import (
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

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

// BenchmarkAccept compares durable accepts with raw publishes that the engine
// syncs one by one, in the same run.
func BenchmarkAccept(b *testing.B) {
	const span = 2 * time.Second
	for _, producers := range []int{1, 64} {
		b.Run(map[int]string{1: "alone", 64: "64producers"}[producers], func(b *testing.B) {
			raw := rawSyncAlways(b, producers, span)
			o := bus.Options{Dir: b.TempDir(), Log: slog.New(slog.DiscardHandler), EventsLimit: 4 << 30}
			bb, err := bus.Open(b.Context(), o)
			if err != nil {
				b.Fatal(err)
			}
			defer bb.Close()
			ours := perSecond(producers, span, func(n int) error {
				_, err := bb.Accept(b.Context(), event(n))
				return err
			}, b)
			for b.Loop() { //nolint:revive // the figures are the rates, measured above
			}
			b.ReportMetric(raw, "raw/s")
			b.ReportMetric(ours, "accepts/s")
			b.ReportMetric(ours/raw, "x-raw")
			b.ReportMetric(0, "ns/op")
		})
	}
}
