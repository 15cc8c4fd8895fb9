package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/millrace/millrace/invoker"
	"github.com/millrace/millrace/invoker/launcher"
)

const (
	answerTime = 5 * time.Second // for an interpreter to say where it is, and for a container with it to answer
	maxTried   = 8               // interpreters, for one kind
)

// interpreter is what a launcher is run by, once it was looked for.
type interpreter struct {
	once sync.Once
	found
	err error // why there is none, in one line
}

// found is an interpreter of this machine.
type found struct {
	path    string   // the program itself, not a script that finds it
	version string   // as it says
	expose  []string // folders and files that it must see, also in hidden folders
}

// language says how to find the interpreter of a launcher.
type language struct {
	family   string   // of the kinds whose version is the interpreter's
	programs []string // by name, better ones first
	ask      []string // arguments that make it print its path, its version, and what it needs
	major    bool     // the next major version is another language
}

// The second line of what they print is the version; from the third on are
// folders that the interpreter needs.
var languages = map[string]language{
	launcher.Python: {
		family: "python", programs: []string{"python3", "python"}, major: true,
		ask: []string{"-I", "-S", "-c", "import os, sys; print(sys.executable, sys.version.split()[0], os.path.dirname(os.__file__), sys.base_prefix, sys.prefix, sep='\\n')"},
	},
	launcher.Node: {
		family: "nodejs", programs: []string{"node", "nodejs"},
		ask: []string{"-p", "process.execPath + '\\n' + process.versions.node"},
	},
}

// interpreter returns what runs a launcher for actions of a kind. The first
// call looks for it; the others wait for that.
func (d *Driver) interpreter(ctx context.Context, name, kind string) *interpreter {
	wants := wanted(name, kind)
	d.mu.Lock()
	in, ok := d.kinds[name+":"+wants]
	if !ok {
		in = &interpreter{}
		d.kinds[name+":"+wants] = in
	}
	d.mu.Unlock()
	// Outside the lock, as to look may take seconds. What is found, or not,
	// holds for the driver's life.
	in.once.Do(func() { in.found, in.err = d.look(ctx, name, wants) })
	return in
}

// wanted is the version that a kind asks of a launcher's interpreter; empty if
// any will do.
func wanted(name, kind string) string {
	family, version, _ := strings.Cut(kind, ":")
	if family != languages[name].family {
		return "" // the version is that of something else
	}
	// Of "3-ml" or "default" only the leading number counts.
	end := strings.IndexFunc(version, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if end >= 0 {
		version = version[:end]
	}
	return strings.Trim(version, ".")
}

// look tries the interpreters of this machine, in the order in which a shell
// would find them, and returns the first that answers from inside a container.
// To be there is not enough: it may be a script that finds the real one, or lie
// in a folder that the container's user may not enter, or lack a module.
func (d *Driver) look(ctx context.Context, name, wants string) (found, error) {
	if name == launcher.Native {
		self, err := os.Executable()
		if err != nil {
			return found{}, err
		}
		in := found{path: self, expose: []string{self}}
		if d.public != "" {
			in.path = "/proc/self/exe" // wherever it lies, the shim is it
		}
		return in, d.try(ctx, in, name)
	}
	l, ok := languages[name]
	if !ok {
		return found{}, fmt.Errorf("there is no launcher %q", name)
	}
	paths := d.candidates(l, wants)
	if len(paths) == 0 {
		return found{}, fmt.Errorf("%s is not installed", l.programs[0])
	}
	var failed []string
	var seen []string
	for _, path := range paths {
		in, err := d.ask(ctx, path, l)
		if err == nil && slices.Contains(seen, in.path) {
			continue // another name of one that was tried
		}
		if err == nil {
			seen = append(seen, in.path)
			err = l.fits(in.version, wants)
		}
		if err == nil {
			err = d.try(ctx, in, name)
		}
		if err == nil {
			d.log.Debug("interpreter found", slog.String("launcher", name), slog.String("path", in.path), slog.String("version", in.version))
			return in, nil
		}
		// Each reason is kept: together they are the one line that people are
		// told.
		failed = append(failed, fmt.Sprintf("%s: %v", path, err))
	}
	return found{}, errors.New(strings.Join(failed, "; "))
}

// candidates returns the programs that may be the interpreter.
func (d *Driver) candidates(l language, wants string) []string {
	programs := l.programs
	if l.major && strings.Contains(wants, ".") {
		programs = append([]string{l.family + wants}, programs...) // as in python3.11
	}
	var out []string
	real := map[string]bool{}
	for _, p := range programs {
		for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), d.folders...) {
			path := filepath.Join(dir, p)
			// A relative folder in PATH would mean another place for a
			// container.
			if !filepath.IsAbs(path) || len(out) == maxTried {
				continue
			}
			// It must be a file that may be run.
			if _, err := exec.LookPath(path); err != nil {
				continue
			}
			// Many names lead to one program: it is asked once.
			if r, err := filepath.EvalSymlinks(path); err == nil && !real[r] {
				real[r] = true
				out = append(out, path)
			}
		}
	}
	return out
}

// ask runs a program to learn where the interpreter is that it stands for.
func (d *Driver) ask(ctx context.Context, path string, l language) (found, error) {
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, l.ask...)
	// The container will not have these options either.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "NODE_OPTIONS=") })
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what a script has started ends with it
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var out, errs head
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return found{}, fmt.Errorf("it did not answer within %v", d.patience)
	case err != nil:
		return found{}, fmt.Errorf("it does not run: %s", cmp.Or(lastLine(string(errs)), err.Error()))
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) < 2 || !filepath.IsAbs(lines[0]) {
		return found{}, errors.New("it does not say where it is")
	}
	in := found{path: lines[0], version: lines[1]}
	real, err := filepath.EvalSymlinks(in.path)
	if err != nil {
		return found{}, err
	}
	for _, p := range append([]string{in.path, real}, lines[2:]...) {
		// An interpreter that was installed right into the home folder is no
		// reason to show all of it.
		if !slices.Contains(d.private, p) {
			in.expose = append(in.expose, p)
		}
	}
	return in, nil
}

// fits returns nil if an interpreter of this version can stand for the one
// that a kind wants: the same, or a newer one of the same language.
func (l language) fits(version, wants string) error {
	if wants == "" {
		return nil
	}
	have, want := strings.Split(version, "."), strings.Split(wants, ".")
	// Number by number, as far as both are given.
	for i, w := range want {
		if i >= len(have) {
			break
		}
		h, err := strconv.Atoi(have[i])
		if err != nil {
			return fmt.Errorf("it is version %s, not %s", version, wants)
		}
		n, _ := strconv.Atoi(w) // wanted lets only digits through
		switch {
		case h == n:
			continue
		// Newer is good enough below the first number, and above it where
		// major versions are one language.
		case h < n || i == 0 && l.major:
			return fmt.Errorf("it is version %s, not %s", version, wants)
		}
		return nil
	}
	return nil
}

// try starts a container and waits until its launcher answers.
func (d *Driver) try(ctx context.Context, in found, name string) error {
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	c, err := d.launch(in, invoker.Spec{Launcher: name, Memory: 128})
	if err != nil {
		return err
	}
	defer c.drop(ctx)
	conn, err := c.Dial(ctx)
	if err != nil {
		return err
	}
	end, _ := ctx.Deadline()
	if err := conn.SetDeadline(end); err != nil {
		return err
	}
	// A container that is gone already cannot be written to: why, it says.
	_, _ = conn.Write(launcher.AppendFrame(nil, launcher.Ping))
	_, _, _, err = launcher.NewReader(conn).Next(0)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("in a container it did not answer within %v", d.patience)
	case err != nil:
		// So that its output has an end.
		c.kill()
		return fmt.Errorf("in a container it does not start: %s", cmp.Or(lastLine(c.firstOutput()), err.Error()))
	}
	return nil
}

// head keeps the first bytes that are written to it. A program that prints
// without end does not fill the memory.
type head []byte

func (h *head) Write(p []byte) (int, error) {
	*h = append(*h, p[:min(len(p), 4096-len(*h))]...)
	return len(p), nil
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
