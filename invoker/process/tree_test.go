package process

import (
	"cmp"
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

// levels are the ways in which containers are kept apart.
var levels = []Options{{}, {noCgroups: true}, {bare: true}, {bare: true, noCgroups: true}}

// leavers are actions that leave processes behind. Their argument is how long
// those sleep.
var leavers = map[string]string{
	"children":                      "def main(args):\n    for i in range(100): subprocess.Popen(['sleep', args['s']])\n    return {}\n",
	"sessions":                      "def main(args):\n    for i in range(10): subprocess.Popen(['sleep', args['s']], start_new_session=True)\n    return {}\n",
	"daemons":                       daemon + "def main(args):\n    for i in range(10): daemon(args['s'])\n    return {}\n",
	"daemons of one that ends":      daemon + "def main(args):\n    daemon(args['s'])\n    os._exit(7)\n",
	"daemons of one that is killed": daemon + "def main(args):\n    daemon(args['s'])\n    os.kill(os.getpid(), 9)\n",
}

// daemon starts a process whose parent is gone before it begins.
const daemon = `
def daemon(seconds):
    r, w = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 3)
            os.set_inheritable(w, True)
            os.execvp("sh", ["sh", "-c", "exec %d>&-; exec sleep %s" % (w, seconds)])
        os._exit(0)
    os.wait()
    os.close(w)
    os.read(r, 1)
    os.close(r)

`

// What an action has started ends with its container, wherever it went.
func TestRemoveEndsTheWholeTree(t *testing.T) {
	for i, o := range levels {
		for name, code := range leavers {
			d := newDriver(t, o)
			_, level := d.Describe()
			b := invokertest.Start(t, d, invoker.DefaultRuntimes())
			mark := fmt.Sprintf("%d%d", 31536+i, os.Getpid()) // seconds that nobody else sleeps
			a := b.Call(invokertest.Runnable("leaver", "python:3", "import os, subprocess\n"+code), `{"s":"`+mark+`"}`)
			if strings.Contains(name, " of one ") {
				invokertest.Expect(t, a, whisk.DeveloperError, `{"error":"The action did not produce a valid response and exited unexpectedly."}`)
			} else {
				invokertest.Expect(t, a, whisk.Success, `{}`)
				invokertest.Eventually(t, name+" that outlive the run are seen", func() bool { return sleepers(mark) >= 10 })
			}
			b.Stop()
			if n := sleepers(mark); n > 0 {
				t.Errorf("%s, %s: %d are left", level, name, n)
			}
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
}

// sleepers counts the processes that sleep so many seconds.
func sleepers(seconds string) int {
	n := 0
	for _, e := range entries("/proc") {
		b, err := os.ReadFile("/proc/" + e + "/cmdline")
		if err == nil && string(b) == "sleep\x00"+seconds+"\x00" {
			n++
		}
	}
	return n
}

// TestDeathOfTheServer kills a process with a container whose processes are
// strewn about, and expects the kernel or the container itself to end them.
func TestDeathOfTheServer(t *testing.T) {
	for _, mode := range []string{"isolated", "bare"} {
		mark := fmt.Sprintf("%d%d", 41536+len(mode), os.Getpid())
		dir := t.TempDir()
		cmd, left := leaveBehind(t, dir, mode, mark)
		invokertest.Eventually(t, "its processes are there", func() bool { return sleepers(mark) == 3 })
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed, as it was meant to be
		invokertest.Eventually(t, mode+": all are gone", func() bool { return startOf(left) == 0 && sleepers(mark) == 0 })
		// Its files are swept by the next server.
		links, err := filepath.Glob(filepath.Join(dir, "p*", publicLink))
		if err != nil {
			t.Fatal(err)
		}
		var public []string
		for _, l := range links {
			to, err := os.Readlink(l)
			if err != nil {
				t.Fatal(err)
			}
			public = append(public, to)
		}
		if n, err := newDriver(t, Options{Dir: dir}).Sweep(t.Context()); n != 1 || err != nil {
			t.Errorf("Sweep = %d, %v", n, err)
		}
		for _, p := range public {
			if _, err := os.Stat(p); !os.IsNotExist(err) {
				t.Errorf("%s is still there: %v", p, err)
			}
		}
	}
}

// leaveBehind starts a process with one container that sleeps so many seconds
// three times, or is paused, and returns it with the container's pid.
func leaveBehind(t *testing.T, dir, mode, seconds string) (cmd *exec.Cmd, pid int) {
	t.Helper()
	cmd = exec.Command("/proc/self/exe", "-test.run", "^TestLeaveBehind$")
	cmd.Env = append(os.Environ(), "MILLRACE_TEST_DIR="+dir, "MILLRACE_TEST_MODE="+mode, "MILLRACE_TEST_SLEEP="+seconds)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscanf(out, "pid %d\n", &pid); err != nil {
		t.Fatal(err)
	}
	return cmd, pid
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
			cmd, left := leaveBehind(t, dir, mode, "")
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
	sleep := os.Getenv("MILLRACE_TEST_SLEEP")
	c, err := d.spawn(invoker.Spec{Memory: 128}, []string{"/bin/sh", "-c", fmt.Sprintf("setsid sleep %[1]s & (setsid sleep %[1]s &) ; sleep %[1]s; :", cmp.Or(sleep, "1000"))}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if sleep == "" {
		if err := c.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Printf("pid %d\n", c.pid)
	select {}
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
