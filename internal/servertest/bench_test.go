package servertest_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/servertest"
)

// span is how long each figure is measured.
const span = 3 * time.Second

// noop is an action that does nothing.
const noop = "def main(args):\n    return {}\n"

// load is what a number of clients saw.
type load struct {
	perSecond float64
	p50, p99  time.Duration
}

// drive has clients call f one after another for about span.
func drive(b *testing.B, clients int, f func(ctx context.Context) error) load {
	b.Helper()
	var (
		mu    sync.Mutex
		times []time.Duration
		wg    sync.WaitGroup
	)
	start := time.Now()
	for range clients {
		wg.Go(func() {
			var own []time.Duration
			for time.Since(start) < span {
				t := time.Now()
				if err := f(b.Context()); err != nil {
					b.Error(err)
					return
				}
				own = append(own, time.Since(t))
			}
			mu.Lock()
			times = append(times, own...)
			mu.Unlock()
		})
	}
	wg.Wait()
	took := time.Since(start)
	if len(times) == 0 {
		b.Fatal("nothing was measured")
	}
	slices.Sort(times)
	return load{float64(len(times)) / took.Seconds(), times[len(times)/2], times[len(times)*99/100]}
}

// hello serves the baseline: a bare net/http server that says hello.
func hello(b *testing.B) *servertest.Client {
	b.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("hello"))
	})}
	go func() { _ = srv.Serve(l) }()
	b.Cleanup(func() { srv.Close() })
	return &servertest.Client{URL: "http://" + l.Addr().String(), HTTP: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128}}}
}

// calls returns a function that makes one request and wants one of two
// statuses.
func calls(c *servertest.Client, method, path, body string, status, other int) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		a, err := c.Do(ctx, method, path, body)
		if err == nil && a.Status != status && a.Status != other {
			err = fmt.Errorf("%s %s = %d %s", method, path, a.Status, a.Body)
		}
		return err
	}
}

// report prints one line of figures beside those of the baseline.
func report(b *testing.B, what string, got, base load) {
	b.Helper()
	fmt.Printf("%-44s %9.0f/s  p50 %8.3f ms  p99 %8.3f ms  %5.2f of hello\n",
		what, got.perSecond, ms(got.p50), ms(got.p99), got.perSecond/base.perSecond)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// BenchmarkServer measures the hot paths of the real binary, each beside a bare
// HTTP server that is called by the same client in the same run.
func BenchmarkServer(b *testing.B) {
	for _, driver := range servertest.Drivers() {
		b.Run(driver, func(b *testing.B) {
			p := newProcess(b, driver)
			began := time.Now()
			p.Start()
			fmt.Printf("%-44s %9.0f ms\n", driver+": ready after", ms(time.Since(began)))
			fmt.Printf("%-44s %9.1f MB\n", driver+": idle memory", float64(resident(b, p.PID()))/1e6)
			p.PutAction(b, "noop", "python:3", noop)
			p.Must(b, http.StatusOK, "PUT", "/api/v1/namespaces/_/triggers/alone", map[string]any{}, nil)
			bare := hello(b)
			for _, clients := range []int{1, 32, 64} {
				base := drive(b, clients, calls(bare, "GET", "/", "", 200, 200))
				report(b, fmt.Sprintf("%s: hello, %d clients", driver, clients), base, base)
				fire := drive(b, clients, calls(p.Client, "POST", "/api/v1/namespaces/_/triggers/alone", `{"n":1}`, 202, 204))
				report(b, fmt.Sprintf("%s: durable fire, %d clients", driver, clients), fire, base)
				call := drive(b, clients, calls(p.Client, "POST", "/api/v1/namespaces/_/actions/noop?blocking=true&result=true", `{}`, 200, 200))
				report(b, fmt.Sprintf("%s: warm blocking no-op, %d clients", driver, clients), call, base)
			}
			road(b, p, driver)
			for b.Loop() { //nolint:revive // the figures are printed above
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// road fires events through one rule to an action and measures until the last
// is recorded.
func road(b *testing.B, p *servertest.Process, driver string) {
	b.Helper()
	const events, clients = 20_000, 64
	p.PutRule(b, "on-busy", "busy", "noop", nil)
	before, started := cpu(b, p.PID()), time.Now()
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			f := calls(p.Client, "POST", "/api/v1/namespaces/_/triggers/busy", `{"n":1}`, 202, 202)
			for range events / clients {
				if err := f(b.Context()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	accepted := time.Since(started)
	count := func() int {
		var out struct{ Activations int }
		p.Must(b, http.StatusOK, "GET", fmt.Sprintf("/api/v1/namespaces/_/activations?count=true&name=noop&since=%d", started.UnixMilli()), nil, &out)
		return out.Activations
	}
	servertest.Eventually(b, 5*time.Minute, "every event is recorded", func() bool { return count() >= events/clients*clients })
	took := time.Since(started)
	spent := cpu(b, p.PID()) - before
	n := float64(events / clients * clients)
	fmt.Printf("%-44s %9.0f/s accepted  %6.0f/s recorded  %5.0f µs CPU of the server an event\n",
		driver+": events through a rule to Python", n/accepted.Seconds(), n/took.Seconds(), float64(spent.Microseconds())/n)
}

// resident is the memory of a process in bytes.
func resident(b *testing.B, pid int) int64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// cpu is the time that a process has spent, without its children.
func cpu(b *testing.B, pid int) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100) // USER_HZ is 100 on Linux
}
