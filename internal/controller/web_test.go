package controller_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/whisk"
)

// The recorded conversations compare what JSON means; this is how it is
// written: over four lines, as OpenWhisk does, and without escapes for HTML.
func TestWebErrorText(t *testing.T) {
	c := newWorld(t).caller(t)
	c.must(http.StatusOK, "PUT", "actions/web", strings.TrimSuffix(echo, "}")+`,"annotations":[{"key":"web-export","value":true}]}`)
	r := c.request("POST", "/api/v1/web/guest/default/web", strings.Repeat("x", whisk.MaxPayload+1))
	r.Header.Set("X-Request-ID", "tid")
	answer, got := c.send(r)
	want := "{\n  \"error\": \"Request larger than allowed: 1048577 > 1048576 bytes.\",\n  \"code\": \"tid\"\n}"
	if answer.StatusCode != http.StatusRequestEntityTooLarge || got != want {
		t.Errorf("answer = %d %s, want 413 %s", answer.StatusCode, got, want)
	}
}
