package docker

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker"
	"github.com/millrace/millrace/invoker/invokertest"
	"github.com/millrace/millrace/invoker/process"
)

// testRuntimes are of the images that .ci/docker makes.
const testRuntimes = `{"runtimes": {
	"python": [{"kind": "python:3", "image": {"prefix": "millrace-test", "name": "python", "tag": "3"}, "launcher": "python"}],
	"nodejs": [{"kind": "nodejs:20", "image": {"prefix": "millrace-test", "name": "node", "tag": "20"}, "launcher": "node"}],
	"native": [{"kind": "native:1", "image": {"prefix": "millrace-test", "name": "debian", "tag": "stable"}, "launcher": "native"}]
}}`

func TestMain(m *testing.M) {
	process.MaybeShim() // this binary is mounted as the native launcher
	os.Exit(m.Run())
}

// needDocker skips a test unless the environment says that a daemon with the
// test images is there: make test sees to that.
func needDocker(t *testing.T) {
	t.Helper()
	if os.Getenv("TEST_DOCKER") == "" {
		t.Skip("needs Docker and the images of .ci/docker: run 'make test'")
	}
}

func newDriver(t *testing.T, dir string) *Driver {
	t.Helper()
	d, err := New(t.Context(), Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left := d.ours(t); left > 0 {
			t.Errorf("%d containers are left", left)
		}
		d.Close()
	})
	return d
}

// ours counts the containers of a driver's folder.
func (d *Driver) ours(t *testing.T) int {
	t.Helper()
	list, err := d.api.ContainerList(context.WithoutCancel(t.Context()), container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", labelHome+"="+d.o.Dir)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func runtimes(t *testing.T) whisk.Runtimes {
	t.Helper()
	rt, err := whisk.ParseRuntimes([]byte(testRuntimes))
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

func TestDocker(t *testing.T) {
	needDocker(t)
	invokertest.Suite{
		New:      func(t *testing.T) invoker.Driver { return newDriver(t, t.TempDir()) },
		Runtimes: runtimes(t),
		Python3:  true,
	}.Run(t)
}

// TestSweep leaves a container behind, as a killed server does.
func TestSweep(t *testing.T) {
	needDocker(t)
	dir := t.TempDir()
	dead, err := New(t.Context(), Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	alive := newDriver(t, dir)
	spec := invoker.Spec{Kind: "python:3", Image: "millrace-test/python:3", Launcher: "python", Memory: 128}
	if _, err := dead.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if n, err := alive.Sweep(t.Context()); err != nil || n != 0 {
		t.Errorf("swept %d containers of a driver that lives, %v", n, err)
	}
	other := newDriver(t, t.TempDir()) // of a server with another data folder
	if n, err := other.Sweep(t.Context()); err != nil || n != 0 {
		t.Errorf("swept %d containers of another server, %v", n, err)
	}
	dead.lock.Close() // the process died
	if n, err := other.Sweep(t.Context()); err != nil || n != 0 {
		t.Errorf("swept %d containers of another server that died, %v", n, err)
	}
	if n, err := alive.Sweep(t.Context()); err != nil || n != 1 {
		t.Errorf("swept %d containers of a dead driver, %v, want 1", n, err)
	}
	if _, err := os.Stat(dead.dir); !os.IsNotExist(err) {
		t.Errorf("the folder of the dead driver is still there: %v", err)
	}
}

func TestMissingImage(t *testing.T) {
	needDocker(t)
	d := newDriver(t, t.TempDir())
	_, err := d.Create(t.Context(), invoker.Spec{Kind: whisk.KindBlackbox, Image: "localhost:1/none:1", Memory: 128})
	if !errors.Is(err, whisk.Invalid) || whisk.Message(err) != "Failed to pull container image 'localhost:1/none:1'." {
		t.Errorf("Create = %v, want Invalid with upstream's text", err)
	}
	if err := d.Offers(t.Context(), whisk.Runtime{Kind: "x:1", Image: whisk.Image{Name: "millrace-test/none"}}); err == nil {
		t.Error("a kind whose image is missing is on offer")
	}
}

func TestNoDaemon(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
	_, err := New(t.Context(), Options{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, whisk.Unavailable) || whisk.HintOf(err) == "" {
		t.Errorf("New without a daemon = %v (hint %q), want Unavailable and a hint", err, whisk.HintOf(err))
	}
}
