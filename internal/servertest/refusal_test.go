package servertest_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/internal/servertest"
)

// tmpfs mounts a file system in memory on a new folder. It can be made larger
// and smaller while it is in use, which is how a test fills a disk.
func tmpfs(t *testing.T, options string, flags uintptr) string {
	t.Helper()
	dir := t.TempDir()
	err := unix.Mount("tmpfs", dir, "tmpfs", flags, options)
	if errors.Is(err, unix.EPERM) && os.Getenv("CI") != "true" {
		t.Skip("only root can mount a small file system to fill")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// told returns what a server said to a person: its output without the log.
func told(out string) string {
	var said strings.Builder
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "{") {
			said.WriteString(line)
		}
	}
	return said.String()
}

// TestRefusals starts servers that can't start. Each says why on one line and
// what to do on the next, and ends with a code that is not 0.
func TestRefusals(t *testing.T) {
	bin, err := servertest.Build()
	if err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p := newProcess(t, "process")
	p.Start()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	noDocker := "DOCKER_HOST=unix://" + filepath.Join(t.TempDir(), "docker.sock")
	for _, tt := range []struct {
		name        string
		data        func(t *testing.T) string // nil for a good folder
		args        []string
		env         string
		cause, hint string
	}{
		{name: "port taken", args: []string{"--listen", taken.Addr().String()}, cause: "the address " + taken.Addr().String() + " is in use by another program", hint: "--listen"},
		{name: "foreign address", args: []string{"--listen", "192.0.2.1:3233"}, cause: "can't listen on 192.0.2.1:3233: cannot assign requested address", hint: "--listen"},
		{name: "folder locked", data: func(*testing.T) string { return p.Data }, cause: "the data folder " + p.Data + " is in use by another server (process ", hint: "--data"},
		{name: "folder is a file", data: func(*testing.T) string { return file }, cause: "the data folder " + file + " can't be written: not a directory", hint: "choose another folder with --data"},
		{name: "folder below a file", data: func(*testing.T) string { return file + "/data" }, cause: file + " is not a directory", hint: "choose another folder with --data"},
		{name: "folder read-only", data: func(t *testing.T) string { return tmpfs(t, "", unix.MS_RDONLY) }, cause: "can't be written: read-only file system", hint: "choose another folder with --data"},
		{name: "disk full", data: func(t *testing.T) string { return tmpfs(t, "size=8m", 0) }, cause: "is full: 8 MiB are free, and a start needs 64", hint: "free some space"},
		{name: "Docker does not answer", args: []string{"--driver", "docker"}, env: noDocker, cause: "Docker does not answer", hint: "--driver process"},
		{name: "Docker of a dead port", args: []string{"--driver", "docker"}, env: "DOCKER_HOST=tcp://127.0.0.1:1", cause: "Docker does not answer", hint: "--driver process"},
		{name: "no runtimes", args: []string{"--runtimes", "/nonexistent.json"}, cause: "/nonexistent.json", hint: "--runtimes"},
		{name: "runtimes that are none", args: []string{"--runtimes", file}, cause: file, hint: "runtimes.json"},
		{name: "no address", args: []string{"--listen", "nowhere"}, cause: "these settings are not valid", hint: "--help"},
		{name: "roles", args: []string{"--roles", "api"}, cause: "unknown flag: --roles", hint: "--help"},
		{name: "nats", args: []string{"--nats", "nats://localhost"}, cause: "unknown flag: --nats", hint: "--help"},
		{name: "cluster routes", args: []string{"--cluster-routes", "x"}, cause: "unknown flag: --cluster-routes", hint: "--help"},
		{name: "unknown variable", env: "MILLRACE_FOO=1", cause: "MILLRACE_FOO: there is no such setting", hint: "--help"},
		{name: "no file of settings", args: []string{"--config", "/nonexistent.yaml"}, cause: "/nonexistent.yaml", hint: "--help"},
	} {
		for _, command := range []string{"serve", "dev"} {
			t.Run(tt.name+"/"+command, func(t *testing.T) {
				dir := t.TempDir()
				if tt.data != nil {
					dir = tt.data(t)
				}
				// What the case says comes later, and wins.
				args := append([]string{command, "--data", dir, "--listen", "127.0.0.1:0", "--driver", "process"}, tt.args...)
				cmd := exec.CommandContext(t.Context(), bin, args...)
				cmd.Env = append(os.Environ(), tt.env)
				var errs strings.Builder
				cmd.Stderr = &errs
				if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() <= 0 {
					t.Errorf("it ended with %v, want an exit code that is not 0", cmd.ProcessState)
				}
				said := told(errs.String())
				if cause, hint, _ := strings.Cut(said, "\nhint: "); !strings.Contains(cause, tt.cause) || !strings.Contains(hint, tt.hint) {
					t.Errorf("it says\n%swant %q and a hint with %q", said, tt.cause, tt.hint)
				}
				if strings.HasPrefix(said, "error: these settings are not valid:\n") { // each on a line of its own
					said = strings.Replace(said, ":\n", ": ", 1)
				}
				checkTwoLines(t, said)
			})
		}
	}
}
