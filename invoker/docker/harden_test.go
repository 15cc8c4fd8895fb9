package docker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/container"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker"
	"github.com/millrace/millrace/invoker/invokertest"
)

// What an action can do to the container that it runs in.
const probe = `
import os, socket
def main(args):
    def can(path):
        try:
            open(path, 'a').close()
            return True
        except OSError:
            return False
    def lines(path, *names):
        return [l.split()[1].strip('0') for l in open(path) if l.split(':')[0] in names]
    return {
        'rights': lines('/proc/self/status', 'CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'),
        'new': lines('/proc/self/status', 'NoNewPrivs'), 'uid': os.getuid(), 'groups': os.getgroups(),
        'write': [p for p in ('/evil', '/etc/passwd', '/opt/millrace/launcher.py', '/opt/millrace/evil', '/tmp/mine', '/dev/shm/mine') if can(p)],
        'files': sorted(os.listdir('/opt/millrace')), 'network': sorted(n for i, n in socket.if_nameindex()),
    }
`

func TestHardening(t *testing.T) {
	needDocker(t)
	d := newDriver(t, t.TempDir())
	b := invokertest.Start(t, d, runtimes(t))
	a := b.Call(invokertest.Runnable("probe", "python:3", probe), `{}`)
	invokertest.Expect(t, a, whisk.Success, `{"rights":["","","","",""],"new":["1"],"uid":65534,"groups":[65534],`+
		`"write":["/tmp/mine","/dev/shm/mine"],"files":["launcher.py"],"network":["eth0","lo"]}`)

	buildStock(t, d)
	for name, spec := range map[string]invoker.Spec{
		"ours":   {Kind: "python:3", Image: "millrace-test/python:3", Launcher: "python", Memory: 128},
		"theirs": {Kind: whisk.KindBlackbox, Image: stockImage, Memory: 128},
	} {
		c, err := d.Create(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		in, err := d.api.ContainerInspect(t.Context(), c.(*box).id)
		if err != nil {
			t.Fatal(err)
		}
		h := in.HostConfig
		if h.Memory != 128<<20 || h.MemorySwap != h.Memory || h.PidsLimit == nil || *h.PidsLimit != pidsLimit {
			t.Errorf("%s: limits = %+v", name, h.Resources)
		}
		if !slices.Equal(h.CapDrop, []string{"ALL"}) || !slices.Equal(h.SecurityOpt, []string{"no-new-privileges"}) || h.Privileged {
			t.Errorf("%s: rights dropped %v, added %v, options %v", name, h.CapDrop, h.CapAdd, h.SecurityOpt)
		}
		if h.LogConfig.Type != "none" || h.NetworkMode != "bridge" || len(h.PortBindings) > 0 {
			t.Errorf("%s: log %v, network %v, ports %v", name, h.LogConfig, h.NetworkMode, h.PortBindings)
		}
		if ours := spec.Launcher != ""; ours != (len(h.CapAdd) == 0) || ours != h.ReadonlyRootfs {
			t.Errorf("%s: rights added %v, read-only %v", name, h.CapAdd, h.ReadonlyRootfs)
		}
		if err := c.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	}
	b.Stop()
}

// A warm container that somebody removes, stops or kills is not missed: the
// next call gets another one.
func TestContainerIsTakenAway(t *testing.T) {
	needDocker(t)
	d := newDriver(t, t.TempDir())
	r := invokertest.Runnable("count", "python:3", "n = 0\ndef main(args):\n    global n\n    n += 1\n    return {'n': n}\n")
	for name, take := range map[string]func(id string) error{
		"remove": func(id string) error {
			return d.api.ContainerRemove(t.Context(), id, container.RemoveOptions{Force: true})
		},
		"kill": func(id string) error { return d.api.ContainerKill(t.Context(), id, "KILL") },
		"stop": func(id string) error {
			now := 0
			return d.api.ContainerStop(t.Context(), id, container.StopOptions{Timeout: &now})
		},
		"pause and remove": func(id string) error {
			return errors.Join(d.api.ContainerPause(t.Context(), id), d.api.ContainerRemove(t.Context(), id, container.RemoveOptions{Force: true}))
		},
	} {
		b := invokertest.Start(t, d, runtimes(t))
		invokertest.Expect(t, b.Call(r, `{}`), whisk.Success, `{"n":1}`)
		invokertest.Expect(t, b.Call(r, `{}`), whisk.Success, `{"n":2}`)
		ids := d.running(t)
		if len(ids) != 1 {
			t.Fatalf("%s: containers = %v, want one", name, ids)
		}
		if err := take(ids[0]); err != nil {
			t.Fatal(err)
		}
		invokertest.Expect(t, b.Call(r, `{}`), whisk.Success, `{"n":1}`)
		b.Stop()
	}
}

// running returns the containers of a driver that run.
func (d *Driver) running(t *testing.T) []string {
	t.Helper()
	list, err := d.api.ContainerList(t.Context(), container.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, c := range list {
		if c.Labels[labelInstance] == d.dir && c.State == "running" {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// relay stands between a driver and the daemon, and can make it look as if the
// daemon were being restarted.
type relay struct {
	path  string
	mu    sync.Mutex
	up    net.Listener
	conns map[net.Conn]bool
}

func (r *relay) start(t *testing.T) {
	t.Helper()
	l, err := net.Listen("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.up, r.conns = l, map[net.Conn]bool{}
	r.mu.Unlock()
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("unix", "/var/run/docker.sock")
			if err != nil {
				in.Close()
				continue
			}
			r.mu.Lock()
			r.conns[in], r.conns[out] = true, true
			r.mu.Unlock()
			for a, b := range map[net.Conn]net.Conn{in: out, out: in} {
				go func() {
					_, _ = io.Copy(a, b)
					a.Close()
					b.Close()
				}()
			}
		}
	}()
}

func (r *relay) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.up.Close()
	for c := range r.conns {
		c.Close()
	}
}

// While the daemon does not answer, jobs fail as the platform's, which are
// tried again; afterwards all is as before, and no container is left over.
func TestDaemonRestarts(t *testing.T) {
	needDocker(t)
	r := &relay{path: filepath.Join(t.TempDir(), "docker.sock")}
	r.start(t)
	t.Setenv("DOCKER_HOST", "unix://"+r.path)
	d, err := New(t.Context(), Options{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	b := invokertest.Start(t, d, runtimes(t))
	run := invokertest.Runnable("echo", "python:3", "def main(args):\n    return args\n")
	other := invokertest.Runnable("other", "python:3", "def main(args):\n    return args\n")
	invokertest.Expect(t, b.Call(run, `{"a":1}`), whisk.Success, `{"a":1}`)
	r.stop()
	invokertest.Expect(t, b.Call(other, `{"a":2}`), whisk.WhiskError, `{"error":"Failed to provision resources to run the action."}`)
	r.start(t)
	invokertest.Expect(t, b.Call(run, `{"a":3}`), whisk.Success, `{"a":3}`)
	invokertest.Expect(t, b.Call(other, `{"a":4}`), whisk.Success, `{"a":4}`)
	b.Stop()
	if n := d.ours(t); n > 0 {
		t.Errorf("%d containers are left", n)
	}
	r.stop()
	if _, err := d.Sweep(context.WithoutCancel(t.Context())); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("Sweep without a daemon = %v", err)
	}
}
