package servertest_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/servertest"
)

// TestTranscript types what testdata/transcript.txt shows after each $ and
// wants to see what it shows below, to the letter; only the port is the test's
// own.
func TestTranscript(t *testing.T) {
	b, err := os.ReadFile("testdata/transcript.txt")
	if err != nil {
		t.Fatal(err)
	}
	bin, err := servertest.Build()
	if err != nil {
		t.Fatal(err)
	}
	for _, driver := range servertest.Drivers() {
		t.Run(driver, func(t *testing.T) {
			p := newProcess(t, driver)
			p.Start()
			_, port, err := net.SplitHostPort(strings.TrimPrefix(p.URL, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			text := strings.ReplaceAll(string(b), "localhost:3233", "localhost:"+port)
			commands := strings.Split(text, "$ ")[1:]
			if len(commands) < 5 {
				t.Fatalf("the transcript has only %d commands", len(commands))
			}
			dir := t.TempDir()
			_, script, _ := strings.Cut(commands[0], "\n") // it is shown first, by cat
			if err := os.WriteFile(filepath.Join(dir, "script.py"), []byte(script), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, c := range commands {
				command, want, _ := strings.Cut(c, "\n")
				cmd := exec.CommandContext(t.Context(), "bash", "-c", command)
				cmd.Dir = dir
				cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(bin)+":"+os.Getenv("PATH"), "NO_PROXY=localhost",
					"WSK_CONFIG_FILE="+filepath.Join(p.Data, "wskprops"))
				got, err := cmd.Output() // a terminal would show curl's progress, too
				if err != nil || string(got) != want {
					t.Fatalf("$ %s\n%s(%v), want\n%s", command, got, err, want)
				}
			}
			if code := p.Stop(); code != 0 { // orderly, so that no container is left
				t.Errorf("the server ended with exit code %d", code)
			}
		})
	}
}
