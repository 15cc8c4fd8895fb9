package controller_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// caller asks a server over a world.
type caller struct {
	t   testing.TB
	url string
	key string
}

func (w *world) caller(t testing.TB) *caller { return &caller{t, w.serve(t), guestKey} }

// as returns c with another key.
func (c *caller) as(key string) *caller { return &caller{c.t, c.url, key} }

const root = "/api/v1/namespaces/_/"

// request makes a request with a JSON body, none for "". A path without a slash
// in front is one of the caller's namespace.
func (c *caller) request(method, path, body string) *http.Request {
	c.t.Helper()
	if !strings.HasPrefix(path, "/") {
		path = root + path
	}
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(c.key)))
	}
	return r
}

// send returns the answer and its body.
func (c *caller) send(r *http.Request) (*http.Response, string) {
	c.t.Helper()
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		c.t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		c.t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	return answer, string(b)
}

// must asks and returns the body of an answer that must have a status.
func (c *caller) must(status int, method, path, body string) string {
	c.t.Helper()
	answer, text := c.send(c.request(method, path, body))
	if answer.StatusCode != status {
		c.t.Fatalf("%s %s %.80s = %d %.300s, want %d", method, path, body, answer.StatusCode, text, status)
	}
	return text
}

// text is the error in an answer.
func errorIn(t testing.TB, body string) string {
	t.Helper()
	var f struct {
		Error string `json:"error"`
		Code  string `json:"code"`
	}
	if err := json.Unmarshal([]byte(body), &f); err != nil || f.Error == "" || f.Code == "" {
		t.Fatalf("%q is not an error's body", body)
	}
	return f.Error
}

// Actions that the world can run.
const (
	echo  = `{"exec":{"kind":"python:3","code":"def main(args):\n    return args\n"}}`
	plain = `{"exec":{"kind":"python:default","code":"... k.startswith('__ow') ..."}}`
)
