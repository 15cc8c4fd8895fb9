package client

import (
	"context"
	"encoding/json"
	"errors"
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

func TestDiscover(t *testing.T) {
	type files map[string]string
	tests := []struct {
		name             string
		set              Settings
		env              map[string]string
		files            files // by name below the test's folder: home, data, else
		host, auth, from string
		hostFrom, ns     string
	}{
		{name: "nothing", host: defaultHost, from: "nowhere", hostFrom: "the default"},
		{
			name: "data folder", files: files{"data/wskprops": "AUTH=d:1\nAPIHOST=http://localhost:1\n"},
			host: "http://localhost:1", auth: "d:1", from: "data/wskprops", hostFrom: "data/wskprops",
		},
		{
			name: "home before data", files: files{"data/wskprops": "AUTH=d:1\n", "home/.wskprops": "# mine\nAUTH = h:1 # key\nAPIHOST=example.org\nNAMESPACE=me\n"},
			host: "example.org", auth: "h:1", from: "home/.wskprops", hostFrom: "home/.wskprops", ns: "me",
		},
		{
			// The key of the data folder must not go to a foreign host.
			name: "home with a host and no key", files: files{"data/wskprops": "AUTH=d:1\n", "home/.wskprops": "APIHOST=example.org\n"},
			host: defaultHost, auth: "d:1", from: "data/wskprops", hostFrom: "the default",
		},
		{
			name: "home with a host, key given", set: Settings{Auth: "f:1"}, files: files{"data/wskprops": "AUTH=d:1\nAPIHOST=http://localhost:1\n", "home/.wskprops": "APIHOST=example.org\n"},
			host: "example.org", auth: "f:1", from: "--auth", hostFrom: "home/.wskprops",
		},
		{
			name: "config file alone", env: map[string]string{"WSK_CONFIG_FILE": "else/props"},
			files: files{"else/props": "AUTH=c:1\n", "home/.wskprops": "AUTH=h:1\nAPIHOST=example.org\n"},
			host:  defaultHost, auth: "c:1", from: "else/props", hostFrom: "the default",
		},
		{
			name: "config file missing", env: map[string]string{"WSK_CONFIG_FILE": "else/none"}, files: files{"home/.wskprops": "AUTH=h:1\n"},
			host: defaultHost, from: "nowhere", hostFrom: "the default",
		},
		{
			name: "flags win", set: Settings{Host: "http://f", Auth: "f:1"}, env: map[string]string{"WHISK_AUTH": "e:1", "WHISK_APIHOST": "http://e"},
			files: files{"home/.wskprops": "AUTH=h:1\nAPIHOST=http://h\n"},
			host:  "http://f", auth: "f:1", from: "--auth", hostFrom: "--apihost",
		},
		{
			name: "environment before files", env: map[string]string{"WHISK_AUTH": "e:1", "WHISK_APIHOST": "http://e"}, files: files{"home/.wskprops": "AUTH=h:1\nAPIHOST=http://h\n"},
			host: "http://e", auth: "e:1", from: "WHISK_AUTH", hostFrom: "WHISK_APIHOST",
		},
		{
			name: "data folder of the environment", env: map[string]string{"MILLRACE_DATA": "else"}, files: files{"else/wskprops": "AUTH=x:1\n", "data/wskprops": "AUTH=d:1\n"},
			host: defaultHost, auth: "x:1", from: "else/wskprops", hostFrom: "the default",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, content := range tt.files {
				write(t, filepath.Join(dir, name), content)
			}
			env := func(name string) string {
				v := tt.env[name]
				if strings.HasPrefix(v, "else") {
					return filepath.Join(dir, v)
				}
				return v
			}
			e, err := Discover(tt.set, env, filepath.Join(dir, "home"), filepath.Join(dir, "data"))
			if err != nil {
				t.Fatal(err)
			}
			short := func(s string) string { return strings.TrimPrefix(s, dir+"/") }
			if e.Host != tt.host || e.Auth != tt.auth || short(e.AuthFrom) != tt.from || short(e.HostFrom) != tt.hostFrom {
				t.Errorf("Discover = host %q from %q, key %q from %q; want %q from %q, %q from %q",
					e.Host, short(e.HostFrom), e.Auth, short(e.AuthFrom), tt.host, tt.hostFrom, tt.auth, tt.from)
			}
			if want := tt.ns; want != "" && e.Namespace != want || want == "" && e.Namespace != whisk.Own {
				t.Errorf("namespace = %q", e.Namespace)
			}
		})
	}
}

func TestDiscoverUnreadable(t *testing.T) {
	dir := t.TempDir() // a folder where a file should be
	_, err := Discover(Settings{}, func(n string) string {
		if n == envConfig {
			return dir
		}
		return ""
	}, "", "")
	if !errors.Is(err, whisk.Invalid) || whisk.HintOf(err) == "" || !strings.Contains(err.Error(), dir) {
		t.Errorf("Discover error = %v, hint %q; want one that names %s", err, whisk.HintOf(err), dir)
	}
}

func TestEndpointURL(t *testing.T) {
	tests := []struct{ host, want string }{
		{"http://localhost:3233", "http://localhost:3233"},
		{"http://localhost:3233/", "http://localhost:3233"},
		{"localhost:3233", "https://localhost:3233"},
		{"httpbin.org", "https://httpbin.org"},
		{"https://h/base", "https://h/base"},
		{"", ""},
		{"http://", ""},
		{"ftp://h", ""},
		{"://h", ""},
		{"http://a b", ""},
		{"http://h?x=1", ""},
		{"http://u:p@h", ""},
	}
	for _, tt := range tests {
		got, err := Endpoint{Host: tt.host, HostFrom: "a test"}.URL()
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("URL of %q = %q, %v; want %q", tt.host, got, err, tt.want)
		}
	}
}

func TestProps(t *testing.T) {
	file := filepath.Join(t.TempDir(), "props")
	want := map[string]string{"AUTH": "u:k", "APIHOST": "http://h", "OTHER": "a=b"}
	if err := WriteProps(file, want); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v; want 0600: it holds a key", fi.Mode(), err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	want["MORE"] = "x"
	if err := WriteProps(link, want); err != nil {
		t.Fatal(err)
	}
	got, err := ReadProps(file) // through the link, which must stay one
	if err != nil || len(got) != len(want) || got["OTHER"] != "a=b" || got["MORE"] != "x" {
		t.Errorf("ReadProps = %v, %v; want %v", got, err, want)
	}
	if err := WriteProps(filepath.Join(file, "below"), want); err == nil {
		t.Error("WriteProps below a file: no error")
	}
}

// at returns a client for a handler.
func at(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c, err := New(Endpoint{Host: srv.URL, HostFrom: "test", Auth: "u:k", AuthFrom: "/some/file", APIVersion: "v1", Namespace: whisk.Own})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func answering(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestFailures(t *testing.T) {
	tests := []struct {
		name   string
		status int
		body   string
		exit   int
		kind   whisk.Kind
		text   string
		hint   string // part of it
	}{
		{"bad request", 400, `{"error":"no","code":"t"}`, 144, whisk.Invalid, "no (code t)", ""},
		{"two lines", 400, `{"error":"no:\nnot so","code":"t"}`, 144, whisk.Invalid, "no: not so (code t)", ""},
		{"unauthorized", 401, `{"error":"who?","code":"t"}`, 145, whisk.Unauthorized, "who? (code t)", "/some/file"},
		{"forbidden", 403, `{"error":"no","code":"t"}`, 147, whisk.Forbidden, "no (code t)", "/some/file"},
		{"not found", 404, `{"error":"no","code":"t"}`, 148, whisk.NotFound, "no (code t)", ""},
		{"verb", 405, `{"error":"no","code":"t"}`, 149, whisk.Internal, "no (code t)", ""},
		{"conflict", 409, `{"error":"no","code":"t"}`, 153, whisk.Conflict, "no (code t)", ""},
		{"too large", 413, `{"error":"no","code":"t"}`, 157, whisk.TooLarge, "no (code t)", "1 MiB"},
		{"throttled", 429, `{"error":"no","code":"t"}`, 173, whisk.Throttled, "no (code t)", "try again"},
		{"internal", 500, `{"error":"no","code":"t"}`, 244, whisk.Internal, "no (code t)", "log"},
		{"unavailable", 503, `{"error":"no","code":"t"}`, 247, whisk.Unavailable, "no (code t)", "try again"},
		{"numeric code", 400, `{"error":"no","code":12}`, 144, whisk.Invalid, "no (code 12)", ""},
		{"server's hint", 400, `{"error":"no","code":"t","hint":"do this"}`, 144, whisk.Invalid, "no (code t)", "do this"},
		{"no code", 400, `{"error":"no"}`, 144, whisk.Invalid, "The connection failed, or timed out. (HTTP status code 400)", ""},
		{"not JSON", 502, `<html>`, 246, whisk.Internal, "The connection failed, or timed out. (HTTP status code 502)", ""},
		{"empty", 404, ``, 148, whisk.NotFound, "The connection failed, or timed out. (HTTP status code 404)", ""},
		{"502 with a code is ours", 502, `{"error":"no","code":"t"}`, 246, whisk.Internal, "no (code t)", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := at(t, answering(tt.status, tt.body)).Namespaces(t.Context())
			if got := ExitCode(err); got != tt.exit {
				t.Errorf("ExitCode = %d, want %d", got, tt.exit)
			}
			if !errors.Is(err, tt.kind) || err.Error() != tt.text {
				t.Errorf("error = %v (%v), want %q (%v)", err, whisk.KindOf(err), tt.text, tt.kind)
			}
			if got := whisk.HintOf(err); !strings.Contains(got, tt.hint) {
				t.Errorf("hint = %q, want %q in it", got, tt.hint)
			}
		})
	}
}

func TestInvokeAnswers(t *testing.T) {
	tests := []struct {
		name                 string
		status               int
		body                 string
		blocking, result     bool
		exit                 int
		application, pending bool
		text                 string
	}{
		{name: "accepted", status: 202, body: `{"activationId":"a"}`},
		{name: "record", status: 200, body: `{"activationId":"a","response":{"success":true}}`, blocking: true},
		{name: "went on", status: 202, body: `{"activationId":"a"}`, blocking: true, exit: 202, pending: true, text: "Request accepted, but processing not completed yet."},
		{name: "failed record", status: 502, body: `{"activationId":"a","response":{"status":"application error","success":false,"result":{"error":"no"}}}`, blocking: true, exit: 246, application: true, text: "The following application error was received: no"},
		{name: "with details", status: 502, body: `{"activationId":"a","response":{"status":"application error","success":false,"result":{"error":"no","details":["no","nor that"]}}}`, blocking: true, exit: 246, application: true, text: "The following application error was received: no; nor that"},
		{name: "nested details", status: 502, body: `{"activationId":"a","response":{"status":"application error","success":false,"result":{"error":{"error":"b","message":"a","details":["b","c"]}}}}`, blocking: true, exit: 246, application: true, text: "The following application error was received: b; a; c"},
		{name: "details of its own", status: 502, body: `{"activationId":"a","response":{"status":"application error","success":false,"result":{"error":"no","details":{"x":1}}}}`, blocking: true, exit: 246, application: true, text: "The following application error was received: no"},
		{name: "failed record of 200", status: 200, body: `{"activationId":"a","response":{"success":false,"result":{"error":{"error":"b","cause":"a","n":1}}}}`, blocking: true, exit: 246, application: true, text: "The following application error was received: b; a"},
		{name: "failed result", status: 502, body: `{"error":{"deep":{"error":"x"}}}`, blocking: true, result: true, exit: 246, application: true, text: `{"deep":{"error":"x"}}`},
		{name: "result that looks failed", status: 200, body: `{"response":{"success":false}}`, blocking: true, result: true},
		{name: "result that is a list", status: 200, body: `[1]`, blocking: true, result: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := at(t, answering(tt.status, tt.body)).Invoke(t.Context(), whisk.Name{Namespace: "_", Entity: "x"}, map[string]int{}, tt.blocking, tt.result)
			if code := ExitCode(err); code != tt.exit {
				t.Errorf("ExitCode = %d, want %d (%v)", code, tt.exit, err)
			}
			var f *Failure
			if errors.As(err, &f) && (f.Application != tt.application || f.Pending != tt.pending || f.Message != tt.text) {
				t.Errorf("failure = %+v", f)
			}
			if string(got.Body) != tt.body {
				t.Errorf("body = %s, want %s", got.Body, tt.body)
			}
		})
	}
}

func TestNoAnswer(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	c, err := New(Endpoint{Host: srv.URL, HostFrom: "a file", Auth: "u:k", APIVersion: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Namespaces(t.Context())
	if ExitCode(err) != exitNetwork || !errors.Is(err, whisk.Unavailable) || !strings.Contains(err.Error(), "a file") || !strings.Contains(whisk.HintOf(err), "millrace dev") {
		t.Errorf("error = %v, hint %q, exit %d", err, whisk.HintOf(err), ExitCode(err))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Namespaces(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want %v", err, context.Canceled)
	}
}

func TestPlainServerAskedInTLS(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	c, err := New(Endpoint{Host: strings.TrimPrefix(srv.URL, "http://"), HostFrom: "a file", Auth: "u:k", APIVersion: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Namespaces(t.Context()); !strings.Contains(whisk.HintOf(err), "write http:// before the host in a file") {
		t.Errorf("error = %v, hint %q", err, whisk.HintOf(err))
	}
}

func TestInsecure(t *testing.T) {
	srv := httptest.NewTLSServer(answering(200, `["guest"]`))
	defer srv.Close()
	for _, insecure := range []bool{false, true} {
		c, err := New(Endpoint{Host: srv.URL, Auth: "u:k", APIVersion: "v1", Insecure: insecure})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Namespaces(t.Context()); (err == nil) != insecure {
			t.Errorf("insecure %t: error = %v", insecure, err)
		}
	}
	if _, err := New(Endpoint{Host: srv.URL, Cert: "/none", CertKey: "/none"}); !errors.Is(err, whisk.Invalid) {
		t.Errorf("missing certificate: error = %v, want %v", err, whisk.Invalid)
	}
}

func TestNoKey(t *testing.T) {
	c, err := New(Endpoint{Host: "http://localhost:1", APIVersion: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Namespaces(t.Context())
	if ExitCode(err) != exitUsage || !errors.Is(err, whisk.Unauthorized) || whisk.HintOf(err) == "" {
		t.Errorf("error = %v, exit %d, hint %q", err, ExitCode(err), whisk.HintOf(err))
	}
}

// What -v shows must not hold the key, wherever it stands.
func TestTraceHidesTheKey(t *testing.T) {
	var seen strings.Builder
	srv := httptest.NewServer(answering(200, `{"authKey":"u:k"}`))
	defer srv.Close()
	c, err := New(Endpoint{Host: srv.URL, Auth: "u:k", APIVersion: "v1"}, WithAgent("tests"), WithTrace(func(req *http.Request, body []byte, _ *http.Response, answer []byte) {
		_ = req.Header.Write(&seen)
		seen.Write(body)
		seen.Write(answer)
	}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Invoke(t.Context(), whisk.Name{Namespace: "_", Entity: "f"}, map[string]string{"authKey": "u:k"}, true, true); err != nil {
		t.Fatal(err)
	}
	if s := seen.String(); strings.Contains(s, "u:k") || strings.Contains(s, "Authorization") || !strings.Contains(s, "tests") {
		t.Errorf("trace = %s", s)
	}
}

func TestActionURL(t *testing.T) {
	c := at(t, answering(200, ""))
	web := whisk.Params{}.Set("web-export", "true")
	tests := []struct {
		a    Action
		want string
	}{
		{Action{Namespace: "guest", Name: "a", Annotations: web}, "/api/v1/web/guest/default/a"},
		{Action{Namespace: "guest/p", Name: "a b", Annotations: web}, "/api/v1/web/guest/p/a%20b"},
		{Action{Namespace: "other/p", Binding: "guest/b", Name: "a", Annotations: web}, "/api/v1/web/guest/b/a"},
		{Action{Namespace: "other/p", Binding: "guest/b", Name: "a"}, "/api/v1/namespaces/guest/actions/b/a"},
		{Action{Namespace: "guest/p", Name: "a"}, "/api/v1/namespaces/guest/actions/p/a"},
		{Action{Namespace: "guest", Name: "a", Annotations: whisk.Params{}.Set("web-export", "false")}, "/api/v1/namespaces/guest/actions/a"},
	}
	for _, tt := range tests {
		if got := strings.TrimPrefix(c.ActionURL(tt.a), c.base); got != tt.want {
			t.Errorf("ActionURL(%s/%s) = %s, want %s", tt.a.Namespace, tt.a.Name, got, tt.want)
		}
	}
}

func TestBinding(t *testing.T) {
	for in, want := range map[string]Binding{
		`false`: {}, `{}`: {}, `null`: {}, `{"namespace":"n","name":"p"}`: {Namespace: "n", Name: "p"},
	} {
		b := Binding{Name: "old"}
		if err := b.UnmarshalJSON([]byte(in)); err != nil || b != want {
			t.Errorf("%s = %+v, %v; want %+v", in, b, err, want)
		}
	}
}

func TestKinds(t *testing.T) {
	got, err := at(t, answering(200, `{"runtimes":{"python":[{"kind":"python:3"}],"nodejs":[{"kind":"nodejs:20"},{"kind":"nodejs:22"}]}}`)).Kinds(t.Context())
	if err != nil || len(got["nodejs"]) != 2 || got["python"][0] != "python:3" {
		t.Errorf("Kinds = %v, %v", got, err)
	}
}

func TestFollow(t *testing.T) {
	const stream = ": millrace\n\n" +
		"event: verdict\ndata: {\"kind\":\"verdict\",\"verdict\":{\"event\":{\"seq\":7,\"id\":\"e\"},\"trigger\":\"/guest/t\",\"time\":\"2026-11-24T12:00:00Z\",\"at\":\"2026-11-24T12:00:00Z\"}}\n\n" +
		": ping\n\nevent: invoke\ndata: {\"kind\":\"invoke\"}\n\nevent: news\ndata: what?\n\n" +
		"event: lost\ndata: {}\n\n" +
		"event: record\ndata: {\"kind\":\"record\",\"match\":{\"event\":7,\"rule\":\"/guest/r\"},\"attempt\":1,\"final\":true,\"record\":{\"activationId\":\"a\",\"start\":1,\"end\":2,\"duration\":1,\"response\":{\"status\":\"success\",\"success\":true},\"logs\":[\"x\"],\"annotations\":[]}}\n\n"
	c := at(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RequestURI() != "/hub/v1/events/stream?trigger=t" || r.Header.Get("Accept") != "text/event-stream" {
			t.Errorf("asked for %s, accepting %q", r.URL.RequestURI(), r.Header.Get("Accept"))
		}
		_, _ = io.WriteString(w, stream)
	})
	var got []string
	opened := 0
	err := c.Follow(t.Context(), "t", func() { opened++ }, func(told Told) error {
		e := told.Entry
		switch {
		case told.Lost:
			got = append(got, "lost")
		case e.Verdict != nil:
			got = append(got, string(e.Kind)+" "+e.Verdict.Event.ID)
		case e.Record != nil:
			got = append(got, string(e.Kind)+" "+e.Match.Rule.String()+" "+e.Record.ID+" "+e.Record.Duration.String())
		}
		return nil
	})
	if err != nil || opened != 1 {
		t.Errorf("Follow = %v, opened %d times", err, opened)
	}
	if want := "verdict e,lost,record /guest/r a 1ms"; strings.Join(got, ",") != want {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestFollowFails(t *testing.T) {
	tests := []struct {
		name   string
		status int
		body   string
		want   whisk.Kind
	}{
		{"refused", 401, `{"error":"no","code":"t"}`, whisk.Unauthorized},
		{"broken", 200, "event: verdict\ndata: {\n\n", whisk.Internal},
		{"broken end", 200, "event: end\ndata: {\n\n", whisk.Internal},
		{"ended", 200, "event: end\ndata: {\"error\":\"stopping\"}\n\n", whisk.Unavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := at(t, answering(tt.status, tt.body)).Follow(t.Context(), "", func() {}, func(Told) error { return nil })
			if !errors.Is(err, tt.want) {
				t.Errorf("Follow = %v, want %v", err, tt.want)
			}
		})
	}
	stop := errors.New("stop")
	err := at(t, answering(200, "event: lost\ndata: {}\n\n")).Follow(t.Context(), "", func() {}, func(Told) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("Follow = %v, want %v", err, stop)
	}
}

// A stream ends when its reader does not want it any more.
func TestFollowEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := at(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, ": here\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	err := c.Follow(ctx, "", cancel, func(Told) error { return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Follow = %v, want %v", err, context.Canceled)
	}
}

func TestReadStream(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"one", "data: a\n\n", "message||a"},
		{"no space", "data:a\n\n", "message||a"},
		{"two spaces", "data:  a\n\n", "message|| a"},
		{"lines", "data: a\ndata\ndata: b\n\n", "message||a\n\nb"},
		{"named", "event: x\nid: 7\ndata: a\n\n", "x|7|a"},
		{"id stays", "id: 7\ndata: a\n\ndata: b\n\n", "message|7|a;message|7|b"},
		{"name does not", "event: x\ndata: a\n\ndata: b\n\n", "x||a;message||b"},
		{"no data", "event: x\n\n", ""},
		{"empty data", "data\n\n", "message||"},
		{"comments", ": a\n:b\ndata: a\n\n", "message||a"},
		{"carriage returns", "data: a\r\rdata: b\r\n\r\n", "message||a;message||b"},
		{"byte order mark", "\xef\xbb\xbfdata: a\n\n", "message||a"},
		{"unfinished", "data: a\n\ndata: b\n", "message||a"},
		{"cut in a line", "data: a\n\ndata: b", "message||a"},
		{"other fields", "retry: 5\nfoo: bar\ndata: a\n\n", "message||a"},
		{"nothing", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := messages(t, tt.in); got != tt.want {
				t.Errorf("readStream(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

func messages(t *testing.T, in string) string {
	t.Helper()
	var got []string
	err := readStream(strings.NewReader(in), func(m message) error {
		got = append(got, m.Event+"|"+m.ID+"|"+string(m.Data))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(got, ";")
}

func FuzzReadStream(f *testing.F) {
	for _, s := range []string{"data: a\n\n", "event: x\r\ndata: {}\r\n\r\n", ":\r\rdata\r\r", "id: \x00\ndata:\n\n"} {
		f.Add(s, "x")
	}
	f.Fuzz(func(t *testing.T, s, event string) {
		n := 0
		if err := readStream(strings.NewReader(s), func(m message) error {
			if n++; m.Event == "" || strings.ContainsAny(m.Event, "\r\n") {
				t.Fatalf("event %q from %q", m.Event, s)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if n > len(s)/2 {
			t.Fatalf("%d messages from %d bytes", n, len(s))
		}
		// What was written as one event is read as that event, wherever it stands.
		if strings.ContainsAny(event, "\r\n") || event == "" || strings.HasPrefix(event, " ") {
			return
		}
		data, err := json.Marshal(s)
		if err != nil {
			t.Skip()
		}
		if got, want := messages(t, "event: "+event+"\ndata: "+string(data)+"\n\n"), event+"||"+string(data); got != want {
			t.Fatalf("read %q, want %q", got, want)
		}
	})
}

func FuzzReadProps(f *testing.F) {
	f.Add("AUTH=a:b\n#x\nAPIHOST = http://h # c\n==\n")
	f.Fuzz(func(t *testing.T, s string) {
		file := filepath.Join(t.TempDir(), "p")
		write(t, file, s)
		props, err := ReadProps(file)
		if err != nil {
			return // a line too long
		}
		if err := WriteProps(file, props); err != nil {
			t.Fatal(err)
		}
		again, err := ReadProps(file)
		if err != nil || len(again) != len(props) {
			t.Fatalf("%q: %v, then %v, %v", s, props, again, err)
		}
	})
}

func TestHubQueries(t *testing.T) {
	var asked []string
	c := at(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RequestURI())
		_, _ = io.WriteString(w, `{}`)
	})
	if _, err := c.Events(t.Context(), "a b", time.UnixMilli(5), 3); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.FeedOf(t.Context(), whisk.Name{Namespace: "_", Entity: "a b"}); err != nil {
		t.Fatal(err)
	}
	if want := "/hub/v1/events?limit=3&since=5&trigger=a+b,/hub/v1/feeds/_/a%20b"; strings.Join(asked, ",") != want {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
