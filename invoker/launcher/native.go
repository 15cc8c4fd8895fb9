package launcher

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

const (
	// maxArgument is the longest JSON given as an argument: the kernel takes
	// 128 KiB for one. Longer ones are on standard input only.
	maxArgument = 120 << 10
	// maxResult is how much of the last line is kept. Of what is longer only
	// the length matters.
	maxResult = 1<<20 + 1
	maxDrain  = 1 << 20 // bytes read at once: no pipe holds more unless it is told to

	noProgram = "The action failed to generate or locate a binary. See logs for details."
	badResult = "The action did not return a dictionary or array."
)

// RunNative is the native launcher: it runs the program called exec in the
// work folder once for each activation, with the arguments as JSON in its one
// argument and on its standard input. The last line of its output is the
// result, the lines before it are log. It returns the exit code of the
// process. Args may hold the folder to connect through.
func RunNative(args []string) int {
	n := &native{
		in: os.NewFile(3, "requests"), out: os.NewFile(4, "answers"),
		stdout: os.Stdout, work: cmp.Or(os.Getenv("MILLRACE_WORK"), "/tmp/action"),
	}
	// It is between the driver and the launcher: the program does not see it.
	os.Unsetenv("MILLRACE_WORK")
	if len(args) > 0 {
		if err := n.connect(args[0]); err != nil {
			fmt.Fprintln(os.Stderr, "native launcher:", err)
			return 1
		}
	}
	// The program gets none of our files.
	syscall.CloseOnExec(3)
	syscall.CloseOnExec(4)
	if err := n.serve(); err != nil {
		fmt.Fprintln(os.Stderr, "native launcher:", err)
		return 1
	}
	return 0
}

type native struct {
	in     io.Reader
	out    io.Writer
	stdout io.Writer
	work   string
	ready  bool
	shell  bool // the program is a script that names no interpreter
	env    map[string]string
}

// connect takes its frames and its output through the folder, which both sides
// see although they share no descriptors.
func (n *native) connect(folder string) error {
	c, err := net.Dial("unix", filepath.Join(folder, "sock"))
	if err != nil {
		return err
	}
	n.in, n.out = c, c
	for fd, name := range map[int]string{1: "out", 2: "err"} {
		f, err := os.OpenFile(filepath.Join(folder, name), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		if err := syscall.Dup3(int(f.Fd()), fd, 0); err != nil {
			return err
		}
		f.Close()
	}
	return nil
}

// serve answers frames, one after the other, until the input ends.
func (n *native) serve() error {
	in := NewReader(n.in)
	for {
		k, body, _, err := in.Next(64 << 20)
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		switch k {
		case Ping:
			_, err = n.out.Write(AppendFrame(nil, Ping, body))
		case File:
			// A File has no answer: what is missing shows when Init does not
			// find it.
			if err := n.file(body); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		case Init:
			err = n.init(body)
		case Run:
			err = n.run(body)
		}
		if err != nil {
			return err
		}
	}
}

// answer writes an answer of size bytes that begins with body.
func (n *native) answer(status int, body []byte, size int) error {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, len(body)+7), uint32(size+3))
	b = append(b, byte(Answer))
	b = binary.BigEndian.AppendUint16(b, uint16(status))
	if _, err := n.out.Write(append(b, body...)); err != nil {
		return err
	}
	_, err := io.CopyN(n.out, spaces{}, int64(size-len(body)))
	return err
}

// spaces stand for what was not kept.
type spaces struct{}

func (spaces) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

func (n *native) fail(status int, text string) error {
	b, err := json.Marshal(map[string]string{"error": text})
	if err != nil {
		return err
	}
	return n.answer(status, b, len(b))
}

// file writes the piece of a file that body holds. Paths were checked by the
// sender.
func (n *native) file(body []byte) error {
	line, content, _ := bytes.Cut(body, []byte{'\n'})
	var h FileHeader
	if err := json.Unmarshal(line, &h); err != nil {
		return err
	}
	path := filepath.Join(n.work, filepath.FromSlash(h.Path))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if h.Link != "" {
		return os.Symlink(h.Link, path)
	}
	flags := os.O_CREATE | os.O_WRONLY | os.O_TRUNC
	if h.Append {
		flags = os.O_WRONLY | os.O_APPEND
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Chmod(os.FileMode(h.Mode)), f.Close())
}

func (n *native) program() string { return filepath.Join(n.work, "exec") }

// init checks that there is a program. It does not start it: that is done for
// each activation.
func (n *native) init(body []byte) error {
	if n.ready {
		fmt.Fprintln(os.Stderr, "Cannot initialize the action more than once.")
		return n.fail(403, "Cannot initialize the action more than once.")
	}
	var req struct {
		Env map[string]string `json:"env"`
	}
	if err := json.Unmarshal(body, &req); err != nil {
		return n.fail(400, err.Error())
	}
	st, err := os.Stat(n.program())
	if err != nil || !st.Mode().IsRegular() {
		fmt.Fprintln(os.Stderr, "the archive has no program called exec")
		return n.fail(502, noProgram)
	}
	// Archives made on other systems know of no right to run.
	if err := os.Chmod(n.program(), 0o755); err != nil {
		return n.fail(502, noProgram)
	}
	n.shell = isShell(n.program())
	n.ready, n.env = true, req.Env
	if n.env == nil {
		n.env = map[string]string{}
	}
	return n.answer(200, []byte(`{"ok":true}`), len(`{"ok":true}`))
}

// isShell reports whether a program is text without an interpreter's name: a
// shell would run it itself, the kernel does not.
func isShell(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	// A zero byte within the first bytes tells a program made for a machine.
	head := make([]byte, 512)
	m, _ := io.ReadFull(f, head)
	head = head[:m]
	return !bytes.HasPrefix(head, []byte("#!")) && bytes.IndexByte(head, 0) < 0
}

// run answers a Run: by OpenWhisk's rules each string of the message but the
// value becomes an __OW_ variable of the program's environment.
func (n *native) run(body []byte) error {
	if !n.ready {
		return n.fail(403, "System not initialized.")
	}
	var message map[string]json.RawMessage
	if err := json.Unmarshal(body, &message); err != nil {
		return n.fail(400, err.Error())
	}
	for k, v := range message {
		var s string
		if k != "value" && json.Unmarshal(v, &s) == nil {
			n.env["__OW_"+strings.ToUpper(k)] = s
		}
	}
	value := message["value"]
	if len(value) == 0 || string(value) == "null" {
		value = json.RawMessage("{}")
	}
	result, size, err := n.call(value)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return n.fail(502, "An error has occurred: "+err.Error())
	}
	// Too long to be kept, so it cannot be checked. The invoker refuses it by
	// its length and tells the beginning.
	if size > len(result) {
		return n.answer(200, result, size)
	}
	if t := bytes.TrimSpace(result); len(t) == 0 || t[0] != '{' && t[0] != '[' || !json.Valid(t) {
		if len(t) > 0 {
			_, _ = n.stdout.Write(append(t, '\n')) // it was no result: it is log
		}
		return n.fail(502, badResult)
	}
	return n.answer(200, result, size)
}

// call runs the program and returns the last line that it printed, and how
// long that was in truth.
func (n *native) call(value []byte) (line []byte, size int, err error) {
	var args []string
	if len(value) <= maxArgument {
		args = []string{string(value)}
	}
	command := append([]string{n.program()}, args...)
	if n.shell {
		command = append([]string{"/bin/sh"}, command...)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = n.work
	cmd.Env = os.Environ()
	for k, v := range n.env {
		// The kernel takes no such text, and would not start the program.
		if !strings.ContainsRune(k+v, 0) {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
	}
	cmd.Stdin = bytes.NewReader(value)
	cmd.Stderr = os.Stderr
	// The end of the program is the end of the activation, even if a child of
	// its own still holds the pipe: so nothing waits for the pipe to close.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, 0, err
	}
	defer r.Close()
	cmd.Stdout = w
	cmd.WaitDelay = 1 // nobody need read all of the input
	if err := cmd.Start(); err != nil {
		w.Close()
		if errors.Is(err, syscall.ENOEXEC) {
			err = errors.New("the program is neither a script that names its interpreter nor made for this machine")
		}
		return nil, 0, err
	}
	w.Close()
	last := &lastLine{log: n.stdout}
	raw, err := r.SyscallConn()
	if err != nil {
		return nil, 0, err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for ended := false; !ended; {
			err := raw.Read(func(fd uintptr) bool {
				var dry bool
				dry, ended = last.drain(int(fd))
				return !dry || ended
			})
			ended = ended || err != nil
		}
	})
	err = cmd.Wait()
	// What the program wrote before its end is in the pipe; what its children
	// write from here on is nobody's.
	_ = raw.Control(func(fd uintptr) { last.drain(int(fd)) })
	r.Close()
	wg.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && !exit.Success() {
		// The exit code says nothing about the result. A signal is told, as it
		// explains a missing one.
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			fmt.Fprintln(os.Stderr, "the program was ended by signal "+strconv.Itoa(int(ws.Signal()))+": "+ws.Signal().String())
		}
	}
	line, size = last.end()
	return line, size, nil
}

// lastLine passes on lines as log, all but the last one that is not empty.
type lastLine struct {
	log io.Writer

	mu   sync.Mutex
	buf  [32 << 10]byte
	line []byte // its first bytes
	size int    // its length
	full bool   // it has ended
}

// drain reads what there is and reports whether that was all, and whether the
// end was reached. Of a pipe that somebody keeps filling it takes what was
// there at first, and then some.
func (l *lastLine) drain(fd int) (dry, ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for taken := 0; taken < maxDrain; {
		m, err := syscall.Read(fd, l.buf[:])
		switch {
		case m > 0:
			l.add(l.buf[:m])
			taken += m
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return true, false
		default:
			return true, true
		}
	}
	return false, false
}

func (l *lastLine) add(data []byte) {
	for len(data) > 0 {
		if l.full && data[0] != '\n' {
			_, _ = l.log.Write(append(l.line, '\n')) // lost if nobody reads
			l.line, l.size, l.full = l.line[:0], 0, false
		}
		part, rest, ended := bytes.Cut(data, []byte{'\n'})
		if l.size == 0 && len(part) == 0 {
			data = rest // an empty line is no result
			continue
		}
		if l.full { // more empty lines
			data = rest
			continue
		}
		l.size += len(part)
		l.line = append(l.line, part[:min(len(part), maxResult-len(l.line))]...)
		l.full = ended
		data = rest
	}
}

func (l *lastLine) end() ([]byte, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.line, l.size
}
