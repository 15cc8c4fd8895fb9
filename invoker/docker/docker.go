// Package docker is the driver that makes containers with a Docker daemon.
//
// A runtime with a launcher of ours runs in its official image, unchanged: the
// launcher is mounted read-only as the command, and a folder with a unix
// socket for the frames and two pipes for the output is mounted beside it. So
// neither the network nor the daemon is on the way of a call. An image without
// a launcher is one that serves /init and /run on port 8080: it is spoken to
// over the bridge (or, by a server that is in a container itself, over a network
// of its own), and its output is attached.
//
// Containers are told apart by labels, never by names. Each process that uses
// the driver holds the lock of a folder of its own; the containers whose
// folder nobody holds are swept.
package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/client"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker"
	"github.com/millrace/millrace/invoker/launcher"
)

// The labels of our containers.
const (
	labelHome     = "millrace.home"     // the folder that all instances share
	labelInstance = "millrace.instance" // the folder of the one that made it
	labelKind     = "millrace.kind"
	labelOwner    = "millrace.owner"
)

const (
	lockFile    = "lock"
	removeRetry = 200 * time.Millisecond
)

// Options are the settings of a driver. Dir and Log are required.
type Options struct {
	Dir  string // folder for sockets and launchers; made if missing; the daemon must see it under the same path
	Pull bool   // pull the images of runtimes that are missing
	Log  *slog.Logger

	progress time.Duration // tests: between two lines about a pull; 0 for the usual
}

// Driver makes containers with a daemon. It is safe for concurrent use.
type Driver struct {
	o       Options
	api     *client.Client
	version string   // of the daemon, for people
	dir     string   // this instance's
	lock    *os.File // of dir
	network string   // of images that are spoken to over it

	mounted sync.Once
	unseen  error // why nothing of ours can be mounted; set once mounted is done

	mu    sync.Mutex
	pulls map[string]*pull // under way, by image
}

var _ invoker.Driver = (*Driver)(nil)

// New connects to the daemon that the environment names (DOCKER_HOST), or to
// the local one. It returns Unavailable, with the remedy, when none answers.
// The caller must Close the driver.
func New(ctx context.Context, o Options) (*Driver, error) {
	// The version of the API is negotiated: daemons refuse clients that are
	// newer.
	api, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, unanswered(err)
	}
	d := &Driver{o: o, api: api, pulls: map[string]*pull{}}
	// Making a client connects to nothing: this is the first word with the
	// daemon.
	v, err := api.ServerVersion(ctx)
	if err != nil {
		return nil, errors.Join(unanswered(err), api.Close())
	}
	d.version = v.Version
	if err := d.makeDir(); err != nil {
		return nil, errors.Join(fmt.Errorf("docker driver: %w", err), api.Close())
	}
	if d.network, err = d.ownNetwork(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("docker driver: %w", err), d.Close())
	}
	return d, nil
}

func unanswered(err error) error {
	return whisk.WithHint(whisk.E(whisk.Unavailable, "", fmt.Errorf("Docker does not answer: %w", err)),
		"start the daemon, set DOCKER_HOST, or run actions in processes with --driver process")
}

// makeDir makes the folder of this instance, locks it and puts the launchers
// into it.
func (d *Driver) makeDir() error {
	parent, err := filepath.Abs(d.o.Dir)
	if err != nil {
		return err
	}
	// Absolute, as the daemon takes the path as it stands, and as the label by
	// which a later instance finds our containers.
	d.o.Dir = parent
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	if d.dir, err = os.MkdirTemp(parent, "d"); err != nil {
		return err
	}
	d.lock, err = os.OpenFile(filepath.Join(d.dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(d.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return err
	}
	for _, name := range []string{launcher.Python, launcher.Node} {
		p, err := launcher.Find(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(d.dir, p.File), p.Code, 0o644); err != nil { //nolint:gosec // nobody in the container reads it
			return err
		}
	}
	return nil
}

// Close lets go of the daemon. Containers that are left are swept by the next
// driver with the same folder.
func (d *Driver) Close() error {
	d.lock.Close()
	return errors.Join(os.RemoveAll(d.dir), d.api.Close())
}

// Describe implements invoker.Driver.
func (d *Driver) Describe() (name, isolation string) {
	return "docker", "containers of Docker " + d.version + ": few or no capabilities, no new privileges, memory and processes limited"
}

// Offers implements invoker.Driver: the image must be there, or be pulled.
// Actions that bring an image of their own can always be made.
func (d *Driver) Offers(ctx context.Context, r whisk.Runtime) error {
	if r.Kind == whisk.KindBlackbox {
		return nil
	}
	name := r.Image.String()
	if err := d.ensure(ctx, name, d.o.Pull); err != nil || r.Launcher == "" {
		return err
	}
	// Once, with the first image that is there: the answer is about the
	// folder, and a container needs some image.
	d.mounted.Do(func() { d.unseen = d.tryMount(ctx, name) })
	return d.unseen
}

// tryMount finds out whether the daemon sees our folder, by a container that
// is never started: launchers are mounted from there.
func (d *Driver) tryMount(ctx context.Context, name string) error {
	made, err := d.api.ContainerCreate(ctx,
		&container.Config{Image: name, Cmd: []string{"none"}, Labels: map[string]string{labelHome: d.o.Dir, labelInstance: d.dir}},
		&container.HostConfig{Mounts: []mount.Mount{{Type: mount.TypeBind, Source: d.dir, Target: channelDir, ReadOnly: true}}},
		nil, nil, "")
	if err == nil {
		return d.removeContainer(context.WithoutCancel(ctx), made.ID)
	}
	// The daemon has no code for this.
	if strings.Contains(err.Error(), "bind source path does not exist") {
		return fmt.Errorf("the Docker daemon does not find %s: it must be on the daemon's machine, and have the same path there", d.o.Dir)
	}
	return fmt.Errorf("a container cannot be made: %w", err)
}

// Sweep implements invoker.Driver.
func (d *Driver) Sweep(ctx context.Context) (removed int, err error) {
	list, err := d.api.ContainerList(ctx, container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", labelHome+"="+d.o.Dir)),
	})
	if err != nil {
		return 0, fmt.Errorf("list containers: %w", err)
	}
	var errs []error
	for _, c := range list {
		dir := c.Labels[labelInstance]
		if dir == d.dir || alive(dir) {
			continue
		}
		if err := d.removeContainer(ctx, c.ID); err != nil {
			errs = append(errs, err)
			continue
		}
		removed++
	}
	// The folders after the containers that mount them, and only when all of
	// those are gone.
	dirs, _ := filepath.Glob(filepath.Join(d.o.Dir, "d*")) // the pattern is ours
	for _, dir := range dirs {
		if dir != d.dir && len(errs) == 0 && !alive(dir) {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return removed, errors.Join(errs...)
}

// alive reports whether the instance of a folder still runs: it holds its lock.
func alive(dir string) bool {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil
}

// lost reports whether err says that the daemon is gone, or went meanwhile.
func lost(err error) bool {
	return client.IsErrConnectionFailed(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

// removeContainer waits for a daemon that does not answer, as one that is being
// restarted, until ctx ends.
func (d *Driver) removeContainer(ctx context.Context, id string) error {
	for {
		err := d.api.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
		switch {
		// Gone already, or somebody else is at it: both are what was wanted.
		case err == nil, errdefs.IsNotFound(err), errdefs.IsConflict(err):
			return nil
		case !lost(err):
			return fmt.Errorf("remove container %s: %w", id, err)
		}
		select {
		case <-time.After(removeRetry):
		case <-ctx.Done():
			return fmt.Errorf("remove container %s: %w", id, err)
		}
	}
}
