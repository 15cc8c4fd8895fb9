// Package invokertest defines what a correct invoker.Driver is: a suite of
// tests that every driver must pass, and a fake driver whose containers are
// goroutines, for the tests of what stands above drivers.
package invokertest

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker"
	"github.com/millrace/millrace/invoker/launcher"
)

// Fake is a driver without processes. The code of an action of its kinds is
// the name of one of its actions. The zero value is not usable: see NewFake.
type Fake struct {
	actions map[string]Action

	mu      sync.Mutex
	created []invoker.Spec
	live    map[*fakeContainer]struct{}
	memory  int // MiB of live containers
	most    int
	failure error
	gate    chan struct{}
	mute    bool
}

// Action is what a fake action does. What it returns is its answer; it may
// call End instead, which does not return.
type Action func(c *Call) json.RawMessage

// Call is one call of a fake action: the loading of its code (Init), or a run.
type Call struct {
	context.Context // ends when the container is removed
	Init            bool
	Args            json.RawMessage
	Env             map[string]string
	Stdout, Stderr  *os.File
	State           map[string]int // of the container
}

type ending invoker.Ending

// End ends the container.
func (c *Call) End(e invoker.Ending) { panic(ending(e)) }

// NewFake returns a driver for actions with the given names.
func NewFake(actions map[string]Action) *Fake {
	return &Fake{actions: actions, live: map[*fakeContainer]struct{}{}}
}

// FakeRuntimes offers the kind fake:1, with a stem cell of 256 MB if cells.
func FakeRuntimes(cells int) whisk.Runtimes {
	text := `{"runtimes":{"fake":[{"kind":"fake:1","image":{"name":"fake"},"launcher":"python"%s}]}}`
	stem := ""
	if cells > 0 {
		stem = fmt.Sprintf(`,"stemCells":[{"initialCount":%d,"memory":"256 MB"}]`, cells)
	}
	r, err := whisk.ParseRuntimes(fmt.Appendf(nil, text, stem))
	if err != nil {
		panic(err)
	}
	return r
}

// Fail makes Create return err from now on; nil ends that.
func (f *Fake) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failure = err
}

// Hold makes Create wait until the returned function is called.
func (f *Fake) Hold() (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	gate := make(chan struct{})
	f.gate = gate
	return sync.OnceFunc(func() {
		f.mu.Lock()
		f.gate = nil
		f.mu.Unlock()
		close(gate)
	})
}

// Mute makes containers made from now on answer nothing.
func (f *Fake) Mute() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mute = true
}

// Sever ends all containers, in such a way that only who writes to one learns
// of it.
func (f *Fake) Sever() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.live {
		c.severed.Store(true)
		c.ends[0][0].Close()
	}
}

// End ends all containers.
func (f *Fake) End() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.live {
		c.ends[0][0].Close()
	}
}

// Created returns what was made so far, in order.
func (f *Fake) Created() []invoker.Spec {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]invoker.Spec(nil), f.created...)
}

// Live returns how many containers there are, Most how many MiB all of them
// had together at the most.
func (f *Fake) Live() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.live)
}

// Most returns how many MiB all containers had together at the most.
func (f *Fake) Most() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.most
}

// Describe implements invoker.Driver.
func (f *Fake) Describe() (name, isolation string) { return "fake", "none" }

// Offers implements invoker.Driver.
func (f *Fake) Offers(_ context.Context, r whisk.Runtime) error {
	if r.Kind != "fake:1" {
		return errors.New("not a fake kind")
	}
	return nil
}

// Sweep implements invoker.Driver.
func (f *Fake) Sweep(context.Context) (int, error) { return 0, nil }

// Create implements invoker.Driver.
func (f *Fake) Create(ctx context.Context, spec invoker.Spec) (invoker.Container, error) {
	f.mu.Lock()
	gate := f.gate
	f.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failure != nil {
		return nil, f.failure
	}
	c := &fakeContainer{
		f: f, spec: spec, id: fmt.Sprint("fake-", len(f.created)+1),
		done: make(chan struct{}), mute: f.mute, paused: make(chan struct{}), state: map[string]int{},
	}
	close(c.paused)
	for i := range c.ends {
		var err error
		if c.ends[i][0], c.ends[i][1], err = os.Pipe(); err != nil {
			return nil, err
		}
	}
	c.ctx, c.kill = context.WithCancel(context.WithoutCancel(ctx))
	f.created = append(f.created, spec)
	f.live[c] = struct{}{}
	f.memory += spec.Memory
	f.most = max(f.most, f.memory)
	go c.serve()
	return c, nil
}

type fakeContainer struct {
	f     *Fake
	id    string
	spec  invoker.Spec
	ends  [4][2]*os.File // pipes: requests, answers, stdout, stderr
	ctx   context.Context
	kill  context.CancelFunc
	done  chan struct{}
	how   invoker.Ending
	once  sync.Once
	state map[string]int
	act   Action
	mute  bool

	severed atomic.Bool // it has ended, and Done does not tell

	mu     sync.Mutex
	paused chan struct{} // open while it is paused
}

func (c *fakeContainer) ID() string { return c.id }

func (c *fakeContainer) Dial(context.Context) (invoker.Conn, error) {
	return fakeConn{c.ends[1][0], c.ends[0][1]}, nil
}

func (c *fakeContainer) Logs() (stdout, stderr io.ReadCloser) { return c.ends[2][0], c.ends[3][0] }
func (c *fakeContainer) Done() <-chan struct{}                { return c.done }

func (c *fakeContainer) Pause(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = make(chan struct{})
	return nil
}

func (c *fakeContainer) Resume(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.paused)
	return nil
}

func (c *fakeContainer) Ending(ctx context.Context) invoker.Ending {
	select {
	case <-c.done:
		return c.how
	case <-ctx.Done():
		return invoker.Ending{ExitCode: -1}
	}
}

func (c *fakeContainer) Remove(context.Context) error {
	c.once.Do(func() {
		c.kill()
		c.ends[0][1].Close()
		<-c.done
		for _, e := range c.ends {
			e[0].Close()
			e[1].Close()
		}
		c.f.mu.Lock()
		defer c.f.mu.Unlock()
		delete(c.f.live, c)
		c.f.memory -= c.spec.Memory
	})
	return nil
}

// serve is the launcher and the action in one.
func (c *fakeContainer) serve() {
	defer close(c.done)
	defer c.ends[1][1].Close()
	in := launcher.NewReader(c.ends[0][0])
	for {
		k, body, _, err := in.Next(8 << 20)
		if err != nil && c.severed.Load() || c.mute {
			<-c.ctx.Done()
			return
		}
		if err != nil {
			return
		}
		c.mu.Lock()
		paused := c.paused
		c.mu.Unlock()
		select {
		case <-paused:
		case <-c.ctx.Done():
			return
		}
		var out []byte
		switch k {
		case launcher.Ping:
			out = launcher.AppendFrame(nil, launcher.Ping, body)
		case launcher.Init, launcher.Run:
			status, answer, ended := c.call(k, body)
			if ended {
				return
			}
			out = launcher.AppendFrame(nil, launcher.Answer, binary.BigEndian.AppendUint16(nil, uint16(status)), answer)
		default:
			continue
		}
		if _, err := c.ends[1][1].Write(out); err != nil {
			return
		}
	}
}

func (c *fakeContainer) call(k launcher.Kind, body []byte) (status int, answer []byte, ended bool) {
	call := &Call{Context: c.ctx, Init: k == launcher.Init, Stdout: c.ends[2][1], Stderr: c.ends[3][1], State: c.state, Env: map[string]string{}}
	defer func() {
		if e, ok := recover().(ending); ok {
			c.how, ended = invoker.Ending(e), true
		}
	}()
	var message map[string]json.RawMessage
	if err := json.Unmarshal(body, &message); err != nil {
		return 400, []byte(`{"error":"unreadable"}`), false
	}
	if call.Init {
		var code string
		_ = json.Unmarshal(message["code"], &code)
		_ = json.Unmarshal(message["env"], &call.Env)
		if c.act = c.f.actions[code]; c.act == nil {
			return 502, []byte(`{"error":"Cannot start action. Check logs for details."}`), false
		}
		c.act(call)
		return 200, []byte(`{"ok":true}`), false
	}
	call.Args = message["value"]
	answer = c.act(call)
	if c.ctx.Err() != nil {
		c.how = invoker.Ending{ExitCode: 137}
		return 0, nil, true
	}
	return 200, answer, false
}

type fakeConn struct {
	*os.File
	to *os.File
}

func (p fakeConn) Write(b []byte) (int, error) { return p.to.Write(b) }
func (p fakeConn) Close() error                { return errors.Join(p.File.Close(), p.to.Close()) }
func (p fakeConn) SetDeadline(t time.Time) error {
	return errors.Join(p.to.SetWriteDeadline(t), p.File.SetReadDeadline(t))
}
