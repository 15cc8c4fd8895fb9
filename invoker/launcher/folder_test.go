package launcher_test

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/invoker/launcher"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == launcher.NativeArg {
		os.Exit(launcher.RunNative(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// In a folder, a launcher connects to a socket and writes to named pipes.
func TestFolder(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, program, file, code string }{
		{launcher.Python, "python3", "__main__.py", "def main(a):\n    print('hello')\n    return a\n"},
		{launcher.Node, "node", "index.js", "exports.main = (a) => { console.log('hello'); return a }"},
		{launcher.Native, self, "exec", "#!/bin/sh\necho hello\necho \"$1\"\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			l, err := net.Listen("unix", filepath.Join(dir, "sock"))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			var pipes []*os.File
			for _, name := range []string{"out", "err"} {
				if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
					t.Fatal(err)
				}
				f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|syscall.O_NONBLOCK, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				pipes = append(pipes, f)
			}
			p, err := launcher.Find(tt.name)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, p.File)
			if p.File != "" {
				if err := os.WriteFile(path, p.Code, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			command := append(p.Command(tt.program, path, 256), dir)
			cmd := exec.Command(command[0], command[1:]...)
			cmd.Env = append(os.Environ(), "MILLRACE_WORK="+filepath.Join(dir, "work"))
			cmd.Stderr = os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := cmd.Wait(); err != nil {
					t.Errorf("the launcher ended with %v", err)
				}
			}()
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			in := launcher.NewReader(conn)
			ask := func(k launcher.Kind, body string, want string) {
				t.Helper()
				if _, err := conn.Write(launcher.AppendFrame(nil, k, []byte(body))); err != nil {
					t.Fatal(err)
				}
				if k == launcher.File {
					return
				}
				if _, got, _, err := in.Next(1000); err != nil || string(got) != want {
					t.Errorf("%c %s was answered %q, %v, want %q", k, body, got, err, want)
				}
			}
			ask(launcher.Ping, "x", "x")
			ask(launcher.Run, `{}`, "\x01\x93"+`{"error":"System not initialized."}`)
			ask(launcher.File, `{"path":"`+tt.file+`","mode":420}`+"\n"+tt.code[:10], "")
			ask(launcher.File, `{"path":"`+tt.file+`","mode":493,"append":true}`+"\n"+tt.code[10:], "")
			ok := `{"ok":true}`
			if tt.name == launcher.Node {
				ok = `{"OK":true}`
			}
			ask(launcher.Init, `{"name":"a","main":"main"}`, "\x00\xc8"+ok)
			ask(launcher.Run, `{"value":{"a":[1,"ü"]},"activation_id":"x"}`, "\x00\xc8"+`{"a":[1,"ü"]}`)
			if err := pipes[0].SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			n, err := pipes[0].Read(buf)
			if err != nil && err != io.EOF || strings.TrimSpace(string(buf[:n])) != "hello" {
				t.Errorf("output = %q, %v", buf[:n], err)
			}
			ask(launcher.Init, `{}`, "\x01\x93"+`{"error":"Cannot initialize the action more than once."}`)
		})
	}
}
