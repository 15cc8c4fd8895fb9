package servertest_test

import (
	"net/http"
	"testing"

	"github.com/millrace/millrace/internal/servertest"
)

// callsBack asks the API which namespaces its key is good for, as clients
// inside actions find both.
const callsBack = `import base64, json, os, urllib.request

def main(args):
    key = base64.b64encode(os.environ["__OW_API_KEY"].encode()).decode()
    url = os.environ["__OW_API_HOST"] + "/api/v1/namespaces"
    req = urllib.request.Request(url, headers={"Authorization": "Basic " + key})
    with urllib.request.urlopen(req, timeout=20) as res:
        return {"namespaces": json.load(res), "url": url}
`

// TestActionsReachTheAPI has an action call the server, whose own listener is
// on the loopback: for a container that is another machine's.
func TestActionsReachTheAPI(t *testing.T) {
	for _, driver := range servertest.Drivers() {
		t.Run(driver, func(t *testing.T) {
			p := newProcess(t, driver)
			p.Start()
			p.Must(t, http.StatusOK, "PUT", "/api/v1/namespaces/_/actions/back", map[string]any{
				"exec":        map[string]any{"kind": "python:3", "code": callsBack},
				"annotations": []any{map[string]any{"key": "provide-api-key", "value": true}},
			}, nil)
			var out struct {
				Namespaces []string
				Error      any
			}
			p.Must(t, http.StatusOK, "POST", "/api/v1/namespaces/_/actions/back?blocking=true&result=true", map[string]any{}, &out)
			if len(out.Namespaces) != 1 || out.Namespaces[0] != "guest" {
				t.Errorf("the action was told %+v, want namespace guest; the server said:\n%s", out, p.Output())
			}
			if code := p.Stop(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}
