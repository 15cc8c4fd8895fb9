package servertest

import (
	"bytes"
	"context"
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
)

// Client speaks to one server as its guest. It knows nothing of the project's
// own client, so that a mistake there can't hide one in the server.
type Client struct {
	URL  string // as in http://127.0.0.1:1234
	Auth string // uuid:key
	HTTP *http.Client
}

// Answer is one HTTP answer, read to its end.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends a request; body is sent as JSON unless it is nil, a string or bytes.
// An error means that no answer came, or not all of it.
func (c *Client) Do(ctx context.Context, method, path string, body any) (Answer, error) {
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	case []byte:
		r = bytes.NewReader(b)
	default:
		j, err := json.Marshal(b)
		if err != nil {
			return Answer{}, err
		}
		r = bytes.NewReader(j)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, r)
	if err != nil {
		return Answer{}, err
	}
	if c.Auth != "" {
		req.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(c.Auth)))
	}
	if r != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return Answer{resp.StatusCode, resp.Header, b}, err
}

// Must sends a request and fails the test unless the answer has the status
// wanted. It decodes the answer into out, unless that is nil.
func (c *Client) Must(t testing.TB, want int, method, path string, body, out any) Answer {
	t.Helper()
	a, err := c.Do(t.Context(), method, path, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if a.Status != want {
		t.Fatalf("%s %s = %d %s, want %d", method, path, a.Status, a.Body, want)
	}
	if out != nil {
		if err := json.Unmarshal(a.Body, out); err != nil {
			t.Fatalf("%s %s answered %s: %v", method, path, a.Body, err)
		}
	}
	return a
}

// PutAction makes or replaces an action of a kind from source text.
func (c *Client) PutAction(t testing.TB, name, kind, code string) {
	t.Helper()
	c.Must(t, http.StatusOK, "PUT", "/api/v1/namespaces/_/actions/"+name+"?overwrite=true",
		map[string]any{"exec": map[string]any{"kind": kind, "code": code}}, nil)
}

// PutRule makes a trigger, if it is missing, and a rule that binds it to an
// action, with annotations.
func (c *Client) PutRule(t testing.TB, rule, trigger, action string, annotations map[string]any) {
	t.Helper()
	c.Must(t, http.StatusOK, "PUT", "/api/v1/namespaces/_/triggers/"+trigger+"?overwrite=true", map[string]any{}, nil)
	notes := []map[string]any{}
	for k, v := range annotations {
		notes = append(notes, map[string]any{"key": k, "value": v})
	}
	c.Must(t, http.StatusOK, "PUT", "/api/v1/namespaces/_/rules/"+rule+"?overwrite=true",
		map[string]any{"trigger": "/_/" + trigger, "action": "/_/" + action, "annotations": notes}, nil)
}

// Feed makes a trigger and runs a lifecycle event of a feed action for it, as
// wsk does.
func (c *Client) Feed(t testing.TB, event, feed, trigger string, params map[string]any) map[string]any {
	t.Helper()
	if event == "CREATE" {
		c.Must(t, http.StatusOK, "PUT", "/api/v1/namespaces/_/triggers/"+trigger+"?overwrite=true",
			map[string]any{"annotations": []any{map[string]any{"key": "feed", "value": feed}}}, nil)
	}
	body := map[string]any{"lifecycleEvent": event, "triggerName": "/_/" + trigger, "authKey": c.Auth}
	for k, v := range params {
		body[k] = v
	}
	parts := strings.SplitN(strings.TrimPrefix(feed, "/"), "/", 2)
	var record struct {
		Response struct {
			Result map[string]any `json:"result"`
		} `json:"response"`
	}
	c.Must(t, http.StatusOK, "POST", "/api/v1/namespaces/"+parts[0]+"/actions/"+parts[1]+"?blocking=true", body, &record)
	return record.Response.Result
}

// Eventually calls ok until it says yes, and fails the test when it has not by
// then. It waits for a condition: the limit is only for a broken program.
func Eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	over := time.After(limit)
	for !ok() {
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("after %v still not: %s", limit, what)
		case <-t.Context().Done():
			t.Fatalf("the test ended before: %s", what)
		}
	}
}

// guestKey reads the guest's key as a client on the same machine does.
func guestKey(data string) (string, error) {
	b, err := os.ReadFile(filepath.Join(data, "wskprops"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if key, ok := strings.CutPrefix(strings.TrimSpace(line), "AUTH="); ok {
			return key, nil
		}
	}
	return "", fmt.Errorf("no AUTH line in %s/wskprops", data)
}
