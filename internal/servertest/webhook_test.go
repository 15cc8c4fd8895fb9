package servertest_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
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

func sign(body []byte) string {
	m := hmac.New(sha256.New, []byte(hookSecret))
	m.Write(body)
	return "sha256=" + hex.EncodeToString(m.Sum(nil))
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

func gitHub(t *testing.T, driver string) {
	sink := servertest.NewSink(t, driver == "docker")
	p := newProcess(t, driver)
	p.Start()
	code := strings.Replace(sink.SinkAction("gh"), `args.get("n")})`, `args["repository"]["full_name"] + " " + args["__ow_headers"]["x-github-event"]})`, 1)
	p.PutAction(t, "work", "python:3", code)
	p.PutRule(t, "on-gh", "gh", "work", nil)
	made := p.Feed(t, "CREATE", "/whisk.system/webhook/receive", "gh", map[string]any{"preset": "github", "secret": hookSecret})
	url := fmt.Sprint(made["url"])

	for _, name := range []string{"push", "issues"} {
		headers, body := delivery(t, name)
		headers.Set("X-Hub-Signature-256", sign(body))
		flipped := bytes.Clone(body)
		flipped[len(flipped)/2] ^= 1
		if status, _ := post(t, url, headers, flipped); status != http.StatusUnauthorized {
			t.Errorf("%s with one bit flipped = %d, want 401", name, status)
		}
		if status, _ := post(t, url, headers, body); status != http.StatusAccepted {
			t.Errorf("%s = %d, want 202", name, status)
		}
		status, answer := post(t, url, headers, body)
		if status != http.StatusOK || answer.Get("X-Millrace-Duplicate") != "true" {
			t.Errorf("%s again = %d, duplicate %q, want 200 and true", name, status, answer.Get("X-Millrace-Duplicate"))
		}
	}
	headers, body := delivery(t, "ping")
	headers.Set("X-Hub-Signature-256", sign(body))
	if status, _ := post(t, url, headers, body); status/100 != 2 {
		t.Errorf("ping = %d, want 2xx", status)
	}
	if status, _ := post(t, p.URL+"/hooks/unknown", headers, body); status != http.StatusNotFound {
		t.Errorf("an unknown address = %d, want 404", status)
	}

	servertest.Eventually(t, time.Minute, "both deliveries have run", func() bool { return len(sink.Runs()) >= 2 })
	if ids := listEvents(t, p, "gh"); len(ids) != 2 {
		t.Errorf("%d events came of two good deliveries among six, want 2", len(ids))
	}
	got := map[string]int{}
	for _, r := range sink.Runs() {
		got[string(r.Key)]++
	}
	for _, event := range []string{"push", "issues"} {
		if n := got[`"millrace-example/orders `+event+`"`]; n != 1 {
			t.Errorf("the %s delivery ran %d times, want once; all runs: %v", event, n, got)
		}
	}
}
