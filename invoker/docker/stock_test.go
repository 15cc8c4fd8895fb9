package docker

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/image"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker/invokertest"
)

// stockServer speaks OpenWhisk's protocol as its runtime images do: /init and
// /run on port 8080, end marks on both outputs.
const stockServer = `
import http.server, json, sys

class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    scope = {}

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/init":
            exec(body["value"]["code"], self.scope)
            self.answer(200, {"ok": True})
            return
        try:
            self.answer(200, self.scope["main"](body["value"]))
        except Exception as e:
            self.answer(502, {"error": "An error has occurred: %s" % e})

    def answer(self, status, value):
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        for out in (sys.stdout, sys.stderr):
            print("XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX", file=out, flush=True)

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("", 8080), H).serve_forever()
`

const stockImage = "millrace-test/stock:1"

// buildStock makes the image of a stock runtime on top of the one for Python.
func buildStock(t *testing.T, d *Driver) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, text := range map[string]string{
		"Dockerfile": "FROM millrace-test/python:3\nCOPY server.py /server.py\nCMD [\"python3\", \"/server.py\"]\n",
		"server.py":  stockServer,
	} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	resp, err := d.api.ImageBuild(t.Context(), &b, build.ImageBuildOptions{Tags: []string{stockImage}, Remove: true})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err != nil || bytes.Contains(said, []byte(`"errorDetail"`)) {
		t.Fatalf("build %s: %v\n%s", stockImage, err, said)
	}
	t.Cleanup(func() {
		_, _ = d.api.ImageRemove(t.Context(), stockImage, image.RemoveOptions{Force: true}) // it may stay for the next run
	})
}

// TestStockImage runs a code and its output through an image that speaks the
// protocol itself.
func TestStockImage(t *testing.T) {
	needDocker(t)
	d := newDriver(t, t.TempDir())
	buildStock(t, d)
	b := invokertest.Start(t, d, whisk.Runtimes{})
	run := whisk.Runnable{Action: whisk.Action{
		Meta:   whisk.Meta{Name: whisk.Name{Namespace: "guest", Entity: "stock"}, Version: "0.0.1"},
		Exec:   whisk.Exec{Kind: whisk.KindBlackbox, Image: stockImage, Code: "def main(a):\n    print('hello', a['n'])\n    return {'n': a['n'], 'x': 1 / a['n']}\n"},
		Limits: whisk.StdLimits(),
	}}
	for _, tt := range []struct {
		payload string
		outcome whisk.Outcome
		result  string
	}{
		{`{"n":1}`, whisk.Success, `{"n": 1, "x": 1.0}`},
		{`{"n":2}`, whisk.Success, `{"n": 2, "x": 0.5}`},
		{`{"n":0}`, whisk.DeveloperError, `{"error":"An error has occurred: division by zero"}`},
	} {
		act := b.Call(run, tt.payload)
		var got, want any
		_ = json.Unmarshal(act.Result, &got)
		_ = json.Unmarshal([]byte(tt.result), &want)
		g, _ := json.Marshal(got)
		w, _ := json.Marshal(want)
		if act.Outcome != tt.outcome || string(g) != string(w) {
			t.Errorf("%s = %v %s, want %v %s", tt.payload, act.Outcome, act.Result, tt.outcome, tt.result)
		}
		if len(act.Logs) == 0 || !strings.Contains(act.Logs[0], "stdout: hello") {
			t.Errorf("%s: logs = %q", tt.payload, act.Logs)
		}
	}
	b.Stop()
}
