package webhook

import (
	"crypto/sha1" //nolint:gosec // some senders sign with nothing better
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/feeds"
	"github.com/millrace/millrace/internal/whisk"
)

// Presets: whose requests they are, and so how they are signed.
const (
	none     = "none"
	github   = "github"
	gitlab   = "gitlab"
	slack    = "slack"
	stripe   = "stripe"
	standard = "standard" // standardwebhooks.com
	hmacAny  = "hmac"
	bearer   = "bearer"
	basic    = "basic"
)

// Defaults and bounds.
const (
	stdTolerance = 5 * time.Minute
	maxTolerance = 24 * time.Hour
	stdWindow    = 72 * time.Hour
	maxWindow    = 30 * 24 * time.Hour
	stdBytes     = 1 << 20
	maxBytes     = 25 << 20
	maxSecrets   = 10
)

// config is a checked set of parameters. Header is where the signature or the
// credential stands, prefix what comes before it there, signed what it is made
// over, in order. A signed time may be as far from now as tolerance; with
// preset hmac it is in timeHdr, and not checked when that is empty. IdHeader
// holds a delivery's ID, which is remembered for window. Envelope: the payload
// is the whole request.
type config struct {
	preset    string
	secrets   [][]byte // as they are given to the check
	username  string
	header    string
	hash      func() hash.Hash
	decode    func(string) ([]byte, error)
	prefix    string
	signed    []part
	timeHdr   string
	tolerance time.Duration
	idHeader  string
	window    time.Duration
	methods   []string
	maxBytes  int64
	envelope  bool
	again     bool // a delivery that is repeated is an event again
}

// part is a piece of a template: literal text, or what a placeholder names.
type part struct{ literal, name string }

// uses returns the parameters of signatures that a preset has a use for. Any
// other is refused: a check that is asked for and not made is worse than none.
func uses(preset string) []string {
	switch preset {
	case none:
		return nil
	case slack, stripe, standard:
		return []string{"secret", "tolerance"}
	case hmacAny:
		return []string{"secret", "header", "algorithm", "encoding", "prefix", "signed", "timestampHeader", "tolerance"}
	case bearer:
		return []string{"secret", "header"}
	case basic:
		return []string{"secret", "username"}
	}
	return []string{"secret"}
}

// parser reads parameters and gathers what is wrong with them.
type parser struct {
	ps     whisk.Params
	cfg    config
	faults []string
}

func (p *parser) bad(format string, args ...any) {
	p.faults = append(p.faults, fmt.Sprintf(format, args...))
}

// parseConfig checks parameters. It returns Invalid with every fault.
func parseConfig(ps whisk.Params) (config, error) {
	p := &parser{ps: ps, cfg: config{maxBytes: stdBytes, window: stdWindow, tolerance: stdTolerance, methods: []string{http.MethodPost}}}
	// The preset first: what the others may read depends on it.
	p.preset()
	p.secret()
	p.scheme()
	p.requests()
	p.redelivery()
	return p.cfg, feeds.Refuse(p.faults...)
}

func (p *parser) preset() {
	c := &p.cfg
	c.preset = p.choice("preset", none, github, gitlab, slack, stripe, standard, hmacAny, bearer, basic)
	always := []string{"preset", "idHeader", "idWindow", "methods", "maxBytes", "mode", "allowRedelivery"}
	signing := uses(hmacAny)
	for _, e := range p.ps {
		switch {
		case slices.Contains(always, e.Key) || slices.Contains(uses(c.preset), e.Key):
		// A parameter that exists for another preset gets a text that says so:
		// it is not misspelt.
		case slices.Contains(signing, e.Key) || e.Key == "username":
			p.bad("%s has no use with preset %s", e.Key, c.preset)
		default:
			p.bad("%s", feeds.Unknown("receive", e.Key, slices.Concat(always, uses(c.preset), signing, []string{"username"})...))
		}
	}
}

// secret reads the secrets: one, or several so that a sender can change from
// one to the next. Each of them is valid.
func (p *parser) secret() {
	v := p.ps.Get("secret")
	if p.cfg.preset == none {
		return
	}
	if v == nil {
		p.bad("secret is missing: preset %s needs one", p.cfg.preset)
		return
	}
	var list []string
	var one string
	if json.Unmarshal(v, &one) == nil {
		list = []string{one}
	} else if json.Unmarshal(v, &list) != nil || len(list) == 0 || len(list) > maxSecrets {
		p.bad("secret must be a text or a list of 1 to %d for preset %s", maxSecrets, p.cfg.preset)
		return
	}
	for _, s := range list {
		key := []byte(s)
		if p.cfg.preset == standard {
			key = standardKey(s)
		}
		if len(key) == 0 {
			p.bad("a secret is empty or not of the form that preset %s needs", p.cfg.preset)
			continue
		}
		p.cfg.secrets = append(p.cfg.secrets, key)
	}
}

// standardKey returns the key in a secret of Standard Webhooks, marked with
// its kind: base64, with whsec_ before it, or whpk_ for a public key.
func standardKey(s string) []byte {
	kind := byte(kindShared)
	if rest, ok := strings.CutPrefix(s, "whpk_"); ok {
		kind, s = kindPublic, rest
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s, "whsec_"))
	if err != nil || len(key) == 0 || kind == kindPublic && len(key) != 32 {
		return nil
	}
	return append([]byte{kind}, key...)
}

// scheme reads how requests are signed. All presets but hmac have that built
// in.
func (p *parser) scheme() {
	c := &p.cfg
	c.header, c.prefix = p.headerName("header"), p.text("prefix", "")
	if c.preset == basic {
		// Basic authentication divides name and password at the first colon.
		if c.username = p.text("username", ""); c.username == "" || strings.Contains(c.username, ":") {
			p.bad("username must be a text without a colon for preset basic")
		}
	}
	c.timeHdr = p.headerName("timestampHeader")
	c.idHeader = p.headerName("idHeader")
	c.tolerance = p.duration("tolerance", stdTolerance, time.Second, maxTolerance)
	if c.preset != hmacAny {
		return
	}
	if c.header == "" {
		p.bad("header must name the header of the signature for preset hmac")
	}
	c.hash = map[string]func() hash.Hash{
		"sha256": sha256.New, "sha1": sha1.New, "sha384": sha512.New384, "sha512": sha512.New,
	}[p.choice("algorithm", "sha256", "sha1", "sha384", "sha512")]
	c.decode = decoder(p.choice("encoding", "hex", "base64", "base64url"))
	p.template()
	if c.timeHdr == "" && p.ps.Get("tolerance") != nil {
		p.bad("tolerance has no use without timestampHeader")
	}
}

// template reads what is signed. What is not signed proves nothing, so the
// body must be, and a time that is checked.
func (p *parser) template() {
	c := &p.cfg
	text := p.text("signed", "{body}")
	for rest := text; rest != ""; {
		before, after, found := strings.Cut(rest, "{")
		if before != "" {
			c.signed = append(c.signed, part{literal: before})
		}
		if !found {
			break
		}
		name, tail, closed := strings.Cut(after, "}")
		if name == "ts" {
			name = "timestamp"
		}
		if header, ok := strings.CutPrefix(name, "header:"); ok && closed {
			name = "header:" + textproto.CanonicalMIMEHeaderKey(header)
		} else if !slices.Contains([]string{"body", "timestamp", "id", "method", "path"}, name) || !closed {
			p.bad("signed has the unknown placeholder {%s}", name)
		}
		c.signed = append(c.signed, part{name: name})
		rest = tail
	}
	has := func(name string) bool { return slices.Contains(c.signed, part{name: name}) }
	if !has("body") {
		p.bad("signed must contain {body}")
	}
	// A time that is not signed could be changed by whoever repeats a request,
	// and one that is signed and not checked protects from nothing.
	if signsTime := has("timestamp") || has("header:"+c.timeHdr); signsTime != (c.timeHdr != "") {
		p.bad("timestampHeader and {timestamp} in signed need each other")
	}
	if has("id") && c.idHeader == "" {
		p.bad("{id} in signed needs idHeader")
	}
}

// requests reads which requests are taken and what becomes of their bodies.
func (p *parser) requests() {
	c := &p.cfg
	c.envelope = p.choice("mode", "merge", "envelope") == "envelope"
	if v := p.ps.Get("maxBytes"); v != nil {
		n, err := strconv.ParseInt(unquoted(v), 10, 64)
		if err != nil || n < 1 || n > maxBytes {
			p.bad("maxBytes must be an integer between 1 and %d", maxBytes)
		}
		c.maxBytes = n
	}
	v := p.ps.Get("methods")
	if v == nil {
		return
	}
	var list []string
	// A list as JSON, or as text with commas, as tools write parameters.
	if json.Unmarshal(v, &list) != nil {
		list = strings.Split(unquoted(v), ",")
	}
	c.methods = nil
	for _, m := range list {
		m = strings.ToUpper(strings.TrimSpace(m))
		if !slices.Contains([]string{"POST", "PUT", "PATCH", "GET", "DELETE"}, m) {
			p.bad("methods must be a list of POST, PUT, PATCH, GET, DELETE")
			break
		}
		if !slices.Contains(c.methods, m) {
			c.methods = append(c.methods, m)
		}
	}
	if len(c.methods) == 0 {
		p.bad("methods is empty")
	}
}

// redelivery reads for how long a delivery is remembered, or that it is not.
func (p *parser) redelivery() {
	c := &p.cfg
	c.window = p.duration("idWindow", stdWindow, time.Minute, maxWindow)
	if v := p.ps.Get("allowRedelivery"); v != nil {
		again, err := strconv.ParseBool(unquoted(v))
		if err != nil {
			p.bad("allowRedelivery must be true or false")
		}
		c.again = again
	}
	// What is never looked up need not be remembered.
	if c.again && p.ps.Get("idWindow") != nil {
		p.bad("idWindow has no use with allowRedelivery")
	}
}

// choice reads one of several texts; the first is the default.
func (p *parser) choice(key string, texts ...string) string {
	s := p.text(key, texts[0])
	if !slices.Contains(texts, s) {
		also := ""
		if near := whisk.Nearest(s, texts...); near != "" {
			also = fmt.Sprintf(" (did you mean '%s'?)", near)
		}
		p.bad("%s must be one of %s%s", key, strings.Join(texts, ", "), also)
		return texts[0]
	}
	return s
}

// text reads a text; std when it is not given.
func (p *parser) text(key, std string) string {
	v := p.ps.Get(key)
	if v == nil {
		return std
	}
	var s string
	if json.Unmarshal(v, &s) != nil {
		p.bad("%s must be a text", key)
	}
	return s
}

// headerName reads the name of a header in canonical form; empty when it is not
// given. What is refused cannot stand in such a name.
func (p *parser) headerName(key string) string {
	s := p.text(key, "")
	if p.ps.Get(key) == nil {
		return ""
	}
	for _, r := range s {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r) {
			s = ""
			break
		}
	}
	if s == "" {
		p.bad("%s must be the name of a header", key)
	}
	return textproto.CanonicalMIMEHeaderKey(s)
}

// duration reads seconds as a number, or a text such as 90s or 72h.
func (p *parser) duration(key string, std, least, most time.Duration) time.Duration {
	v := p.ps.Get(key)
	if v == nil {
		return std
	}
	d, err := time.ParseDuration(unquoted(v))
	if n, nerr := strconv.ParseInt(unquoted(v), 10, 32); nerr == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d < least || d > most {
		p.bad("%s must be a number of seconds or a duration such as 90s, between %s and %s", key, least, most)
		return std
	}
	return d
}

// unquoted is a value as text, whether it came as one or not.
func unquoted(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s
	}
	return string(v)
}
