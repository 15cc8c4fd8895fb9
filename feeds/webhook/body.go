package webhook

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/whisk"
)

// maxHeaders bounds the headers that an event keeps, in bytes.
const maxHeaders = 16 << 10

var (
	errJSON     = errors.New("the body is not valid JSON")
	errForm     = errors.New("the body is not a valid form")
	errReserved = errors.New("Request defines parameters that are not allowed (e.g., reserved properties).") //nolint:staticcheck // upstream's wording
)

// Sorts of bodies.
type sort int

const (
	noBody sort = iota
	jsonBody
	formBody
	textBody
	binaryBody
)

// sortOf tells what a body is by its type; by its looks when it has none.
func sortOf(contentType string, body []byte) sort {
	if len(bytes.TrimSpace(body)) == 0 {
		return noBody
	}
	// Senders write parameters that are not valid. The type before them still
	// counts.
	mt, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		mt = strings.ToLower(strings.TrimSpace(contentType))
		mt, _, _ = strings.Cut(mt, ";")
	}
	switch {
	case mt == "application/json" || mt == "text/json" || strings.HasSuffix(mt, "+json"):
		return jsonBody
	case mt == "" && json.Valid(body):
		return jsonBody
	// Whatever its type says: a payload is JSON, which holds nothing else.
	case !utf8.Valid(body):
		return binaryBody
	case mt == "application/x-www-form-urlencoded":
		return formBody
	case mt == "" || strings.HasPrefix(mt, "text/") || strings.HasPrefix(mt, "multipart/") || strings.HasSuffix(mt, "+xml") ||
		slices.Contains([]string{"application/xml", "application/javascript", "application/yaml", "application/toml"}, mt):
		return textBody
	}
	return binaryBody
}

// content is a body on its way to a payload.
type content struct {
	typ  string // content type
	body []byte
}

// merged returns the payload of mode merge: a JSON object or the fields of a
// form as they are, anything else as __ow_body. Members whose names begin with
// __ow_ are the platform's. A sender that could set them would speak in its
// name to the action.
func (c content) merged() (json.RawMessage, error) {
	switch sortOf(c.typ, c.body) {
	case noBody:
		return json.RawMessage("{}"), nil
	case jsonBody:
		body := bytes.TrimSpace(c.body)
		// The library lets broken UTF-8 pass, and would replace it on the way.
		if !utf8.Valid(body) || !json.Valid(body) {
			return nil, whisk.E(whisk.Invalid, "receive", errJSON)
		}
		// A payload is an object: anything else becomes a member of one.
		if body[0] != '{' {
			return wrapped(json.RawMessage(body))
		}
		return body, reserved(body)
	case formBody:
		return formObject(c.body)
	case textBody:
		return wrapped(string(c.body))
	}
	return wrapped(base64.StdEncoding.EncodeToString(c.body))
}

// wrapped is the payload of a body that is no object.
func wrapped(v any) (json.RawMessage, error) {
	b, err := json.Marshal(map[string]any{"__ow_body": v})
	if err != nil {
		return nil, whisk.E(whisk.Invalid, "receive", err)
	}
	return b, nil
}

// reserved refuses an object with members that only the platform sets.
func reserved(body []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		return whisk.E(whisk.Invalid, "receive", errJSON)
	}
	for key := range members {
		if strings.HasPrefix(key, "__ow_") {
			return whisk.E(whisk.Invalid, "receive", errReserved)
		}
	}
	return nil
}

// formObject returns the fields of a form: texts, and lists of texts for those
// that are repeated. A form of the one field payload is the JSON in it, as
// GitHub and Slack send it.
func formObject(body []byte) (json.RawMessage, error) {
	fields, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, whisk.E(whisk.Invalid, "receive", errForm)
	}
	if p := fields.Get("payload"); len(fields) == 1 && strings.HasPrefix(strings.TrimSpace(p), "{") {
		return content{"application/json", []byte(p)}.merged()
	}
	obj := make(map[string]any, len(fields))
	for key, values := range fields {
		if obj[key] = values; len(values) == 1 {
			obj[key] = values[0]
		}
	}
	b, err := json.Marshal(obj)
	if err != nil {
		return nil, whisk.E(whisk.Invalid, "receive", errForm)
	}
	return b, reserved(b)
}

// enveloped returns the payload of mode envelope: the request as it came, the
// body as text when it is text, so that its bytes can be checked again, else
// as base64.
func (f *feed) enveloped(r *http.Request, c content) (json.RawMessage, error) {
	s := sortOf(c.typ, c.body)
	env := struct {
		Method  string            `json:"__ow_method"`
		Path    string            `json:"__ow_path"`
		Query   string            `json:"__ow_query"`
		Headers map[string]string `json:"__ow_headers"`
		Body    string            `json:"__ow_body"`
		Base64  bool              `json:"__ow_base64"`
	}{strings.ToLower(r.Method), "", r.URL.RawQuery, f.headers(r.Header), string(c.body), false}
	if s == binaryBody || !utf8.Valid(c.body) {
		env.Body, env.Base64 = base64.StdEncoding.EncodeToString(c.body), true
	}
	b, err := json.Marshal(env)
	if err != nil {
		return nil, whisk.E(whisk.Internal, "receive", err)
	}
	return b, nil
}

// headers returns the headers that an event keeps: none that lets its reader
// act as the sender.
func (f *feed) headers(h http.Header) map[string]string {
	out := make(map[string]string, len(h))
	size := 0
	keys := make([]string, 0, len(h))
	for k := range h {
		keys = append(keys, k)
	}
	slices.Sort(keys) // so that the same ones are dropped when there are too many
	for _, k := range keys {
		v := strings.ToValidUTF8(strings.Join(h[k], ", "), "\uFFFD")
		if f.credential(k) || size+len(k)+len(v) > maxHeaders {
			continue
		}
		size += len(k) + len(v)
		out[strings.ToLower(k)] = v
	}
	return out
}

// credential reports whether a header lets whoever reads it act as the sender.
// Key is in canonical form.
func (f *feed) credential(key string) bool {
	switch key {
	case "Authorization", "Proxy-Authorization", "Cookie", "X-Gitlab-Token", "X-Api-Key":
		return true
	}
	return key == f.cfg.header
}

// event makes an event of a request, and says which delivery it is: "" when
// nothing tells.
func (f *feed) event(r *http.Request, body []byte) (ev whisk.Event, delivery string, err error) {
	c := content{r.Header.Get("Content-Type"), body}
	delivery = f.delivery(r.Header, body)
	ce, found, err := cloudEvent(r.Header, c)
	if err != nil {
		return ev, "", err
	}
	ev = whisk.Event{Time: f.p.now().UTC(), Headers: f.headers(r.Header)}
	f.describe(&ev, r.Header, body)
	if found {
		c = ce.content
		ce.describe(&ev)
		// A CloudEvent is told apart by its source and ID together, as its
		// specification has it.
		if delivery == "" {
			delivery = ce.Source + "\n" + ce.ID
		}
	}
	// The whole request, so also the CloudEvent around its data.
	if f.cfg.envelope {
		ev.Payload, err = f.enveloped(r, content{r.Header.Get("Content-Type"), body})
	} else {
		ev.Payload, err = c.merged()
	}
	ev.Meta = f.meta(r.Method, r.URL.RawQuery, delivery)
	return ev, delivery, err
}

// delivery returns the ID that a sender gives a delivery and its repetitions.
// Empty: the sender gives none, and each of its requests is an event of its
// own.
func (f *feed) delivery(h http.Header, body []byte) string {
	// What the parameters name goes before what the preset knows.
	if f.cfg.idHeader != "" {
		return h.Get(f.cfg.idHeader)
	}
	switch f.cfg.preset {
	case github:
		return h.Get("X-Github-Delivery")
	case gitlab:
		if id := h.Get("Idempotency-Key"); id != "" {
			return id
		}
		return h.Get("X-Gitlab-Event-Uuid")
	case slack:
		return member(body, "event_id")
	case stripe:
		return member(body, "id")
	case standard:
		id, _, _ := standardHeaders(h)
		return id
	}
	return h.Get("Idempotency-Key")
}

// describe fills in what the sender calls this sort of event, and what it is
// about.
func (f *feed) describe(ev *whisk.Event, h http.Header, body []byte) {
	switch f.cfg.preset {
	case github:
		ev.Type, ev.Subject = h.Get("X-Github-Event"), member(body, "repository", "full_name")
	case gitlab:
		ev.Type, ev.Subject = h.Get("X-Gitlab-Event"), member(body, "project", "path_with_namespace")
	case slack:
		if ev.Type = member(body, "event", "type"); ev.Type == "" {
			ev.Type = member(body, "type")
		}
	case stripe, standard:
		ev.Type = member(body, "type")
	}
}

// member returns a text inside a JSON body, "" when it is not there.
func member(body []byte, path ...string) string {
	raw := json.RawMessage(body)
	for _, key := range path {
		var m map[string]json.RawMessage
		if json.Unmarshal(raw, &m) != nil {
			return ""
		}
		raw = m[key]
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}
