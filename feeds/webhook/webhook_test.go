package webhook

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
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
	if out := h.act("CREATE", `"mode":"both","maxBytes":0,"x":1`); strings.Count(out, `; `) != 2 {
		t.Errorf("not every fault is told: %s", out)
	}
	// What was meant is told with what is missing.
	for params, want := range map[string]string{
		`"preset":"github"`:                  `{"error":"secret is missing: preset github needs one"}`,
		`"preset":"github","secrt":"x"`:      `{"error":"the receive feed has no parameter 'secrt' (did you mean 'secret'?); secret is missing: preset github needs one"}`,
		`"preset":"githb"`:                   `{"error":"preset must be one of none, github, gitlab, slack, stripe, standard, hmac, bearer, basic (did you mean 'github'?)"}`,
		`"preset":"bearer","secret":{"a":1}`: `{"error":"secret must be a text or a list of 1 to 10 for preset bearer"}`,
	} {
		if out := strings.TrimSpace(h.act("CREATE", params)); out != want {
			t.Errorf("CREATE %s = %s\nwant %s", params, out, want)
		}
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
