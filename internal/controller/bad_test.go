package controller_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

// Whatever is sent, the answer says what is wrong with it, and is never a 500.
func TestBadInput(t *testing.T) {
	w := newWorld(t)
	c := w.caller(t)
	c.must(200, "PUT", "actions/a", echo)
	c.must(200, "PUT", "triggers/t", `{}`)
	c.must(200, "PUT", "rules/r", `{"trigger":"/_/t","action":"/_/a"}`)

	exec := func(s string) string { return `{"exec":` + s + `}` }
	limits := func(s string) string { return `{"limits":` + s + `}` }
	tests := []struct {
		name, method, path, body string
		status                   int
		text                     string // a part of the error's
	}{
		{"no JSON", "PUT", "actions/x", `{"exec":`, 400, "The request content was malformed:\n"},
		{"garbage after JSON", "PUT", "actions/x", `{} {}`, 400, "The request content was malformed:\n"},
		{"an array", "PUT", "actions/x", `[]`, 400, "The request content was malformed:\n"},
		{"null", "PUT", "actions/x", `null`, 400, "JSON object expected"},
		{"a string", "PUT", "triggers/x", `"x"`, 400, "The request content was malformed:\n"},
		{"no UTF-8", "PUT", "triggers/u", "{\"a\":\"\xff\"}", 200, ""},
		{"deep nesting", "PUT", "triggers/x", `{"a":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`, 400, "The request content was malformed:\n"},
		{"deep payload", "POST", "triggers/t", `{"a":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`, 400, "The request content was malformed:\n"},
		{"other case", "PUT", "actions/x", `{"EXEC":{"kind":"python:3","code":""}}`, 400, "exec undefined"},
		{"no exec", "PUT", "actions/x", `{}`, 400, "exec undefined"},
		{"null exec", "PUT", "actions/x", exec(`null`), 400, "exec undefined"},
		{"exec is a string", "PUT", "actions/x", exec(`"x"`), 400, "The request content was malformed:\n"},
		{"no kind", "PUT", "actions/x", exec(`{}`), 400, "'kind' must be a string defined in 'exec'"},
		{"kind is a number", "PUT", "actions/x", exec(`{"kind":3}`), 400, "'kind' must be a string"},
		{"unknown kind", "PUT", "actions/x", exec(`{"kind":"cobol:1","code":""}`), 400, "The specified runtime 'cobol:1' is not supported by this platform. Valid values are: 'blackbox', 'java:8', 'nodejs:20', 'python:2', 'python:3'."},
		{"builtin", "PUT", "actions/x", exec(`{"kind":"builtin","code":"alarms/alarm"}`), 400, "The specified runtime 'builtin' is not supported"},
		{"sequence", "PUT", "actions/x", exec(`{"kind":"sequence","components":["/_/a"]}`), 400, "not supported yet"},
		{"conductor", "PUT", "actions/x", `{"exec":{"kind":"python:3","code":""},"annotations":[{"key":"conductor","value":true}]}`, 400, "not supported yet"},
		{"no conductor", "PUT", "actions/nc", `{"exec":{"kind":"python:3","code":""},"annotations":[{"key":"conductor","value":false}]}`, 200, ""},
		{"deprecated kind", "PUT", "actions/x", exec(`{"kind":"python:2","code":""}`), 400, "The 'python:2' runtime is no longer supported."},
		{"no code", "PUT", "actions/x", exec(`{"kind":"python:3"}`), 400, "'code' must be a string or attachment object defined in 'exec' for 'python:3' actions"},
		{"code is a number", "PUT", "actions/x", exec(`{"kind":"python:3","code":1}`), 400, "'code' must be a string"},
		{"jar for python", "PUT", "actions/x", exec(`{"kind":"python:3","jar":""}`), 400, "'code' must be a string"},
		{"no main", "PUT", "actions/x", exec(`{"kind":"java:8","jar":""}`), 400, "'main' must be a string defined in 'exec' for 'java:8' actions"},
		{"main is a number", "PUT", "actions/x", exec(`{"kind":"python:3","code":"","main":1}`), 400, "if defined, 'main' be a string in 'exec' for 'python:3' actions"},
		{"no image", "PUT", "actions/x", exec(`{"kind":"blackbox"}`), 400, "'image' must be a string defined in 'exec' for 'blackbox' actions"},
		{"bad image", "PUT", "actions/x", exec(`{"kind":"blackbox","image":"a b;c"}`), 400, "could not parse image name"},
		{"long image", "PUT", "actions/x", exec(`{"kind":"blackbox","image":"` + strings.Repeat("a/", 400) + `a"}`), 400, "could not parse image name"},
		{"short timeout", "PUT", "actions/a?overwrite=true", limits(`{"timeout":99}`), 400, "requirement failed: duration 99 milliseconds below allowed threshold of 100 milliseconds"},
		{"long timeout", "PUT", "actions/a?overwrite=true", limits(`{"timeout":300001}`), 400, "requirement failed: duration 300001 milliseconds exceeds allowed threshold of 300000 milliseconds"},
		{"little memory", "PUT", "actions/a?overwrite=true", limits(`{"memory":127}`), 400, "requirement failed: memory size 127 MB below allowed threshold of 128 MB"},
		{"much memory", "PUT", "actions/a?overwrite=true", limits(`{"memory":513}`), 400, "requirement failed: memory size 513 MB exceeds allowed threshold of 512 MB"},
		{"negative logs", "PUT", "actions/a?overwrite=true", limits(`{"logs":-1}`), 400, "requirement failed: log size -1 MB below allowed threshold of 0 MB"},
		{"many logs", "PUT", "actions/a?overwrite=true", limits(`{"logs":11}`), 400, "requirement failed: log size 11 MB exceeds allowed threshold of 10 MB"},
		{"concurrency", "PUT", "actions/a?overwrite=true", limits(`{"concurrency":2}`), 400, "requirement failed: concurrency 2 exceeds allowed threshold of 1"},
		{"a fraction", "PUT", "actions/a?overwrite=true", limits(`{"timeout":100.5}`), 400, "requirement failed: time limit must be whole number"},
		{"a word", "PUT", "actions/a?overwrite=true", limits(`{"memory":"much"}`), 400, "memory limit malformed"},
		{"beyond integers", "PUT", "actions/a?overwrite=true", limits(`{"timeout":1e300}`), 400, "exceeds allowed threshold"},
		{"no instance", "PUT", "actions/a?overwrite=true", limits(`{"instances":0}`), 400, "Action container concurrency must be greater than or equal to 1."},
		{"many instances", "PUT", "actions/a?overwrite=true", limits(`{"instances":1001}`), 400, "Max action instance concurrency must not exceed your namespace concurrency of 1000."},
		{"limits is a list", "PUT", "actions/a?overwrite=true", limits(`[1]`), 400, "The request content was malformed:\n"},
		{"parameters is an object", "PUT", "actions/a?overwrite=true", `{"parameters":{"a":1}}`, 400, "parameters malformed!"},
		{"a parameter without key", "PUT", "triggers/t?overwrite=true", `{"parameters":[{"value":1}]}`, 400, "parameters malformed!"},
		{"annotations is a number", "PUT", "packages/p", `{"annotations":1}`, 400, "parameters malformed!"},
		{"publish is a word", "PUT", "triggers/t?overwrite=true", `{"publish":"yes"}`, 400, "The request content was malformed:\n"},
		{"version is a number", "PUT", "triggers/t?overwrite=true", `{"version":1}`, 400, "The request content was malformed:\n"},
		{"bad version", "PUT", "triggers/t?overwrite=true", `{"version":"1.2"}`, 400, "The request content was malformed:\n"},
		{"zero version", "PUT", "triggers/t?overwrite=true", `{"version":"0.0.0"}`, 400, "The request content was malformed:\n"},
		{"delAnnotations is a word", "PUT", "actions/a?overwrite=true", `{"delAnnotations":"x"}`, 400, "The request content was malformed:\n"},
		{"many annotations", "PUT", "packages/p", `{"annotations":[{"key":"k","value":"` + strings.Repeat("x", 1<<20) + `"}]}`, 413, "annotations larger than allowed: 1048579 > 1048576 bytes."},
		{"many parameters", "PUT", "triggers/t?overwrite=true", `{"parameters":[{"key":"k","value":"` + strings.Repeat("x", 1<<20) + `"}]}`, 413, "parameters larger than allowed: 1048579 > 1048576 bytes."},
		{"a feed that is no path", "PUT", "triggers/x2", `{"annotations":[{"key":"feed","value":"/$x/y"}]}`, 400, "Feed name is not valid"},
		{"a feed that is a number", "PUT", "triggers/x2", `{"annotations":[{"key":"feed","value":1}]}`, 400, "Feed name is not valid"},
		{"rule to a number", "PUT", "rules/x", `{"trigger":1,"action":"/_/a"}`, 400, "The request content was malformed:\n"},
		{"rule to half a reference", "PUT", "rules/x", `{"trigger":{"path":"_"},"action":"/_/a"}`, 400, "The request content was malformed:\n"},
		{"rule to a bad name", "PUT", "rules/x", `{"trigger":"/_/$t","action":"/_/a"}`, 400, "The name of the entity contains illegal characters."},
		{"rule on another kind", "PUT", "rules/x", `{"trigger":"/_/a","action":"/_/a"}`, 400, "trigger /guest/a does not exist"},
		{"rule option", "PUT", "rules/x", `{"trigger":"/_/t","action":"/_/a","annotations":[{"key":"transform","value":1}]}`, 400, "not supported yet"},
		{"status is a number", "POST", "rules/r", `{"status":1}`, 400, "requirement failed: 1 is not a recognized rule state"},
		{"status is null", "POST", "rules/r", `{"status":null}`, 400, "requirement failed: null is not a recognized rule state"},
		{"binding is a list", "PUT", "packages/p", `{"binding":["a"]}`, 400, "The request content was malformed:\n"},
		{"binding to a bad name", "PUT", "packages/p", `{"binding":{"namespace":"$","name":"x"}}`, 400, "The namespace contains illegal characters."},
		{"payload is null", "POST", "actions/a", `null`, 400, "JSON object expected"},
		{"payload is a number", "POST", "triggers/t", `5`, 400, "JSON object expected"},
		{"payload is broken", "POST", "triggers/t", `{"a":`, 400, "The request content was malformed:\n"},
		{"payload of 2 MiB", "POST", "triggers/t", `{"a":"` + strings.Repeat("x", 2<<20) + `"}`, 413, "Request larger than allowed: 2097160 > 1048576 bytes."},
		{"arguments of 2 MiB", "POST", "actions/a?blocking=true", `{"a":"` + strings.Repeat("x", 2<<20) + `"}`, 413, "Request larger than allowed: 2097160 > 1048576 bytes."},
		{"name with plus", "GET", "actions/hi+there", "", 400, "The name of the entity contains illegal characters."},
		{"name with dollar", "PUT", "actions/$hola", `{}`, 400, "The name of the entity contains illegal characters."},
		{"name with question mark", "GET", "triggers/dora%3F", "", 400, "The name of the entity contains illegal characters."},
		{"name of a space", "GET", "rules/%20", "", 400, "The name of the entity contains illegal characters."},
		{"name ends in space", "GET", "rules/a%20", "", 400, "The name of the entity contains illegal characters."},
		{"name with a slash", "GET", "rules/a%2Fb", "", 400, "The name of the entity contains illegal characters."},
		{"name with a zero", "GET", "rules/a%00b", "", 400, "The name of the entity contains illegal characters."},
		{"name that is no UTF-8", "GET", "rules/%ff", "", 400, "The name of the entity contains illegal characters."},
		{"a long name", "GET", "rules/" + strings.Repeat("a", 257), "", 400, "Name segement longer than allowed: 257 > 256."},
		{"a bad namespace", "GET", "/api/v1/namespaces/$x/rules", "", 400, "The namespace contains illegal characters."},
		{"a long namespace", "GET", "/api/v1/namespaces/" + strings.Repeat("a", 257) + "/rules", "", 400, "Namespace longer than allowed: 257 > 256."},
		{"no name", "GET", "/api/v1/namespaces/_/actions//x", "", 404, "The requested resource could not be found."},
		{"no namespace", "GET", "/api/v1/namespaces//actions", "", 404, "The requested resource could not be found."},
		{"inner limits", "GET", "limits/x", "", 400, "Inner entity level routes for limits are not yet implemented."},
		{"limit beyond integers", "GET", "rules?limit=99999999999999999999", "", 400, "is not an integer for rules."},
		{"an endless page", "GET", "rules?skip=2147483648", "", 400, "is not an integer for rules."},
		{"above the root", "GET", "/api/v1/../../../../etc/passwd", "", 405, "HTTP method not allowed, supported methods: OPTIONS"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &caller{t, c.url, c.key}
			answer, body := c.send(c.request(tt.method, tt.path, tt.body))
			if answer.StatusCode != tt.status {
				t.Fatalf("%s %s %.100s = %d %.300s, want %d", tt.method, tt.path, tt.body, answer.StatusCode, body, tt.status)
			}
			if tt.text == "" {
				return
			}
			if got := errorIn(t, body); !strings.Contains(got, tt.text) {
				t.Errorf("%s %s %.100s: error %q, want %q in it", tt.method, tt.path, tt.body, got, tt.text)
			}
		})
	}
}

// Bodies are counted while they are read: nobody has to say how long they are.
func TestLongBodies(t *testing.T) {
	w := newWorld(t)
	c, h := w.caller(t), w.handler(t)
	c.must(200, "PUT", "actions/a", echo)
	c.must(200, "PUT", "actions/web", `{"exec":{"kind":"python:3","code":"return args"},"annotations":[{"key":"web-export","value":true}]}`)
	c.must(200, "PUT", "triggers/t", `{}`)
	xs := endless(strings.Repeat("x", 32<<10))
	tests := []struct {
		name, method, path string
		size               int64
		open, close        string
		text               string
	}{
		{"event", "POST", "triggers/t", 2 << 20, `{"a":"`, `"}`, "Request larger than allowed: "},
		{"arguments", "POST", "actions/a", 2 << 20, `{"a":"`, `"}`, "Request larger than allowed: "},
		{"web", "POST", "/api/v1/web/guest/default/web", 2 << 20, `{"a":"`, `"}`, "Request larger than allowed: "},
		{"code", "PUT", "actions/b", 60 << 20, `{"exec":{"kind":"python:3","code":"`, `"}}`, "Request larger than allowed: "},
		{"code in a small enough body", "PUT", "actions/b", 49 << 20, `{"exec":{"kind":"python:3","code":"`, `"}}`, "exec larger than allowed: 51380224 > 50331648 bytes."},
	}
	for _, tt := range tests {
		for _, known := range []bool{true, false} {
			t.Run(tt.name, func(t *testing.T) {
				r := c.request(tt.method, tt.path, "x")
				r.Body = io.NopCloser(io.MultiReader(strings.NewReader(tt.open), io.LimitReader(xs, tt.size), strings.NewReader(tt.close)))
				r.GetBody = nil
				if r.ContentLength = -1; known {
					r.ContentLength = tt.size + int64(len(tt.open)+len(tt.close))
				}
				// Without a connection, which may break before the answer is read.
				answer := httptest.NewRecorder()
				h.ServeHTTP(answer, r)
				if answer.Code != 413 || !strings.HasPrefix(errorIn(t, answer.Body.String()), tt.text) {
					t.Errorf("%d bytes = %d %.300s, want 413 %s", tt.size, answer.Code, answer.Body, tt.text)
				}
			})
		}
	}
	if len(w.events)+len(w.invoked) > 0 {
		t.Errorf("%d events and %d invocations came of them", len(w.events), len(w.invoked))
	}
}

// endless reads as what it is, again and again.
type endless string

func (e endless) Read(p []byte) (int, error) { return copy(p, e), nil }

// What is announced and does not come is an error of the sender.
func TestBrokenBody(t *testing.T) {
	w := newWorld(t)
	c := w.caller(t)
	c.must(200, "PUT", "triggers/t", `{}`)
	for _, size := range []int64{10, 3 << 20} {
		r := c.request("POST", "triggers/t", "x")
		r.Body, r.ContentLength, r.GetBody = io.NopCloser(strings.NewReader(`{"a"`)), size, nil
		if answer, err := http.DefaultTransport.RoundTrip(r); err == nil {
			answer.Body.Close()
			if answer.StatusCode < 400 || answer.StatusCode >= 500 {
				t.Errorf("a body that breaks off = %d", answer.StatusCode)
			}
		}
	}
	if len(w.events) != 0 {
		t.Errorf("%d events came of it", len(w.events))
	}
}

// A large body of unknown length that breaks off is not taken for a whole one,
// though what came of it could be.
func TestBrokenOffBody(t *testing.T) {
	w := newWorld(t)
	c, h := w.caller(t), w.handler(t)
	whole := `{"exec":{"kind":"python:3","code":"` + strings.Repeat("x", 3<<20) + `"}}`
	for _, tt := range []struct {
		name   string
		end    error
		status int
	}{{"ended", io.EOF, 200}, {"broke", io.ErrUnexpectedEOF, 400}} {
		r := c.request("PUT", "actions/"+tt.name, "x")
		r.Body, r.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader(whole), iotest.ErrReader(tt.end))), -1
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, r)
		if answer.Code != tt.status {
			t.Errorf("a body that %s = %d %.200s, want %d", tt.name, answer.Code, answer.Body, tt.status)
		}
	}
	c.must(404, "GET", "actions/broke", "")
}

// Large code goes in and out whole, a few at a time, however it is sent.
func TestLargeCode(t *testing.T) {
	w := newWorld(t)
	c := w.caller(t)
	code := strings.Repeat("x", 2<<20+1)
	body := `{"exec":{"kind":"python:3","code":"` + code + `"}}`
	c.must(200, "PUT", "actions/known", body)
	r := c.request("PUT", "actions/unknown", "x")
	r.Body, r.ContentLength, r.GetBody = io.NopCloser(strings.NewReader(body)), -1, nil
	if answer, text := c.send(r); answer.StatusCode != 200 {
		t.Fatalf("PUT of unknown length = %d %.200s", answer.StatusCode, text)
	}
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			name := []string{"known", "unknown"}[i%2]
			answer, text := c.send(c.request("GET", "actions/"+name, ""))
			if answer.StatusCode != 200 || !strings.Contains(text, code) {
				t.Errorf("GET of %s = %d with %d bytes", name, answer.StatusCode, len(text))
			}
		})
	}
	wait.Wait()
	c.must(200, "PUT", "actions/known?overwrite=true", `{"limits":{"timeout":1000}}`)
	c.must(200, "DELETE", "actions/known", "")
}
