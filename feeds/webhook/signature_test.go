package webhook

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

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
		{
			"GitHub", `"preset":"github","secret":"It's a Secret to Everybody"`, "Hello, World!", 0,
			[]string{"X-Hub-Signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
			"X-Hub-Signature-256",
		},
		{
			"Slack", `"preset":"slack","secret":"8f742231b10e8888abcd99yyyzzz85a5"`,
			"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
			1531420618,
			[]string{
				"X-Slack-Request-Timestamp", "1531420618", "Content-Type", "application/x-www-form-urlencoded",
				"X-Slack-Signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
			},
			"X-Slack-Signature",
		},
		{
			"Standard Webhooks", `"preset":"standard","secret":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"`, `{"test": 2432232314}`, 1614265330,
			[]string{
				"Webhook-Id", "msg_p5jXN8AQM9LWM0D4loKWxJek", "Webhook-Timestamp", "1614265330",
				"Webhook-Signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
			},
			"Webhook-Signature",
		},
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
		{"standard, public key", `"preset":"standard","secret":"whpk_` + b64(pub) + `"`, []string{
			"Webhook-Id", "msg_1", "Webhook-Timestamp", ts,
			"Webhook-Signature", "v1a," + b64(ed25519.Sign(priv, []byte("msg_1."+ts+"."+body))),
		}, 202},
		{"standard, public key is no shared one", `"preset":"standard","secret":"whpk_` + b64(pub) + `"`, []string{
			"Webhook-Id", "msg_1", "Webhook-Timestamp", ts,
			"Webhook-Signature", "v1," + b64(mac(sha256.New, string(pub), "msg_1."+ts+"."+body)),
		}, 401},
		{"bearer", `"preset":"bearer","secret":["a","b"]`, []string{"Authorization", "bearer b"}, 202},
		{"bearer, wrong", `"preset":"bearer","secret":"a"`, []string{"Authorization", "Bearer b"}, 401},
		{"bearer, basic", `"preset":"bearer","secret":"a"`, []string{"Authorization", "Basic a"}, 401},
		{"bearer, own header", `"preset":"bearer","secret":"a","header":"x-key"`, []string{"X-Key", "a"}, 202},
		{"basic", `"preset":"basic","username":"u","secret":"p:q"`, []string{"Authorization", "Basic " + b64([]byte("u:p:q"))}, 202},
		{"basic, other user", `"preset":"basic","username":"u","secret":"p"`, []string{"Authorization", "Basic " + b64([]byte("v:p"))}, 401},
		{"hmac", `"preset":"hmac","secret":"s","header":"X-Sig"`, []string{"X-Sig", hexMAC("s", body)}, 202},
		{"hmac, upper case", `"preset":"hmac","secret":"s","header":"X-Sig"`, []string{"X-Sig", strings.ToUpper(hexMAC("s", body))}, 202},
		{
			"hmac, all of it", `"preset":"hmac","secret":"s","header":"X-Sig","algorithm":"sha512","encoding":"base64","prefix":"v=","signed":"{ts}.{id}.{method}.{header:x-a}.{body}","timestampHeader":"X-Ts","idHeader":"X-Id","tolerance":60`,
			[]string{"X-Ts", ts, "X-Id", "7", "X-A", "a", "X-Sig", "v=" + b64(mac(sha512.New, "s", ts+".7.POST.a."+body))},
			202,
		},
		{
			"hmac, sha1, base64url", `"preset":"hmac","secret":"s","header":"X-Sig","algorithm":"sha1","encoding":"base64url"`,
			[]string{"X-Sig", base64.RawURLEncoding.EncodeToString(mac(sha1.New, "s", body))},
			202,
		},
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

func FuzzSignature(f *testing.F) {
	f.Add("t=1,v1=aa", "1", "id", []byte("{}"))
	f.Add("v1,AAAA v1a,BBBB", "1614265330", "msg", []byte("x"))
	f.Add("sha256=", "", "", []byte(""))
	f.Add("v0=zz", "-1", "", []byte(""))
	f.Fuzz(func(t *testing.T, sig, ts, id string, body []byte) {
		key := append([]byte{kindShared}, "a key that nobody guesses"...)
		for _, preset := range []string{github, slack, stripe, standard, hmacAny, gitlab, bearer, basic} {
			c := config{
				preset: preset, secrets: [][]byte{key}, tolerance: time.Hour, header: "X-Sig", timeHdr: "X-Ts", hash: sha256.New,
				decode: decoder("base64"), signed: []part{{name: "timestamp"}, {literal: "."}, {name: "body"}},
			}
			r := &http.Request{Method: http.MethodPost, Header: http.Header{}}
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
