package servertest_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// flood sends many requests with large bodies at once, and good ones beside
// them, which must not wait for the others.
func (b *bad) flood(t *testing.T) {
	made := b.Feed(t, "CREATE", "/whisk.system/webhook/receive", "flooded", nil)
	hook := fmt.Sprint(made["url"])
	put := func(name string) string { return b.URL + entities + "actions/" + name + "?overwrite=true" }
	for _, tt := range []struct {
		name    string
		clients int
		method  string
		url     string
		size    int64
		chunked bool
		status  int
	}{
		{"code of 60 MiB", 16, "PUT", put("x"), 60 << 20, false, 413},
		{"code of 60 MiB of unknown length", 16, "PUT", put("x"), 60 << 20, true, 413},
		{"code of 49 MiB, as much as fits into a body", 8, "PUT", put("x"), 49 << 20, true, 413},
		{"good code of 20 MiB", 6, "PUT", put("large"), 20 << 20, true, 200},
		{"events of 2 MiB", 64, "POST", b.URL + entities + "triggers/calm", 2 << 20, false, 413},
		{"events of 2 MiB of unknown length", 64, "POST", b.URL + entities + "triggers/calm", 2 << 20, true, 413},
		{"arguments of 2 MiB of unknown length", 64, "POST", b.URL + entities + "actions/good?blocking=true", 2 << 20, true, 413},
		{"deliveries of 2 MiB", 64, "POST", hook, 2 << 20, false, 413},
		{"deliveries of 2 MiB of unknown length", 64, "POST", hook, 2 << 20, true, 413},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var wg sync.WaitGroup
			for range tt.clients {
				wg.Go(func() {
					status, err := b.ask(t, tt.method, tt.url, tt.size, tt.chunked)
					// A lost race of two who change one action is a 409.
					if err != nil || status != tt.status && !(tt.status == 200 && status == 409) {
						t.Errorf("%s = %d, %v, want %d", tt.name, status, err, tt.status)
					}
				})
			}
			b.stillGood(t)
			wg.Wait()
			b.checkMemory(t)
		})
	}
	b.Must(t, http.StatusOK, "GET", entities+"actions/large?code=false", nil, nil)
	b.noneOf(t, "actions/x")
	if ids := listEvents(t, b.Process, "flooded"); len(ids) != 0 {
		t.Errorf("%d events came of deliveries that are too large", len(ids))
	}
}

// webhook sends what is no delivery to a webhook.
func (b *bad) webhook(t *testing.T) {
	made := b.Feed(t, "CREATE", "/whisk.system/webhook/receive", "hooked", map[string]any{"preset": "github", "secret": hookSecret})
	signed := fmt.Sprint(made["url"])
	made = b.Feed(t, "CREATE", "/whisk.system/webhook/receive", "open", nil)
	open := fmt.Sprint(made["url"])
	for _, tt := range []struct {
		name, method, url, kind, sign, body string
		status                              int
	}{
		{"no signature", "POST", signed, "application/json", "", `{}`, 401},
		{"signature of another secret", "POST", signed, "application/json", "sha256=" + strings.Repeat("0", 64), `{}`, 401},
		{"signature that is none", "POST", signed, "application/json", "sha256=zz", `{}`, 401},
		{"signature of another algorithm", "POST", signed, "application/json", "sha1=" + strings.Repeat("0", 40), `{}`, 401},
		{"unknown address", "POST", b.URL + "/hooks/" + strings.Repeat("a", 32), "application/json", "", `{}`, 404},
		{"no address", "POST", b.URL + "/hooks/", "application/json", "", `{}`, 404},
		{"wrong method", "GET", open, "", "", "", 405},
		{"no JSON", "POST", open, "application/json", "", `{"a":`, 400},
		{"no UTF-8 in a form", "POST", open, "application/x-www-form-urlencoded", "", "a=%zz", 400},
		{"body of 2 MiB", "POST", open, "application/json", "", `{"a":"` + strings.Repeat("x", 2<<20) + `"}`, 413},
		{"packed body", "POST", open, "application/json; gzip", "", "\x1f\x8b", 400},
		{"broken CloudEvent", "POST", open, "application/cloudevents+json", "", `{"specversion":1}`, 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tt.method, tt.url, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if tt.kind != "" {
				req.Header.Set("Content-Type", tt.kind)
			}
			if tt.sign != "" {
				req.Header.Set("X-Hub-Signature-256", tt.sign)
			}
			resp, err := b.HTTP.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != tt.status {
				t.Errorf("it = %d, want %d", resp.StatusCode, tt.status)
			}
		})
	}
	for _, trigger := range []string{"hooked", "open"} {
		if ids := listEvents(t, b.Process, trigger); len(ids) != 0 {
			t.Errorf("%d events came of bad deliveries to %s", len(ids), trigger)
		}
	}
}
