package controller

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/whisk"
)

// Headers and content types, as OpenWhisk writes them. Header names are in
// Go's canonical form, so that they can be set without being made canonical.
const (
	headerRequestID  = "X-Request-Id"
	headerActivation = "X-Openwhisk-Activation-Id"
	typeJSON         = "application/json"
	typeText         = "text/plain; charset=UTF-8"
)

// maxTransaction is the longest transaction ID that is taken from a request.
const maxTransaction = 128

// transactionOf returns the ID that the request brings, or a fresh one. IDs
// that begin with sid_ are the system's own.
func transactionOf(r *http.Request) string {
	id := r.Header.Get(headerRequestID)
	if id == "" || len(id) > maxTransaction || strings.HasPrefix(id, "sid_") || strings.ContainsFunc(id, notTransaction) {
		var b [16]byte
		rand.Read(b[:]) //nolint:errcheck // never fails (crypto/rand, Go 1.24)
		return hex.EncodeToString(b[:])
	}
	return id
}

// notTransaction reports what an ID must not have: clients match it with
// [0-9a-zA-Z_-]+, and it is written into logs.
func notTransaction(c rune) bool {
	return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '_' && c != '-'
}

// transactionOn returns the ID that the answer carries.
func transactionOn(w http.ResponseWriter) string {
	if v := w.Header()[headerRequestID]; len(v) == 1 {
		return v[0]
	}
	return ""
}

// encode writes v as JSON without escapes for HTML. OpenWhisk's texts hold <
// and >, and are to come as they are.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, whisk.E(whisk.Internal, "encode answer", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// write sends an answer. An error would mean that its reader is gone.
func write(w http.ResponseWriter, status int, contentType string, body []byte) {
	// Set directly: every answer comes through here, and Set would make the
	// names canonical again each time.
	h := w.Header()
	h["Content-Type"] = []string{contentType}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// json answers with v.
func (c *call) json(status int, v any) error {
	b, err := encode(v)
	if err != nil {
		return err
	}
	return c.raw(status, b)
}

// raw answers with a text that is JSON.
func (c *call) raw(status int, b []byte) error {
	if !accepts(c.Header.Get("Accept"), typeJSON) {
		return errNotAcceptable(typeJSON)
	}
	restCORS(c.w.Header())
	write(c.w, status, typeJSON, b)
	return nil
}

// ok answers with the text that stands for "done".
func (c *call) ok() error {
	restCORS(c.w.Header())
	write(c.w, http.StatusOK, typeText, []byte("OK"))
	return nil
}

// activation answers with an activation's ID alone.
func (c *call) activation(id string) error {
	c.w.Header()[headerActivation] = []string{id}
	return c.raw(http.StatusAccepted, []byte(`{"activationId":"`+id+`"}`))
}

func errNotAcceptable(contentType string) error {
	return reject(whisk.NotAcceptable, "Resource representation is only available with these types:\n"+contentType)
}

// accepts reports whether an Accept header admits a media type. Parts of the
// header that can't be parsed are passed over; q counts only when it is zero,
// since there is but one type on offer.
func accepts(header, contentType string) bool {
	if header == "" || header == "*/*" {
		return true
	}
	want, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		want = contentType
	}
	major, _, _ := strings.Cut(want, "/")
	for part := range strings.SplitSeq(header, ",") {
		got, params, err := mime.ParseMediaType(strings.TrimSpace(part))
		if err != nil {
			continue
		}
		if q, err := strconv.ParseFloat(params["q"], 64); err == nil && q <= 0 {
			continue
		}
		if got == "*/*" || got == want || got == major+"/*" {
			return true
		}
	}
	return false
}

const (
	corsOrigin  = "Access-Control-Allow-Origin"
	corsHeaders = "Access-Control-Allow-Headers"
	corsMethods = "Access-Control-Allow-Methods"

	stdHeaders   = "Authorization, Origin, X-Requested-With, Content-Type, Accept, User-Agent"
	restMethods  = "GET, DELETE, POST, PUT, HEAD"
	adminMethods = "OPTIONS, GET, POST"
	webMethods   = "OPTIONS, GET, DELETE, POST, PUT, HEAD, PATCH"
)

// cors admits every origin: keys come in a header that scripts set themselves.
func cors(h http.Header, methods, headers string) {
	h[corsOrigin] = []string{"*"}
	h[corsMethods] = []string{methods}
	h[corsHeaders] = []string{headers}
}

// restCORS is on every answer that a handler made. Browsers send no cookies
// here, so any origin may read them.
func restCORS(h http.Header) { cors(h, restMethods, stdHeaders) }

// webCORS allows what the request asks to be allowed.
func webCORS(h http.Header, r *http.Request) {
	headers := r.Header.Get("Access-Control-Request-Headers")
	if headers == "" {
		headers = stdHeaders
	}
	cors(h, webMethods, headers)
}

// options answers OPTIONS on any path, existing or not, for anybody. Browsers
// send it before a request, without credentials: a 401 would forbid them the
// request itself.
func options(w http.ResponseWriter, path string) {
	methods := adminMethods
	if underAPI(path) {
		methods = restMethods
	}
	cors(w.Header(), methods, stdHeaders)
	write(w, http.StatusOK, typeText, []byte("OK"))
}
