package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// cgroups are the control groups under which this driver makes one for each
// container: one folder in version 2, one for each controller in version 1.
type cgroups struct {
	v2     bool
	memory string // folder, ours; in version 2 the only one
	pids   string // empty: not there
	freeze string // empty: not there
}

// group is one container's.
type group struct {
	v2                   bool
	memory, pids, frozen string
	dirs                 []string
}

// findCgroups makes the folders called millrace-name below the groups of this
// process.
func findCgroups(name string) (*cgroups, error) {
	member, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return makeCgroups(name, string(member), string(mounts))
}

// makeCgroups is findCgroups for a process whose files in /proc are these. The
// memory controller must be there; the others are welcome.
func makeCgroups(name, member, mounts string) (_ *cgroups, err error) {
	own := map[string]string{} // by controller; "" for version 2
	for line := range strings.Lines(member) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 {
			for c := range strings.SplitSeq(f[1], ",") {
				own[c] = f[2]
			}
		}
	}
	// The prefix tells people whose it is.
	name = "millrace-" + name
	points := cgroupMounts(mounts)
	// Version 1 first: where both are mounted, the memory controller belongs
	// to the one that lists it.
	if at, ok := points["memory"]; ok {
		g := &cgroups{}
		if g.memory, err = makeGroup(at, own["memory"], name); err != nil {
			return nil, err
		}
		for c, dir := range map[string]*string{"pids": &g.pids, "freezer": &g.freeze} {
			if at, ok := points[c]; ok {
				*dir, _ = makeGroup(at, own[c], name)
			}
		}
		return g, nil
	}
	at, ok := points[""]
	if !ok {
		return nil, errors.New("no control groups are mounted")
	}
	return findUnified(at, own[""], name)
}

// findUnified looks for a place in version 2 that may have groups with
// controllers: our own group, or the one above it.
func findUnified(at, own, name string) (*cgroups, error) {
	err := errors.New("control groups cannot be written")
	// A group that holds processes cannot hand controllers to groups below it,
	// so below our own it only works where that is the root. The one above is
	// ours to write where the machine's manager has delegated it.
	for _, parent := range []string{filepath.Join(at, own), filepath.Join(at, filepath.Dir(own))} {
		_ = os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+memory +pids"), 0o644)
		dir := filepath.Join(parent, name)
		if merr := os.Mkdir(dir, 0o755); merr != nil {
			err = merr
			continue
		}
		if serr := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory +pids"), 0o644); serr == nil {
			return &cgroups{v2: true, memory: dir}, nil
		}
		err = errors.New("the memory controller is not delegated")
		_ = os.Remove(dir)
	}
	return nil, err
}

// cgroupMounts returns where each controller is mounted; "" for version 2.
func cgroupMounts(mountinfo string) map[string]string {
	points := map[string]string{}
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(g) < 3 {
			continue
		}
		switch g[0] {
		case "cgroup2":
			points[""] = f[4]
		case "cgroup":
			for o := range strings.SplitSeq(g[2], ",") {
				points[o] = f[4]
			}
		}
	}
	return points
}

// makeGroup makes a group for all containers below our own group of one
// controller of version 1.
func makeGroup(at, own, name string) (string, error) {
	dir := filepath.Join(at, own)
	if _, err := os.Stat(dir); err != nil {
		dir = at // we are in a namespace and see our own group as the root
	}
	dir = filepath.Join(dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	return dir, nil
}

// remove removes the folders of cgroups, which must be empty.
func (g *cgroups) remove() error {
	var errs []error
	for _, d := range []string{g.memory, g.pids, g.freeze} {
		if d != "" {
			errs = append(errs, os.Remove(d))
		}
	}
	return errors.Join(errs...)
}

// make makes a group for one container of so much memory.
func (g *cgroups) make(id string, memory int64) (_ *group, err error) {
	out := &group{v2: g.v2}
	defer func() {
		if err != nil {
			_ = out.remove()
		}
	}()
	for _, p := range []struct {
		dir string
		to  *string
	}{{g.memory, &out.memory}, {g.pids, &out.pids}, {g.freeze, &out.frozen}} {
		if p.dir != "" {
			*p.to = filepath.Join(p.dir, id)
			if err := os.Mkdir(*p.to, 0o755); err != nil {
				return nil, err
			}
			out.dirs = append(out.dirs, *p.to)
		}
	}
	limit := strconv.FormatInt(memory, 10)
	if g.v2 {
		// One folder has all controllers.
		out.pids, out.frozen = out.memory, out.memory
		if err := write(out.memory, "memory.max", limit); err != nil {
			return nil, err
		}
		// With swap, the limit would not bound what is used in all. Where swap
		// is not accounted for there is no such file.
		_ = write(out.memory, "memory.swap.max", "0")
		// Else the kernel would end one process, and the action might go on
		// without it.
		_ = write(out.memory, "memory.oom.group", "1")
	} else {
		if err := write(out.memory, "memory.limit_in_bytes", limit); err != nil {
			return nil, err
		}
		_ = write(out.memory, "memory.memsw.limit_in_bytes", limit) // without swap accounting there is no such file
	}
	if out.pids != "" {
		return out, write(out.pids, "pids.max", strconv.Itoa(maxProcesses))
	}
	return out, nil
}

func write(dir, file, text string) error {
	return os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644)
}

// add puts a process into the group, with all that it will fork. Its earlier
// children stay where they are, so it is called before there are any.
func (g *group) add(pid int) error {
	for _, d := range g.dirs {
		if err := write(d, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("put process into its control group: %w", err)
		}
	}
	return nil
}

// outOfMemory reports whether the kernel killed a process of the group for the
// memory it used.
func (g *group) outOfMemory() bool {
	file := "memory.oom_control"
	if g.v2 {
		file = "memory.events"
	}
	b, err := os.ReadFile(filepath.Join(g.memory, file))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "oom_kill" && f[1] != "0" {
			return true
		}
	}
	return false
}

func (g *group) freezes() bool { return g.frozen != "" }

// freeze stops or continues all processes of the group at once. The kernel may
// still be at it when the call returns.
func (g *group) freeze(on bool) error {
	file, text := "freezer.state", "THAWED"
	if g.v2 {
		file, text = "cgroup.freeze", "0"
	}
	if on {
		text = map[bool]string{false: "FROZEN", true: "1"}[g.v2]
	}
	return write(g.frozen, file, text)
}

// kill kills what is in the group. Frozen processes do not die before they go
// on.
func (g *group) kill() {
	// Signals first: they wait for the thaw, so nothing runs in between that
	// could fork.
	killAll(g.members())
	for _, d := range g.dirs { // at most one has either
		thaw(d, "freezer.state", "THAWED")
		thaw(d, "cgroup.freeze", "0")
	}
}

func thaw(dir, file, text string) {
	if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
		_ = write(dir, file, text)
	}
}

// members returns the processes of the group; none if it is gone. All folders
// list the same ones.
func (g *group) members() []int {
	var out []int
	for _, d := range g.dirs[:min(1, len(g.dirs))] {
		b, err := os.ReadFile(filepath.Join(d, "cgroup.procs"))
		if err != nil {
			continue
		}
		for f := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(f); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

// remove removes the group once its processes are gone: those too that were
// forked while the others were killed.
func (g *group) remove() error {
	// The kernel refuses to remove a group that has a process, be it a dead
	// one that nobody has waited for.
	gone(func() []int {
		left := g.members()
		killAll(left)
		return left
	})
	var errs []error
	for _, d := range g.dirs {
		if err := os.Remove(d); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
