package invoker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/whisk"
)

// Texts of activations that went wrong, as OpenWhisk words them.
const (
	textInitLost   = "The action did not initialize and exited unexpectedly."
	textRunLost    = "The action did not produce a valid response and exited unexpectedly."
	textMemory     = "The action exhausted its memory and was aborted."
	textProvision  = "Failed to provision resources to run the action."
	textNoCode     = "Action could not be fetched."
	textInit       = "The action failed during initialization"
	textInvalid    = "The action did not produce a valid JSON or JSON Array response"
	textTimeout    = "The action exceeded its time limits of %d milliseconds."
	textInitTime   = "The action exceeded its time limits of %d milliseconds during initialization."
	textTooLong    = "The action produced a response that exceeded the allowed length: %d > %d bytes. The truncated response was: %s"
	textNotPresent = "The runtime of kind '%s' is not offered here."
)

// answer is what a container said to an init or a run: an HTTP status, the
// first whisk.MaxPayload bytes of the body, and the body's whole length.
type answer struct {
	status int
	body   []byte
	size   int
}

// response is the part of a record that an answer decides.
type response struct {
	outcome whisk.Outcome
	result  json.RawMessage
	size    int // -1: no answer
}

// fail returns the response with text as its error.
func fail(o whisk.Outcome, text string) response {
	return response{outcome: o, result: errorResult(quote(text)), size: -1}
}

func failSized(o whisk.Outcome, text string, a answer) response {
	r := fail(o, text)
	r.size = a.length()
	return r
}

func errorResult(value json.RawMessage) json.RawMessage {
	return append(append([]byte(`{"error":`), value...), '}')
}

// length is what a record gives as the size of the answer: characters as Java
// counts them, or bytes when not all of them are here.
func (a answer) length() int {
	if a.size > len(a.body) {
		return a.size
	}
	n := 0
	for _, c := range a.body {
		switch {
		case c >= 0xf0: // four bytes are a pair of surrogates
			n += 2
		case c&0xc0 != 0x80:
			n++
		}
	}
	return n
}

// tooLong is the text for an answer beyond the limit. The cut may go through a
// character, and records are JSON: the broken one is replaced.
func (a answer) tooLong() string {
	return fmt.Sprintf(textTooLong, a.size, whisk.MaxPayload, strings.ToValidUTF8(string(a.body), "\ufffd"))
}

// ofRun turns the answer to a run into a response. The cases are OpenWhisk's,
// down to the outcome of each: an object with an error member is an application
// error by status 200 and a developer error by any other, an array is a result
// by status 200 only, and a scalar is none. Of an object with an error only the
// error is kept.
func (a answer) ofRun() response {
	if a.size > whisk.MaxPayload {
		return failSized(whisk.ApplicationError, a.tooLong(), a)
	}
	body := bytes.TrimSpace(a.valid())
	switch {
	// An empty body is not valid JSON, so body[0] is there.
	case !json.Valid(body) || (body[0] != '{' && body[0] != '['):
		return failSized(whisk.DeveloperError, withText(textInvalid, body), a)
	case body[0] == '[':
		if a.status != 200 {
			return failSized(whisk.DeveloperError, withText(textInvalid, body), a)
		}
		return response{whisk.Success, body, a.length()}
	}
	value, found := member(body, "error")
	switch {
	case a.status == 200 && !found:
		return response{whisk.Success, body, a.length()}
	case a.status == 200:
		return response{whisk.ApplicationError, errorResult(value), a.length()}
	case found:
		return response{whisk.DeveloperError, errorResult(value), a.length()}
	}
	return failSized(whisk.DeveloperError, withText(textInvalid, body), a)
}

// ofInit turns the answer to a failed init into a response. An error that the
// other side words itself is told as it is; anything else is told as OpenWhisk
// tells it, with what was answered.
func (a answer) ofInit() response {
	if a.size > whisk.MaxPayload {
		return failSized(whisk.DeveloperError, a.tooLong(), a)
	}
	body := bytes.TrimSpace(a.valid())
	if json.Valid(body) && body[0] == '{' {
		if value, found := member(body, "error"); found {
			return response{whisk.DeveloperError, errorResult(value), a.length()}
		}
	}
	return failSized(whisk.DeveloperError, withText(textInit, body), a)
}

// valid returns the body as valid UTF-8: records are JSON.
func (a answer) valid() []byte {
	if utf8.Valid(a.body) {
		return a.body
	}
	return bytes.ToValidUTF8(a.body, []byte("\ufffd"))
}

func withText(text string, body []byte) string {
	if len(body) == 0 {
		return text + "."
	}
	return text + ": " + string(body)
}

// quote returns s as a JSON string. Most strings here are plain names and IDs
// and are copied as they are: it is on the road of every activation. HTML's
// characters stay readable.
func quote(s string) json.RawMessage {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			_ = e.Encode(s) // a string always can be
			return bytes.TrimSpace(b.Bytes())
		}
	}
	return append(append(append(make([]byte, 0, len(s)+2), '"'), s...), '"')
}

// member returns the value of a top-level member of a JSON object; the last one
// if there are several. The object must be valid. It looks at one level and
// decodes nothing, as a result may have a MiB and is only asked whether it
// holds an error.
func member(object []byte, name string) (value []byte, found bool) {
	for i := skipSpace(object, 1); object[i] != '}'; {
		end := skipValue(object, i)
		key := object[i+1 : end-1]
		i = skipSpace(object, skipSpace(object, end)+1) // past the colon
		end = skipValue(object, i)
		if string(key) == name || bytes.IndexByte(key, '\\') >= 0 && unquoted(key) == name {
			value, found = object[i:end], true
		}
		if i = skipSpace(object, end); object[i] == ',' {
			i = skipSpace(object, i+1)
		}
	}
	return value, found
}

func unquoted(key []byte) string {
	var s string
	_ = json.Unmarshal(append(append([]byte{'"'}, key...), '"'), &s) // valid, as its object is
	return s
}

func skipSpace(b []byte, i int) int {
	for b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r' {
		i++
	}
	return i
}

// skipValue returns the index behind the value that begins at i. A bracket that
// the value did not open, a comma and a space end it. It relies on the JSON
// being valid.
func skipValue(b []byte, i int) int {
	depth := 0
	for ; i < len(b); i++ {
		switch b[i] {
		case '"':
			for i++; b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
		}
	}
	return i
}
