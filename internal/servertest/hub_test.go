package servertest_test

import (
	"bufio"
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/servertest"
)

// TestHubDocument holds the answers of a server where much has happened against
// what the OpenAPI document says of them: each path, with each parameter, and
// the stream.
func TestHubDocument(t *testing.T) {
	p := newProcess(t, "process")
	p.Start()
	var doc document
	p.Must(t, http.StatusOK, "GET", "/hub/v1/openapi.json", nil, &doc)
	follow := followHub(t, p, &doc)
	fired := makeHistory(t, p)
	follow(t, "verdict", "invoke", "start", "record", "dead")

	var letters struct {
		DeadLetters []struct{ ID string } `json:"deadLetters"`
	}
	p.Must(t, http.StatusOK, "GET", "/hub/v1/dead-letters", nil, &letters)
	if len(letters.DeadLetters) != 1 {
		t.Fatalf("there are %d dead letters, want that of the rule gives-up", len(letters.DeadLetters))
	}
	known := map[string][]string{ // values of the parameters in paths
		"/events/{id}": {fired}, "/events/{id}/explain": {fired}, "/feeds/{namespace}/{trigger}": {"_/tick", "guest/hook", "_/a%20%26%20b"},
		"/dead-letters/{id}": {letters.DeadLetters[0].ID},
		"/events":            {""}, "/feeds": {""}, "/dead-letters": {""}, "/openapi.json": {""},
	}
	for path, verbs := range doc.Paths {
		if path == "/events/stream" {
			continue // followed above
		}
		for _, value := range known[path] {
			doc.get(t, p, withParameters(path, value), verbs["get"], http.StatusOK)
		}
		if len(known[path]) == 0 {
			t.Errorf("nothing is asked of %s", path)
		}
		if strings.Contains(path, "{") {
			doc.get(t, p, withParameters(path, strings.Repeat("0", 32)), verbs["get"], http.StatusNotFound)
		}
		doc.tryParameters(t, p, path, verbs["get"])
	}
}

// parameters are those of a path: one, or a namespace and a name.
var parameters = regexp.MustCompile(`\{\w+\}(/\{\w+\})?`)

// withParameters puts a value in their place.
func withParameters(path, value string) string {
	if strings.Contains(path, "{namespace}") && !strings.Contains(value, "/") {
		value = "_/" + value
	}
	return parameters.ReplaceAllLiteralString(path, value)
}

// makeHistory lets happen what the hub can tell of, and returns the ID of an
// event that each rule took otherwise.
func makeHistory(t *testing.T, p *servertest.Process) string {
	t.Helper()
	const rules = "/api/v1/namespaces/_/rules/"
	p.PutAction(t, "fine", "python:3", "def main(args):\n    return args\n")
	p.PutAction(t, "fails", "python:3", "def main(args):\n    return {'error': 'no luck'}\n")
	p.PutRule(t, "takes", "much", "fine", nil)
	p.PutRule(t, "refuses", "much", "fine", map[string]any{"filter": map[string]any{"a": []int{2}}})
	p.PutRule(t, "sleeps", "much", "fine", nil)
	p.PutRule(t, "gives-up", "much", "fails", map[string]any{
		"retry": map[string]any{"attempts": 2, "backoff": "10ms", "on": []string{"application"}},
	})
	p.Must(t, http.StatusOK, "POST", rules+"sleeps", map[string]any{"status": "inactive"}, nil)
	once := map[string]any{"cron": "* * * * * *", "maxTriggers": 1, "trigger_payload": map[string]any{"a": 1}}
	p.Feed(t, "CREATE", "/whisk.system/alarms/alarm", "tick", once)
	p.Feed(t, "CREATE", "/whisk.system/webhook/receive", "hook", map[string]any{"preset": "github", "secret": "s"})
	p.Feed(t, "PAUSE", "/whisk.system/webhook/receive", "hook", nil)
	// A name that has to be escaped in a path.
	p.Must(t, http.StatusOK, "PUT", "/api/v1/namespaces/_/triggers/a%20%26%20b", map[string]any{}, nil)
	p.Must(t, http.StatusOK, "POST", "/api/v1/namespaces/whisk.system/actions/alarms/interval?blocking=true",
		map[string]any{"lifecycleEvent": "CREATE", "triggerName": "/_/a & b", "authKey": p.Auth, "minutes": 5}, nil)

	a := p.Must(t, http.StatusAccepted, "POST", "/api/v1/namespaces/_/triggers/much", map[string]any{"a": 1}, nil)
	fired := a.Header.Get("X-Openwhisk-Activation-Id")
	p.Must(t, http.StatusAccepted, "POST", "/api/v1/namespaces/_/actions/fine", map[string]any{"b": 1}, nil)
	return fired
}

// followHub opens the stream before anything happens. The function that it
// returns waits until an entry of each kind came, and fails the test if one is
// not as the document says.
func followHub(t *testing.T, p *servertest.Process, doc *document) func(t *testing.T, kinds ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+"/hub/v1/events/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	uuid, key, _ := strings.Cut(p.Auth, ":")
	r.SetBasicAuth(uuid, key)
	answer, err := p.HTTP.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	schema := doc.Paths["/events/stream"]["get"].Responses["200"].Content["text/event-stream"].Schema
	if schema == nil || answer.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("the stream is %s", answer.Header.Get("Content-Type"))
	}
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	if !lines.Scan() {
		t.Fatalf("the stream does not begin: %v", lines.Err())
	}
	return func(t *testing.T, kinds ...string) {
		t.Helper()
		limit := time.AfterFunc(time.Minute, cancel) // for a broken program
		defer limit.Stop()
		for len(kinds) > 0 && lines.Scan() {
			name, isName := strings.CutPrefix(lines.Text(), "event: ")
			if !isName || !lines.Scan() {
				continue
			}
			data := strings.TrimPrefix(lines.Text(), "data: ")
			for _, fault := range doc.faults(schema, decode(t, data), name) {
				t.Errorf("the stream's %s: %s", data, fault)
			}
			kinds = slices.DeleteFunc(kinds, func(k string) bool { return k == name })
		}
		if len(kinds) > 0 {
			t.Fatalf("the stream ended (%v) before there were entries of %v", lines.Err(), kinds)
		}
	}
}
