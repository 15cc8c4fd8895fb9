package webhook

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

func TestPayloads(t *testing.T) {
	const form = "application/x-www-form-urlencoded"
	tests := []struct{ name, mode, typ, body, want string }{
		{"object", "merge", "application/json", ` {"a": 1} `, `{"a": 1}`},
		{"object of another type", "merge", "application/vnd.x+json; charset=utf-8", `{"a":1}`, `{"a":1}`},
		{"object without a type", "merge", "", `{"a":1}`, `{"a":1}`},
		{"array", "merge", "application/json", `[1,"x"]`, `{"__ow_body":[1,"x"]}`},
		{"number", "merge", "application/json", `5`, `{"__ow_body":5}`},
		{"nothing", "merge", "application/json", ``, `{}`},
		{"form", "merge", form, `a=1&b=x+y&b=%C3%A4`, `{"a":"1","b":["x y","ä"]}`},
		{"form around JSON", "merge", form, `payload=%7B%22a%22%3A1%7D`, `{"a":1}`},
		{"text", "merge", "text/plain", `häh?`, `{"__ow_body":"häh?"}`},
		{"xml", "merge", "application/xml", `<a/>`, `{"__ow_body":"\u003ca/\u003e"}`},
		{"text without a type", "merge", "", `plain`, `{"__ow_body":"plain"}`},
		{"binary", "merge", "application/octet-stream", "\x00\xff", `{"__ow_body":"AP8="}`},
		{"text that is none", "merge", "text/plain", "\xff", `{"__ow_body":"/w=="}`},
		{"multipart text", "merge", "multipart/form-data; boundary=x", "--x--", `{"__ow_body":"--x--"}`},
		{"multipart binary", "merge", "multipart/form-data; boundary=x", "--x\xff", `{"__ow_body":"LS14/w=="}`},
		{
			"envelope", "envelope", "application/json", `{"a": 1}`,
			`{"__ow_method":"post","__ow_path":"","__ow_query":"q=1","__ow_headers":{"content-type":"application/json"},"__ow_body":"{\"a\": 1}","__ow_base64":false}`,
		},
		{
			"envelope of bytes", "envelope", "image/png", "\xff",
			`{"__ow_method":"post","__ow_path":"","__ow_query":"q=1","__ow_headers":{"content-type":"image/png"},"__ow_body":"/w==","__ow_base64":true}`,
		},
		{
			"envelope of broken JSON", "envelope", "application/json", `{`,
			`{"__ow_method":"post","__ow_path":"","__ow_query":"q=1","__ow_headers":{"content-type":"application/json"},"__ow_body":"{","__ow_base64":false}`,
		},
		{"CloudEvent, structured", "merge", "application/cloudevents+json", `{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a":1}}`, `{"a":1}`},
		{"CloudEvent, text", "merge", "application/cloudevents+json", `{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"text/plain","data":"x"}`, `{"__ow_body":"x"}`},
		{"CloudEvent, base64", "merge", "application/cloudevents+json", `{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"application/json","data_base64":"eyJhIjoxfQ=="}`, `{"a":1}`},
		{"CloudEvent, no data", "merge", "application/cloudevents+json", `{"specversion":"1.0","id":"1","source":"/s","type":"t"}`, `{}`},
		{"broken JSON", "merge", "application/json", `{"a":1}}`, ""},
		{"JSON not in UTF-8", "merge", "application/json", "{\"a\":\"\xff\"}", ""},
		{"reserved member", "merge", "application/json", `{"__ow_headers":{}}`, ""},
		{"reserved field", "merge", form, `__ow_user=x`, ""},
		{"broken form", "merge", form, `a=%zz`, ""},
		{"CloudEvent of old", "merge", "application/cloudevents+json", `{"specversion":"0.3","id":"1","source":"/s","type":"t"}`, ""},
		{"CloudEvent without id", "merge", "application/cloudevents+json", `{"specversion":"1.0","source":"/s","type":"t"}`, ""},
		{"CloudEvent with two data", "merge", "application/cloudevents+json", `{"specversion":"1.0","id":"1","source":"/s","type":"t","data":1,"data_base64":"eA=="}`, ""},
		{"CloudEvents in a batch", "merge", "application/cloudevents-batch+json", `[]`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHook(t, `"mode":"`+tt.mode+`"`)
			h.url += "?q=1"
			var headers []string
			if tt.typ != "" {
				headers = []string{"Content-Type", tt.typ}
			}
			w := h.post(tt.body, headers...)
			if tt.want == "" {
				h.want(w, 400, 0)
				return
			}
			h.want(w, 202, 1)
			if got := string(h.sink.Events()[0].Payload); got != tt.want {
				t.Errorf("payload = %s, want %s", got, tt.want)
			}
		})
	}
}

func TestCloudEventBinary(t *testing.T) {
	h := newHook(t, "")
	headers := []string{
		"Ce-Specversion", "1.0", "Ce-Id", "42", "Ce-Source", "/shop/%E2%82%AC", "Ce-Type", "order.paid", "Ce-Subject", "o/7",
		"Ce-Time", "2026-01-02T03:04:05+01:00", "Content-Type", "application/json",
	}
	h.want(h.post(`{"a":1}`, headers...), 202, 1)
	ev := h.sink.Events()[0]
	if ev.Source != "/shop/€" || ev.Type != "order.paid" || ev.Subject != "o/7" || ev.Time.Format(time.RFC3339) != "2026-01-02T02:04:05Z" || string(ev.Payload) != `{"a":1}` {
		t.Errorf("event = %+v", ev)
	}
	w := h.post(`{"a":1}`, headers...)
	h.want(w, 200, 1)
	headers[3] = ""
	h.want(h.post(`{"a":1}`, headers...), 400, 1)
}

func FuzzBody(f *testing.F) {
	for _, s := range []string{`{"a":1}`, `[1]`, `a=1&a=2`, "\xff", `{"specversion":"1.0","id":"1","source":"s","type":"t","data":"x"}`, `payload={}`} {
		for _, typ := range []string{"application/json", "application/x-www-form-urlencoded", "text/plain", "", "application/cloudevents+json", "multipart/mixed;;"} {
			f.Add(typ, []byte(s))
		}
	}
	p := New(func() string { return "" }, nil, nil, slog.New(slog.DiscardHandler))
	f.Fuzz(func(t *testing.T, typ string, body []byte) {
		for _, envelope := range []bool{false, true} {
			fd := &feed{p: p, cfg: config{preset: slack, envelope: envelope}}
			r := &http.Request{Method: http.MethodPost, Header: http.Header{"Content-Type": {typ}}, URL: httptest.NewRequest(http.MethodPost, "/hooks/x", nil).URL}
			ev, _, err := fd.event(r, body)
			if err != nil {
				if whisk.KindOf(err) != whisk.Invalid {
					t.Fatalf("error = %v", err)
				}
				continue
			}
			var obj map[string]json.RawMessage
			if err := json.Unmarshal(ev.Payload, &obj); err != nil || obj == nil {
				t.Fatalf("%q as %q: payload %q is no object", body, typ, ev.Payload)
			}
			if _, err := json.Marshal(ev); err != nil {
				t.Fatalf("event: %v", err)
			}
		}
	})
}
