package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the conversations of testdata again")

func TestMain(m *testing.M) {
	time.Local = time.UTC // lists show local time
	flag.Parse()
	os.Exit(m.Run())
}

const testKey = "23bc46b1-71f6-4ed5-8c54-816aa4f8c502:123zO3xZCLrMN6v2BKK1dXYFpXlPkccOFqm12CdAsMgRU4VrNZ9lyGVCGuMDGIwP"

// A conversation is a file of testdata: commands, what they send, what the
// server answers, what they print.
//
//	$ millrace action delete hello
//	> DELETE /api/v1/namespaces/_/actions/hello
//	< 200 {"name":"hello"}
//	| ok: deleted action hello
//
// Lines with < are what the test is given, in the order of the requests; those
// with > (requests), | (standard output), ! (standard error) and ? (exit code,
// if not 0) are what is expected, and are written by -update.
type turn struct {
	comments []string
	args     string
	answers  []string
}

func readTurns(t *testing.T, file string) []turn {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []turn
	var comments []string
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "#"):
			comments = append(comments, line)
		case strings.HasPrefix(line, "$ millrace"):
			out = append(out, turn{comments: comments, args: strings.TrimPrefix(line, "$ millrace")})
			comments = nil
		case strings.HasPrefix(line, "< "):
			last := &out[len(out)-1]
			last.answers = append(last.answers, line[2:])
		}
	}
	return out
}

// play runs one command against a server that gives its answers, and returns
// the turn as it went.
func (u turn) play(t *testing.T, dir string) string {
	t.Helper()
	var mu sync.Mutex
	var log strings.Builder
	answers := u.answers
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("read request: %v", err)
		}
		line := fmt.Sprintf("> %s %s %s", r.Method, r.URL.RequestURI(), body)
		log.WriteString(strings.TrimRight(strings.ReplaceAll(line, testKey, "KEY"), " ") + "\n")
		if len(body) > 0 && r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: Content-Type = %q", line, r.Header.Get("Content-Type"))
		}
		user, pass, ok := r.BasicAuth()
		public := r.URL.Path == "/api/v1" || r.URL.Path == "/" || r.URL.Path == "/ready"
		if !public && (!ok || user+":"+pass != testKey) {
			t.Errorf("%s: came without the key", line)
		}
		if len(answers) == 0 {
			t.Errorf("%s: nobody has an answer", line)
			return
		}
		log.WriteString("< " + answers[0] + "\n")
		status, answer, _ := strings.Cut(answers[0], " ")
		answers = answers[1:]
		code, err := strconv.Atoi(status)
		if err != nil {
			t.Fatalf("%s: bad answer: %v", line, err)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, answer)
	}))
	defer srv.Close()

	var stdout, stderr bytes.Buffer
	sys := System{
		Out: &stdout, Err: &stderr, Home: dir, Version: "1.2.3",
		Environ: []string{"WHISK_AUTH=" + testKey, "WHISK_APIHOST=" + srv.URL},
	}
	code := Main(t.Context(), sys, words(t, u.args), nil)
	if len(answers) > 0 {
		t.Errorf("%s: %d answers were not asked for", u.args, len(answers))
	}

	var out strings.Builder
	for _, c := range u.comments {
		out.WriteString(c + "\n")
	}
	out.WriteString("$ millrace" + u.args + "\n" + log.String())
	shown := strings.NewReplacer(srv.URL, "http://localhost:3233", dir, "HOME")
	quote := func(prefix, text string) {
		for line := range strings.Lines(shown.Replace(text)) {
			out.WriteString(strings.TrimRight(prefix+strings.TrimRight(line, "\n"), " ") + "\n")
		}
	}
	quote("| ", stdout.String())
	quote("! ", stderr.String())
	if code != 0 {
		fmt.Fprintf(&out, "? %d\n", code)
	}
	return out.String()
}

// words splits a command line; single quotes keep words together.
func words(t *testing.T, s string) []string {
	t.Helper()
	var out []string
	var word strings.Builder
	in, quoted := false, false
	for _, c := range s {
		switch {
		case c == '\'':
			in, quoted = !in, true
		case c == ' ' && !in:
			if word.Len() > 0 || quoted {
				out = append(out, word.String())
			}
			word.Reset()
			quoted = false
		default:
			word.WriteRune(c)
		}
	}
	if in {
		t.Fatalf("open quote: %s", s)
	}
	if word.Len() > 0 || quoted {
		out = append(out, word.String())
	}
	return out
}

func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.talk")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".talk"), func(t *testing.T) {
			file := filepath.Join(here, file)
			turns := readTurns(t, file)
			var parts []string
			dir, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			t.Chdir(dir)
			fixtures(t)
			for _, u := range turns {
				parts = append(parts, u.play(t, dir))
			}
			got := strings.Join(parts, "\n")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, got, string(want))
		})
	}
}

// compare reports the first turn that differs.
func compare(t *testing.T, got, want string) {
	t.Helper()
	g, w := strings.Split(got, "\n\n"), strings.Split(want, "\n\n")
	for i := range max(len(g), len(w)) {
		var gi, wi string
		if i < len(g) {
			gi = g[i]
		}
		if i < len(w) {
			wi = w[i]
		}
		if strings.TrimSpace(gi) != strings.TrimSpace(wi) {
			t.Fatalf("turn %d differs\ngot:\n%s\nwant:\n%s", i+1, gi, wi)
		}
	}
}

// fixtures writes the files that the conversations use into the working folder.
func fixtures(t *testing.T) {
	t.Helper()
	for name, content := range map[string]string{
		"hello.py": "def main(args):\n    return {\"body\": \"<b>Hello</b>\"}\n", "hello.js": "function main() {}\n",
		"run.sh": "#!/bin/sh\necho '{}'\n", "action.zip": "PK\x03\x04zip", "main.jar": "PK\x03\x04jar",
		"program": "\x7fELF\x00\x01", "params.json": "{\"b\": [1, 2],\n \"a\": {\"x\": \"<>\"}}", "bad.json": "[1]",
		"broken.json": "{\"a\": 1,\n \"b\": }",
		"words.txt":   "some words",
	} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSavedCodeIsTheCode(t *testing.T) {
	t.Chdir(t.TempDir())
	code := "PK\x03\x04\x00zip"
	u := turn{args: " action get hello --save", answers: []string{
		`200 {"name":"hello","exec":{"kind":"python:3","binary":true,"code":"` + base64.StdEncoding.EncodeToString([]byte(code)) + `"}}`,
	}}
	u.play(t, "/home/somebody")
	got, err := os.ReadFile("hello.zip")
	if err != nil || string(got) != code {
		t.Errorf("saved %q, %v; want %q", got, err, code)
	}
}

// run runs a command without a server.
func run(t *testing.T, sys System, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	sys.Out, sys.Err = &out, &errs
	code = Main(context.WithoutCancel(t.Context()), sys, args, nil)
	return out.String(), errs.String(), code
}
