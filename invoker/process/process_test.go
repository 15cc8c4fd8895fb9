package process

import (
	"bytes"
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

func TestMain(m *testing.M) {
	MaybeShim()
	if os.Getenv("MILLRACE_TEST_FORBID") != "" {
		// This process is root in a user namespace, and may make no more.
		if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// newDriver returns a driver that is closed with the test.
func newDriver(t *testing.T, o Options) *Driver {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	d, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return d
}

// The contract holds however much of isolation there is.
func TestProcess(t *testing.T) {
	for _, tt := range []struct {
		name  string
		kinds string // prefix of those to test
		Options
	}{
		{"as allowed", "", Options{}},
		{"bare", "nodejs", Options{bare: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			invokertest.Suite{
				New: func(t *testing.T) invoker.Driver {
					d := newDriver(t, tt.Options)
					if want := os.Getenv("MILLRACE_TEST_ISOLATED"); want != "" && tt.name == "as allowed" && want != fmt.Sprint(d.Isolated()) {
						_, got := d.Describe()
						t.Errorf("isolation = %s", got)
					}
					return d
				},
				Runtimes: invoker.DefaultRuntimes().Keep(func(r whisk.Runtime) bool { return strings.HasPrefix(r.Kind, tt.kinds) }),
				Python3:  true,
			}.Run(t)
		})
	}
}

// What holds for the user of these tests holds for ordinary users too, whom
// the kernel gives no control groups, and where it allows no user namespaces.
func TestOtherUsers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		forbid bool
	}{
		{"ordinary user", false},
		{"ordinary user without namespaces", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := shared(t)
			self, err := os.ReadFile("/proc/self/exe")
			if err != nil {
				t.Fatal(err)
			}
			program := filepath.Join(dir, "process.test")
			if err := os.WriteFile(program, self, 0o755); err != nil { //nolint:gosec // others are to run it
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), program, "-test.v",
				"-test.run", "^(TestProcess|TestRemoveEndsTheWholeTree|TestPauseStopsWork|TestNoRights|TestDeathOfTheServer|TestMemoryIsWatched)$/(^as allowed$|watched$)")
			cmd.Dir = dir
			for _, v := range []string{"home", "tmp"} {
				if err := os.Mkdir(filepath.Join(dir, v), 0o777); err != nil { //nolint:gosec // see above
					t.Fatal(err)
				}
				if err := os.Chmod(filepath.Join(dir, v), 0o777); err != nil { //nolint:gosec // whatever the umask
					t.Fatal(err)
				}
			}
			cmd.Env = []string{
				"PATH=" + os.Getenv("PATH"), "HOME=" + dir + "/home", "TMPDIR=" + dir + "/tmp",
				fmt.Sprint("MILLRACE_TEST_ISOLATED=", !tt.forbid && newDriver(t, Options{}).Isolated()),
			}
			cmd.SysProcAttr = &syscall.SysProcAttr{}
			uid := os.Getuid()
			if uid == 0 {
				uid = nobody
				cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
			}
			if tt.forbid && newDriver(t, Options{}).Isolated() { // else it is so already
				cmd.Env = append(cmd.Env, "MILLRACE_TEST_FORBID=1")
				cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
				cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
				cmd.SysProcAttr.GidMappings = cmd.SysProcAttr.UidMappings
				cmd.SysProcAttr.Credential = &syscall.Credential{NoSetGroups: true}
			}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			for _, name := range []string{"TestProcess/as_allowed", "TestMemoryIsWatched/many_children"} {
				if !bytes.Contains(out, []byte("--- PASS: "+name)) {
					t.Errorf("%s did not run:\n%s", name, out)
				}
			}
		})
	}
}

// shared returns a folder that all users may enter.
func shared(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "millrace-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // that is what it is for
		t.Fatal(err)
	}
	return dir
}
