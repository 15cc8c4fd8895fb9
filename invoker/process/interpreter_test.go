package process

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker"
	"github.com/millrace/millrace/invoker/invokertest"
)

// script writes a program called python3 into a folder of its own, which it
// returns.
func script(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "python3"), []byte("#!/bin/sh\n"+text), 0o755); err != nil { //nolint:gosec // it is to be run
		t.Fatal(err)
	}
	return dir
}

// An interpreter that does not work is passed over for one that does; when
// there is no other, the kind is not on offer and the error says why.
func TestOffersOnlyWhatWorks(t *testing.T) {
	python := whisk.Runtime{Kind: "python:3", Launcher: "python"}
	locked := filepath.Join(t.TempDir(), "python3.12")
	if err := os.WriteFile(locked, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, text, why string }{
		{"it fails", "echo the shared library is missing >&2; exit 1\n", "it does not run: the shared library is missing"},
		{"it fails in silence", "exit 3\n", "it does not run: exit status 3"},
		{"it says nothing", "exit 0\n", "it does not say where it is"},
		{"it says what nobody asked for", "echo usage\necho python3 file\n", "it does not say where it is"},
		{"it says too much", "while :; do echo /a/b; done | { i=0; while [ $i -lt 5000 ]; do read l; echo $l; i=$((i+1)); done; }\n", "no such file"},
		{"it stands for a program that may not be run", "echo " + locked + "\necho 3.12.1\n", "it does not start: init: 1: " + locked + ": Permission denied"},
		{"it stands for a program that is gone", "echo /nonexistent/python3\necho 3.12.1\n", "no such file"},
		{"it is too old", "echo /bin/sh\necho 2.7.18\n", "it is version 2.7.18, not 3"},
		{"it is another program", "echo /bin/sh\necho 3.12.1\n", "in a container it does not start: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := os.Getenv("PATH")
			dir := script(t, tt.text)
			t.Setenv("PATH", dir+":"+path)
			d := newDriver(t, Options{})
			if err := d.Offers(t.Context(), python); err != nil {
				t.Errorf("with a good one after it: %v", err)
			}
			b := invokertest.Start(t, d, invoker.DefaultRuntimes())
			invokertest.Expect(t, b.Call(invokertest.Runnable("echo", "python:3", "def main(args):\n    return args\n"), `{"a":1}`), whisk.Success, `{"a":1}`)
			b.Stop()

			t.Setenv("PATH", dir)
			d = newDriver(t, Options{folders: []string{}})
			err := d.Offers(t.Context(), python)
			if err == nil || !strings.HasPrefix(err.Error(), dir+"/python3: ") || !strings.Contains(err.Error(), tt.why) || strings.Contains(err.Error(), "\n") {
				t.Errorf("alone: %v, want one line with %q", err, tt.why)
			}
			if _, err := d.Create(t.Context(), invoker.Spec{Kind: "python:3", Launcher: "python", Memory: 128}); err == nil {
				t.Error("a container of it was made")
			}
		})
	}
}

func TestNoInterpreter(t *testing.T) {
	t.Setenv("PATH", t.TempDir()+":not/absolute:")
	d := newDriver(t, Options{folders: []string{}})
	for launcher, want := range map[string]string{"python": "python3 is not installed", "node": "node is not installed", "perl": `there is no launcher "perl"`} {
		if err := d.Offers(t.Context(), whisk.Runtime{Kind: "x:1", Launcher: launcher}); err == nil || err.Error() != want {
			t.Errorf("Offers with launcher %s = %v, want %s", launcher, err, want)
		}
	}
}

// An interpreter that hangs is given up, with all that it has started.
func TestInterpreterHangs(t *testing.T) {
	mark := "27182818"
	for _, tt := range []struct{ name, text, why string }{
		{"when asked", "sleep " + mark + " & wait\n", "it did not answer within 200ms"},
		{"in a container", "[ $3 = -c ] && echo $0 && echo 3.12.1 && exit\nsleep " + mark + "\n", "in a container it did not answer within 200ms"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("PATH", script(t, tt.text)+":/usr/bin:/bin") // for sleep
			d := newDriver(t, Options{folders: []string{}, patience: 200 * time.Millisecond})
			l := languages["python"]
			paths := d.candidates(l, "3")[:1]
			in, err := d.ask(t.Context(), paths[0], l)
			if err == nil {
				err = d.try(t.Context(), in, "python")
			}
			if err == nil || err.Error() != tt.why {
				t.Errorf("error = %v, want %s", err, tt.why)
			}
			invokertest.Eventually(t, "what it started is gone", func() bool { return sleepers(mark) == 0 })
		})
	}
}

// A folder that only root may enter is no obstacle: the container sees the
// interpreter and nothing beside it.
func TestInterpreterInPrivateFolder(t *testing.T) {
	private, err := os.MkdirTemp("/var/lib", "millrace-test-") // not a folder that is hidden anyway
	if err != nil {
		private = t.TempDir() // not root: every folder it can read is its own
	}
	t.Cleanup(func() { os.RemoveAll(private) })
	real := newDriver(t, Options{}).interpreter(t.Context(), "python", "python:3")
	if real.err != nil {
		t.Fatal(real.err)
	}
	if err := os.WriteFile(filepath.Join(private, "secret"), []byte("s"), 0o666); err != nil { //nolint:gosec // the folder keeps it
		t.Fatal(err)
	}
	if err := os.Symlink(real.path, filepath.Join(private, "python3")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", private)
	d := newDriver(t, Options{folders: []string{}})
	b := invokertest.Start(t, d, invoker.DefaultRuntimes())
	a := b.Call(invokertest.Runnable("ls", "python:3", "import os\ndef main(args):\n    return {'files': os.listdir(args['dir'])}\n"), `{"dir":"`+private+`"}`)
	invokertest.Expect(t, a, whisk.Success, `{"files":["python3"]}`)
}

func TestVersions(t *testing.T) {
	for _, tt := range []struct{ launcher, kind, wants string }{
		{"python", "python:3", "3"},
		{"python", "python:3.11", "3.11"},
		{"python", "python:3.11-ml", "3.11"},
		{"python", "python:default", ""},
		{"python", "ai:2", ""},
		{"node", "nodejs:20", "20"},
		{"node", "", ""},
		{"native", "native:1", ""},
	} {
		if got := wanted(tt.launcher, tt.kind); got != tt.wants {
			t.Errorf("wanted(%s, %s) = %q, want %q", tt.launcher, tt.kind, got, tt.wants)
		}
	}
	for _, tt := range []struct {
		launcher, version, wants string
		ok                       bool
	}{
		{"python", "3.11.2", "3", true},
		{"python", "3.11.2", "", true},
		{"python", "3.11.2", "3.11", true},
		{"python", "3.12.0", "3.11", true},
		{"python", "3.9.1", "3.11", false},
		{"python", "2.7.18", "3", false},
		{"python", "4.0.0", "3", false},
		{"python", "x", "3", false},
		{"node", "20.1.0", "20", true},
		{"node", "22.1.0", "20", true},
		{"node", "18.19.0", "20", false},
		{"node", "20", "20.1", true},
	} {
		if err := languages[tt.launcher].fits(tt.version, tt.wants); (err == nil) != tt.ok {
			t.Errorf("%s %s for %s: %v", tt.launcher, tt.version, tt.wants, err)
		}
	}
}
