// Package servertest starts whole servers for tests: the real binary in a
// process of its own, which can be killed at any instant and started again on
// the same folder. It knows the server only by its command line and its HTTP
// interfaces.
package servertest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// ready is how long a server may take to answer /ready before the test gives
// it up for broken; no test measures it.
const ready = 60 * time.Second

// Build compiles cmd/millrace once for the whole test binary, with the fault
// points that only tests can reach, and returns its path.
var Build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "millrace-bin-*")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "millrace")
	cmd := exec.Command("go", "build", "-tags", "faultpoints", "-o", bin, "github.com/millrace/millrace/cmd/millrace")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build cmd/millrace: %w\n%s", err, out)
	}
	return bin, nil
})

// Process is a server of the real binary that can be killed and started again.
type Process struct {
	*Client
	Data string   // its data folder
	Args []string // beyond serve, --data and --listen
	Env  []string // beyond the test's own
	// Group makes the server the leader of a process group, as a shell does, so
	// that a terminal's Ctrl-C can be had: Interrupt sends it to all of the group.
	Group bool

	t    testing.TB
	bin  string
	addr string
	cmd  *exec.Cmd
	out  *lockedBuffer
	done chan error
}

// NewProcess prepares a server on a folder and a port of its own. Start starts
// it; it is killed when the test ends.
func NewProcess(t testing.TB, args ...string) *Process {
	t.Helper()
	bin, err := Build()
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{
		Client: &Client{HTTP: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}},
		Data:   t.TempDir(), Args: args, t: t, bin: bin, addr: FreeAddr(t),
	}
	p.URL = "http://" + p.addr
	t.Cleanup(p.Kill)
	return p
}

// Start starts the server and waits until it is ready. The environment is that
// of this start alone.
func (p *Process) Start(env ...string) {
	p.t.Helper()
	p.Launch(env...)
	if err := p.AwaitReady(); err != nil {
		p.t.Fatalf("%v; the server said:\n%s", err, p.Output())
	}
}

// Launch starts the server and does not wait.
func (p *Process) Launch(env ...string) {
	p.t.Helper()
	args := append([]string{"serve", "--data", p.Data, "--listen", p.addr}, p.Args...)
	cmd := exec.Command(p.bin, args...)
	cmd.Env = append(append(os.Environ(), p.Env...), env...)
	p.out = &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = p.out, p.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: p.Group}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	p.cmd, p.done = cmd, done
}

// AwaitReady waits until /ready says yes, or the server has ended.
func (p *Process) AwaitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), ready)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if a, err := p.Do(ctx, "GET", "/ready", nil); err == nil && a.Status == http.StatusOK {
			break
		}
		select {
		case err := <-p.done:
			p.done <- err
			return fmt.Errorf("the server ended before it was ready: %w", err)
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the server was not ready after %v", ready)
		}
	}
	key, err := guestKey(p.Data)
	p.Auth = key
	return err
}

// Kill ends the server with SIGKILL, if it runs, and waits until it is gone.
func (p *Process) Kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill() // it may have ended by itself
	p.Wait()
}

// Stop ends the server with SIGTERM and returns its exit code.
func (p *Process) Stop() int {
	_ = p.Signal(syscall.SIGTERM)
	return p.Wait()
}

// Interrupt is Ctrl-C on the server's terminal: whatever it started and left in
// its group gets it as well. It needs Group.
func (p *Process) Interrupt() error { return syscall.Kill(-p.PID(), syscall.SIGINT) }

// Signal sends the server a signal.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Wait waits until the server has ended and returns its exit code; -1 after a
// signal.
func (p *Process) Wait() int {
	<-p.done
	code := p.cmd.ProcessState.ExitCode()
	p.cmd = nil
	p.HTTP.CloseIdleConnections()
	return code
}

// PID is the server's process ID.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Output returns what this start of the server has printed so far.
func (p *Process) Output() string { return p.out.String() }

// FreeAddr returns an address of the loopback that nobody listens on.
func FreeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// lockedBuffer collects output that one goroutine writes and another reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
