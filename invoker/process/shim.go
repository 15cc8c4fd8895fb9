package process

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/millrace/millrace/invoker/launcher"
	"golang.org/x/sys/unix"
)

// shimArg, as the first argument of this binary, makes it the shim.
const shimArg = "millrace-shim"

// nobody is whom actions run as when the server runs as root.
const nobody = 65534

// ownFolders are those of which a container has its own, in memory.
var ownFolders = []string{"/tmp", "/var/tmp", "/dev/shm"}

// plan is what a shim is told. It travels as an argument, so it holds no
// secrets: others on the machine can read it.
type plan struct {
	Command []string `json:"command"`
	Env     []string `json:"env"`
	Dir     string   `json:"dir"`     // to start in
	Isolate bool     `json:"isolate"` // it was started in namespaces of its own
	Root    bool     `json:"root"`    // this process is root and can become nobody
	Hide    []string `json:"hide"`
	Expose  []string `json:"expose"`
	Memory  int64    `json:"memory"` // bytes
	Threads uint64   `json:"threads"`
}

// MaybeShim makes this process into what the driver started it for, and does
// not return, if its arguments say so. Programs and test binaries that use the
// driver call it before anything else.
func MaybeShim() {
	if len(os.Args) < 2 {
		return
	}
	switch os.Args[1] {
	case shimArg:
		fmt.Fprintln(os.Stderr, "process driver:", runShim(os.Args[2]))
		os.Exit(125)
	case launcher.NativeArg:
		os.Exit(launcher.RunNative(os.Args[2:]))
	}
}

// initScript is the first process of a namespace: it waits for the launcher
// and for every orphan, and its end is the end of them all.
const initScript = `"$@" & p=$!; exec 3<&- 4>&-; wait $p`

// runShim turns this process into the container that text describes. It returns
// only with an error. The order matters: what mounts and limits need, drop
// gives up for good.
func runShim(text string) error {
	runtime.LockOSThread() // rights belong to threads
	var p plan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return err
	}
	// The driver writes a byte when it has put this process under limits.
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("wait to go on: %w", err)
	}
	if p.Isolate {
		if err := p.mounts(); err != nil {
			return err
		}
	}
	if err := p.limits(); err != nil {
		return err
	}
	if err := p.drop(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new rights: %w", err)
	}
	// Set again: the kernel forgets it when the user changes.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(deathSignal(p.Isolate)), 0, 0, 0); err != nil {
		return fmt.Errorf("end with the driver: %w", err)
	}
	// The gate gives way to an empty input.
	null, err := unix.Open(os.DevNull, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	if err := unix.Dup2(null, 0); err != nil {
		return err
	}
	if err := os.Chdir(p.Dir); err != nil {
		return err
	}
	// Files that the server was started with are not the action's.
	if err := unix.CloseRange(5, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		for fd := 5; fd < 4096; fd++ {
			unix.CloseOnExec(fd)
		}
	}
	if !p.Isolate {
		return fmt.Errorf("run %s: %w", p.Command[0], p.keepTree())
	}
	command := append([]string{"/bin/sh", "-c", initScript, "init"}, p.Command...)
	return fmt.Errorf("run %s: %w", command[0], unix.Exec(command[0], command, p.Env))
}

// deathSignal is what a container's first process gets when the driver's
// process dies: in a namespace its end is that of all, without one it must
// first end the others.
func deathSignal(isolated bool) syscall.Signal {
	if isolated {
		return syscall.SIGKILL
	}
	return syscall.SIGTERM
}

// mounts builds the view of the machine that the container has.
func (p *plan) mounts() error {
	// Else what is mounted here would appear on the machine too.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("part with the machine's mounts: %w", err)
	}
	ro := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &ro); err != nil {
		return fmt.Errorf("make the machine's files read-only: %w", err)
	}
	// What must stay visible is opened before its folder is hidden.
	type held struct {
		path string
		fd   int
		dir  bool
	}
	var keep []held
	hide := p.Hide
	for _, path := range p.Expose {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", path, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		keep = append(keep, held{path, fd, st.Mode&unix.S_IFMT == unix.S_IFDIR})
		if dir := private(path); dir != "" && p.Root {
			hide = append(hide, dir) // so that nobody can pass through what stands in its place
		}
	}
	for _, dir := range ownFolders {
		if st, err := os.Lstat(dir); err == nil && st.IsDir() {
			// What lies in it counts as memory, so it never holds more than
			// the limit.
			opt := fmt.Sprintf("mode=1777,size=%d", p.Memory)
			if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, opt); err != nil {
				return fmt.Errorf("mount a %s of its own: %w", dir, err)
			}
		}
	}
	hidden := slices.Clone(ownFolders)
	for _, dir := range hide {
		if inside(dir, hidden) || dir == "/" {
			continue
		}
		if st, err := os.Stat(dir); err != nil || !st.IsDir() {
			continue
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=1m"); err != nil {
			return fmt.Errorf("hide %s: %w", dir, err)
		}
		hidden = append(hidden, dir)
	}
	for _, k := range keep {
		if inside(k.path, hidden) {
			if err := bind(k.fd, k.path, k.dir); err != nil {
				return fmt.Errorf("show %s: %w", k.path, err)
			}
		}
	}
	// A container's own processes are all it may see. Where the machine hides
	// parts of its own /proc, this is refused: then it sees that one.
	_ = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	_ = unix.Sethostname([]byte("action"))
	// Made by root here, used by nobody after drop.
	if err := os.Mkdir("/tmp/action", 0o777); err != nil {
		return err
	}
	return os.Chmod("/tmp/action", 0o777) // whatever the umask
}

// private returns the first folder on the way to path that others than its
// owner may not pass through; empty if there is none.
func private(path string) string {
	for i := 1; i < len(path); i++ {
		if path[i] != '/' {
			continue
		}
		if st, err := os.Stat(path[:i]); err == nil && st.Mode()&1 == 0 {
			return path[:i]
		}
	}
	return ""
}

func bind(fd int, path string, dir bool) error {
	if dir {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	} else {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		// A file is mounted over a file, so there must be one.
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
		if err != nil {
			if _, serr := os.Stat(path); serr == nil {
				return nil // shown already, with the folder it is in
			}
			return err
		}
		f.Close()
	}
	// By its descriptor: what the path leads to is hidden by this time.
	return unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), path, "", unix.MS_BIND|unix.MS_REC, "")
}

// inside reports whether path lies in one of dirs, or is one of them.
func inside(path string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool {
		return path == d || strings.HasPrefix(path, strings.TrimSuffix(d, "/")+"/")
	})
}

// limits sets the bounds of the kernel's that every process inherits: no core
// dumps, which would fill the disk with an action's memory, and few open files.
func (p *plan) limits() error {
	set := map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_NOFILE: maxOpenFiles}
	if p.Threads > 0 {
		set[unix.RLIMIT_NPROC] = p.Threads
	}
	for what, n := range set {
		var now unix.Rlimit
		if err := unix.Getrlimit(what, &now); err == nil {
			n = min(n, now.Max) // one that is lower already stays
		}
		if err := unix.Setrlimit(what, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			return fmt.Errorf("limit %d to %d: %w", what, n, err)
		}
	}
	return nil
}

// drop gives up all rights: those of root, and those over its own namespaces.
func (p *plan) drop() error {
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if err == unix.EPERM && !p.Isolate {
			break // an ordinary user has none to drop
		}
		if err != nil && err != unix.EINVAL {
			return fmt.Errorf("drop right %d: %w", c, err)
		}
	}
	if p.Root {
		// Groups before the user: after that there is no right to change them.
		if err := unix.Setgroups(nil); err != nil {
			return fmt.Errorf("leave groups: %w", err)
		}
		if err := unix.Setresgid(nobody, nobody, nobody); err != nil {
			return fmt.Errorf("change group: %w", err)
		}
		if err := unix.Setresuid(nobody, nobody, nobody); err != nil {
			return fmt.Errorf("change user: %w", err)
		}
	}
	// Without this, the namespace's root would get its rights back by exec.
	const noRoot, noRootLocked = 1, 2
	if !p.Root {
		if err := unix.Prctl(unix.PR_SET_SECUREBITS, noRoot|noRootLocked, 0, 0, 0); err != nil && p.Isolate {
			return fmt.Errorf("give up root: %w", err)
		}
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&head, &none[0]); err != nil {
		return fmt.Errorf("drop rights: %w", err)
	}
	return nil
}
