package process

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lockFile   = "lock"
	notePrefix = "container-"
)

// note is what a driver leaves on disk about a container, for one that comes
// after it. The start time makes the pid certain: after a crash another process
// may have it. The groups are those folders that outlive the process.
type note struct {
	Pid    int      `json:"pid"`
	Start  uint64   `json:"start"`
	Groups []string `json:"groups,omitempty"`
}

func (c *container) notePath() string { return filepath.Join(c.d.dir, notePrefix+c.id) }

// note writes the note of c, before the action begins: what starts without one
// would be found by nobody.
func (c *container) note() error {
	n := note{Pid: c.pid, Start: startOf(c.pid)}
	if c.group != nil {
		n.Groups = c.group.dirs
	}
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return os.WriteFile(c.notePath(), b, 0o600)
}

// Sweep implements invoker.Driver: it removes what drivers with the same
// folder left whose process is dead, which their lock tells.
func (d *Driver) Sweep(ctx context.Context) (removed int, err error) {
	dirs, err := filepath.Glob(filepath.Join(d.parent, "p*", lockFile))
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, path := range dirs {
		dir := filepath.Dir(path)
		if dir == d.dir || ctx.Err() != nil {
			continue
		}
		lock, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue // somebody else sweeps it
		}
		// The kernel lets go of a lock when its process ends, however it ends.
		// A lock that can be had is the proof that nobody uses the folder;
		// while it is held here, nobody else sweeps the same.
		if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			n, err := sweepDir(dir)
			removed += n
			errs = append(errs, err)
		}
		lock.Close()
	}
	return removed, errors.Join(errs...)
}

// sweepDir ends what the containers of one dead driver left, and removes its
// folder at last: if this is interrupted, the notes are still there for the
// next time.
func sweepDir(dir string) (int, error) {
	names := entries(dir)
	n := 0
	var parents []string
	for _, name := range names {
		if !strings.HasPrefix(name, notePrefix) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		var left note
		if err != nil || json.Unmarshal(b, &left) != nil {
			continue
		}
		n++
		if left.Start != 0 && startOf(left.Pid) == left.Start {
			gone(func() []int { // the first one last: it is how the others are found
				pids := descendants(left.Pid)
				killAll(pids)
				return pids
			})
			_ = syscall.Kill(left.Pid, syscall.SIGKILL)
		}
		g := group{dirs: left.Groups}
		// The first process may have ended before others: only their group
		// knows of those.
		g.kill()
		if err := g.remove(); err != nil {
			return n, err
		}
		for _, p := range left.Groups {
			parents = append(parents, filepath.Dir(p))
		}
	}
	for _, p := range parents {
		_ = os.Remove(p) // a control group that others still use stays
	}
	return n, errors.Join(removePublic(dir), os.RemoveAll(dir))
}

// gone waits until none of pids is left, for at most a second.
func gone(read func() []int) bool {
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if len(read()) == 0 {
			return true
		}
	}
	return false
}
