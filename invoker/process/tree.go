package process

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// keepTree starts the command and stays its parent, and that of every process
// that it leaves behind: what the first process of a pid namespace is by the
// kernel's rules, this one is where there are none. When the command ends, or
// the driver asks (SIGTERM, also by its death), it kills whatever is left and
// ends with the command's exit code. It returns only if the command does not
// start.
func (p *plan) keepTree() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the parent of orphans: %w", err)
	}
	// Before the command starts: a request that comes in between is not lost.
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	var files []*os.File
	for fd := range uintptr(5) {
		files = append(files, os.NewFile(fd, "inherited"))
	}
	// Should this process be killed itself, the command at least ends with it.
	child, err := os.StartProcess(p.Command[0], p.Command, &os.ProcAttr{
		Dir: p.Dir, Env: p.Env, Files: files, Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return err
	}
	for _, f := range files { // their ends are to be those of the command
		f.Close()
	}
	ended := make(chan struct{})
	go func() {
		select {
		case <-asked:
		case <-ended:
		}
		for {
			// Again and again: each look may miss what is forked meanwhile.
			// The process ends when Wait4 finds no child left.
			killAll(descendants(os.Getpid()))
			time.Sleep(2 * time.Millisecond)
		}
	}()
	code := 0
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil: // there are none
			os.Exit(code)
		case pid == child.Pid:
			if code = ws.ExitStatus(); ws.Signaled() {
				code = 128 + int(ws.Signal())
			}
			close(ended)
		}
	}
}

func killAll(pids []int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // one that has ended meanwhile needs none
	}
}
