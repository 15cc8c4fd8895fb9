package servertest_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/servertest"
)

// span is how long each figure is measured.
const span = 2 * time.Second

// load is what a number of clients saw.
type load struct {
	perSecond float64
	p50, p99  time.Duration
}

// drive has clients call f one after another for about span.
func drive(b *testing.B, clients int, f func() error) load {
	b.Helper()
	return driveEach(b, clients, func() func() error { return f })
}

// driveEach is drive with a function of its own for each client.
func driveEach(b *testing.B, clients int, each func() func() error) load {
	b.Helper()
	var (
		mu    sync.Mutex
		times []time.Duration
		wg    sync.WaitGroup
	)
	fs := make([]func() error, clients)
	for i := range fs {
		fs[i] = each()
	}
	start := time.Now()
	for _, f := range fs {
		wg.Go(func() {
			var own []time.Duration
			for at := time.Now(); at.Sub(start) < span; {
				if err := f(); err != nil {
					b.Error(err)
					return
				}
				now := time.Now()
				own, at = append(own, now.Sub(at)), now
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

// wire is a keep-alive connection that sends one prepared request again and
// again. It does as little as a client can: on a small machine the client's
// work is taken from the server's.
type wire struct {
	conn    net.Conn
	in      *bufio.Reader
	request []byte // as often as there are requests in flight
	depth   int
	status  []int // those that are right
}

// dial connects a wire that keeps depth requests in flight.
func dial(b *testing.B, c *servertest.Client, depth int, method, path, body string, status ...int) *wire {
	b.Helper()
	host := strings.TrimPrefix(c.URL, "http://")
	var dialer net.Dialer
	conn, err := dialer.DialContext(b.Context(), "tcp", host)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	var req bytes.Buffer
	fmt.Fprintf(&req, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, host)
	if c.Auth != "" {
		fmt.Fprintf(&req, "Authorization: Basic %s\r\n", base64.StdEncoding.EncodeToString([]byte(c.Auth)))
	}
	if body != "" {
		fmt.Fprintf(&req, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	fmt.Fprintf(&req, "\r\n%s", body)
	return &wire{conn, bufio.NewReader(conn), bytes.Repeat(req.Bytes(), depth), depth, status}
}

// call sends the requests and reads the answer of each.
func (w *wire) call() error {
	if _, err := w.conn.Write(w.request); err != nil {
		return err
	}
	for range w.depth {
		if err := w.answer(); err != nil {
			return err
		}
	}
	return nil
}

var lengthHeader = []byte("Content-Length: ")

func (w *wire) answer() error {
	first, err := w.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if len(first) < 12 {
		return fmt.Errorf("the answer begins with %q", first)
	}
	status, err := strconv.Atoi(string(first[9:12]))
	if err != nil {
		return fmt.Errorf("the answer begins with %q", first)
	}
	length := 0
	for {
		line, err := w.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
		if value, ok := bytes.CutPrefix(line, lengthHeader); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if slices.Contains(w.status, status) {
		_, err = w.in.Discard(length)
		return err
	}
	body, err := io.ReadAll(io.LimitReader(w.in, int64(length)))
	if err != nil {
		return err
	}
	return fmt.Errorf("the answer is %d %s", status, body)
}

// rawSyncAlways measures the engine's own way to be durable, a sync for every
// publish, without HTTP.
func rawSyncAlways(b *testing.B, clients int) load {
	b.Helper()
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
	return drive(b, clients, func() error {
		_, err := js.Publish(b.Context(), "raw", payload)
		return err
	})
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

// userHZ is the unit of the times in /proc on Linux.
const userHZ = 100

// cpu is the time that a process has spent, without its children.
func cpu(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / userHZ), nil
}

// cpuBelow is the time that the living descendants of a process have spent.
func cpuBelow(pid int) time.Duration {
	var sum time.Duration
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)) // it may have ended
	threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	children := strings.Fields(string(text))
	for _, t := range threads {
		if t.Name() == strconv.Itoa(pid) {
			continue
		}
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		children = append(children, strings.Fields(string(text))...)
	}
	for _, c := range children {
		child, err := strconv.Atoi(c)
		if err != nil {
			continue
		}
		own, _ := cpu(child) // one that has ended counts for nothing
		sum += own + cpuBelow(child)
	}
	return sum
}
