// Package process makes containers out of local processes: it needs no daemon
// and no images, only the interpreters of the machine.
//
// A container is started through this binary itself: a program that uses the
// package calls MaybeShim first, and the copy that the driver starts turns into
// the container there. Where the kernel allows, it is put into user, pid,
// mount, ipc and uts namespaces of its own, as nobody, with a read-only view of
// the machine, without the home folder, and with a /tmp in memory; where
// control groups can be written, they bound its memory and the number of its
// processes. What is missing is replaced: for the namespaces by a process of ours
// that inherits and kills whatever an action leaves, for the control groups by
// looking at the memory in use ten or more times a second. Without namespaces
// actions of an ordinary user are that user's, so one that works against it may
// get away; those of root are nobody's where they can be. Describe says which it
// is.
//
// However much that is, an action has no rights of root's and cannot get any
// (no_new_privs). System calls are not filtered: what the kernel offers to a
// process without rights, it may call. The network is the machine's own.
package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker"
	"github.com/millrace/millrace/invoker/launcher"
	"golang.org/x/sys/unix"
)

// Bounds of every container but its memory.
const (
	maxProcesses = 256 // processes and threads
	maxOpenFiles = 1024
	probeTimeout = 20 * time.Second
)

// Options are what a Driver is made from.
type Options struct {
	Dir  string   // folder for its files; made if missing
	Hide []string // folders that actions must not see, besides the home folder
	Log  *slog.Logger

	bare, noCgroups bool          // tests: do without
	folders         []string      // tests: where interpreters are besides PATH; nil for the usual ones
	patience        time.Duration // tests: for an interpreter to answer; 0 for the usual
}

// Driver makes containers. It is safe for concurrent use.
type Driver struct {
	dir      string // this instance's
	public   string // of root's containers without namespaces, which nobody may enter; else empty
	parent   string // of all instances
	lock     *os.File
	hide     []string
	private  []string      // folders that interpreters are shown parts of, never all
	folders  []string      // to look for interpreters in, after those of PATH
	patience time.Duration // for an interpreter to answer
	log      *slog.Logger
	bare     error // why there are no namespaces; nil if there are
	groups   *cgroups
	noGroup  error
	spawner  chan func()
	spawned  sync.WaitGroup

	mu     sync.Mutex
	kinds  map[string]*interpreter // by launcher and version
	open   map[*container]struct{}
	closed bool
	next   int
}

var _ invoker.Driver = (*Driver)(nil)

// New finds out how far containers can be isolated here. The caller must Close
// the driver.
func New(ctx context.Context, o Options) (*Driver, error) {
	d := &Driver{
		parent: o.Dir, hide: o.Hide, log: o.Log, spawner: make(chan func()),
		kinds: map[string]*interpreter{}, open: map[*container]struct{}{}, folders: o.folders,
		patience: cmp.Or(o.patience, answerTime),
	}
	// After those of PATH, as a service may be started with hardly any.
	if d.folders == nil {
		d.folders = []string{"/usr/local/bin", "/usr/bin", "/bin"}
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if err := d.makeDir(); err != nil {
		return nil, fmt.Errorf("process driver: %w", err)
	}
	if home, err := os.UserHomeDir(); err == nil {
		d.hide = append(d.hide, home)
	}
	for _, dir := range d.hide {
		// An interpreter may have been installed with the home folder, or with
		// .local there, as its prefix. To show all of that would show what is
		// to be hidden.
		d.private = append(d.private, dir, filepath.Join(dir, ".local"))
	}
	// The kernel kills a container when the thread that started it ends, so
	// one thread starts them all and ends with the driver, or the process.
	d.spawned.Go(func() {
		runtime.LockOSThread()
		for f := range d.spawner {
			f()
		}
	})
	if o.noCgroups {
		d.noGroup = errors.New("not wanted")
	} else {
		d.groups, d.noGroup = findCgroups(filepath.Base(d.dir))
	}
	if o.bare {
		d.bare = errors.New("not wanted")
	} else if err := d.probe(ctx); err != nil {
		d.bare = err
	}
	// Namespaces have root's actions run as nobody already.
	if d.bare != nil && os.Getuid() == 0 {
		if err := d.becomeNobody(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("process driver: %w", err), d.Close())
		}
	}
	return d, nil
}

// makeDir makes the folder of this instance and locks it.
func (d *Driver) makeDir() error {
	if err := os.MkdirAll(d.parent, 0o700); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(d.parent, "p")
	if err != nil {
		return err
	}
	d.dir = dir
	d.lock, err = os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("lock %s: %w", dir, err)
	}
	return writeLaunchers(dir)
}

// writeLaunchers puts the launchers that interpreters run into dir. Containers
// see them from there.
func writeLaunchers(dir string) error {
	for _, name := range []string{launcher.Python, launcher.Node} {
		p, err := launcher.Find(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, p.File), p.Code, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// probe runs an empty program in a container. Whether the kernel allows a
// container can't be told from its version or its settings alone, so one is
// made. 42 is a code that nothing else in its start ends with.
func (d *Driver) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	c, err := d.spawn(invoker.Spec{Kind: "probe", Memory: 64}, []string{"/bin/sh", "-c", "exit 42"}, nil)
	switch {
	// What the kernel says is translated: its own words for these mean
	// something else to people.
	case errors.Is(err, unix.ENOSPC):
		return errors.New("the kernel's limit of user namespaces, user.max_user_namespaces, is reached")
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return errors.New("this user may not make user namespaces")
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return errors.New("the kernel has no user namespaces")
	case err != nil:
		return err
	}
	defer c.drop(ctx)
	if e := c.Ending(ctx); e.ExitCode != 42 {
		// The shim has told what it could not do.
		return fmt.Errorf("%s", strings.TrimSpace(c.firstOutput()))
	}
	return nil
}

// Close removes all containers and files. Containers must not be made any
// more.
func (d *Driver) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	// Set before the list is read: what is made later is refused, not left
	// over.
	d.closed = true
	var left []*container
	for c := range d.open {
		left = append(left, c)
	}
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), removeTimeout)
	defer cancel()
	var errs []error
	for _, c := range left {
		errs = append(errs, c.Remove(ctx))
	}
	close(d.spawner)
	d.spawned.Wait()
	if d.groups != nil {
		errs = append(errs, d.groups.remove())
	}
	// The lock last: until then nobody sweeps what is being removed here.
	errs = append(errs, removePublic(d.dir), os.RemoveAll(d.dir), d.lock.Close())
	return errors.Join(errs...)
}

// Describe implements invoker.Driver.
func (d *Driver) Describe() (name, isolation string) {
	var parts []string
	if d.bare == nil {
		parts = append(parts, "user, pid, mount, ipc and uts namespaces")
	} else {
		parts = append(parts, "no namespaces, only process groups ("+d.bare.Error()+")")
		if d.public != "" {
			parts = append(parts, "as nobody")
		}
	}
	if d.groups != nil {
		parts = append(parts, "memory limited by control groups")
	} else {
		parts = append(parts, "memory watched")
	}
	return "process", strings.Join(parts, "; ")
}

// Isolated reports whether actions cannot touch the files and processes of the
// user that runs this program.
func (d *Driver) Isolated() bool { return d.bare == nil }

// Offers implements invoker.Driver.
func (d *Driver) Offers(ctx context.Context, r whisk.Runtime) error {
	if r.Launcher == "" {
		return errors.New("the process driver runs no images")
	}
	return d.interpreter(ctx, r.Launcher, r.Kind).err
}

// Create implements invoker.Driver.
func (d *Driver) Create(ctx context.Context, spec invoker.Spec) (invoker.Container, error) {
	if _, err := launcher.Find(spec.Launcher); err != nil {
		return nil, whisk.E(whisk.Invalid, "create process", err)
	}
	in := d.interpreter(ctx, spec.Launcher, spec.Kind)
	if in.err != nil {
		return nil, whisk.E(whisk.Unavailable, "create process", in.err)
	}
	c, err := d.launch(in.found, spec)
	if err != nil {
		return nil, whisk.E(whisk.Internal, "create process", err)
	}
	return c, nil
}

// launch starts the launcher of spec with an interpreter.
func (d *Driver) launch(in found, spec invoker.Spec) (*container, error) {
	p, err := launcher.Find(spec.Launcher)
	if err != nil {
		return nil, err
	}
	expose, file := in.expose, ""
	if p.File != "" {
		file = filepath.Join(d.home(), p.File)
		expose = append([]string{file}, expose...)
	}
	return d.spawn(spec, p.Command(in.path, file, spec.Memory), expose)
}
