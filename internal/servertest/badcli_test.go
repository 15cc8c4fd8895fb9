package servertest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/servertest"
)

// millrace runs the real binary as a client of the server and returns what it
// printed on its standard error, and its exit code.
func (b *bad) millrace(t *testing.T, dir string, args ...string) (errs string, code int) {
	t.Helper()
	bin, err := servertest.Build()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), bin, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "WSK_CONFIG_FILE="+filepath.Join(b.Data, "wskprops"))
	var out strings.Builder
	cmd.Stderr = &out
	_ = cmd.Run() // the code says it
	return out.String(), cmd.ProcessState.ExitCode()
}

// checkTwoLines checks that a refusal is a line of cause and one of remedy, in
// words for people: no chain of wrapped errors and nothing that Go prints.
func checkTwoLines(t *testing.T, said string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(said, "\n"), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "error: ") || !strings.HasPrefix(lines[1], "hint: ") {
		t.Errorf("it says\n%s\nwant one line of cause and one of remedy", said)
		return
	}
	if n := strings.Count(lines[0], ": "); n > 4 {
		t.Errorf("the cause is a chain of %d links: %s", n, lines[0])
	}
	for _, ugly := range []string{"goroutine ", "panic", ".go:", "0xc0", "%!"} {
		if strings.Contains(said, ugly) {
			t.Errorf("it says %q: %s", ugly, said)
		}
	}
}

func (b *bad) cli(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mega := strings.Repeat("x", 1<<20)
	file("a.py", "def main(args):\n    return args\n")
	file("big.py", strings.Repeat(mega, 60))
	file("a.cbl", "DISPLAY 'HELLO'")
	file("a.zip", "PK")
	file("broken.json", `{"a":`)
	file("list.json", `[1]`)
	file("big.json", `{"a":"`+mega+mega+`"}`)
	alarm := func(params ...string) []string {
		return append([]string{"trigger", "create", "clit", "--feed", "/whisk.system/alarms/alarm"}, params...)
	}
	for _, tt := range []struct {
		name string
		args []string
		code int
		text string
	}{
		{"bad name", []string{"action", "create", "$x", "a.py"}, 144, "illegal characters"},
		{"name of four parts", []string{"action", "create", "/a/b/c/d", "a.py"}, 1, "is not a valid qualified name"},
		{"code of 60 MiB", []string{"action", "create", "x", "big.py"}, 157, "Request larger than allowed"},
		{"no such file", []string{"action", "create", "x", "none.py"}, 2, "is not a valid file"},
		{"unknown extension", []string{"action", "create", "x", "a.cbl"}, 2, "is not a supported action runtime"},
		{"unknown kind", []string{"action", "create", "x", "a.py", "--kind", "cobol:1"}, 144, "The specified runtime 'cobol:1' is not supported"},
		{"archive without a kind", []string{"action", "create", "x", "a.zip"}, 2, "specifying the action kind explicitly"},
		{"too much memory", []string{"action", "create", "x", "a.py", "--memory", "100000"}, 144, "exceeds allowed threshold"},
		{"memory of a word", []string{"action", "create", "x", "a.py", "--memory", "much"}, 1, "much"},
		{"payload that is no JSON", []string{"trigger", "fire", "calm", "-P", "broken.json"}, 1, "does not hold a JSON object"},
		{"payload that is a list", []string{"action", "invoke", "good", "-P", "list.json"}, 1, "does not hold a JSON object"},
		{"payload of 2 MiB", []string{"trigger", "fire", "calm", "-P", "big.json"}, 157, "Request larger than allowed"},
		{"key without value", []string{"trigger", "fire", "calm", "-p", "key"}, 1, "must be a key/value pair"},
		{"unknown feed", []string{"trigger", "create", "clit", "--feed", "/whisk.system/nothing/at-all"}, 147, "not authorized to access 'whisk.system/nothing/at-all'"},
		{"cron of a zone alone", alarm("-p", "cron", "TZ="), 246, "cron pattern 'TZ=' is not valid"},
		{"unknown zone", alarm("-p", "cron", "* * * * *", "-p", "timezone", "Mars/Olympus"), 246, "Invalid timezone."},
		{"stop date in the past", alarm("-p", "cron", "* * * * *", "-p", "stopDate", "2020-01-01"), 246, "must be in the future"},
		{"rule to nothing", []string{"rule", "create", "x", "calm", "nothing"}, 144, "does not exist"},
		{"filter that is none", []string{"rule", "create", "x", "calm", "good", "-a", "filter", `{"a":5}`}, 144, "filter"},
		{"no such activation", []string{"activation", "get", "zz"}, 144, "Activation id length is 2 but must be 32."},
		{"wrong key", []string{"list", "--auth", "a:b"}, 145, "The supplied authentication is invalid"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			said, code := b.millrace(t, dir, tt.args...)
			if code != tt.code || !strings.Contains(said, tt.text) {
				t.Errorf("millrace %.200q ended with %d: %s\nwant %d and %q", tt.args, code, said, tt.code, tt.text)
			}
			// What a feed answered comes before, as wsk has it: the whole record.
			if at := strings.Index(said, "error: "); at > 0 && strings.HasPrefix(said, "{") {
				said = said[at:]
			}
			checkTwoLines(t, said)
		})
	}
	b.noneOf(t, "actions/x", "rules/x", "triggers/clit")
}
