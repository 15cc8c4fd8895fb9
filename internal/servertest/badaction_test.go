package servertest_test

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/servertest"
)

// forgotten is how many seconds the children of a bad action sleep: nothing
// else on the machine sleeps as long, so that they can be told.
const forgotten = "98761"

// misdeed is an action that misbehaves, unless its arguments say ok.
type misdeed struct {
	name   string
	code   string
	limits map[string]any
	status int
	result string // how the result begins
	init   bool   // it does so before it can read arguments
}

func misdeeds() []misdeed {
	act := func(body string) string {
		return "import os, subprocess, sys, time\ndef main(args):\n    if 'ok' in args: return {'ok': True}\n    " + body + "\n"
	}
	quick := map[string]any{"timeout": 1500}
	return []misdeed{
		{"prints 10 MB", act("print(('y' * 1023 + '\\n') * 10240)\n    return {'done': True}"), map[string]any{"logs": 1}, 200, `{"done":true}`, false},
		{"never answers", act("time.sleep(1000)"), quick, 502, `{"error":"The action exceeded its time limits of 1500 milliseconds."}`, false},
		{"spins", act("while True: pass"), quick, 502, `{"error":"The action exceeded its time limits of 1500 milliseconds."}`, false},
		{"never begins", "import time\ntime.sleep(1000)\n", quick, 502, `{"error":"The action exceeded its time limits of 1500 milliseconds during initialization."}`, true},
		{"exits in init", "import os\nos._exit(0)\n", nil, 502, `{"error":"The action did not initialize and exited unexpectedly."}`, true},
		{"exits", act("os._exit(3)"), nil, 502, `{"error":"The action did not produce a valid response and exited unexpectedly."}`, false},
		{"no Python", "def main(args)\n", nil, 502, `{"error":"`, true},
		{"forks a hundred children", act("for i in range(100): subprocess.Popen(['sleep', '" + forgotten + "'])\n    return {'left': 100}"), nil, 200, `{"left":100}`, false},
		{"forks until it may not", act("n = 0\n    try:\n        while n < 20000:\n            if os.fork() == 0:\n                os.execvp('sleep', ['sleep', '" + forgotten + "'])\n            n += 1\n    except OSError: pass\n    return {'left': n < 20000}"), map[string]any{"timeout": 10_000}, 200, `{"left":true}`, false},
		{"allocates beyond its limit", act("x = []\n    while True: x.append(bytearray(1 << 20))"), map[string]any{"memory": 128}, 502, `{"error":"The action exhausted its memory and was aborted."}`, false},
		{"answers 2 MB", act("return {'s': 'x' * (2 << 20)}"), nil, 502, `{"error":"The action produced a response that exceeded the allowed length: `, false},
		{"answers a number", act("return 7"), nil, 502, `{"error":"`, false},
		{"archive that leaves its folder", archive("../../../tmp/millrace-evil.py"), nil, 502, `{"error":"The action failed during initialization: \"../../../tmp/millrace-evil.py\" in the archive leaves its folder"}`, true},
		{"archive that is none", "UEsDBAAAAAAAAAAA", nil, 502, `{"error":"The action failed during initialization`, true},
	}
}

// archive returns a zip in base64 that holds one file of that name.
func archive(name string) string {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create(name)
	if err == nil {
		_, err = w.Write([]byte("x"))
	}
	if err != nil || z.Close() != nil {
		panic("a buffer takes all")
	}
	return base64.StdEncoding.EncodeToString(b.Bytes())
}

// actions runs each misdeed twice, and after it the same action with arguments
// or code that are good: its queue must not hang, whatever it did.
func (b *bad) actions(t *testing.T) {
	for _, m := range misdeeds() {
		t.Run(m.name, func(t *testing.T) {
			name := strings.ReplaceAll(m.name, " ", "-")
			put := func(code string) {
				t.Helper()
				b.Must(t, http.StatusOK, "PUT", entities+"actions/"+name+"?overwrite=true",
					map[string]any{"exec": map[string]any{"kind": "python:3", "code": code}, "limits": m.limits}, nil)
			}
			put(m.code)
			b.misbehave(t, name, m)
			b.stillGood(t)
			b.misbehave(t, name, m)
			if m.init {
				put("def main(args):\n    return {'ok': True}\n")
			}
			if status, _, result := b.invoke(t, name, `{"ok":1}`); status != http.StatusOK || result != `{"ok":true}` {
				t.Errorf("the same action, well behaved, = %d %.300s", status, result)
			}
			b.Must(t, http.StatusOK, "DELETE", entities+"actions/"+name, nil, nil)
		})
	}
	if _, err := os.Stat("/tmp/millrace-evil.py"); err == nil {
		t.Error("an archive wrote outside its folder")
	}
}

// misbehave runs a misdeed once and looks at its answer and its record.
func (b *bad) misbehave(t *testing.T, name string, m misdeed) {
	t.Helper()
	status, id, result := b.invoke(t, name, `{}`)
	if status != m.status || !strings.HasPrefix(result, m.result) {
		t.Errorf("it = %d %.300s, want %d %s", status, result, m.status, m.result)
	}
	var record struct {
		Logs     []string
		Response struct{ Result json.RawMessage }
	}
	servertest.Eventually(t, time.Minute, "the record of "+id+" is there", func() bool {
		a, err := b.Do(t.Context(), "GET", entities+"activations/"+id, nil)
		return err == nil && a.Status == http.StatusOK && json.Unmarshal(a.Body, &record) == nil
	})
	size := 0
	for _, l := range record.Logs {
		size += len(l)
	}
	if m.limits["logs"] == 1 {
		if size < 1<<19 || size > 1<<20+1<<10 || !strings.Contains(record.Logs[len(record.Logs)-1], "Logs were truncated because the total bytes size exceeds the limit of 1048576 bytes.") {
			t.Errorf("its record holds %d bytes of logs that end in %.200q", size, record.Logs[len(record.Logs)-1])
		}
	}
	if len(record.Response.Result) > 2<<20 {
		t.Errorf("its record holds a result of %d bytes", len(record.Response.Result))
	}
}

// invoke waits for an action and returns the answer's status, the activation's
// ID and the result without spaces.
func (b *bad) invoke(t *testing.T, name, args string) (status int, id, result string) {
	t.Helper()
	a, err := b.Do(t.Context(), "POST", entities+"actions/"+name+"?blocking=true", args)
	if err != nil {
		t.Fatal(err)
	}
	var record struct {
		ActivationID string
		Response     struct{ Result json.RawMessage }
	}
	if err := json.Unmarshal(a.Body, &record); err != nil {
		t.Fatalf("%s answered %d %.300s: %v", name, a.Status, a.Body, err)
	}
	var flat bytes.Buffer
	if err := json.Compact(&flat, record.Response.Result); err != nil {
		t.Fatalf("%s answered %d %.300s: %v", name, a.Status, a.Body, err)
	}
	return a.Status, record.ActivationID, flat.String()
}

// checkNothingLeft checks that no child of a bad action outlives the server.
func checkNothingLeft(t *testing.T) {
	t.Helper()
	servertest.Eventually(t, time.Minute, "all children of the actions are gone", func() bool {
		files, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil || len(files) == 0 {
			t.Fatal("this machine shows no processes", err)
		}
		for _, f := range files {
			if line, err := os.ReadFile(f); err == nil && bytes.Contains(line, []byte(forgotten)) {
				return false
			}
		}
		return true
	})
}

// ask is a request with a body that is made while it is sent.
func (b *bad) ask(t *testing.T, method, url string, size int64, chunked bool) (status int, err error) {
	t.Helper()
	const open, end = `{"exec":{"kind":"python:3","code":"`, `"}}`
	body := &filler{left: size, open: open, end: end}
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		return 0, err
	}
	if !chunked {
		req.ContentLength = size + int64(len(open)+len(end))
	}
	uuid, key, _ := strings.Cut(b.Auth, ":")
	req.SetBasicAuth(uuid, key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := b.HTTP.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var answer struct{ Error string }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil && resp.StatusCode/100 != 2 {
		return resp.StatusCode, fmt.Errorf("the answer of %d is no JSON: %w", resp.StatusCode, err)
	}
	return resp.StatusCode, nil
}

// filler reads as open, many x and end: the test must not hold what it sends,
// for it runs beside the server.
type filler struct {
	left      int64
	open, end string
}

func (f *filler) Read(p []byte) (int, error) {
	switch {
	case f.open != "":
		n := copy(p, f.open)
		f.open = f.open[n:]
		return n, nil
	case f.left > 0:
		n := int(min(int64(len(p)), f.left))
		for i := range p[:n] {
			p[i] = 'x'
		}
		f.left -= int64(n)
		return n, nil
	case f.end != "":
		n := copy(p, f.end)
		f.end = f.end[n:]
		return n, nil
	}
	return 0, io.EOF
}
