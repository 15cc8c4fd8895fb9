package servertest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/servertest"
)

// webhookExamples are the payloads that GitHub publishes as examples of what it
// sends, as its own libraries for Node are tested with.
const webhookExamples = "@octokit/webhooks-examples@7.6.1"

// published returns the examples of an event, as they stand in the package.
func published(t *testing.T, modules, event string) []json.RawMessage {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(modules, "@octokit", "webhooks-examples", "api.github.com", "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []struct {
		Name     string
		Examples []json.RawMessage
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if e.Name == event && len(e.Examples) > 0 {
			return e.Examples
		}
	}
	t.Fatalf("there is no example of %s", event)
	return nil
}

// TestGitHubsPublishedExamples sends every payload that GitHub publishes for
// push, issues and ping through the webhook to a Python action, and compares
// what the action was given with what was sent.
func TestGitHubsPublishedExamples(t *testing.T) {
	modules := installNpm(t, webhookExamples)
	for _, driver := range servertest.Drivers() {
		t.Run(driver, func(t *testing.T) {
			p, sink, url := hooked(t, driver)
			sent := map[string]json.RawMessage{}
			for _, event := range []string{"push", "issues", "ping"} {
				for n, body := range published(t, modules, event) {
					headers, _ := delivery(t, event)
					id := fmt.Sprintf("72d3162e-cc78-11e3-81ab-%x%08x", event[:2], n)
					headers.Set("X-GitHub-Delivery", id)
					sign(headers, body)
					want := http.StatusAccepted
					if event == "ping" {
						want = http.StatusOK // answered, and no event
					} else {
						sent[id] = body
					}
					if status, _ := post(t, url, headers, body); status != want {
						t.Errorf("example %d of %s = %d, want %d", n, event, status, want)
					}
				}
			}
			servertest.Eventually(t, time.Minute, "each has run", func() bool { return len(sink.Runs()) >= len(sent) })
			for _, r := range sink.Runs() {
				var got map[string]any
				if err := json.Unmarshal(r.Key, &got); err != nil {
					t.Fatal(err)
				}
				headers, _ := got["__ow_headers"].(map[string]any)
				id := fmt.Sprint(headers["x-github-delivery"])
				var want map[string]any
				if err := json.Unmarshal(sent[id], &want); err != nil {
					t.Errorf("delivery %s ran and was not sent, or ran twice", id)
					continue
				}
				delete(sent, id)
				for key := range got {
					if strings.HasPrefix(key, "__ow_") {
						delete(got, key)
					}
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("delivery %s came as %.200v, sent was %.200v", id, got, want)
				}
			}
			for id := range sent {
				t.Errorf("delivery %s has not run", id)
			}
			if code := p.Stop(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}
