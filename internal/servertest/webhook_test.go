package servertest_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/servertest"
)

const hookSecret = "It's a Secret to Everybody"

// delivery is one of GitHub's, in the shape that it documents.
func delivery(t *testing.T, name string) (headers http.Header, body []byte) {
	t.Helper()
	dir := "../../feeds/webhook/testdata/github/"
	body, err := os.ReadFile(dir + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(dir + name + ".headers")
	if err != nil {
		t.Fatal(err)
	}
	headers = http.Header{}
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			headers.Set(k, v)
		}
	}
	return headers, body
}

// sign adds the headers that GitHub sends of a webhook with a secret: both,
// the one of old as well.
func sign(headers http.Header, body []byte) {
	mac := func(h func() hash.Hash) string {
		m := hmac.New(h, []byte(hookSecret))
		m.Write(body)
		return hex.EncodeToString(m.Sum(nil))
	}
	headers.Set("X-Hub-Signature-256", "sha256="+mac(sha256.New))
	headers.Set("X-Hub-Signature", "sha1="+mac(sha1.New))
}

// documented are the headers that GitHub documents for deliveries of a
// repository's webhook.
var documented = []string{
	"X-GitHub-Hook-ID", "X-GitHub-Event", "X-GitHub-Delivery", "X-Hub-Signature", "X-Hub-Signature-256", "User-Agent",
	"X-GitHub-Hook-Installation-Target-Type", "X-GitHub-Hook-Installation-Target-ID", "Content-Type", "Accept",
}

// TestDeliveriesAreComplete holds the deliveries that the tests send against
// what GitHub documents of their headers and members.
func TestDeliveriesAreComplete(t *testing.T) {
	commit := "id tree_id distinct message timestamp url author committer added removed modified"
	for name, want := range map[string]map[string]string{
		"push": {
			"":            "ref before after repository pusher sender created deleted forced base_ref compare commits head_commit",
			"head_commit": commit, "pusher": "name email",
		},
		"issues": {
			"": "action issue repository sender",
			"issue": "id node_id number title user labels state locked assignee assignees milestone comments created_at updated_at closed_at" +
				" author_association active_lock_reason body reactions url repository_url html_url labels_url comments_url events_url timeline_url",
		},
		"ping": {"": "zen hook_id hook repository sender", "hook": "type id name active events config updated_at created_at url test_url ping_url deliveries_url last_response"},
	} {
		headers, body := delivery(t, name)
		sign(headers, body)
		for _, h := range documented {
			if headers.Get(h) == "" {
				t.Errorf("%s has no header %s", name, h)
			}
		}
		if headers.Get("X-GitHub-Event") != name || !strings.HasPrefix(headers.Get("User-Agent"), "GitHub-Hookshot/") {
			t.Errorf("%s has the headers %v", name, headers)
		}
		var payload map[string]any
		if err := json.Unmarshal(body, &payload); err != nil {
			t.Fatal(err)
		}
		want["repository"] = "id node_id name full_name private owner html_url description fork url created_at updated_at pushed_at default_branch"
		want["sender"] = "login id node_id avatar_url url html_url type site_admin"
		for at, members := range want {
			in := payload
			if at != "" {
				in, _ = payload[at].(map[string]any)
			}
			for _, m := range strings.Fields(members) {
				if _, ok := in[m]; !ok {
					t.Errorf("%s has no member %s in %q", name, m, at)
				}
			}
		}
	}
}

func post(t *testing.T, url string, headers http.Header, body []byte) (int, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = headers.Clone()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode, resp.Header
}

// TestGitHubDeliveries sends deliveries of GitHub through the webhook to a
// Python action and sees what it did.
func TestGitHubDeliveries(t *testing.T) {
	for _, driver := range servertest.Drivers() {
		t.Run(driver, func(t *testing.T) { gitHub(t, driver) })
	}
}

// reporting is the sink's action, which reports all that it is given.
func reporting(sink *servertest.Sink) string {
	return strings.Replace(sink.SinkAction("gh"), `"key": args.get("n")`, `"key": args`, 1)
}

// hooked starts a server that takes deliveries of GitHub, at the address that it
// returns, and gives each to an action that reports to the sink.
func hooked(t *testing.T, driver string) (p *servertest.Process, sink *servertest.Sink, url string) {
	t.Helper()
	sink = servertest.NewSink(t, driver == "docker")
	p = newProcess(t, driver)
	p.Start()
	p.PutAction(t, "work", "python:3", reporting(sink))
	p.PutRule(t, "on-gh", "gh", "work", nil)
	made := p.Feed(t, "CREATE", "/whisk.system/webhook/receive", "gh", map[string]any{"preset": "github", "secret": hookSecret})
	url = fmt.Sprint(made["url"])
	return p, sink, p.URL + url[strings.Index(url, "/hooks/"):]
}

func gitHub(t *testing.T, driver string) {
	p, sink, path := hooked(t, driver)
	forged(t, p, path)
	for _, name := range []string{"push", "issues"} {
		headers, body := delivery(t, name)
		sign(headers, body)
		if status, _ := post(t, path, headers, body); status != http.StatusAccepted {
			t.Errorf("%s = %d, want 202", name, status)
		}
		checkDuplicate(t, path, name)
	}
	headers, body := delivery(t, "ping")
	sign(headers, body)
	if status, _ := post(t, path, headers, body); status != http.StatusOK {
		t.Errorf("ping = %d, want 200", status)
	}
	if status, _ := post(t, p.URL+"/hooks/unknown", headers, body); status != http.StatusNotFound {
		t.Errorf("an unknown address = %d, want 404", status)
	}
	servertest.Eventually(t, time.Minute, "both deliveries have run", func() bool { return len(sink.Runs()) >= 2 })

	// GitHub may repeat a delivery days later: a restart must not forget it.
	if code := p.Stop(); code != 0 {
		t.Fatalf("the server ended with %d", code)
	}
	p.Start()
	checkDuplicate(t, path, "push")
	ids := listEvents(t, p, "gh")
	if len(ids) != 2 {
		t.Errorf("%d events came of two good deliveries, want 2", len(ids))
	}
	checkRan(t, p, ids)
	for _, id := range ids {
		if ex := explain(t, p, id); len(ex.Rules[0].Attempts) != 1 {
			t.Errorf("the delivery %s has the attempts %+v, want one", id, ex.Rules[0].Attempts)
		}
	}
	var counted struct{ Activations int }
	p.Must(t, http.StatusOK, "GET", entities+"activations?count=true&name=work", nil, &counted)
	if counted.Activations != 2 || len(sink.Runs()) != 2 {
		t.Errorf("there are %d activations and %d runs, want 2 of each", counted.Activations, len(sink.Runs()))
	}
	for _, name := range []string{"push", "issues"} {
		checkArrived(t, sink, name)
	}
}

// forged sends deliveries that somebody changed on their way, by one bit each.
// Each is refused and leaves nothing, not even the memory of its ID.
func forged(t *testing.T, p *servertest.Process, url string) {
	t.Helper()
	for _, name := range []string{"push", "issues", "ping"} {
		headers, body := delivery(t, name)
		sign(headers, body)
		for what, at := range map[string]int{"first": 0, "middle": len(body) / 2, "last": len(body) - 1} {
			flipped := bytes.Clone(body)
			flipped[at] ^= 1
			if status, _ := post(t, url, headers, flipped); status != http.StatusUnauthorized {
				t.Errorf("%s with a bit of its %s byte flipped = %d, want 401", name, what, status)
			}
		}
		signature := []byte(headers.Get("X-Hub-Signature-256"))
		signature[len(signature)-1] ^= 1
		headers.Set("X-Hub-Signature-256", string(signature))
		if status, _ := post(t, url, headers, body); status != http.StatusUnauthorized {
			t.Errorf("%s with a bit of its signature flipped = %d, want 401", name, status)
		}
		headers.Del("X-Hub-Signature-256") // what is left is the signature of old, which is right
		if status, _ := post(t, url, headers, body); status != http.StatusUnauthorized {
			t.Errorf("%s with the weaker signature alone = %d, want 401", name, status)
		}
	}
	if ids := listEvents(t, p, "gh"); len(ids) != 0 {
		t.Errorf("%d events came of forged deliveries", len(ids))
	}
}

// checkDuplicate sends a delivery that came before.
func checkDuplicate(t *testing.T, url, name string) {
	t.Helper()
	headers, body := delivery(t, name)
	sign(headers, body)
	status, answer := post(t, url, headers, body)
	if status != http.StatusOK || answer.Get("X-Millrace-Duplicate") != "true" {
		t.Errorf("%s again = %d, duplicate %q, want 200 and true", name, status, answer.Get("X-Millrace-Duplicate"))
	}
}

// checkArrived checks that one run was given a delivery whole: each member of
// its body, as it came, and each header.
func checkArrived(t *testing.T, sink *servertest.Sink, name string) {
	t.Helper()
	headers, body := delivery(t, name)
	sign(headers, body)
	var want map[string]any
	if err := json.Unmarshal(body, &want); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, r := range sink.Runs() {
		var got map[string]any
		if err := json.Unmarshal(r.Key, &got); err != nil {
			t.Fatal(err)
		}
		seen, _ := got["__ow_headers"].(map[string]any)
		if seen["x-github-event"] != name {
			continue
		}
		found++
		for h := range headers {
			if seen[strings.ToLower(h)] != headers.Get(h) {
				t.Errorf("the run of %s has the header %s = %v, want %q", name, h, seen[strings.ToLower(h)], headers.Get(h))
			}
		}
		for key, v := range want {
			if !reflect.DeepEqual(got[key], v) {
				t.Errorf("the run of %s has %s = %v, want %v", name, key, got[key], v)
			}
		}
		for key := range got {
			if _, ok := want[key]; !ok && !strings.HasPrefix(key, "__ow_") {
				t.Errorf("the run of %s has the member %s, which GitHub did not send", name, key)
			}
		}
	}
	if found != 1 {
		t.Errorf("%d runs were of %s, want one", found, name)
	}
}
