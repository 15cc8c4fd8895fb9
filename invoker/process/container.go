package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/millrace/millrace/invoker"
)

// removeTimeout bounds the end of a container that nobody waits for.
const removeTimeout = 10 * time.Second

// container is a launcher and all processes that it has made.
type container struct {
	id    string
	d     *Driver
	pid   int
	proc  *os.Process
	files [4]*os.File // our ends: requests, answers, stdout, stderr
	group *group      // nil without control groups
	work  string      // its folder on disk; empty in namespaces
	limit int64       // bytes

	starved atomic.Bool // it was killed for the memory it used
	paused  atomic.Bool
	done    chan struct{} // closed once it was waited for
	watched sync.WaitGroup
	code    int // valid once done is closed

	once    sync.Once
	removal error
}

var _ invoker.Container = (*container)(nil)

// spawn starts command in a container. What was made before an error is taken
// back.
func (d *Driver) spawn(spec invoker.Spec, command, expose []string) (_ *container, err error) {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil, os.ErrClosed
	}
	d.next++
	c := &container{
		d: d, id: filepath.Base(d.dir) + "-" + strconv.Itoa(d.next),
		limit: int64(spec.Memory) << 20, done: make(chan struct{}),
	}
	d.open[c] = struct{}{}
	d.mu.Unlock()
	defer func() {
		if err != nil {
			err = errors.Join(err, c.clean())
		}
	}()

	p := plan{
		Command: command, Env: d.env(c, spec, command[0]), Dir: "/tmp", Isolate: d.bare == nil,
		Root: os.Getuid() == 0 && (d.bare == nil || d.public != ""), Hide: d.hide, Expose: expose, Memory: c.limit,
	}
	switch {
	case d.groups != nil:
	case p.Isolate:
		p.Threads = maxProcesses // counted for this user in this namespace
	default:
		// All that this user runs counts, and may grow: it is no bound for one
		// action, but what a fork bomb is stopped by before it is found out.
		p.Threads = threads() + 16*maxProcesses
	}
	if !p.Isolate {
		c.work = filepath.Join(d.home(), "work-"+c.id)
		p.Dir = c.work
		if err := os.Mkdir(c.work, 0o700); err != nil {
			return nil, err
		}
		// The launcher runs as nobody and writes here.
		if p.Root {
			if err := os.Chown(c.work, nobody, nobody); err != nil {
				return nil, err
			}
		}
	}
	if d.groups != nil {
		if c.group, err = d.groups.make(c.id, c.limit); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return c, c.start(string(text))
}

// env is the environment that the launcher starts with: nothing of ours. The
// server's own environment may hold keys. PATH begins with the interpreter's
// folder, so that a program that the action starts by name finds the same one.
func (d *Driver) env(c *container, spec invoker.Spec, program string) []string {
	home := "/tmp"
	if d.bare != nil {
		home = filepath.Join(d.home(), "work-"+c.id)
	}
	env := []string{
		"PATH=" + filepath.Dir(program) + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + home, "TMPDIR=" + home, "LANG=C.UTF-8", "MILLRACE_WORK=" + filepath.Join(home, "action"),
	}
	for k, v := range spec.Env {
		env = append(env, k+"="+v)
	}
	return env
}

// start runs the shim, puts it under the limits and lets it go on. The order
// matters: the shim waits at the gate, a pipe in the place of its standard
// input, until it is in its control group and its note is on disk. So no moment
// of the action is without limits, and none is unknown to a later sweep.
func (c *container) start(text string) error {
	var theirs [5]*os.File // stdin, requests, answers, stdout, stderr
	defer func() {
		for _, f := range theirs {
			if f != nil {
				f.Close()
			}
		}
	}()
	stdin, gate, err := os.Pipe()
	if err != nil {
		return err
	}
	defer gate.Close()
	theirs[0] = stdin
	for i := range c.files {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		// Only requests go from us to them.
		if i == 0 {
			r, w = w, r
		}
		c.files[i], theirs[i+1] = r, w
	}
	// Theirs are 0 the gate, 1 and 2 the output, 3 and 4 requests and answers.
	attr := &os.ProcAttr{
		Files: []*os.File{theirs[0], theirs[3], theirs[4], theirs[1], theirs[2]},
		Env:   []string{}, Dir: "/", Sys: c.d.sysProcAttr(),
	}
	started := make(chan error)
	c.d.spawner <- func() {
		var err error
		c.proc, err = os.StartProcess("/proc/self/exe", []string{"millrace", shimArg, text}, attr)
		started <- err
	}
	if err := <-started; err != nil {
		return fmt.Errorf("start: %w", err)
	}
	c.pid = c.proc.Pid
	// At once: a process that nobody waits for stays as a zombie, and its end
	// would go unnoticed.
	go c.wait()
	if err := c.note(); err != nil {
		return errors.Join(err, c.Remove(context.Background()))
	}
	if c.group != nil {
		if err := c.group.add(c.pid); err != nil {
			return errors.Join(err, c.Remove(context.Background()))
		}
	} else {
		c.watched.Go(c.watch)
	}
	_, err = gate.Write([]byte{'.'})
	return err
}

// sysProcAttr says how the shim is started. It is root in its own user
// namespace, mapped to this user, which lets it mount; nobody is mapped only
// where this process is root and so may map others.
func (d *Driver) sysProcAttr() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true, Pdeathsig: deathSignal(d.bare == nil)}
	if d.bare != nil {
		return a
	}
	a.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
	uid, gid := os.Getuid(), os.Getgid()
	a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
	a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	if uid == 0 {
		a.UidMappings = append(a.UidMappings, syscall.SysProcIDMap{ContainerID: nobody, HostID: nobody, Size: 1})
		a.GidMappings = append(a.GidMappings, syscall.SysProcIDMap{ContainerID: nobody, HostID: nobody, Size: 1})
		a.GidMappingsEnableSetgroups = true
	}
	return a
}

// wait reaps the first process and learns how it ended.
func (c *container) wait() {
	state, err := c.proc.Wait()
	c.code = -1
	if err == nil {
		c.code = state.ExitCode()
		if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			c.code = 128 + int(ws.Signal())
		}
	}
	// After the code is set: whoever sees done closed may read it.
	close(c.done)
}

// ID implements invoker.Container.
func (c *container) ID() string { return c.id }

// Dial implements invoker.Container.
func (c *container) Dial(context.Context) (invoker.Conn, error) {
	return pipes{c.files[1], c.files[0]}, nil
}

// pipes are the two of them as one stream.
type pipes struct {
	*os.File // to read from
	to       *os.File
}

func (p pipes) Write(b []byte) (int, error) { return p.to.Write(b) }
func (p pipes) Close() error                { return errors.Join(p.File.Close(), p.to.Close()) }
func (p pipes) SetDeadline(t time.Time) error {
	if err := p.to.SetWriteDeadline(t); err != nil {
		return err
	}
	return p.File.SetReadDeadline(t)
}

// Logs implements invoker.Container.
func (c *container) Logs() (stdout, stderr io.ReadCloser) { return c.files[2], c.files[3] }

// firstOutput is what a container that has ended wrote before anybody read it.
func (c *container) firstOutput() string {
	var out bytes.Buffer
	for _, f := range c.files[2:] {
		// A child that is left may still hold the pipe open: there would be no
		// end of it.
		_ = f.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = io.CopyN(&out, f, 4096) // whatever there is
	}
	return out.String()
}

// Done implements invoker.Container.
func (c *container) Done() <-chan struct{} { return c.done }

// Ending implements invoker.Container.
func (c *container) Ending(ctx context.Context) invoker.Ending {
	e := invoker.Ending{ExitCode: -1}
	select {
	case <-c.done:
		e.ExitCode = c.code
	case <-ctx.Done():
	}
	e.OutOfMemory = c.starved.Load() || c.group != nil && c.group.outOfMemory()
	return e
}

// Pause implements invoker.Container.
func (c *container) Pause(context.Context) error {
	c.paused.Store(true)
	// A group freezes as a whole, also what is just being forked.
	if c.group != nil && c.group.freezes() {
		return c.group.freeze(true)
	}
	return c.signal(syscall.SIGSTOP)
}

// Resume implements invoker.Container.
func (c *container) Resume(context.Context) error {
	defer c.paused.Store(false)
	if c.group != nil && c.group.freezes() {
		return c.group.freeze(false)
	}
	return c.signal(syscall.SIGCONT)
}

// signal sends sig to all processes that can be found but the first, which
// only waits for them.
func (c *container) signal(sig syscall.Signal) error {
	select {
	case <-c.done:
		return os.ErrProcessDone
	default:
	}
	for _, pid := range descendants(c.pid) {
		_ = syscall.Kill(pid, sig) // one that has ended meanwhile needs none
	}
	return nil
}

// Remove implements invoker.Container.
func (c *container) Remove(ctx context.Context) error {
	c.once.Do(func() { c.removal = c.remove(ctx) })
	return c.removal
}

func (c *container) remove(ctx context.Context) error {
	c.kill()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ended := false; !ended; {
		select {
		case <-c.done:
			ended = true
		case <-tick.C:
			c.kill() // what was forked meanwhile
		case <-ctx.Done():
			_ = c.proc.Kill()
			return fmt.Errorf("remove container %s: %w", c.id, ctx.Err())
		}
	}
	c.watched.Wait()
	return c.clean()
}

// drop removes a container that nobody hears of, also when ctx has ended.
func (c *container) drop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	if err := c.Remove(ctx); err != nil {
		c.d.log.Warn("container not removed", slog.String("container", c.id), slog.Any("err", err))
	}
}

// kill ends every process of the container.
func (c *container) kill() {
	if c.group != nil {
		c.group.kill()
	}
	if c.d.bare == nil {
		_ = c.proc.Kill() // in a namespace, all end with the first
		return
	}
	// Here the first process ends when all others have: were it killed, they
	// would be lost to us.
	select {
	case <-c.done:
		return // its number may be another's by now
	default:
	}
	killAll(descendants(c.pid))
	// It does the same from its side, and takes what is forked meanwhile.
	_ = c.proc.Signal(syscall.SIGTERM)
}

// clean gives back what a container holds when it has no processes.
func (c *container) clean() error {
	var errs []error
	if c.group != nil {
		errs = append(errs, c.group.remove())
	}
	if c.work != "" {
		errs = append(errs, os.RemoveAll(c.work))
	}
	// The note after the group and the folder: if those cannot be removed
	// here, or the server ends in between, a sweep still can.
	if err := os.Remove(c.notePath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, f := range c.files {
		if f != nil {
			f.Close()
		}
	}
	c.d.mu.Lock()
	delete(c.d.open, c)
	c.d.mu.Unlock()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove container %s: %w", c.id, err)
	}
	return nil
}
