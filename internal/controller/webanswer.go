package controller

import (
	"bytes"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"mime"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/whisk"
)

const (
	typeHTML = "text/html; charset=UTF-8"
	typeSVG  = "image/svg+xml"

	textWrongType   = "Response type in header did not match generated content type."
	textUnknownType = "Response did not specify a known content-type."
)

// equalSecret takes the same time for every wrong secret of a length. Otherwise
// the time of a refusal would tell how much of a guess is right.
func equalSecret(want, got string) bool {
	return subtle.ConstantTimeCompare([]byte(want), []byte(got)) == 1
}

// failWeb answers with err as web actions do: the body is indented, and the
// CORS headers are those that the action's answers have.
func (a *api) failWeb(w http.ResponseWriter, r *http.Request, err error) {
	status, text := a.explain(w, r, err)
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	writeWebError(w, status, text)
}

func writeWebError(w http.ResponseWriter, status int, text string) {
	b, err := encode(failure{text, transactionOn(w)})
	if err == nil {
		b, err = indent(b)
	}
	if err != nil {
		b = nil // two strings always encode
	}
	write(w, status, typeJSON, b)
}

// writeWeb answers with what an action returned, in the form that the
// extension asks for. Of a failed action it is the value of "error", so that
// actions can answer with errors of their own making.
func writeWeb(w http.ResponseWriter, r *http.Request, extension string, act *whisk.Activation) error {
	result := act.Result
	switch act.Outcome {
	case whisk.Success:
	case whisk.ApplicationError:
		var failed members
		if err := json.Unmarshal(result, &failed); err != nil {
			return refuse(whisk.Invalid, "There was an error processing your request.")
		}
		// The action's own errors may have a status and a body as any answer
		// has.
		result = failed["error"]
	default:
		return refuse(whisk.Invalid, "There was an error processing your request.")
	}
	// What follows looks at the first byte.
	if result = bytes.TrimSpace(result); len(result) == 0 {
		result = json.RawMessage("{}")
	}
	switch extension {
	case ".json":
		return writeWebJSON(w, result)
	case ".html":
		return writeWebText(w, result, "html", typeHTML)
	case ".svg":
		return writeWebText(w, result, "svg", typeSVG)
	case ".text":
		return writeWebPlain(w, result)
	}
	return writeWebHTTP(w, r, result)
}

// errWebResponse is for a result that can't take the form that was asked for.
// It is the caller's fault as far as OpenWhisk is concerned: a 400.
func errWebResponse(mediaType string) error {
	return refuse(whisk.Invalid, "Response is not valid '%s'.", mediaType)
}

func indent(v json.RawMessage) ([]byte, error) {
	var b bytes.Buffer
	if err := json.Indent(&b, v, "", "  "); err != nil {
		return nil, whisk.E(whisk.Internal, "indent result", err)
	}
	return b.Bytes(), nil
}

// writeWebJSON answers with an object or an array, and nothing smaller.
func writeWebJSON(w http.ResponseWriter, v json.RawMessage) error {
	if v[0] != '{' && v[0] != '[' {
		return errWebResponse(typeJSON)
	}
	b, err := indent(v)
	if err != nil {
		return err
	}
	write(w, http.StatusOK, typeJSON, b)
	return nil
}

// member returns a member of v if v is an object that has it: "body", else the
// one named.
func member(v json.RawMessage, name string) (json.RawMessage, bool) {
	var obj members
	if v[0] != '{' || json.Unmarshal(v, &obj) != nil {
		return nil, false
	}
	// An action made for .http works under every extension by its body.
	if b, ok := obj["body"]; ok {
		return b, true
	}
	b, ok := obj[name]
	return b, ok
}

// writeWebText answers with a string of v, or v itself if it is one.
func writeWebText(w http.ResponseWriter, v json.RawMessage, name, contentType string) error {
	if m, ok := member(v, name); ok {
		v = m
	}
	var s string
	if v[0] != '"' || json.Unmarshal(v, &s) != nil {
		// The text names the type without its charset.
		bare, _, _ := strings.Cut(contentType, ";")
		return errWebResponse(bare)
	}
	write(w, http.StatusOK, contentType, []byte(s))
	return nil
}

// writeWebPlain answers with anything as text.
func writeWebPlain(w http.ResponseWriter, v json.RawMessage) error {
	if m, ok := member(v, "text"); ok {
		v = m
	} else if v[0] == '{' {
		return refuse(whisk.NotFound, "Response does not include requested property.")
	}
	b := []byte(v)
	switch v[0] {
	case '"':
		var s string
		if err := json.Unmarshal(v, &s); err != nil {
			return whisk.E(whisk.Internal, "read result", err)
		}
		b = []byte(s)
	case '{', '[':
		var err error
		if b, err = indent(v); err != nil {
			return err
		}
	}
	write(w, http.StatusOK, typeText, b)
	return nil
}

// webHTTP is what an action says of its answer: {headers, statusCode, body}.
type webHTTP struct {
	status      int // 0: not said
	header      http.Header
	contentType string // as said, empty if not
	body        json.RawMessage
}

// readWebHTTP reads it. Anything else than such an object is refused.
func readWebHTTP(v json.RawMessage) (webHTTP, error) {
	out := webHTTP{header: http.Header{}}
	bad := errWebResponse("message/http")
	var in members
	if v[0] != '{' || json.Unmarshal(v, &in) != nil {
		return out, bad
	}
	if in.has("statusCode") {
		text, ok := in.text("statusCode")
		if !ok {
			text = string(in["statusCode"])
		}
		n, err := strconv.Atoi(text)
		// 1xx would not end the answer, and below 100 the server panics.
		if err != nil || n < 200 || n > 599 {
			return out, bad
		}
		out.status = n
	}
	var headers members
	if err := in.read("headers", &headers); err != nil {
		return out, bad
	}
	for name, value := range headers {
		if err := out.addHeader(name, value); err != nil {
			return out, bad
		}
	}
	if in.has("body") && string(in["body"]) != `""` {
		out.body = in["body"]
	}
	return out, nil
}

// addHeader takes a header from the action: a string, number or boolean, or
// several in an array. What the connection or the server itself says is not the
// action's to say.
func (o *webHTTP) addHeader(name string, value json.RawMessage) error {
	values := []json.RawMessage{value}
	if value[0] == '[' {
		if err := json.Unmarshal(value, &values); err != nil {
			return err
		}
	}
	name = textproto.CanonicalMIMEHeaderKey(name)
	for _, v := range values {
		text := string(v)
		switch {
		case len(v) == 0, v[0] == '{', v[0] == '[', text == "null":
			return errWebResponse("message/http")
		case v[0] == '"':
			if err := json.Unmarshal(v, &text); err != nil {
				return err
			}
		}
		switch name {
		case "Content-Type":
			o.contentType = text
		case "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Upgrade", "Trailer", headerRequestID, headerActivation:
		default:
			if !strings.Contains(name, ":") {
				o.header[name] = append(o.header[name], text)
			}
		}
	}
	return nil
}

// writeWebHTTP answers as the action says.
func writeWebHTTP(w http.ResponseWriter, r *http.Request, v json.RawMessage) error {
	out, err := readWebHTTP(v)
	if err != nil {
		return err
	}
	var body []byte
	contentType := ""
	if len(out.body) > 0 {
		if body, contentType, err = out.content(); err != nil {
			return err
		}
		if bare, _, _ := strings.Cut(contentType, ";"); !accepts(r.Header.Get("Accept"), bare) {
			return errNotAcceptable(contentType)
		}
	}
	h := w.Header()
	// The action's headers replace ours, CORS included.
	for name, values := range out.header {
		h[name] = values
	}
	switch {
	case len(out.body) > 0 && out.status == 0:
		out.status = http.StatusOK
	case out.status == 0:
		out.status = http.StatusNoContent
	}
	// The protocol allows these no body.
	if out.status == http.StatusNoContent || out.status == http.StatusNotModified || len(out.body) == 0 {
		w.WriteHeader(out.status)
		return nil
	}
	write(w, out.status, contentType, body)
	return nil
}

// withCharset adds to a type of text which bytes its characters are, if it does
// not say so itself: readers would guess. JSON and SVG have their own rules.
func withCharset(contentType string) string {
	bare, params, err := mime.ParseMediaType(contentType)
	if err != nil || params["charset"] != "" || isJSON(bare) || bare == typeSVG {
		return contentType
	}
	return contentType + "; charset=UTF-8"
}

// content returns the answer's body in bytes and its type.
func (o *webHTTP) content() (body []byte, contentType string, err error) {
	contentType = o.contentType
	bare := ""
	if contentType != "" {
		if bare, _, err = mime.ParseMediaType(contentType); err != nil || !strings.Contains(bare, "/") {
			return nil, "", refuse(whisk.Invalid, textUnknownType)
		}
	}
	var s string
	// Not a string: it can only be sent as JSON.
	if o.body[0] != '"' || json.Unmarshal(o.body, &s) != nil {
		switch {
		case bare == "":
			return o.body, typeJSON, nil
		case !isJSON(bare):
			return nil, "", refuse(whisk.Invalid, textWrongType)
		}
		body, err = indent(o.body)
		return body, contentType, err
	}
	switch {
	case bare == "":
		return []byte(s), typeHTML, nil
	case isJSON(bare) || isText(bare):
		// Base64 in them is taken for what it stands for, but not in plain text.
		if (isJSON(bare) || bare == typeSVG) && isBase64(s) {
			if body, err := base64.StdEncoding.DecodeString(s); err == nil {
				return body, contentType, nil
			}
		}
		return []byte(s), withCharset(contentType), nil
	}
	// Of every other type a string stands for bytes, and JSON has no other way
	// to hold them.
	if body, err = base64.StdEncoding.DecodeString(s); err != nil {
		return nil, "", refuse(whisk.Invalid, textWrongType)
	}
	return body, contentType, nil
}
