package webhook

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/feeds"
	"github.com/millrace/millrace/feeds/feedtest"
	"github.com/millrace/millrace/internal/whisk"
)

// hook is a running webhook feed over an engine in memory.
type hook struct {
	t    *testing.T
	p    *Provider
	sink *feedtest.Sink
	seen *feedtest.Table[Delivery]
	sup  *feeds.Supervisor
	url  string
	now  time.Time
	stop func()

	states   *feedtest.Table[feeds.State]
	triggers *feedtest.Triggers
}

var trig = whisk.Name{Namespace: "guest", Entity: "t"}

// newHook makes a webhook with parameters, the members of an object.
func newHook(t *testing.T, params string) *hook {
	t.Helper()
	h := &hook{
		t: t, sink: &feedtest.Sink{}, seen: &feedtest.Table[Delivery]{}, now: time.Now(),
		states: &feedtest.Table[feeds.State]{}, triggers: &feedtest.Triggers{},
	}
	h.triggers.Add(trig, "1")
	h.start()
	t.Cleanup(func() { h.stop() })
	var res struct{ URL string }
	if out := h.act("CREATE", params); json.Unmarshal([]byte(out), &res) != nil || !strings.HasPrefix(res.URL, "http://hub/hooks/") {
		t.Fatalf("CREATE %s = %s", params, out)
	}
	h.url = res.URL
	return h
}

func (h *hook) start() {
	h.t.Helper()
	h.p = New(func() string { return "http://hub" }, h.seen, h.sink, slog.New(slog.DiscardHandler))
	h.p.now = func() time.Time { return h.now }
	vault, err := feeds.NewVault(make([]byte, feeds.VaultKeySize))
	if err != nil {
		h.t.Fatal(err)
	}
	h.sup = feeds.NewSupervisor(feeds.Parts{
		States: h.states, Sink: h.sink, Triggers: h.triggers, Keys: feedtest.Keys{"u:k": "guest"},
		Vault: vault, Providers: map[string]feeds.Provider{Name: h.p}, Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.sup.Run(ctx) }()
	<-h.sup.Ready()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("run: %v", err)
		}
	})
}

func (h *hook) act(event, params string) string {
	h.t.Helper()
	if params != "" {
		params = "," + params
	}
	body := `{"lifecycleEvent":"` + event + `","triggerName":"/_/t","authKey":"u:k"` + params + `}`
	out, err := h.sup.Actions()[Name](h.t.Context(), whisk.Invocation{Namespace: "guest"}, json.RawMessage(body))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(out)
}

// send makes a request; headers are pairs.
func (h *hook) send(method, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, h.url, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.p.ServeHTTP(w, r)
	return w
}

func (h *hook) post(body string, headers ...string) *httptest.ResponseRecorder {
	return h.send(http.MethodPost, body, headers...)
}

func (h *hook) want(w *httptest.ResponseRecorder, status, events int) {
	h.t.Helper()
	if n := len(h.sink.Events()); w.Code != status || n != events {
		h.t.Errorf("status %d %s, %d events; want %d, %d", w.Code, w.Body, n, status, events)
	}
}

func mac(h func() hash.Hash, key, text string) []byte {
	m := hmac.New(h, []byte(key))
	m.Write([]byte(text))
	return m.Sum(nil)
}

func hexMAC(key, text string) string { return hex.EncodeToString(mac(sha256.New, key, text)) }

// What senders publish as examples of their signatures.
func TestPublishedVectors(t *testing.T) {
	tests := []struct {
		name, params, body string
		at                 int64
		headers            []string
		header             string // the signature's
	}{
		{"GitHub", `"preset":"github","secret":"It's a Secret to Everybody"`, "Hello, World!", 0,
			[]string{"X-Hub-Signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"}, "X-Hub-Signature-256"},
		{"Slack", `"preset":"slack","secret":"8f742231b10e8888abcd99yyyzzz85a5"`,
			"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
			1531420618, []string{"X-Slack-Request-Timestamp", "1531420618", "Content-Type", "application/x-www-form-urlencoded",
				"X-Slack-Signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"}, "X-Slack-Signature"},
		{"Standard Webhooks", `"preset":"standard","secret":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"`, `{"test": 2432232314}`, 1614265330,
			[]string{"Webhook-Id", "msg_p5jXN8AQM9LWM0D4loKWxJek", "Webhook-Timestamp", "1614265330",
				"Webhook-Signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="}, "Webhook-Signature"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHook(t, tt.params)
			if tt.at > 0 {
				h.now = time.Unix(tt.at, 0)
			}
			h.want(h.post(tt.body, tt.headers...), 202, 1)
			// One bit of the body, or of the signature, is another request.
			for i := range tt.body {
				b := []byte(tt.body)
				b[i] ^= 1 << (i % 8)
				if w := h.post(string(b), tt.headers...); w.Code != 401 {
					t.Fatalf("body with a bit of byte %d flipped: %d", i, w.Code)
				}
			}
			sig := tt.headers[len(tt.headers)-1]
			for i := range sig {
				b := []byte(sig)
				b[i] ^= 1 << (i % 5)
				w := h.post(tt.body, append(append([]string{}, tt.headers...), tt.header, string(b))...)
				if w.Code != 401 && !strings.EqualFold(string(b), sig) { // hex has two cases
					t.Fatalf("signature %q: %d", b, w.Code)
				}
			}
			if tt.at > 0 {
				h.now = time.Unix(tt.at, 0).Add(stdTolerance + time.Second)
				h.want(h.post(tt.body, tt.headers...), 401, len(h.sink.Events()))
			}
		})
	}
}

func TestSignatures(t *testing.T) {
	const body = `{"id":"evt_1","type":"charge.succeeded"}`
	now := time.Now()
	ts := strconv.FormatInt(now.Unix(), 10)
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.StdEncoding.EncodeToString
	stdSig := "v1," + b64(mac(sha256.New, "key!", "msg_1."+ts+"."+body))
	stdKey := "whsec_" + b64([]byte("key!"))
	tests := []struct {
		name, params string
		headers      []string
		status       int
	}{
		{"stripe", `"preset":"stripe","secret":"whsec_x"`, []string{"Stripe-Signature", "t=" + ts + ",v1=" + hexMAC("whsec_x", ts+"."+body)}, 202},
		{"stripe, one of several", `"preset":"stripe","secret":"whsec_x"`, []string{"Stripe-Signature", "t=" + ts + ", v1=00, v1=" + hexMAC("whsec_x", ts+"."+body) + ",v0=zz"}, 202},
		{"stripe, v0 alone", `"preset":"stripe","secret":"whsec_x"`, []string{"Stripe-Signature", "t=" + ts + ",v0=" + hexMAC("whsec_x", ts+"."+body)}, 401},
		{"stripe, no time", `"preset":"stripe","secret":"whsec_x"`, []string{"Stripe-Signature", "v1=" + hexMAC("whsec_x", "."+body)}, 401},
		{"slack, no signature", `"preset":"slack","secret":"s"`, []string{"X-Slack-Request-Timestamp", ts}, 401},
		{"github, old secret", `"preset":"github","secret":["new","old"]`, []string{"X-Hub-Signature-256", "sha256=" + hexMAC("old", body)}, 202},
		{"github, sha1 alone", `"preset":"github","secret":"s"`, []string{"X-Hub-Signature", "sha1=" + hex.EncodeToString(mac(sha1.New, "s", body))}, 401},
		{"github, without prefix", `"preset":"github","secret":"s"`, []string{"X-Hub-Signature-256", hexMAC("s", body)}, 401},
		{"github, unsigned", `"preset":"github","secret":"s"`, nil, 401},
		{"gitlab", `"preset":"gitlab","secret":"tok"`, []string{"X-Gitlab-Token", "tok"}, 202},
		{"gitlab, wrong", `"preset":"gitlab","secret":"tok"`, []string{"X-Gitlab-Token", "tokk"}, 401},
		{"gitlab, none", `"preset":"gitlab","secret":"tok"`, nil, 401},
		{"standard", `"preset":"standard","secret":"` + stdKey + `"`, []string{"Webhook-Id", "msg_1", "Webhook-Timestamp", ts, "Webhook-Signature", "v1,AAAA " + stdSig}, 202},
		{"standard, svix names", `"preset":"standard","secret":"` + stdKey + `"`, []string{"Svix-Id", "msg_1", "Svix-Timestamp", ts, "Svix-Signature", stdSig}, 202},
		{"standard, other id", `"preset":"standard","secret":"` + stdKey + `"`, []string{"Webhook-Id", "msg_2", "Webhook-Timestamp", ts, "Webhook-Signature", stdSig}, 401},
		{"standard, public key", `"preset":"standard","secret":"whpk_` + b64(pub) + `"`, []string{"Webhook-Id", "msg_1", "Webhook-Timestamp", ts,
			"Webhook-Signature", "v1a," + b64(ed25519.Sign(priv, []byte("msg_1."+ts+"."+body)))}, 202},
		{"standard, public key is no shared one", `"preset":"standard","secret":"whpk_` + b64(pub) + `"`, []string{"Webhook-Id", "msg_1", "Webhook-Timestamp", ts,
			"Webhook-Signature", "v1," + b64(mac(sha256.New, string(pub), "msg_1."+ts+"."+body))}, 401},
		{"bearer", `"preset":"bearer","secret":["a","b"]`, []string{"Authorization", "bearer b"}, 202},
		{"bearer, wrong", `"preset":"bearer","secret":"a"`, []string{"Authorization", "Bearer b"}, 401},
		{"bearer, basic", `"preset":"bearer","secret":"a"`, []string{"Authorization", "Basic a"}, 401},
		{"bearer, own header", `"preset":"bearer","secret":"a","header":"x-key"`, []string{"X-Key", "a"}, 202},
		{"basic", `"preset":"basic","username":"u","secret":"p:q"`, []string{"Authorization", "Basic " + b64([]byte("u:p:q"))}, 202},
		{"basic, other user", `"preset":"basic","username":"u","secret":"p"`, []string{"Authorization", "Basic " + b64([]byte("v:p"))}, 401},
		{"hmac", `"preset":"hmac","secret":"s","header":"X-Sig"`, []string{"X-Sig", hexMAC("s", body)}, 202},
		{"hmac, upper case", `"preset":"hmac","secret":"s","header":"X-Sig"`, []string{"X-Sig", strings.ToUpper(hexMAC("s", body))}, 202},
		{"hmac, all of it", `"preset":"hmac","secret":"s","header":"X-Sig","algorithm":"sha512","encoding":"base64","prefix":"v=","signed":"{ts}.{id}.{method}.{header:x-a}.{body}","timestampHeader":"X-Ts","idHeader":"X-Id","tolerance":60`,
			[]string{"X-Ts", ts, "X-Id", "7", "X-A", "a", "X-Sig", "v=" + b64(mac(sha512.New, "s", ts+".7.POST.a."+body))}, 202},
		{"hmac, sha1, base64url", `"preset":"hmac","secret":"s","header":"X-Sig","algorithm":"sha1","encoding":"base64url"`,
			[]string{"X-Sig", base64.RawURLEncoding.EncodeToString(mac(sha1.New, "s", body))}, 202},
		{"hmac, prefix missing", `"preset":"hmac","secret":"s","header":"X-Sig","prefix":"v="`, []string{"X-Sig", hexMAC("s", body)}, 401},
		{"hmac, empty", `"preset":"hmac","secret":"s","header":"X-Sig"`, []string{"X-Sig", ""}, 401},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHook(t, tt.params)
			w := h.post(body, tt.headers...)
			n := 0
			if tt.status == 202 {
				n = 1
			}
			h.want(w, tt.status, n)
			if tt.status == 202 && h.post(body+" ", tt.headers...).Code == 202 && strings.Contains(tt.params, "hmac") {
				t.Error("a changed body is taken too")
			}
		})
	}
}

func TestRefusedParameters(t *testing.T) {
	tests := []string{
		`"preset":"carrier pigeon"`, `"preset":7`, `"preset":"github"`, `"preset":"github","secret":""`, `"preset":"github","secret":[]`,
		`"preset":"github","secret":["a",""]`, `"preset":"github","secret":{"a":1}`, `"secret":"s"`, `"preset":"none","username":"u"`,
		`"preset":"github","secret":"s","algorithm":"sha256"`, `"preset":"github","secret":"s","tolerance":5`, `"preset":"hmac","secret":"s"`,
		`"preset":"hmac","secret":"s","header":"a b"`, `"preset":"hmac","secret":"s","header":"X","algorithm":"md5"`,
		`"preset":"hmac","secret":"s","header":"X","encoding":"rot13"`, `"preset":"hmac","secret":"s","header":"X","signed":"{ts}"`,
		`"preset":"hmac","secret":"s","header":"X","signed":"{body}","timestampHeader":"T"`, `"preset":"hmac","secret":"s","header":"X","signed":"{ts}.{body}"`,
		`"preset":"hmac","secret":"s","header":"X","signed":"{id}.{body}"`, `"preset":"hmac","secret":"s","header":"X","signed":"{bodi}{body}"`,
		`"preset":"hmac","secret":"s","header":"X","signed":"{body}{header:x"`, `"preset":"hmac","secret":"s","header":"X","tolerance":5`,
		`"preset":"basic","secret":"s"`, `"preset":"basic","secret":"s","username":"a:b"`, `"preset":"standard","secret":"whsec_%%%"`,
		`"preset":"standard","secret":"whpk_AAAA"`, `"methods":[]`, `"methods":["TRACE"]`, `"methods":"POST,HEAD"`, `"maxBytes":0`,
		`"maxBytes":26214401`, `"maxBytes":"big"`, `"mode":"both"`, `"idWindow":"1s"`, `"idWindow":"31d"`, `"tolerance":0`,
		`"allowRedelivery":"perhaps"`, `"allowRedelivery":true,"idWindow":"1h"`, `"idHeader":""`, `"allowIPs":["10.0.0.0/8"]`, `"rate":5`,
	}
	h := newHook(t, "")
	h.act("DELETE", "")
	for _, params := range tests {
		var res struct{ Error string }
		if out := h.act("CREATE", params); json.Unmarshal([]byte(out), &res) != nil || res.Error == "" {
			t.Errorf("CREATE %s = %s", params, out)
		}
	}
	if out := h.act("CREATE", `"mode":"both","maxBytes":0,"x":1`); strings.Count(out, `","`) != 3 {
		t.Errorf("not every fault is told: %s", out)
	}
}

func TestStatuses(t *testing.T) {
	h := newHook(t, `"methods":"post, put","maxBytes":14`)
	h.want(h.post("{}"), 202, 1)
	h.want(h.send(http.MethodPut, "{}"), 202, 2)
	w := h.send(http.MethodGet, "")
	h.want(w, 405, 2)
	if got := w.Header().Get("Allow"); got != "POST, PUT" {
		t.Errorf("Allow = %q", got)
	}
	h.want(h.post(`{"a":"0123456789"}`), 413, 2)
	r := httptest.NewRequest(http.MethodPost, h.url, bufio.NewReader(strings.NewReader(`{"a":"0123456789"}`)))
	r.ContentLength = -1
	rec := httptest.NewRecorder()
	h.p.ServeHTTP(rec, r)
	h.want(rec, 413, 2)
	h.want(h.post(`{"a":`, "Content-Type", "application/json"), 400, 2)
	h.want(h.post(`{}`, "Content-Encoding", "gzip"), 415, 2)
	h.want(h.post(`{"__ow_x":1}`), 400, 2)

	url := h.url
	for _, other := range []string{"http://hub/hooks/", "http://hub/hooks/x", h.url + "/", h.url + "x", "http://hub/hooks/.."} {
		h.url = other
		h.want(h.post("{}"), 404, 2)
	}
	h.url = url

	h.sink.Fail = func() error { return whisk.E(whisk.Unavailable, "accept", errors.New("the store is full")) }
	w = h.post("{}")
	h.want(w, 503, 2)
	if w.Header().Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	h.sink.Fail = nil

	h.act("PAUSE", "")
	h.want(h.post("{}"), 503, 2)
	h.act("UNPAUSE", "")
	h.want(h.post("{}"), 202, 3)

	h.triggers.Remove(trig)
	h.want(h.post("{}"), 404, 3)
}

func TestStartingServerIsNotWrongAddress(t *testing.T) {
	p := New(func() string { return "" }, &feedtest.Table[Delivery]{}, &feedtest.Sink{}, slog.New(slog.DiscardHandler))
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/hooks/x", nil))
	if w.Code != 503 {
		t.Errorf("before the feeds are known: %d, want 503", w.Code)
	}
}

func TestOverload(t *testing.T) {
	h := newHook(t, "")
	if !h.p.held.TryAcquire(maxHeld - 10) {
		t.Fatal("something is held")
	}
	h.want(h.post(`{"a":"0123456789"}`), 503, 0)
	h.want(h.post(`{}`), 202, 1)
	h.p.held.Release(maxHeld - 10)
	h.want(h.post(`{"a":"0123456789"}`), 202, 2)
	if !h.p.held.TryAcquire(maxHeld) {
		t.Error("requests that are over still hold something")
	}
}

func TestLifecycle(t *testing.T) {
	const params = `"preset":"bearer","secret":"hush-hush"`
	h := newHook(t, params)
	url := h.url
	if out := h.act("CREATE", params); !strings.Contains(out, url) {
		t.Errorf("the same CREATE again gives another address: %s", out)
	}
	out := h.act("READ", "")
	var res struct {
		URL    string
		Config map[string]any
		Status feeds.Status
	}
	if err := json.Unmarshal([]byte(out), &res); err != nil || res.URL != url || res.Config["secret"] != "***" || !res.Status.Active {
		t.Errorf("READ = %s", out)
	}
	stored, err := json.Marshal(h.states.List(""))
	if err != nil {
		t.Fatal(err)
	}
	hub, err := json.Marshal(h.sup.List(""))
	if err != nil {
		t.Fatal(err)
	}
	token := url[strings.LastIndexByte(url, '/')+1:]
	for name, text := range map[string]string{"READ": strings.ReplaceAll(out, url, ""), "state": string(stored), "hub": string(hub)} {
		if strings.Contains(text, "hush") || strings.Contains(text, token) {
			t.Errorf("%s shows a secret: %s", name, text)
		}
	}
	if out := h.act("UPDATE", `"secret":"other"`); !strings.Contains(out, url) {
		t.Errorf("UPDATE = %s", out)
	}
	if out := h.act("UPDATE", `"secret":"***","maxBytes":100`); !strings.Contains(out, url) {
		t.Errorf("UPDATE with what READ shows = %s", out)
	}
	h.want(h.post("{}", "Authorization", "Bearer ***"), 401, 0)
	h.want(h.post("{}", "Authorization", "Bearer hush-hush"), 401, 0)
	h.want(h.post("{}", "Authorization", "Bearer other"), 202, 1)
	h.stop()
	h.start()
	h.want(h.post("{}", "Authorization", "Bearer other"), 202, 2)
	h.act("UPDATE", `"preset":"none","secret":null`)
	h.want(h.post("{}"), 202, 3)
	h.act("DELETE", "")
	h.want(h.post("{}"), 404, 3)
	if out := h.act("CREATE", ""); strings.Contains(out, url) {
		t.Errorf("a feed made anew has the old address: %s", out)
	}
	if out := h.act("READ", ""); strings.Contains(out, "***") {
		t.Errorf("READ shows a secret that is not there: %s", out)
	}
	if out := h.act("CREATE", `"preset":"bearer","secret":"***"`); !strings.Contains(out, `"error"`) {
		t.Errorf("CREATE with a masked secret = %s", out)
	}
}

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
		{"envelope", "envelope", "application/json", `{"a": 1}`,
			`{"__ow_method":"post","__ow_path":"","__ow_query":"q=1","__ow_headers":{"content-type":"application/json"},"__ow_body":"{\"a\": 1}","__ow_base64":false}`},
		{"envelope of bytes", "envelope", "image/png", "\xff",
			`{"__ow_method":"post","__ow_path":"","__ow_query":"q=1","__ow_headers":{"content-type":"image/png"},"__ow_body":"/w==","__ow_base64":true}`},
		{"envelope of broken JSON", "envelope", "application/json", `{`,
			`{"__ow_method":"post","__ow_path":"","__ow_query":"q=1","__ow_headers":{"content-type":"application/json"},"__ow_body":"{","__ow_base64":false}`},
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
	headers := []string{"Ce-Specversion", "1.0", "Ce-Id", "42", "Ce-Source", "/shop/%E2%82%AC", "Ce-Type", "order.paid", "Ce-Subject", "o/7",
		"Ce-Time", "2026-01-02T03:04:05+01:00", "Content-Type", "application/json"}
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

func TestEventKeepsNoCredentials(t *testing.T) {
	h := newHook(t, `"preset":"bearer","secret":"s","header":"X-Own"`)
	h.want(h.post("{}", "X-Own", "s", "Authorization", "Basic x", "Cookie", "c=1", "X-Gitlab-Token", "t", "X-Other", "y"), 202, 1)
	ev := h.sink.Events()[0]
	if len(ev.Headers) != 1 || ev.Headers["x-other"] != "y" || ev.Source != "/whisk.system/webhook/receive" || ev.Actor != "guest" {
		t.Errorf("event = %+v", ev)
	}
}

func TestSlackChallenge(t *testing.T) {
	h := newHook(t, `"preset":"slack","secret":"s"`)
	const body = `{"token":"x","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P","type":"url_verification"}`
	ts := strconv.FormatInt(h.now.Unix(), 10)
	w := h.post(body, "X-Slack-Request-Timestamp", ts, "X-Slack-Signature", "v0="+hexMAC("s", "v0:"+ts+":"+body), "Content-Type", "application/json")
	h.want(w, 200, 0)
	if got := w.Body.String(); got != `{"challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}` {
		t.Errorf("answer = %s", got)
	}
	h.want(h.post(body, "X-Slack-Request-Timestamp", ts), 401, 0)
}

// githubDelivery returns a sample delivery, signed.
func githubDelivery(t *testing.T, name, secret string) (body string, headers []string) {
	t.Helper()
	b, err := os.ReadFile("testdata/github/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("testdata/github/" + name + ".headers")
	if err != nil {
		t.Fatal(err)
	}
	hs, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(append(text, '\n')))).ReadMIMEHeader()
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range hs {
		headers = append(headers, k, v[0])
	}
	headers = append(headers, "X-Hub-Signature", "sha1="+hex.EncodeToString(mac(sha1.New, secret, string(b))))
	return string(b), append(headers, "X-Hub-Signature-256", "sha256="+hexMAC(secret, string(b)))
}

func TestGitHubDeliveries(t *testing.T) {
	h := newHook(t, `"preset":"github","secret":"s"`)
	body, headers := githubDelivery(t, "ping", "s")
	h.want(h.post(body, headers...), 200, 0)
	for i, name := range []string{"push", "issues"} {
		body, headers := githubDelivery(t, name, "s")
		h.want(h.post(body, headers...), 202, i+1)
		ev := h.sink.Events()[i]
		if string(ev.Payload) != body || ev.Type != name || ev.Subject != "millrace-example/orders" || ev.Headers["x-github-event"] != name {
			t.Errorf("%s: event = %+v", name, ev)
		}
		w := h.post(body, headers...)
		h.want(w, 200, i+1)
		if w.Header().Get(DuplicateHeader) != "true" || !strings.Contains(w.Body.String(), ev.ID) {
			t.Errorf("%s again: %v %s", name, w.Header(), w.Body)
		}
		h.want(h.post(strings.Replace(body, "orders", "ordert", 1), headers...), 401, i+1)
	}
}

func TestDuplicates(t *testing.T) {
	h := newHook(t, `"idHeader":"X-Id","idWindow":"1h"`)
	h.want(h.post("{}", "X-Id", "1"), 202, 1)
	h.want(h.post("{}", "X-Id", "1"), 200, 1)
	h.want(h.post("{}", "X-Id", "2"), 202, 2)
	h.want(h.post("{}"), 202, 3)
	h.want(h.post("{}"), 202, 4)
	h.stop()
	h.start()
	h.want(h.post("{}", "X-Id", "1"), 200, 4)
	h.now = h.now.Add(time.Hour)
	h.want(h.post("{}", "X-Id", "1"), 202, 5)
	evs := h.sink.Events()
	if whisk.IDHash(evs[0].ID) != whisk.IDHash(evs[4].ID) {
		t.Error("the same delivery has another hash")
	}
	h.now = h.now.Add(2 * time.Hour)
	h.p.sweep(t.Context())
	if n := len(h.seen.List("")); n != 0 {
		t.Errorf("%d expired deliveries are kept", n)
	}

	again := newHook(t, `"idHeader":"X-Id","allowRedelivery":true`)
	again.want(again.post("{}", "X-Id", "1"), 202, 1)
	again.want(again.post("{}", "X-Id", "1"), 202, 2)
}

// The process dies, or a write fails, between any two writes of a delivery:
// its repetition ends with one event all the same.
func TestDuplicatesAcrossFailures(t *testing.T) {
	broken := func(t *testing.T, at int) *hook {
		h := newHook(t, `"idHeader":"X-Id"`)
		n := 0
		fail := func() error {
			if n++; n == at {
				return whisk.E(whisk.Unavailable, "write", errors.New("gone"))
			}
			return nil
		}
		h.seen.Fail, h.sink.Fail = fail, fail
		return h
	}
	for at := 1; at <= 3; at++ {
		t.Run(fmt.Sprintf("write %d fails", at), func(t *testing.T) {
			h := broken(t, at)
			first := h.post("{}", "X-Id", "1")
			h.stop()
			h.start()
			h.now = h.now.Add(time.Minute)
			second := h.post("{}", "X-Id", "1")
			third := h.post("{}", "X-Id", "1")
			h.want(third, 200, 1)
			if at < 3 && (first.Code != 503 || second.Code != 202) || at == 3 && (first.Code != 202 || second.Code != 200) {
				t.Errorf("answers %d, %d", first.Code, second.Code)
			}
		})
	}
	t.Run("the answer to a stored event is lost", func(t *testing.T) {
		h := newHook(t, `"idHeader":"X-Id"`)
		var fail atomic.Bool
		h.sink.Changed = func() { fail.Store(true) }
		h.seen.Fail = func() error {
			if fail.Load() {
				return errors.New("gone")
			}
			return nil
		}
		h.want(h.post("{}", "X-Id", "1"), 202, 1)
		fail.Store(false)
		h.stop()
		h.start()
		h.want(h.post("{}", "X-Id", "1"), 200, 1)
	})
}

func TestConcurrentDuplicates(t *testing.T) {
	h := newHook(t, `"idHeader":"X-Id"`)
	const ids, each = 8, 8
	var wg sync.WaitGroup
	var accepted, repeated atomic.Int64
	for i := range ids * each {
		wg.Go(func() {
			switch w := h.post("{}", "X-Id", strconv.Itoa(i%ids)); {
			case w.Code == 202:
				accepted.Add(1)
			case w.Code == 200 && w.Header().Get(DuplicateHeader) == "true":
				repeated.Add(1)
			}
		})
	}
	wg.Wait()
	if n := len(h.sink.Events()); n != ids || accepted.Load() != ids || repeated.Load() != ids*(each-1) {
		t.Errorf("%d events, %d accepted, %d repeated", n, accepted.Load(), repeated.Load())
	}
}

func TestRunSweeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen feedtest.Table[Delivery]
		for i, d := range []time.Duration{time.Hour, 5 * time.Hour} {
			n := whisk.Name{Namespace: "guest", Package: "f", Entity: strconv.Itoa(i)}
			if _, err := seen.Put(t.Context(), n, Delivery{Name: n, Expires: time.Now().Add(d)}, 0); err != nil {
				t.Fatal(err)
			}
		}
		p := New(func() string { return "" }, &seen, &feedtest.Sink{}, slog.New(slog.DiscardHandler))
		f, err := p.Open(t.Context(), feeds.Spec{ID: "f"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		if err := f.Run(ctx, nil); err != nil {
			t.Fatal(err)
		}
		if n := len(seen.List("")); n != 1 {
			t.Errorf("%d deliveries are kept, want the one that has not expired", n)
		}
	})
}

func TestContract(t *testing.T) {
	feedtest.Run(t, func(*testing.T) feedtest.Source {
		return feedtest.Source{
			Provider: New(func() string { return "" }, &feedtest.Table[Delivery]{}, &feedtest.Sink{}, slog.New(slog.DiscardHandler)),
			Feed:     Name, Pushed: true, Params: whisk.Params{}.Set("preset", `"none"`),
			Bad: []whisk.Params{whisk.Params{}.Set("preset", `"x"`), whisk.Params{}.Set("secret", `"x"`)},
		}
	})
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
			r := &http.Request{Method: "POST", Header: http.Header{"Content-Type": {typ}}, URL: httptest.NewRequest("POST", "/hooks/x", nil).URL}
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

func FuzzSignature(f *testing.F) {
	f.Add("t=1,v1=aa", "1", "id", []byte("{}"))
	f.Add("v1,AAAA v1a,BBBB", "1614265330", "msg", []byte("x"))
	f.Add("sha256=", "", "", []byte(""))
	f.Add("v0=zz", "-1", "", []byte(""))
	f.Fuzz(func(t *testing.T, sig, ts, id string, body []byte) {
		key := append([]byte{kindShared}, "a key that nobody guesses"...)
		for _, preset := range []string{github, slack, stripe, standard, hmacAny, gitlab, bearer, basic} {
			c := config{preset: preset, secrets: [][]byte{key}, tolerance: time.Hour, header: "X-Sig", timeHdr: "X-Ts", hash: sha256.New,
				decode: decoder("base64"), signed: []part{{name: "timestamp"}, {literal: "."}, {name: "body"}}}
			r := &http.Request{Method: "POST", Header: http.Header{}}
			for _, h := range []string{"X-Hub-Signature-256", "X-Slack-Signature", "Stripe-Signature", "Webhook-Signature", "X-Sig", "Authorization", "X-Gitlab-Token"} {
				r.Header[h] = []string{sig}
			}
			for _, h := range []string{"X-Slack-Request-Timestamp", "Webhook-Timestamp", "X-Ts"} {
				r.Header[h] = []string{ts}
			}
			r.Header["Webhook-Id"] = []string{id}
			if c.admits(r.Header) == nil && c.verify(r, body, time.Unix(1614265330, 0)) == nil {
				t.Fatalf("preset %s takes %q", preset, sig)
			}
		}
	})
}
