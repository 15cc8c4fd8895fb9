package servertest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/servertest"
)

// fenced are the blocks of README that a reader would paste.
var fenced = regexp.MustCompile("(?ms)^```\n(.*?)^```\n")

// TestReadme pastes every command of README, in order, into a shell beside a
// running server.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for _, m := range fenced.FindAllStringSubmatch(string(text), -1) {
		if block := m[1]; strings.HasPrefix(block, "millrace ") || strings.HasPrefix(block, "cat > ") {
			script.WriteString(block)
		}
	}
	if n := strings.Count(script.String(), "millrace "); n < 15 {
		t.Fatalf("README has only %d commands: are its blocks still found?", n)
	}
	p := newProcess(t, "process")
	p.Start()
	bin, err := servertest.Build()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script.String())
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(bin)+":"+os.Getenv("PATH"), "WSK_CONFIG_FILE="+filepath.Join(p.Data, "wskprops"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("a command of README failed: %v\n%s", err, out)
	}
	for _, want := range []string{
		"ok: created action hello", `"greeting": "hello Ada"`, "who: ", "Hello World", "ok: created trigger pushes",
		"/whisk.system/webhook/receive running", "is running", "greet: matched", "paid: filtered",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("README's commands print no %q:\n%s", want, out)
		}
	}
}
