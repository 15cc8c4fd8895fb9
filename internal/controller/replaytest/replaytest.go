// Package replaytest plays conversations with the REST API against a server
// and compares every answer.
//
// The server may be any: a handler in the same process, or a running one of
// which the address and a key are known. The conversations are in testdata,
// which says where they come from.
package replaytest

import (
	"bytes"
	"context"
	"embed"
	"encoding/base64"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

//go:embed testdata/*.json
var files embed.FS

// Server is where a conversation is held.
type Server struct {
	URL string // without a slash at the end
	Key string // of an empty namespace "guest", as uuid:key
}

// exchange is one question and its answer.
type exchange struct {
	Method  string            `json:"method"`
	Path    string            `json:"path"`
	Body    json.RawMessage   `json:"body"`
	Raw     *string           `json:"raw"` // the body in base64, instead of Body
	Headers map[string]string `json:"headers"`
	Auth    *json.RawMessage  `json:"auth"` // absent: the key; null: none; else the text before base64

	Status  int                `json:"status"`
	Answer  json.RawMessage    `json:"answer"`
	Expects map[string]*string `json:"answerHeaders"`
	Keep    string             `json:"keep"`
}

// UnmarshalJSON tells "auth": null from no auth at all.
func (e *exchange) UnmarshalJSON(b []byte) error {
	type plain exchange
	if err := json.Unmarshal(b, (*plain)(e)); err != nil {
		return err
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal(b, &given); err != nil {
		return err
	}
	if raw, ok := given["auth"]; ok {
		e.Auth = &raw
	}
	return nil
}

// answerTime is how long a server may take for one answer.
const answerTime = 90 * time.Second

// Run holds every conversation with s, each as a subtest, and deletes all that
// the namespace has before each. They stop at their first difference: what
// follows builds on it.
func Run(t *testing.T, s Server) {
	names, err := fs.Glob(files, "testdata/*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(path.Base(name), ".json"), func(t *testing.T) {
			h := &host{Server: s, client: &http.Client{Timeout: answerTime, CheckRedirect: stay}}
			defer h.client.CloseIdleConnections()
			h.sweep(t)
			h.play(t, name)
		})
	}
}

// host is a server that answers.
type host struct {
	Server
	client *http.Client
}

// stay follows no redirect: it is an answer, too.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// ask sends e and returns the answer with its body.
func (h *host) ask(t *testing.T, e *exchange) (*http.Response, []byte) {
	t.Helper()
	r, err := e.request(t.Context(), h.Server)
	if err != nil {
		t.Fatalf("%s %s: %v", e.Method, e.Path, err)
	}
	answer, err := h.client.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", e.Method, e.Path, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", e.Method, e.Path, err)
	}
	return answer, body
}

// sweep deletes every entity of the namespace. Packages take their actions with
// them.
func (h *host) sweep(t *testing.T) {
	const root = "/api/v1/namespaces/_/"
	for _, collection := range []string{"rules", "triggers", "packages", "actions"} {
		_, body := h.ask(t, &exchange{Method: http.MethodGet, Path: root + collection + "?limit=0"})
		var list []struct {
			Name string `json:"name"`
		}
		if err := json.Unmarshal(body, &list); err != nil {
			t.Fatalf("list of %s: %v in %s", collection, err, body)
		}
		for _, e := range list {
			path := root + collection + "/" + url.PathEscape(e.Name) + "?force=true"
			if answer, body := h.ask(t, &exchange{Method: http.MethodDelete, Path: path}); answer.StatusCode != http.StatusOK {
				t.Fatalf("DELETE %s = %d %s", path, answer.StatusCode, body)
			}
		}
	}
}

// play holds the conversation in a file.
func (h *host) play(t *testing.T, file string) {
	b, err := files.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// Records outlive the entities: names that tell the runs of a test apart
	// let it be held again with the same server.
	run := strconv.FormatInt(time.Now().UnixMilli(), 36)
	var list []exchange
	if err := json.Unmarshal(bytes.ReplaceAll(b, []byte("{run}"), []byte(run)), &list); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	kept := map[string]string{}
	for i, e := range list {
		for name, id := range kept {
			e.Path = strings.ReplaceAll(e.Path, "{"+name+"}", id)
		}
		answer, body := h.ask(t, &e)
		if diffs := e.compare(answer, body); len(diffs) > 0 {
			t.Fatalf("exchange %d, %s %s %s:\n%s\nthe whole answer is %d %s", i, e.Method, e.Path, e.Body,
				strings.Join(diffs, "\n"), answer.StatusCode, body)
		}
		if e.Keep == "" {
			continue
		}
		if kept[e.Keep] = answer.Header.Get("X-Openwhisk-Activation-Id"); kept[e.Keep] == "" {
			t.Fatalf("exchange %d, %s %s: the answer has no activation ID to keep", i, e.Method, e.Path)
		}
	}
}

// request makes the question. What has a body and no headers is JSON.
func (e *exchange) request(ctx context.Context, s Server) (*http.Request, error) {
	var body []byte
	switch {
	case e.Raw != nil:
		var err error
		if body, err = base64.StdEncoding.DecodeString(*e.Raw); err != nil {
			return nil, err
		}
	case e.Body != nil:
		body = e.Body
	}
	r, err := http.NewRequestWithContext(ctx, e.Method, s.URL+e.Path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if e.Raw != nil || e.Body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for name, value := range e.Headers {
		if r.Header.Del(name); value != "" {
			r.Header.Set(name, value)
		}
	}
	key := s.Key
	if e.Auth != nil {
		key = ""
		if err := json.Unmarshal(*e.Auth, &key); err != nil {
			return nil, err
		}
	}
	if key != "" {
		r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(key)))
	}
	return r, nil
}

var transactionID = regexp.MustCompile(`^[0-9a-zA-Z_-]+$`)

// compare returns what is different from the expected answer.
func (e *exchange) compare(got *http.Response, body []byte) []string {
	var d differences
	if got.StatusCode != e.Status {
		d.add("status", e.Status, got.StatusCode)
	}
	for name, want := range e.Expects {
		switch has := got.Header.Get(name); {
		case want == nil && has != "":
			d.add("header "+name, "none", has)
		case want != nil && has != *want:
			d.add("header "+name, *want, has)
		}
	}
	id := got.Header.Get("X-Request-ID")
	if !transactionID.MatchString(id) {
		d.add("header X-Request-ID", "an ID", id)
	}
	if e.Answer == nil {
		return d
	}
	var want any
	if err := json.Unmarshal(e.Answer, &want); err != nil {
		return append(d, err.Error())
	}
	if e.Method == http.MethodHead {
		return d
	}
	if typeNames(e.Path) && got.StatusCode == http.StatusOK {
		d.types("", want, decode(body))
		return d
	}
	if text, ok := want.(string); ok {
		if !matches(text, string(body)) {
			d.add("body", text, string(body))
		}
		return d
	}
	has := decode(body)
	if obj, ok := has.(map[string]any); ok && obj["code"] != nil && obj["error"] != nil && obj["code"] != id {
		d.add("code", id, obj["code"])
	}
	d.values("", want, has)
	return d
}

// typeNames reports whether a path is one whose recorded answer names types.
func typeNames(path string) bool { return path == "/" || strings.HasSuffix(path, "/limits") }

// decode reads JSON; what is none stays a text.
func decode(b []byte) any {
	var v any
	if json.Unmarshal(b, &v) != nil {
		return string(b)
	}
	return v
}
