package cli

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

func TestProperties(t *testing.T) {
	home := t.TempDir()
	sys := System{Home: home, Version: "1"}
	out, errs, code := run(t, sys, "property", "set", "--apihost", "http://localhost:9", "--auth", testKey, "--apiversion", "v1", "--cert", "c", "--key", "k")
	want := "ok: client cert set. Run 'millrace property get --cert' to see the new value.\n" +
		"ok: client key set. Run 'millrace property get --key' to see the new value.\n" +
		"ok: whisk auth set. Run 'millrace property get --auth' to see the new value.\n" +
		"ok: whisk API host set to http://localhost:9\nok: whisk API version set to v1\n"
	if code != 0 || out != want || errs != "" {
		t.Fatalf("set ended with %d: %s%s\nwant %s", code, out, errs, want)
	}
	file := filepath.Join(home, ".wskprops")
	b, err := os.ReadFile(file)
	if err != nil || string(b) != "APIHOST=http://localhost:9\nAPIVERSION=v1\nAUTH="+testKey+"\nCERT=c\nKEY=k\n" {
		t.Errorf("%s = %q, %v", file, b, err)
	}
	if out, _, _ := run(t, sys, "property", "get", "--auth", "-o", "raw"); out != testKey+"\n" {
		t.Errorf("get --auth = %q", out)
	}
	if out, _, _ := run(t, sys, "property", "get", "--apihost", "--key"); out != "whisk API host\t\thttp://localhost:9\nClient key\t\tk\n" {
		t.Errorf("get --apihost --key = %q", out)
	}
	if out, _, _ := run(t, sys, "property", "get", "--cliversion", "-o", "json"); out != "{\n    \"cliversion\": \"1\"\n}\n" {
		t.Errorf("get -o json = %q", out)
	}
	out, _, code = run(t, sys, "property", "unset", "--auth", "--apihost", "--apiversion", "--cert", "--key")
	if code != 0 || !strings.Contains(out, "ok: whisk auth unset.\n") || !strings.Contains(out, "ok: whisk API version unset; the default value of v1 will be used.\n") {
		t.Errorf("unset ended with %d: %s", code, out)
	}
	if b, err := os.ReadFile(file); err != nil || len(b) != 0 {
		t.Errorf("after unset, %s = %q, %v", file, b, err)
	}
	for _, args := range [][]string{{"set"}, {"unset"}, {"set", "--apihost", "http://"}} {
		if _, errs, code := run(t, sys, append([]string{"property"}, args...)...); code != 1 || !strings.Contains(errs, "hint: ") {
			t.Errorf("property %v ended with %d: %s", args, code, errs)
		}
	}
}

func TestKeyOfTheFileIsNamed(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"error":"The supplied authentication is invalid","code":"tid"}`)
	}))
	defer srv.Close()
	home := t.TempDir()
	file := filepath.Join(home, ".wskprops")
	if err := os.WriteFile(file, []byte("AUTH="+testKey+"\nAPIHOST="+srv.URL+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, errs, code := run(t, System{Home: home}, "trigger", "list")
	want := "error: Unable to obtain the list of triggers for namespace 'default': The supplied authentication is invalid (code tid)\n" +
		"hint: the key came from " + file + " and " + srv.URL + " does not take it: name another with --auth, or point WSK_CONFIG_FILE at the file that has it\n"
	if code != 145 || errs != want {
		t.Errorf("ended with %d: %s\nwant %s", code, errs, want)
	}
}

func TestVerbose(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"x":"`+strings.Repeat("y", maxTrace)+`"}`)
	}))
	defer srv.Close()
	sys := System{Home: t.TempDir(), Environ: []string{"WHISK_AUTH=" + testKey, "WHISK_APIHOST=" + srv.URL}}
	_, errs, _ := run(t, sys, "-v", "action", "invoke", "a", "-r", "-p", "k", testKey)
	for _, want := range []string{"REQUEST:\n[POST]\t" + srv.URL, `{"k":"<key>"}`, "RESPONSE:Got response with code 200", "yyy..."} {
		if !strings.Contains(errs, want) {
			t.Errorf("-v lacks %q:\n%s", want, errs)
		}
	}
	if strings.Contains(errs, testKey) || strings.Contains(errs, "Authorization") {
		t.Errorf("-v shows the key:\n%s", errs)
	}
	if _, errs, _ := run(t, sys, "-d", "action", "get", "a"); strings.Contains(errs, "yyy...") {
		t.Error("-d cuts the body")
	}
}

func TestDoctor(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1":
			_, _ = io.WriteString(w, `{"description":"OpenWhisk API","build":"2026"}`)
		case "/":
			_, _ = io.WriteString(w, `{"runtimes":{"python":[{"kind":"python:3"}]}}`)
		case "/api/v1/namespaces":
			_, _ = io.WriteString(w, `["guest"]`)
		case "/hub/v1/feeds":
			_, _ = io.WriteString(w, `{"feeds":[{"trigger":"/guest/t","stats":{"failures":2}}]}`)
		case "/ready":
		default:
			t.Errorf("asked for %s", r.URL.Path)
		}
	}))
	defer srv.Close()
	sys := System{Home: t.TempDir(), Environ: []string{"WHISK_AUTH=" + testKey, "WHISK_APIHOST=" + srv.URL, "DOCKER_HOST=unix:///nowhere/docker.sock"}}
	out, _, _ := run(t, sys, "doctor", "-o", "json")
	var list []check
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := map[string]check{}
	for _, c := range list {
		got[c.Name] = c
		if c.Result != fine && c.Remedy == "" {
			t.Errorf("%s is %s and has no remedy", c.Name, c.Result)
		}
	}
	for name, want := range map[string]result{
		"data folder": fine, "docker": lacking, "key": fine, "server": fine, "key accepted": fine, "kinds": fine, "feeds": lacking,
	} {
		if got[name].Result != want {
			t.Errorf("%s is %+v, want %s", name, got[name], want)
		}
	}

	srv.Close()
	out, errs, code := run(t, sys, "doctor")
	if code != 1 || errs != "" || !strings.Contains(out, "failed   server         no answer from "+srv.URL+" (from WHISK_APIHOST): connection refused\n") || !strings.Contains(out, "hint: is a server running") {
		t.Errorf("without a server it ended with %d: %s%s", code, out, errs)
	}
}

// TestDoctorOfAServer shows what doctor says of servers that are not as they
// should be.
func TestDoctorOfAServer(t *testing.T) {
	for name, tt := range map[string]struct {
		answers map[string]string // a path's; what begins with ! is a 503
		check   string
		want    check
	}{
		"starting": {
			map[string]string{"/api/v1": `!{"error":"The server is starting.","code":""}`},
			"server",
			check{Result: failed, Detail: "is not ready: The server is starting.", Remedy: "wait for its start to end"},
		},
		"stopping": {
			map[string]string{"/api/v1": `{"description":"OpenWhisk API","build":"2026"}`, "/ready": `!{}`},
			"server",
			check{Result: lacking, Detail: "is OpenWhisk API, build 2026; not ready: ", Remedy: "wait"},
		},
		"without a date": {
			map[string]string{"/api/v1": `{"description":"OpenWhisk API"}`, "/ready": `{}`},
			"server",
			check{Result: fine, Detail: ") is OpenWhisk API"},
		},
		"without Python": {
			map[string]string{"/api/v1": `{}`, "/ready": `{}`, "/api/v1/namespaces": `[]`, "/hub/v1/feeds": `{}`, "/": `{"runtimes":{"native":[{"kind":"native:1"}]}}`},
			"kinds",
			check{Result: lacking, Detail: "native:1, and none of Python", Remedy: "the server's start"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				text, bad := strings.CutPrefix(tt.answers[r.URL.Path], "!")
				if bad || text == "" {
					w.WriteHeader(http.StatusServiceUnavailable)
				}
				_, _ = io.WriteString(w, text)
			}))
			defer srv.Close()
			sys := System{Home: t.TempDir(), Environ: []string{"WHISK_AUTH=" + testKey, "WHISK_APIHOST=" + srv.URL}}
			out, _, _ := run(t, sys, "doctor", "-o", "json")
			var list []check
			if err := json.Unmarshal([]byte(out), &list); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for _, c := range list {
				if c.Name == tt.check && (c.Result != tt.want.Result || !strings.Contains(c.Detail, tt.want.Detail) || !strings.Contains(c.Remedy, tt.want.Remedy) || strings.HasSuffix(c.Detail, " ")) {
					t.Errorf("%s is %+v, want %+v", tt.check, c, tt.want)
				}
			}
		})
	}
}

func TestDoctorDataFolder(t *testing.T) {
	home := t.TempDir()
	file := filepath.Join(home, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(home, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(open, "wskprops"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]result{file: failed, open: lacking, filepath.Join(home, "new", "er"): fine, filepath.Join(file, "x"): failed} {
		a := &app{sys: System{Home: home, Environ: []string{"MILLRACE_DATA=" + dir}}}
		if c := a.checkData(); c.Result != want {
			t.Errorf("%s: %+v, want %s", dir, c, want)
		}
	}
}

func TestPoll(t *testing.T) {
	asked := 0
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		switch asked {
		case 1:
			_, _ = io.WriteString(w, `[{"activationId":"old","start":1000}]`)
		case 2:
			if q := r.URL.Query(); q.Get("since") != "1001" || q.Get("limit") != "0" || q.Get("docs") != "true" || q.Get("name") != "hello" {
				t.Errorf("asked for %s", r.URL.RawQuery)
			}
			_, _ = io.WriteString(w, `[{"activationId":"b","name":"hello","start":1002,"logs":["two"]},{"activationId":"a","name":"hello","start":1001,"logs":[]}]`)
			cancel()
		}
	}))
	defer srv.Close()
	var out lockedBuffer
	sys := System{Out: &out, Err: io.Discard, Home: t.TempDir(), Environ: []string{"WHISK_AUTH=" + testKey, "WHISK_APIHOST=" + srv.URL}}
	code := Main(ctx, sys, []string{"activation", "poll", "hello"}, nil)
	head := "Enter Ctrl-c to exit.\nPolling for activation logs\n"
	// The answer may be cut off by the end of the command; if it was not, it is
	// shown the oldest first.
	full := head + "\nActivation: 'hello' (a)\n[]\n\nActivation: 'hello' (b)\n[\n    \"two\"\n]\n"
	if got := out.String(); code != 0 || got != head && got != full {
		t.Errorf("ended with %d:\n%s", code, got)
	}
}

// Ctrl-C ends a call at once, and is no error to be told of.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then is a caller that leaves noticed
		cancel()
		<-r.Context().Done()
	}))
	defer srv.Close()
	var out, errs lockedBuffer
	sys := System{Out: &out, Err: &errs, Home: t.TempDir(), Environ: []string{"WHISK_AUTH=" + testKey, "WHISK_APIHOST=" + srv.URL}}
	if code := Main(ctx, sys, []string{"action", "invoke", "a", "-b"}, nil); code != exitInterrupted || out.String()+errs.String() != "" {
		t.Errorf("ended with %d: %s%s", code, out.String(), errs.String())
	}
}

func TestPollAsJSON(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `[{"activationId":"a","name":"hello","start":1001}]`)
	}))
	defer srv.Close()
	var out lockedBuffer
	a := &app{format: "json", sys: System{Out: &out, Home: t.TempDir(), Environ: []string{"WHISK_AUTH=" + testKey, "WHISK_APIHOST=" + srv.URL}}}
	c, err := a.client()
	if err != nil {
		t.Fatal(err)
	}
	p := poll{app: a, c: c}
	if err := p.once(t.Context()); err != nil {
		t.Fatal(err)
	}
	var rec struct {
		ID string `json:"activationId"`
	}
	if err := json.Unmarshal([]byte(out.String()), &rec); err != nil || rec.ID != "a" || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("printed %q, %v; want one record on one line", out.String(), err)
	}
}

func TestPollShowsOnce(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `[{"activationId":"a","name":"hello","start":1001}]`)
	}))
	defer srv.Close()
	var out lockedBuffer
	a := &app{sys: System{Out: &out, Home: t.TempDir(), Environ: []string{"WHISK_AUTH=" + testKey, "WHISK_APIHOST=" + srv.URL}}}
	c, err := a.client()
	if err != nil {
		t.Fatal(err)
	}
	p := poll{app: a, c: c, seen: map[string]bool{}}
	for range 3 {
		if err := p.once(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Count(out.String(), "Activation: 'hello' (a)"); got != 1 {
		t.Errorf("shown %d times:\n%s", got, out.String())
	}
}

func TestTailAsJSON(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "event: dead\ndata: {\"match\":{\"event\":7,\"rule\":\"/guest/r\"},\"dead\":\"d\"}\n\nevent: lost\ndata: {}\n\n")
	}))
	defer srv.Close()
	sys := System{Home: t.TempDir(), Environ: []string{"WHISK_AUTH=" + testKey, "WHISK_APIHOST=" + srv.URL}}
	out, errs, code := run(t, sys, "tail", "-o", "json")
	want := `{"kind":"dead","match":{"event":7,"rule":"/guest/r"},"dead":"d"}` + "\n" + `{"lost":true}` + "\n"
	if out != want || code != 1 || !strings.HasPrefix(errs, "error: the server closed the stream\nhint: ") {
		t.Errorf("ended with %d: %s%s\nwant %s", code, out, errs, want)
	}
	out, _, code = run(t, sys, "tail")
	if !strings.Contains(out, "given up: dead letter d") || !strings.Contains(out, "some messages were lost") || code != 1 {
		t.Errorf("ended with %d: %s", code, out)
	}
}

func TestMoment(t *testing.T) {
	a := &app{}
	if at, err := a.moment("2h"); err != nil || time.Since(at) < 2*time.Hour || time.Since(at) > 3*time.Hour {
		t.Errorf("2h = %v, %v", at, err)
	}
	if at, err := a.moment(""); err != nil || !at.IsZero() {
		t.Errorf("nothing = %v, %v", at, err)
	}
	for _, s := range []string{"-2h", "-5", "12x", "2026-13-01T00:00:00Z"} {
		if at, err := a.moment(s); err == nil {
			t.Errorf("%s = %v, want an error", s, at)
		}
	}
}

func TestUnescapeHTML(t *testing.T) {
	for _, s := range []string{"<b>&amp;</b>", `\u003c`, `a\\u003cb`, "\u2028<", `\`, `\\<`, ""} {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var got string
		out := unescapeHTML(b)
		if err := json.Unmarshal(out, &got); err != nil || got != s {
			t.Errorf("%q: %s is read as %q, %v", s, out, got, err)
		}
		if strings.ContainsAny(s, "<>&") && strings.Contains(string(out), `"\u003c`) {
			t.Errorf("%q is shown as %s", s, out)
		}
	}
}

// Whatever is typed, takePairs ends, keeps what is not its own and gives JSON.
func FuzzTakePairs(f *testing.F) {
	f.Add("action\x00invoke\x00a\x00-p\x00k\x00v\x00-p\x00k\x00{\"a\":1}")
	f.Add("-a\x00k")
	f.Add("--\x00-p\x00x")
	f.Add("-F\x00\x00\xff\x00-T\x00a\x001e999")
	f.Fuzz(func(t *testing.T, s string) {
		args := strings.Split(s, "\x00")
		for i, a := range args {
			if a == "-P" || a == "-A" || strings.HasSuffix(a, "-file") {
				args[i] = "x" // no files here
			}
		}
		rest, g, err := takePairs(args)
		if err != nil {
			return
		}
		if len(rest)+3*len(g.flags) != len(args) {
			t.Fatalf("%q: %d words and %d flags", args, len(rest), len(g.flags))
		}
		for _, list := range []whisk.Params{g.params, g.annots, g.feed, g.trigger} {
			for _, p := range list {
				if !json.Valid(p.Value) {
					t.Fatalf("%q: %s is not JSON", args, p.Value)
				}
			}
		}
	})
}

func FuzzMembers(f *testing.F) {
	f.Add(`{"b":[1,2],"a":{"x":null}}`)
	f.Add(`{"a":1,"a":2} x`)
	f.Add(`[1]`)
	f.Add(`{}}`)
	f.Fuzz(func(t *testing.T, s string) {
		p, err := membersOf([]byte(s))
		if err != nil {
			return
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal([]byte(s), &want); err != nil {
			t.Fatalf("%q is taken, but: %v", s, err)
		}
		if len(p) != len(want) {
			t.Fatalf("%q has %d members, want %d", s, len(p), len(want))
		}
	})
}

// Colours are for terminals: a file gets none, nor does /dev/null, which is a
// character device too, and each of the two outputs is asked for itself.
func TestColoursAreForTerminals(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if isTerminal(null) {
		t.Errorf("%s is a terminal", os.DevNull)
	}
	const colour = "\x1b["
	for _, sys := range []System{{Color: true}, {ErrColor: true}} {
		out, _, _ := run(t, sys, "doctor")
		if got := strings.Contains(out, colour); got != sys.Color {
			t.Errorf("with %v, %v: colours on standard output %v: %q", sys.Color, sys.ErrColor, got, out)
		}
		_, errs, _ := run(t, sys, "tirgger")
		if got := strings.Contains(errs, colour); got != sys.ErrColor {
			t.Errorf("with %v, %v: colours on standard error %v: %q", sys.Color, sys.ErrColor, got, errs)
		}
	}
}
