package process

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker"
	"github.com/millrace/millrace/invoker/invokertest"
)

// What an action sees of the machine that it runs on.
const spy = `
import os
def main(args):
    def can(path, mode='r'):
        try:
            open(path, mode).close()
            return True
        except OSError:
            return False
    return {
        'secret': can(args['secret']), 'home': os.listdir(args['home']) if os.path.isdir(args['home']) else [],
        'write': [p for p in ('/etc/evil', '/usr/evil', '/var/evil') if can(p, 'w')],
        'tmp': can('/tmp/mine', 'w'), 'uid': os.getuid(), 'pids': len([p for p in os.listdir('/proc') if p.isdigit()]),
        'caps': [l.split()[1] for l in open('/proc/self/status') if l.startswith('Cap')],
        'newprivs': [l.split()[1] for l in open('/proc/self/status') if l.startswith('NoNewPrivs')],
        'host': os.uname().nodename, 'leak': [k for k in os.environ if k == 'MILLRACE_TEST_LEAK'],
        'fds': sorted(int(f) for f in os.listdir('/proc/self/fd')),
    }
`

func TestIsolation(t *testing.T) {
	t.Setenv("MILLRACE_TEST_LEAK", "1")
	hidden := t.TempDir()
	secret := filepath.Join(hidden, "secret")
	if err := os.WriteFile(secret, []byte("s"), 0o666); err != nil {
		t.Fatal(err)
	}
	d := newDriver(t, Options{Hide: []string{hidden}})
	if !d.Isolated() {
		if os.Getenv("CI") == "true" {
			t.Fatal(d.bare)
		}
		t.Skipf("no namespaces here: %v", d.bare)
	}
	b := invokertest.Start(t, d, invoker.DefaultRuntimes())
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	a := b.Call(invokertest.Runnable("spy", "python:3", spy), fmt.Sprintf(`{"secret":%q,"home":%q}`, secret, home))
	var got struct {
		Secret, Tmp       bool
		Home, Write, Caps []string
		Newprivs, Leak    []string
		UID, Pids         int
		Host              string
		Fds               []int
	}
	if err := json.Unmarshal(a.Result, &got); err != nil || a.Outcome != whisk.Success {
		t.Fatalf("%s: %v; %q", a.Result, err, a.Logs)
	}
	if got.Secret || !got.Tmp || len(got.Write) > 0 || len(got.Leak) > 0 || got.Host != "action" || got.Newprivs[0] != "1" {
		t.Errorf("the action sees %s", a.Result)
	}
	for _, c := range got.Caps {
		if strings.Trim(c, "0") != "" {
			t.Errorf("the action has rights: %v", got.Caps)
		}
	}
	if os.Getuid() == 0 && got.UID != nobody {
		t.Errorf("the action runs as user %d", got.UID)
	}
	if got.Pids > 3 {
		t.Errorf("the action sees %d processes", got.Pids)
	}
	for _, name := range got.Home { // at most the way to the interpreter
		if name != ".pyenv" && name != ".local" {
			t.Errorf("the action sees %s in the home folder", name)
		}
	}
	if len(got.Fds) > 8 {
		t.Errorf("the action has files %v", got.Fds)
	}
}

// TestLeftovers kills a process with containers and expects all of them gone,
// by the kernel or by Sweep, and nothing of a living one.
func TestLeftovers(t *testing.T) {
	dir := t.TempDir()
	for _, mode := range []string{"isolated", "bare"} {
		t.Run(mode, func(t *testing.T) {
			live := newDriver(t, Options{Dir: dir})
			c, err := live.Create(t.Context(), invoker.Spec{Launcher: "python", Memory: 128})
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("/proc/self/exe", "-test.run", "^TestLeaveBehind$")
			cmd.Env = append(os.Environ(), "MILLRACE_TEST_DIR="+dir, "MILLRACE_TEST_MODE="+mode)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var left int
			if _, err := fmt.Fscanf(out, "pid %d\n", &left); err != nil {
				t.Fatal(err)
			}
			if startOf(left) == 0 {
				t.Fatal("there is no container")
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // killed, as it was meant to be
			n, err := live.Sweep(t.Context())
			if n != 1 || err != nil {
				t.Errorf("Sweep = %d, %v, want 1", n, err)
			}
			invokertest.Eventually(t, "the process is gone", func() bool { return startOf(left) == 0 })
			if n, err := live.Sweep(t.Context()); n != 0 || err != nil {
				t.Errorf("a second Sweep = %d, %v", n, err)
			}
			select {
			case <-c.Done():
				t.Error("Sweep ended a container of a living process")
			default:
			}
			if dirs, err := filepath.Glob(filepath.Join(dir, "p*")); err != nil || len(dirs) != 1 {
				t.Errorf("folders left: %v, %v", dirs, err)
			}
		})
	}
}

// TestLeaveBehind is the process that TestLeftovers kills.
func TestLeaveBehind(t *testing.T) {
	dir := os.Getenv("MILLRACE_TEST_DIR")
	if dir == "" {
		t.Skip("it is part of TestLeftovers")
	}
	d, err := New(t.Context(), Options{Dir: dir, bare: os.Getenv("MILLRACE_TEST_MODE") == "bare"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.Create(t.Context(), invoker.Spec{Launcher: "python", Memory: 128})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("pid %d\n", c.(*container).pid)
	select {}
}

// What an action has started ends with its container, wherever it went.
func TestRemoveEndsTheWholeTree(t *testing.T) {
	for _, o := range []Options{{}, {noCgroups: true}, {bare: true}} {
		d := newDriver(t, o)
		b := invokertest.Start(t, d, invoker.DefaultRuntimes())
		mark := fmt.Sprint("31536", os.Getpid()) // seconds that nobody else sleeps
		code := `
import subprocess
def main(args):
    subprocess.Popen(["sleep", "` + mark + `"], start_new_session=True)
    return {}
`
		invokertest.Expect(t, b.Call(invokertest.Runnable("leaver", "python:3", code), `{}`), whisk.Success, `{}`)
		invokertest.Eventually(t, "the child that outlives the run is seen", func() bool { return sleeps(mark) })
		b.Stop()
		invokertest.Eventually(t, "the child is gone", func() bool { return !sleeps(mark) })
		if err := d.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
		if _, err := os.Stat(d.dir); !os.IsNotExist(err) {
			t.Errorf("the folder is still there: %v", err)
		}
		if d.groups != nil {
			if _, err := os.Stat(d.groups.memory); !os.IsNotExist(err) {
				t.Errorf("the control group is still there: %v", err)
			}
		}
	}
}

// sleeps reports whether a sleep of so many seconds runs.
func sleeps(seconds string) bool {
	for _, e := range entries("/proc") {
		b, err := os.ReadFile("/proc/" + e + "/cmdline")
		if err == nil && string(b) == "sleep\x00"+seconds+"\x00" {
			return true
		}
	}
	return false
}

func TestPauseStopsWork(t *testing.T) {
	for _, o := range []Options{{}, {noCgroups: true}, {bare: true, noCgroups: true}} {
		d := newDriver(t, o)
		c, err := d.spawn(invoker.Spec{Memory: 128}, []string{"/bin/sh", "-c", "while :; do :; done"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		busy := func() int { // ticks of processor time of all
			sum := 0
			for _, pid := range append(descendants(c.pid), c.pid) {
				b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
				if err != nil {
					continue
				}
				f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
				var u int
				fmt.Sscan(f[11], &u)
				sum += u
			}
			return sum
		}
		before := busy()
		invokertest.Eventually(t, "it works", func() bool { return busy() > before+2 })
		if err := c.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		stopped := func() bool {
			for _, pid := range append(descendants(c.pid), c.pid) {
				b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
				if err == nil && strings.Contains(string(b), "State:\tR") {
					return false
				}
			}
			return true
		}
		invokertest.Eventually(t, "it rests", stopped)
		if err := c.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		before = busy()
		invokertest.Eventually(t, "it works again", func() bool { return busy() > before+2 })
		if err := c.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.Remove(t.Context()); err != nil {
			t.Errorf("Remove of a paused container = %v", err)
		}
		if e := c.Ending(t.Context()); e.ExitCode != 128+int(syscall.SIGKILL) {
			t.Errorf("it ended with %+v", e)
		}
	}
}

func TestOffers(t *testing.T) {
	d := newDriver(t, Options{})
	for _, r := range invoker.DefaultRuntimes().All() {
		if err := d.Offers(r); err != nil {
			t.Errorf("Offers(%s) = %v", r.Kind, err)
		}
	}
	if err := d.Offers(whisk.Runtime{Kind: whisk.KindBlackbox}); err == nil {
		t.Error("images are offered")
	}
}

func TestClosedDriverMakesNothing(t *testing.T) {
	d := newDriver(t, Options{})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Create(context.Background(), invoker.Spec{Launcher: "python", Memory: 128}); err == nil {
		t.Error("a closed driver made a container")
	}
}

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
