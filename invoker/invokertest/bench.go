package invokertest

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker"
)

// Bench is a running invoker and what a test does with it.
type Bench struct {
	*invoker.Invoker
	T    testing.TB
	stop context.CancelFunc
	done chan struct{}
}

// Start runs an invoker over d until the test ends or Stop is called. It keeps
// no stem cells unless opts ask for them.
func Start(t testing.TB, d invoker.Driver, rt whisk.Runtimes, opts ...invoker.Option) *Bench {
	t.Helper()
	code := func(context.Context, string) (string, error) { return "", whisk.NotFound }
	log := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	opts = append([]invoker.Option{invoker.WithStemCells(0), invoker.WithDrain(10 * time.Second)}, opts...)
	b := &Bench{Invoker: invoker.New(context.Background(), d, rt, code, log, opts...), T: t, done: make(chan struct{})}
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	go func() {
		defer close(b.done)
		if err := b.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
	}()
	t.Cleanup(b.Stop)
	return b
}

// Stop ends the invoker and waits for it.
func (b *Bench) Stop() {
	b.stop()
	<-b.done
}

// Quit tells the invoker to stop and returns what is closed when it has.
func (b *Bench) Quit() <-chan struct{} {
	b.stop()
	return b.done
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}

// Runnable returns an action of the given kind and code in namespace guest.
func Runnable(name, kind, code string) whisk.Runnable {
	a := whisk.Action{Exec: whisk.Exec{Kind: kind, Code: code}, Limits: whisk.StdLimits()}
	a.Name = whisk.Name{Namespace: "guest", Entity: name}
	a.Version = "0.0.1"
	return whisk.Runnable{Action: a, Revision: 1}
}

// Job returns a job that runs r with payload and gives its end to done.
func (b *Bench) Job(r whisk.Runnable, payload string, done func(whisk.Activation, error)) whisk.Job {
	received := time.Now()
	return whisk.Job{
		Runnable: r, Done: done,
		Begin: func(context.Context) (whisk.Invocation, error) {
			return whisk.Invocation{
				ActivationID: whisk.NewID(received), Namespace: "guest", Subject: "guest-subject",
				Payload: json.RawMessage(payload), Received: received,
			}, nil
		},
	}
}

// Result is the end of a job.
type Result struct {
	whisk.Activation
	Err error
}

// Go submits a job and returns where its end will be.
func (b *Bench) Go(r whisk.Runnable, payload string) <-chan Result {
	b.T.Helper()
	c := make(chan Result, 1)
	if err := b.Submit(b.Job(r, payload, func(a whisk.Activation, err error) { c <- Result{a, err} })); err != nil {
		b.T.Fatalf("Submit(%v) = %v", r.Action.Name, err)
	}
	return c
}

// Call runs a job to its end, which must be a record.
func (b *Bench) Call(r whisk.Runnable, payload string) whisk.Activation {
	b.T.Helper()
	return b.Wait(b.Go(r, payload))
}

// Wait waits for a record.
func (b *Bench) Wait(c <-chan Result) whisk.Activation {
	b.T.Helper()
	select {
	case r := <-c:
		if r.Err != nil {
			b.T.Fatalf("the job ended with %v", r.Err)
		}
		return r.Activation
	case <-time.After(2 * time.Minute):
		b.T.Fatal("no end of the job after two minutes")
	}
	panic("not reached")
}

// Expect checks the outcome and the result of a record.
func Expect(t testing.TB, a whisk.Activation, o whisk.Outcome, result string) {
	t.Helper()
	if a.Outcome != o || string(a.Result) != result {
		t.Errorf("activation = %v, %.300s, want %v, %.300s; logs %.2000q", a.Outcome, a.Result, o, result, a.Logs)
	}
}

// Output returns the log lines of a record without their times.
func Output(a whisk.Activation) []string {
	out := make([]string, len(a.Logs))
	for i, l := range a.Logs {
		if len(l) > 31 {
			l = l[31:]
		}
		out[i] = l
	}
	return out
}

// HasLine reports whether a log holds a line.
func HasLine(a whisk.Activation, line string) bool { return slices.Contains(Output(a), line) }

// Eventually waits until ok says yes, for at most half a minute.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not so after half a minute: %s", what)
		}
	}
}
