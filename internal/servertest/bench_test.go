package servertest_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/servertest"
)

const (
	// noop is an action that does nothing.
	noop = "def main(args):\n    return {}\n"

	firePath = "/api/v1/namespaces/_/triggers/"
	noopPath = "/api/v1/namespaces/_/actions/noop?blocking=true&result=true"

	// limitHello is what the bare server reached at 64 connections where the
	// targets were set; elsewhere they are scaled by what it reaches there.
	limitHello = 92_000
)

// helloEnv makes a process of this test binary the bare server on the address
// that it holds.
const helloEnv = "TEST_HELLO"

func TestMain(m *testing.M) {
	if addr := os.Getenv(helloEnv); addr != "" {
		srv := &http.Server{Addr: addr, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("hello"))
		})}
		fmt.Fprintln(os.Stderr, srv.ListenAndServe())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// hello starts the baseline: a bare net/http server that says hello, in a
// process of its own like the server that it stands beside.
func hello(b *testing.B) *servertest.Client {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	addr := servertest.FreeAddr(b)
	cmd := exec.CommandContext(b.Context(), self)
	cmd.Env, cmd.Stderr = append(os.Environ(), helloEnv+"="+addr), os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Wait() }) // it is killed when the context of the benchmark ends
	c := &servertest.Client{URL: "http://" + addr, HTTP: http.DefaultClient}
	servertest.Eventually(b, time.Minute, "the bare server answers", func() bool {
		a, err := c.Do(b.Context(), "GET", "/", nil)
		return err == nil && a.Status == http.StatusOK
	})
	return c
}

// request drives clients that each send one request over and over.
func request(b *testing.B, c *servertest.Client, clients int, method, path, body string, status ...int) load {
	b.Helper()
	return driveEach(b, clients, func() func() error { return dial(b, c, 1, method, path, body, status...).call })
}

// line prints one line of the table: a figure, its times and what to hold it
// against.
func line(what string, l load, beside string, args ...any) {
	fmt.Printf("%-34s %8.0f /s  p50 %8.3f  p99 %8.3f ms   %s\n", what, l.perSecond, ms(l.p50), ms(l.p99), fmt.Sprintf(beside, args...))
}

// fact prints a line of the table that is not a rate.
func fact(what string, value float64, unit, beside string) {
	fmt.Printf("%-34s %8.1f %-34s %s\n", what, value, unit, beside)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// BenchmarkServer measures the hot paths of the real binary. Beside each figure
// stands what a bare HTTP server does with the same client, measured just
// before it: machines are noisy, and only what is measured together compares.
func BenchmarkServer(b *testing.B) {
	bare := hello(b)
	for _, driver := range servertest.Drivers() {
		b.Run(driver, func(b *testing.B) {
			p := newProcess(b, driver)
			starts(b, p, driver+": ready, new folder", "≤ 500")
			fact(driver+": idle memory", float64(resident(b, p.PID()))/1e6, "MB", "≤ 60")
			p.PutAction(b, "noop", "python:3", noop)
			p.Must(b, http.StatusOK, "PUT", firePath+"alone", map[string]any{}, nil)
			warm(b, p, bare, driver)
			fires(b, p, bare, driver)
			alone(b, p, driver)
			road(b, p, driver, scaleNow(b, bare))
			fill(b, p)
			p.Kill()
			size := sizeOf(b, p.Data)
			starts(b, p, fmt.Sprintf("%s: ready, killed, %d MB", driver, size/1e6), fmt.Sprintf("≤ %.0f", 500+float64(size)/1e6))
			for b.Loop() { //nolint:revive // the figures are printed above
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// bareNow measures the bare server.
func bareNow(b *testing.B, bare *servertest.Client, clients int) load {
	b.Helper()
	l := request(b, bare, clients, "GET", "/", "", 200)
	line(fmt.Sprintf("hello, %d clients", clients), l, "")
	return l
}

// scaleNow is how fast this machine is just now, against the one where the
// targets were set.
func scaleNow(b *testing.B, bare *servertest.Client) float64 {
	b.Helper()
	return bareNow(b, bare, 64).perSecond / limitHello
}

// warm measures blocking calls of an action that does nothing.
func warm(b *testing.B, p *servertest.Process, bare *servertest.Client, driver string) {
	b.Helper()
	alone := bareNow(b, bare, 1)
	call := request(b, p.Client, 1, "POST", noopPath, `{}`, 200)
	what := driver + ": warm no-op, 1 client"
	if driver == "docker" {
		frame := directFrame(b)
		line("docker: one direct frame", frame, "")
		line(what, call, "p50 %.2f × (hello + frame) (≤ 2)", ms(call.p50)/ms(alone.p50+frame.p50))
	} else {
		line(what, call, "p50 ≤ 1 ms")
	}
	scale := scaleNow(b, bare)
	call = request(b, p.Client, 32, "POST", noopPath, `{}`, 200)
	line(driver+": warm no-op, 32 clients", call, "≥ %.0f/s", 5000*scale)
}

// fires measures events that are acknowledged once they are on the disk.
func fires(b *testing.B, p *servertest.Process, bare *servertest.Client, driver string) {
	b.Helper()
	for _, clients := range []int{1, 64} {
		base := bareNow(b, bare, clients)
		raw := rawSyncAlways(b, clients)
		line(fmt.Sprintf("raw sync-always, %d clients", clients), raw, "")
		fire := request(b, p.Client, clients, "POST", firePath+"alone", `{"n":1}`, 202, 204)
		beside := fmt.Sprintf("%.1f × raw (≥ 8), %.2f of hello", fire.perSecond/raw.perSecond, fire.perSecond/base.perSecond)
		if clients == 1 {
			beside = fmt.Sprintf("p50 %.2f × raw (≤ 1.5)", ms(fire.p50)/ms(raw.p50))
		}
		line(fmt.Sprintf("%s: durable fire, %d clients", driver, clients), fire, "%s", beside)
	}
}

// starts starts a server and prints how long it took to be ready.
func starts(b *testing.B, p *servertest.Process, what, target string) {
	b.Helper()
	began := time.Now()
	p.Start()
	fact(what, ms(time.Since(began)), "ms", target)
}

// road fires events through one rule to an action and measures until the last
// is recorded.
func road(b *testing.B, p *servertest.Process, driver string, scale float64) {
	b.Helper()
	const clients, depth, rounds = 128, 8, 30
	const events = clients * depth * rounds
	p.PutRule(b, "on-busy", "busy", "noop", nil)
	wires := make([]*wire, clients)
	for i := range wires {
		wires[i] = dial(b, p.Client, depth, "POST", firePath+"busy", `{"n":1}`, 202)
	}
	before, err := cpu(p.PID())
	if err != nil {
		b.Fatal(err)
	}
	below, started := cpuBelow(p.PID()), time.Now()
	var wg sync.WaitGroup
	for _, w := range wires {
		wg.Go(func() {
			for range rounds {
				if err := w.call(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if b.Failed() {
		return
	}
	accepted := time.Since(started)
	count := func() int {
		var out struct{ Activations int }
		p.Must(b, http.StatusOK, "GET", fmt.Sprintf("/api/v1/namespaces/_/activations?count=true&name=noop&since=%d", started.UnixMilli()), nil, &out)
		return out.Activations
	}
	servertest.Eventually(b, 5*time.Minute, "every event is recorded", func() bool { return count() >= events })
	took := time.Since(started)
	after, err := cpu(p.PID())
	if err != nil {
		b.Fatal(err)
	}
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / events }
	fact(driver+": events accepted", events/accepted.Seconds(), "/s", "")
	fact(driver+": events through a rule, recorded", events/took.Seconds(), "/s", fmt.Sprintf("≥ %.0f", 10_000*scale))
	fact(driver+": CPU of the server", each(after-before), "µs an event", "")
	fact(driver+": CPU of the actions", each(cpuBelow(p.PID())-below), "µs an event", "")
	fact(driver+": memory after", float64(resident(b, p.PID()))/1e6, "MB", "")
}

// fill adds events until the store holds a few hundred megabytes.
func fill(b *testing.B, p *servertest.Process) {
	b.Helper()
	body := fmt.Sprintf(`{"text":%q}`, strings.Repeat("wheel ", 16<<10/6))
	var wg sync.WaitGroup
	for range 32 {
		w := dial(b, p.Client, 1, "POST", firePath+"alone", body, 202, 204)
		wg.Go(func() {
			for range 500 {
				if err := w.call(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// sizeOf is how many bytes the files of a folder hold.
func sizeOf(b *testing.B, dir string) int64 {
	b.Helper()
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return sum
}
