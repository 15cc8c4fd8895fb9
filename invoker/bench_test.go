package invoker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker"
	"github.com/millrace/millrace/invoker/process"
)

func TestMain(m *testing.M) {
	process.MaybeShim()
	os.Exit(m.Run())
}

// bench returns an invoker over processes that runs until the benchmark ends.
func bench(b *testing.B, opts ...invoker.Option) *invoker.Invoker {
	d, err := process.New(context.Background(), process.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	v := invoker.New(context.Background(), d, invoker.DefaultRuntimes(), nil, log, append([]invoker.Option{invoker.WithStemCells(0)}, opts...)...)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- v.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
		if err := d.Close(); err != nil {
			b.Error(err)
		}
	})
	return v
}

func noop(kind, code string) whisk.Runnable {
	a := whisk.Action{Exec: whisk.Exec{Kind: kind, Code: code}, Limits: whisk.StdLimits()}
	a.Name = whisk.Name{Namespace: "guest", Entity: "noop"}
	a.Version = "0.0.1"
	return whisk.Runnable{Action: a, Revision: 1}
}

var noops = []struct{ name, kind, code string }{
	{"python", "python:3", "def main(args):\n    return args\n"},
	{"node", "nodejs:20", "function main(args) { return args }"},
}

func job(run whisk.Runnable, done func(whisk.Activation, error)) whisk.Job {
	return whisk.Job{
		Runnable: run,
		Begin: func(context.Context) (whisk.Invocation, error) {
			now := time.Now()
			return whisk.Invocation{
				ActivationID: whisk.NewID(now), Namespace: "guest", Subject: "guest",
				Payload: json.RawMessage(`{"name":"World"}`), Received: now,
			}, nil
		},
		Done: done,
	}
}

// BenchmarkWarm is one call at a time, through everything the invoker does.
func BenchmarkWarm(b *testing.B) {
	for _, n := range noops {
		b.Run(n.name, func(b *testing.B) {
			v := bench(b)
			run := noop(n.kind, n.code)
			done := make(chan error)
			call := func() {
				err := v.Submit(job(run, func(a whisk.Activation, err error) {
					if err == nil && a.Outcome != whisk.Success {
						err = fmt.Errorf("%v: %s %v", a.Outcome, a.Result, a.Logs)
					}
					done <- err
				}))
				if err != nil {
					b.Fatal(err)
				}
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
			call()
			b.ResetTimer()
			for b.Loop() {
				call()
			}
		})
	}
}

// BenchmarkBacklog is many calls at once of one action.
func BenchmarkBacklog(b *testing.B) {
	for _, n := range noops {
		b.Run(n.name, func(b *testing.B) {
			v := bench(b, invoker.WithMemory(512<<20))
			run := noop(n.kind, n.code)
			slots := make(chan struct{}, 32)
			fail := make(chan error, 1)
			call := func() {
				slots <- struct{}{}
				err := v.Submit(job(run, func(a whisk.Activation, err error) {
					if err == nil && a.Outcome != whisk.Success {
						err = fmt.Errorf("%v: %s", a.Outcome, a.Result)
					}
					if err != nil {
						select {
						case fail <- err:
						default:
						}
					}
					<-slots
				}))
				if err != nil {
					b.Fatal(err)
				}
			}
			drain := func() {
				for range cap(slots) {
					slots <- struct{}{}
				}
				for range cap(slots) {
					<-slots
				}
			}
			for range 64 {
				call()
			}
			drain()
			b.ResetTimer()
			for b.Loop() {
				call()
			}
			drain()
			select {
			case err := <-fail:
				b.Fatal(err)
			default:
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
		})
	}
}
