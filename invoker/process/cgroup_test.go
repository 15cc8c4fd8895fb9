package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/invoker/invokertest"
)

func TestCgroupMounts(t *testing.T) {
	got := cgroupMounts("36 24 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n" +
		"37 24 0:32 / /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory\n" +
		"38 24 0:33 / /sys/fs/cgroup/unified rw shared:11 - cgroup2 cgroup2 rw\nnonsense\n")
	for c, want := range map[string]string{"cpu": "/sys/fs/cgroup/cpu,cpuacct", "memory": "/sys/fs/cgroup/memory", "": "/sys/fs/cgroup/unified", "pids": ""} {
		if got[c] != want {
			t.Errorf("mount of %q = %q, want %q", c, got[c], want)
		}
	}
}

// file returns what stands in a file of a group; empty if there is none.
func file(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// The kernel of a test's machine has one version of control groups: what is
// written where is told by folders that stand for both.
func TestCgroupFiles(t *testing.T) {
	unified := "30 24 0:26 / %s rw - cgroup2 cgroup2 rw,nsdelegate\n"
	for _, tt := range []struct {
		name, member, mounts string
		make                 []string          // folders that are there
		files                map[string]string // of the group of one container, by path below the mount point
		freeze, thaw         string
		oom, killed          string // the file that tells, and what
		err                  string
	}{
		{
			name: "version 2, the group above", member: "0::/user.slice/app.slice/term.scope\n", mounts: unified,
			make: []string{"user.slice/app.slice"}, // our own cannot have groups
			files: map[string]string{
				"user.slice/app.slice/millrace-p1/cgroup.subtree_control": "+memory +pids",
				"user.slice/app.slice/millrace-p1/c1/memory.max":          "134217728",
				"user.slice/app.slice/millrace-p1/c1/memory.swap.max":     "0",
				"user.slice/app.slice/millrace-p1/c1/memory.oom.group":    "1",
				"user.slice/app.slice/millrace-p1/c1/pids.max":            "256",
				"user.slice/app.slice/millrace-p1/c1/cgroup.procs":        "77",
			},
			freeze: "user.slice/app.slice/millrace-p1/c1/cgroup.freeze=1", thaw: "0",
			oom: "user.slice/app.slice/millrace-p1/c1/memory.events", killed: "low 0\noom 1\noom_kill %d\n",
		},
		{
			name: "version 2, our own", member: "0::/\n", mounts: unified,
			files:  map[string]string{"millrace-p1/c1/memory.max": "134217728"},
			freeze: "millrace-p1/c1/cgroup.freeze=1", thaw: "0",
			oom: "millrace-p1/c1/memory.events", killed: "oom_kill %d\n",
		},
		{
			name: "version 1", member: "5:memory:/docker/x\n4:pids:/docker/x\n3:freezer:/\n0::/\n",
			mounts: "37 24 0:32 / %[1]s/memory rw - cgroup cgroup rw,memory\n38 24 0:33 / %[1]s/pids rw - cgroup cgroup rw,pids\n39 24 0:34 / %[1]s/freezer rw - cgroup cgroup rw,freezer\n40 24 0:35 / %[1]s/unified rw - cgroup2 cgroup2 rw\n",
			make:   []string{"memory", "pids/docker/x", "freezer"}, // in a namespace our own memory group is the root
			files: map[string]string{
				"memory/millrace-p1/c1/memory.limit_in_bytes":       "134217728",
				"memory/millrace-p1/c1/memory.memsw.limit_in_bytes": "134217728",
				"pids/docker/x/millrace-p1/c1/pids.max":             "256",
				"memory/millrace-p1/c1/cgroup.procs":                "77",
				"pids/docker/x/millrace-p1/c1/cgroup.procs":         "77",
				"freezer/millrace-p1/c1/cgroup.procs":               "77",
			},
			freeze: "freezer/millrace-p1/c1/freezer.state=FROZEN", thaw: "THAWED",
			oom: "memory/millrace-p1/c1/memory.oom_control", killed: "oom_kill_disable 0\nunder_oom 0\noom_kill %d\n",
		},
		{name: "none", member: "0::/\n", mounts: "30 24 0:26 / /proc rw - proc proc rw\n# %s", err: "no control groups are mounted"},
		{name: "not ours to write", member: "0::/a/b\n", mounts: unified, err: "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for _, dir := range tt.make {
				if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			all, err := makeCgroups("p1", tt.member, fmt.Sprintf(tt.mounts, root))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error = %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			g, err := all.make("c1", 128<<20)
			if err != nil {
				t.Fatal(err)
			}
			if err := g.add(77); err != nil {
				t.Fatal(err)
			}
			for name, want := range tt.files {
				if got := file(t, root, name); got != want {
					t.Errorf("%s = %q, want %q", name, got, want)
				}
			}
			if !g.freezes() {
				t.Fatal("it cannot be frozen")
			}
			at, frozen, _ := strings.Cut(tt.freeze, "=")
			for on, want := range map[bool]string{true: frozen, false: tt.thaw} {
				if err := g.freeze(on); err != nil || file(t, root, at) != want {
					t.Errorf("freeze(%v) = %v, %s = %q, want %q", on, err, at, file(t, root, at), want)
				}
			}
			for n := range 2 {
				if err := os.WriteFile(filepath.Join(root, tt.oom), fmt.Appendf(nil, tt.killed, n), 0o600); err != nil {
					t.Fatal(err)
				}
				if got := g.outOfMemory(); got != (n > 0) {
					t.Errorf("outOfMemory after %d kills = %v", n, got)
				}
			}
		})
	}
}

// Where the kernel has version 2 of the groups, if only beside version 1,
// processes in one are frozen and killed, and the group goes with them.
func TestUnifiedGroup(t *testing.T) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cgroupMounts(string(mounts))[""], "millrace-test-"+fmt.Sprint(os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil || !filepath.IsAbs(dir) { //nolint:gosec // it is no real folder
		t.Skipf("this user may not make groups of version 2: %v", err)
	}
	g := &group{v2: true, memory: dir, pids: dir, frozen: dir, dirs: []string{dir}}
	cmd := exec.Command("/bin/sh", "-c", "sleep 1000 & sleep 1000 & wait")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	invokertest.Eventually(t, "it has children", func() bool { return len(descendants(cmd.Process.Pid)) == 2 })
	for _, pid := range append(descendants(cmd.Process.Pid), cmd.Process.Pid) {
		if err := g.add(pid); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(g.members()); n != 3 {
		t.Errorf("%d members, want 3", n)
	}
	if err := g.freeze(true); err != nil {
		t.Fatal(err)
	}
	invokertest.Eventually(t, "it is frozen", func() bool { return strings.Contains(file(t, dir, "cgroup.events"), "frozen 1") })
	g.kill()
	_ = cmd.Wait() // killed
	if err := g.remove(); err != nil {
		t.Errorf("remove = %v", err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the group is still there: %v", err)
	}
}
