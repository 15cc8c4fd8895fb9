package webhook

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Kinds of keys of Standard Webhooks.
const (
	kindShared = 's'
	kindPublic = 'p'
)

// Reasons for a refused request. Senders learn no more than that it was.
var (
	errCredentials = errors.New("the credentials are missing or wrong")
	errUnsigned    = errors.New("the request is not signed")
	errSignature   = errors.New("the signature is wrong")
	errStale       = errors.New("the signed time is too far from now")
)

// admits reports whether a request is to be read at all: what can be checked
// without its body is checked before it.
func (c *config) admits(h http.Header) error {
	switch c.preset {
	case gitlab:
		return c.secretIs(h.Get("X-Gitlab-Token"))
	case bearer:
		if c.header != "" && c.header != "Authorization" {
			return c.secretIs(h.Get(c.header))
		}
		scheme, token, _ := strings.Cut(h.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return errCredentials
		}
		return c.secretIs(strings.TrimSpace(token))
	case basic:
		r := http.Request{Header: h}
		user, pass, ok := r.BasicAuth()
		if !ok || subtle.ConstantTimeCompare([]byte(user), []byte(c.username)) != 1 {
			return errCredentials
		}
		return c.secretIs(pass)
	}
	return nil
}

// secretIs compares with every secret, in a time that tells nothing of them.
// Digests have one length, so the length of a secret does not show either.
func (c *config) secretIs(given string) error {
	sum := sha256.Sum256([]byte(given))
	found := 0
	for _, s := range c.secrets {
		want := sha256.Sum256(s)
		found |= subtle.ConstantTimeCompare(sum[:], want[:])
	}
	if found != 1 || given == "" {
		return errCredentials
	}
	return nil
}

// verify checks the signature of a request over its raw body.
func (c *config) verify(r *http.Request, body []byte, now time.Time) error {
	h := r.Header
	switch c.preset {
	case github:
		return c.matches(sha256Of(body), fromHex(h.Get("X-Hub-Signature-256"), "sha256="))
	case slack:
		ts := h.Get("X-Slack-Request-Timestamp")
		if err := c.timely(ts, now); err != nil {
			return err
		}
		return c.matches(sha256Of([]byte("v0:"+ts+":"), body), fromHex(h.Get("X-Slack-Signature"), "v0="))
	case stripe:
		return c.verifyStripe(h.Get("Stripe-Signature"), body, now)
	case standard:
		return c.verifyStandard(h, body, now)
	case hmacAny:
		return c.verifyHMAC(r, body, now)
	}
	return nil
}

// verifyStripe checks "t=…,v1=…". While a secret is being replaced, there is
// one v1 for each. Other schemes are not looked at.
func (c *config) verifyStripe(header string, body []byte, now time.Time) error {
	var ts string
	var sigs [][]byte
	for item := range strings.SplitSeq(header, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(item), "=")
		switch key {
		case "t":
			ts = value
		case "v1":
			sigs = append(sigs, fromHex(value, ""))
		}
	}
	if err := c.timely(ts, now); err != nil {
		return err
	}
	return c.matches(sha256Of([]byte(ts+"."), body), sigs...)
}

// standardHeaders returns a request's id, timestamp and signatures under
// either of the names they have.
func standardHeaders(h http.Header) (id, ts, sigs string) {
	for _, family := range []string{"Webhook-", "Svix-"} {
		if id = h.Get(family + "Id"); id != "" {
			return id, h.Get(family + "Timestamp"), h.Get(family + "Signature")
		}
	}
	return "", "", ""
}

// verifyStandard checks signatures of Standard Webhooks: several in one header,
// each with its version, v1 for a shared secret and v1a for a public key.
func (c *config) verifyStandard(h http.Header, body []byte, now time.Time) error {
	id, ts, sigs := standardHeaders(h)
	if err := c.timely(ts, now); err != nil {
		return err
	}
	// The signed text is id.timestamp.body.
	text := bytes.Join([][]byte{[]byte(id), []byte(ts), body}, []byte("."))
	for sig := range strings.FieldsSeq(sigs) {
		version, value, _ := strings.Cut(sig, ",")
		given, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			continue
		}
		for _, key := range c.secrets {
			switch {
			// A key is only used for what it was given for: one that is public
			// must not serve as a shared secret.
			case version == "v1" && key[0] == kindShared && hmac.Equal(given, sha256Of(text)(key[1:])):
				return nil
			case version == "v1a" && key[0] == kindPublic && ed25519.Verify(key[1:], text, given):
				return nil
			}
		}
	}
	return errSignature
}

// verifyHMAC checks a signature as the parameters describe it.
func (c *config) verifyHMAC(r *http.Request, body []byte, now time.Time) error {
	given, ok := strings.CutPrefix(r.Header.Get(c.header), c.prefix)
	if !ok || given == "" {
		return errUnsigned
	}
	if c.timeHdr != "" {
		if err := c.timely(r.Header.Get(c.timeHdr), now); err != nil {
			return err
		}
	}
	sig, err := c.decode(given)
	if err != nil {
		return errSignature
	}
	return c.matches(func(key []byte) []byte {
		m := hmac.New(c.hash, key)
		for _, p := range c.signed {
			switch p.name {
			case "":
				m.Write([]byte(p.literal))
			case "body":
				m.Write(body)
			default:
				m.Write([]byte(c.value(p.name, r)))
			}
		}
		return m.Sum(nil)
	}, sig)
}

// value returns what a placeholder stands for.
func (c *config) value(name string, r *http.Request) string {
	switch name {
	case "timestamp":
		return r.Header.Get(c.timeHdr)
	case "id":
		return r.Header.Get(c.idHeader)
	case "method":
		return r.Method
	case "path":
		return r.URL.EscapedPath()
	}
	return r.Header.Get(strings.TrimPrefix(name, "header:"))
}

// matches reports whether any signature is that of any secret. All are
// computed, whichever is right.
func (c *config) matches(sign func(key []byte) []byte, sigs ...[]byte) error {
	found, some := false, false
	for _, key := range c.secrets {
		want := sign(key)
		for _, sig := range sigs {
			some = some || len(sig) > 0
			found = hmac.Equal(want, sig) || found
		}
	}
	switch {
	case found:
		return nil
	case !some:
		return errUnsigned
	}
	return errSignature
}

// timely checks a time in seconds or milliseconds since 1970.
func (c *config) timely(ts string, now time.Time) error {
	n, err := strconv.ParseInt(ts, 10, 64)
	if err != nil || n <= 0 {
		return errUnsigned
	}
	at := time.Unix(n, 0)
	if n > 1e11 { // seconds will not be there before the year 5138
		at = time.UnixMilli(n)
	}
	// In both directions: a time far ahead would keep a request that somebody
	// has caught good for longer.
	if d := now.Sub(at); d > c.tolerance || d < -c.tolerance {
		return errStale
	}
	return nil
}

// sha256Of returns the function that signs parts with a key.
func sha256Of(parts ...[]byte) func(key []byte) []byte {
	return func(key []byte) []byte {
		m := hmac.New(sha256.New, key)
		for _, p := range parts {
			m.Write(p)
		}
		return m.Sum(nil)
	}
}

// fromHex decodes what follows a prefix; nil when it is not hex or the prefix
// is not there.
func fromHex(s, prefix string) []byte {
	rest, ok := strings.CutPrefix(s, prefix)
	if !ok {
		return nil
	}
	b, err := hex.DecodeString(rest)
	if err != nil {
		return nil
	}
	return b
}

// decoder returns what decodes a signature. Padding may be there or not.
func decoder(encoding string) func(string) ([]byte, error) {
	switch encoding {
	case "base64":
		return func(s string) ([]byte, error) { return base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "=")) }
	case "base64url":
		return func(s string) ([]byte, error) { return base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "=")) }
	}
	return hex.DecodeString
}
