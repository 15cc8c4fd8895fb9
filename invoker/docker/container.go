package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/pkg/stdcopy"
	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker"
	"github.com/millrace/millrace/invoker/launcher"
)

// Where things are inside a container of ours. Its /tmp is in memory, with
// exec, as actions run programs from there, and without a size: what lies in it
// counts as the container's memory, which is limited.
const (
	channelDir  = "/run/millrace" // the socket and the pipes
	launcherDir = "/opt/millrace" // the launcher, read-only
	nobody      = "65534:65534"   // whom our launchers run as
	port        = "8080"          // of an image that serves /init and /run
	tmpOptions  = "rw,exec,nosuid,nodev,mode=1777"
	pidsLimit   = 1024
	files       = 1024 // open files
	endingWait  = time.Second
)

// imageRights are what images that are not ours get of root's rights: some
// start as root, put files where they belong, and go on as another user.
var imageRights = []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"}

// box is one container.
type box struct {
	d      *Driver
	id     string
	launch bool // a launcher of ours runs in it

	dir    string       // its channel folder
	listen net.Listener // on the socket there
	logs   [2]io.ReadCloser
	pumped sync.WaitGroup // copies the output of an image

	addr string // of an image's server
	done chan struct{}
	code int // valid once done is closed

	once    sync.Once
	removed error
}

// Create implements invoker.Driver.
func (d *Driver) Create(ctx context.Context, spec invoker.Spec) (_ invoker.Container, err error) {
	// Also where runtimes are not pulled: here an action asks for the image.
	if err := d.ensure(ctx, spec.Image, true); err != nil {
		// No fault of the action's: its image may well be there.
		if lost(err) || ctx.Err() != nil {
			return nil, fmt.Errorf("look for image: %w", err)
		}
		d.o.Log.Warn("image not there", slog.String("image", spec.Image), slog.Any("err", err))
		return nil, whisk.E(whisk.Invalid, "create container", fmt.Errorf("Failed to pull container image '%s'.", spec.Image)) //nolint:staticcheck // upstream's wording
	}
	c := &box{d: d, launch: spec.Launcher != "", done: make(chan struct{}), code: -1}
	defer func() {
		if err != nil {
			c.clean()
		}
	}()
	cfg, host, err := d.configure(c, spec)
	if err != nil {
		return nil, err
	}
	made, err := d.api.ContainerCreate(ctx, cfg, host, nil, nil, "")
	if err != nil {
		return nil, fmt.Errorf("create container: %w", err)
	}
	c.id = made.ID
	if err := d.start(ctx, c); err != nil {
		// Starting was the daemon's second step, so there is a container to
		// remove.
		rerr := d.removeContainer(context.WithoutCancel(ctx), c.id)
		if strings.Contains(err.Error(), "executable file not found") {
			err = whisk.E(whisk.Invalid, "start container", fmt.Errorf("executable file not found in image %s", spec.Image))
		}
		return nil, errors.Join(err, rerr)
	}
	return c, nil
}

// configure says how the container is to be. A container of ours has nothing
// that an action does not need; an image of others keeps its user and a root
// that it can write to, since stock images put code beside their server.
func (d *Driver) configure(c *box, spec invoker.Spec) (*container.Config, *container.HostConfig, error) {
	limit, processes := int64(spec.Memory)<<20, int64(pidsLimit)
	cfg := &container.Config{
		Image: spec.Image, Env: []string{},
		Labels: map[string]string{labelHome: d.o.Dir, labelInstance: d.dir, labelKind: spec.Kind, labelOwner: spec.Owner},
	}
	for k, v := range spec.Env {
		cfg.Env = append(cfg.Env, k+"="+v)
	}
	// Swap equal to memory means none. The daemon keeps no log: all output is
	// read here, and a file of it would grow without bound.
	host := &container.HostConfig{
		NetworkMode: bridge,
		CapDrop:     []string{"ALL"},
		SecurityOpt: []string{"no-new-privileges"},
		LogConfig:   container.LogConfig{Type: "none"},
		Resources: container.Resources{
			Memory: limit, MemorySwap: limit, PidsLimit: &processes,
			Ulimits: []*container.Ulimit{{Name: "nofile", Soft: files, Hard: files}},
		},
	}
	if !c.launch {
		host.CapAdd = imageRights
		host.NetworkMode = container.NetworkMode(d.network)
		cfg.AttachStdout, cfg.AttachStderr = true, true
		return cfg, host, nil
	}
	p, err := launcher.Find(spec.Launcher)
	if err != nil {
		return nil, nil, err
	}
	if err := c.openChannel(d.dir); err != nil {
		return nil, nil, err
	}
	source, target := filepath.Join(d.dir, p.File), launcherDir+"/"+p.File
	interpreter := map[string]string{launcher.Python: "python3", launcher.Node: "node"}[p.Name]
	if p.Name == launcher.Native {
		if source, err = d.program(); err != nil {
			return nil, nil, err
		}
		target = launcherDir + "/millrace"
		interpreter = target
	}
	cfg.Entrypoint = append(p.Command(interpreter, target, spec.Memory), channelDir)
	// An empty command, so that the image's own is not appended to ours.
	cfg.Cmd, cfg.User, cfg.WorkingDir = []string{}, nobody, "/tmp"
	cfg.Env = append(cfg.Env, "HOME=/tmp", "TMPDIR=/tmp", "LANG=C.UTF-8", "MILLRACE_WORK=/tmp/action")
	host.ReadonlyRootfs = true
	host.Tmpfs = map[string]string{"/tmp": tmpOptions}
	host.Mounts = []mount.Mount{
		{Type: mount.TypeBind, Source: source, Target: target, ReadOnly: true},
		{Type: mount.TypeBind, Source: c.dir, Target: channelDir},
	}
	return cfg, host, nil
}

// openChannel makes the folder through which the launcher connects. Only its
// owner comes as far as this folder on the machine; inside it is the
// container's nobody who must.
func (c *box) openChannel(parent string) (err error) {
	if c.dir, err = os.MkdirTemp(parent, "c"); err != nil {
		return err
	}
	folder, err := os.Open(c.dir)
	if err != nil {
		return err
	}
	defer folder.Close()
	// The path of a socket may have 107 bytes; that of the folder has no limit.
	short := "/proc/self/fd/" + strconv.Itoa(int(folder.Fd())) + "/sock"
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return err
	}
	// By that short path it could not be removed later: the descriptor is
	// gone.
	l.SetUnlinkOnClose(false)
	c.listen = l
	for i, name := range []string{"out", "err"} {
		path := filepath.Join(c.dir, name)
		if err := unix.Mkfifo(path, 0o666); err != nil {
			return err
		}
		// Open for writing too: the pipe has no end before the container does.
		f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		c.logs[i] = f
		if err := os.Chmod(path, 0o666); err != nil { //nolint:gosec // see above
			return err
		}
	}
	if err := os.Chmod(filepath.Join(c.dir, "sock"), 0o666); err != nil { //nolint:gosec // see above
		return err
	}
	return os.Chmod(c.dir, 0o755) //nolint:gosec // see above
}

// start starts the container and watches it.
func (d *Driver) start(ctx context.Context, c *box) error {
	if !c.launch {
		// Before the start, or the first lines would be missed: no log keeps
		// them.
		if err := c.attach(ctx); err != nil {
			return err
		}
	}
	if err := d.api.ContainerStart(ctx, c.id, container.StartOptions{}); err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	// Watched until it is gone, whoever asked for it.
	watch := context.WithoutCancel(ctx)
	ended, failed := d.api.ContainerWait(watch, c.id, container.WaitConditionNotRunning)
	go func() {
		select {
		case e := <-ended:
			c.code = int(e.StatusCode)
		case err := <-failed: // removed, or the daemon is gone: no code
			d.o.Log.Debug("container not watched to its end", slog.String("container", c.ID()), slog.Any("err", err))
		}
		close(c.done)
	}()
	if c.launch {
		return nil
	}
	// The address is given out by the start.
	in, err := d.api.ContainerInspect(ctx, c.id)
	if err != nil {
		return fmt.Errorf("inspect container: %w", err)
	}
	if in.NetworkSettings != nil {
		for _, n := range in.NetworkSettings.Networks {
			if n.IPAddress != "" {
				c.addr = net.JoinHostPort(n.IPAddress, port)
			}
		}
	}
	return nil
}

// attach takes the output of an image, before it has any.
func (c *box) attach(ctx context.Context) error {
	a, err := c.d.api.ContainerAttach(context.WithoutCancel(ctx), c.id, container.AttachOptions{Stream: true, Stdout: true, Stderr: true})
	if err != nil {
		return fmt.Errorf("attach to container: %w", err)
	}
	outR, outW := io.Pipe()
	errR, errW := io.Pipe()
	c.logs = [2]io.ReadCloser{outR, errR}
	c.pumped.Go(func() {
		defer a.Close()
		// Both streams come over one connection, in frames.
		_, err := stdcopy.StdCopy(outW, errW, a.Reader)
		outW.CloseWithError(err)
		errW.CloseWithError(err)
	})
	return nil
}

// ID implements invoker.Container: the short form that Docker shows.
func (c *box) ID() string { return c.id[:min(12, len(c.id))] }

// Dial implements invoker.Container.
func (c *box) Dial(ctx context.Context) (invoker.Conn, error) {
	if !c.launch {
		if c.addr == "" {
			return nil, errors.New("the container has no address")
		}
		var dialer net.Dialer
		return dialer.DialContext(ctx, "tcp", c.addr)
	}
	l := c.listen.(*net.UnixListener) //nolint:forcetypeassert // openChannel made it
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Accept knows no context. A deadline in the past ends it at once.
	stop := context.AfterFunc(ctx, func() { _ = l.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	go func() { // a container that ends before it connects is not waited for
		select {
		case <-c.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	conn, err := l.Accept()
	if err != nil {
		return nil, errors.Join(err, ctx.Err())
	}
	return conn, nil
}

// Logs implements invoker.Container.
func (c *box) Logs() (stdout, stderr io.ReadCloser) { return c.logs[0], c.logs[1] }

// Pause implements invoker.Container.
func (c *box) Pause(ctx context.Context) error { return c.d.api.ContainerPause(ctx, c.id) }

// Resume implements invoker.Container.
func (c *box) Resume(ctx context.Context) error { return c.d.api.ContainerUnpause(ctx, c.id) }

// Done implements invoker.Container.
func (c *box) Done() <-chan struct{} { return c.done }

// Ending implements invoker.Container. The daemon knows of a lack of memory a
// moment after the connection broke.
func (c *box) Ending(ctx context.Context) invoker.Ending {
	ctx, cancel := context.WithTimeout(ctx, endingWait)
	defer cancel()
	select {
	case <-c.done:
	case <-ctx.Done():
	}
	in, err := c.d.api.ContainerInspect(context.WithoutCancel(ctx), c.id)
	if err != nil || in.State == nil {
		return invoker.Ending{ExitCode: c.ended()}
	}
	e := invoker.Ending{OutOfMemory: in.State.OOMKilled, ExitCode: in.State.ExitCode}
	if in.State.Running {
		e.ExitCode = -1
	}
	return e
}

// ended is the exit code as the wait learnt it; -1 while it runs, or not known.
func (c *box) ended() int {
	select {
	case <-c.done:
		return c.code
	default:
		return -1
	}
}

// Remove implements invoker.Container.
func (c *box) Remove(ctx context.Context) error {
	c.once.Do(func() {
		// The container first: what it still prints has a reader until it is
		// gone. Then clean closes the pipes, which ends the copying.
		c.removed = c.d.removeContainer(ctx, c.id)
		c.clean()
		c.pumped.Wait()
	})
	return c.removed
}

// clean closes and removes what the container had on this side.
func (c *box) clean() {
	if c.listen != nil {
		_ = c.listen.Close() // its file goes with the folder
	}
	for _, l := range c.logs {
		if l != nil {
			l.Close()
		}
	}
	if c.dir != "" {
		os.RemoveAll(c.dir)
	}
}
