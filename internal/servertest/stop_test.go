package servertest_test

import (
	"bufio"
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/servertest"
)

// TestStop stops servers by each signal while an action runs: the action and
// its caller get to their end, and the server ends with 0.
func TestStop(t *testing.T) {
	for _, driver := range servertest.Drivers() {
		for name, stop := range map[string]func(*servertest.Process) error{
			"Ctrl-C":  (*servertest.Process).Interrupt,
			"SIGTERM": func(p *servertest.Process) error { return p.Signal(syscall.SIGTERM) },
		} {
			t.Run(driver+"/"+name, func(t *testing.T) { stopWhileRunning(t, driver, stop) })
		}
	}
}

// slow is an action that tells the sink that it began, then takes its time.
func slow(sink *servertest.Sink, seconds string) string {
	return strings.Replace(sink.SinkAction("slow"), "    return", "    import time\n    time.sleep("+seconds+")\n    return", 1)
}

func stopWhileRunning(t *testing.T, driver string, stop func(*servertest.Process) error) {
	sink := servertest.NewSink(t, driver == "docker")
	p := newProcess(t, driver)
	p.Group = true
	p.Start()
	p.PutAction(t, "slow", "python:3", slow(sink, "1"))
	p.PutRule(t, "on-slow", "begin", "slow", nil)
	type outcome struct {
		a   servertest.Answer
		err error
	}
	called := make(chan outcome, 1)
	go func() {
		a, err := p.Do(t.Context(), "POST", entities+"actions/slow?blocking=true&result=true", `{"n":7}`)
		called <- outcome{a, err}
	}()
	p.Must(t, http.StatusAccepted, "POST", entities+"triggers/begin", `{"n":8}`, nil)
	servertest.Eventually(t, time.Minute, "both runs have begun", func() bool { return len(sink.Runs()) == 2 })
	if err := stop(p); err != nil {
		t.Fatal(err)
	}
	if code := p.Wait(); code != 0 {
		t.Errorf("the server ended with %d, want 0:\n%s", code, p.Output())
	}
	if got := <-called; got.err != nil || got.a.Status != http.StatusOK || !strings.Contains(string(got.a.Body), "7") {
		t.Errorf("the call that was under way = %d %s, %v, want its result", got.a.Status, got.a.Body, got.err)
	}
	p.Start()
	ids := listEvents(t, p, "begin")
	if len(ids) != 1 {
		t.Fatalf("%d events are known after the stop, want 1", len(ids))
	}
	checkRan(t, p, ids)
	if n := len(sink.Runs()); n != 2 {
		t.Errorf("there were %d runs, want the two that were let finish", n)
	}
}

// TestSecondInterrupt presses Ctrl-C twice: who does that does not want to wait
// for an action that goes on. The server is gone at once, with what it
// started, and the next one begins with what this one left.
func TestSecondInterrupt(t *testing.T) {
	sink := servertest.NewSink(t, false)
	p := newProcess(t, "process")
	p.Start()
	p.PutAction(t, "slow", "python:3", strings.Replace(slow(sink, "1000"), "    import time",
		"    import subprocess, time\n    subprocess.Popen(['sleep', '"+forgotten+"'])", 1))
	p.PutRule(t, "on-slow", "begin", "slow", map[string]any{"retry": map[string]any{"attempts": 1}})
	p.Must(t, http.StatusAccepted, "POST", entities+"triggers/begin", `{"n":1}`, nil)
	servertest.Eventually(t, time.Minute, "the run has begun", func() bool { return len(sink.Runs()) == 1 })
	if err := p.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	servertest.Eventually(t, time.Minute, "the server is stopping", func() bool { return strings.Contains(p.Output(), "stopping") })
	// The server may still be about to give Ctrl-C its usual meaning back.
	proc, err := os.FindProcess(p.PID())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan int, 1)
	go func() { ended <- p.Wait() }()
	servertest.Eventually(t, 20*time.Second, "it is gone without waiting for the action", func() bool {
		_ = proc.Signal(os.Interrupt) // it may be gone
		return len(ended) == 1
	})
	if code := <-ended; code == 0 {
		t.Error("a server that was cut off ended with 0")
	}
	checkNothingLeft(t)
	if said := p.Output(); strings.Contains(said, "goroutine") || strings.Contains(said, "panic") {
		t.Errorf("it says\n%s", said)
	}
	p.Start()
	ids := listEvents(t, p, "begin")
	servertest.Eventually(t, time.Minute, "the run that was cut off is told", func() bool {
		return len(ids) == 1 && explain(t, p, ids[0]).Rules[0].DeadLetter != ""
	})
}

// TestDemonstration runs what a newcomer runs, off a terminal, and ends it with
// Ctrl-C while it shows events.
func TestDemonstration(t *testing.T) {
	bin, err := servertest.Build()
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"dev", "--try"}, {"try"}} {
		t.Run(command[0], func(t *testing.T) {
			dir := t.TempDir()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // for a broken program
			defer cancel()
			cmd := exec.CommandContext(ctx, bin, append(command, "--data", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0", "--driver", "process")...)
			cmd.Dir = dir
			var errs strings.Builder
			cmd.Stderr = &errs
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var said strings.Builder
			matched, filtered := false, false
			for lines := bufio.NewScanner(out); lines.Scan(); {
				said.WriteString(lines.Text() + "\n")
				matched = matched || strings.Contains(lines.Text(), "matched")
				if filtered = filtered || strings.Contains(lines.Text(), "filtered"); matched && filtered {
					if err := cmd.Process.Signal(os.Interrupt); err != nil {
						t.Fatal(err)
					}
					matched = false // once
				}
			}
			if err := cmd.Wait(); err != nil || errs.Len() > 0 {
				t.Errorf("after Ctrl-C it ended with %v and says on standard error %q, want 0 and nothing", err, errs.String())
			}
			for _, want := range []string{"API        http://localhost:", "Data       " + dir, "Driver     process (", "Isolation  ", "try-tick", "try-rule", "matched", "filtered", "success"} {
				if !strings.Contains(said.String(), want) {
					t.Errorf("it prints no %q:\n%s", want, said.String())
				}
			}
			if strings.Contains(said.String(), "\x1b") {
				t.Errorf("it prints colours into a pipe:\n%q", said.String())
			}
			if _, err := os.Stat(filepath.Join(dir, "millrace-try", "hello.py")); err != nil {
				t.Error(err)
			}
		})
	}
}
