package controller

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// bigTime is how long a body of more than smallBody bytes, or an answer with
// much code, may be under way: it holds memory meanwhile, and the largest have
// one of few places.
const bigTime = 60 * time.Second

// smallBody is the size, in bytes, up to which nobody minds a body that does
// not come: its connection costs as much.
const smallBody = 64 << 10

// textNoJSON is what OpenWhisk's parser says of nothing, without the lines in
// which it points at the place.
const textNoJSON = "Unexpected end-of-input at input index 0 (line 1, position 1), expected JSON Value"

// payload reads the body of an invocation or an event: a JSON object, {} for
// nothing, at most whisk.MaxPayload bytes.
func payload(w http.ResponseWriter, r *http.Request) (json.RawMessage, error) {
	b, err := readSmall(w, r)
	if err != nil {
		return nil, err
	}
	b = bytes.TrimSpace(b)
	// Before the type is asked for: who sends no body need not name one.
	if len(b) == 0 {
		return json.RawMessage("{}"), nil
	}
	if err := needJSON(r); err != nil {
		return nil, err
	}
	if err := checkJSON(b); err != nil {
		return nil, err
	}
	if b[0] != '{' {
		return nil, malformed("JSON object expected")
	}
	return b, nil
}

// checkJSON refuses what is not JSON, saying where. The good case allocates
// nothing.
func checkJSON(b []byte) error {
	if json.Valid(b) {
		return nil
	}
	// Only Unmarshal says where the fault is; Valid, which costs less, does
	// not.
	var v json.RawMessage
	return malformed(decodeText(json.Unmarshal(b, &v)))
}

// readSmall reads a body of at most whisk.MaxPayload bytes.
func readSmall(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	// Refused by what was announced, before anything is read.
	if r.ContentLength > whisk.MaxPayload {
		return nil, tooLarge("Request", r.ContentLength, whisk.MaxPayload)
	}
	if r.ContentLength == 0 {
		return nil, nil
	}
	came := expect(w, r.ContentLength)
	// One byte more than allowed is enough to know; the rest is never read.
	b, err := readAtMost(r.Body, r.ContentLength, whisk.MaxPayload)
	if err != nil {
		return nil, err
	}
	came()
	if len(b) > whisk.MaxPayload {
		return nil, tooLarge("Request", int64(len(b)), whisk.MaxPayload)
	}
	return b, nil
}

// expect gives a body of known bytes, -1 if that was not said, its time to
// come, unless it is small. The caller calls came when it is there; of one
// that is not, the server would otherwise wait for the rest.
func expect(w http.ResponseWriter, known int64) (came func()) {
	if known >= 0 && known <= smallBody {
		return func() {}
	}
	// A writer that has no deadlines is a test's.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bigTime))
	return func() { _ = control.SetReadDeadline(time.Time{}) }
}

// readAtMost reads up to one byte more than most; known is the length that was
// announced, or -1.
func readAtMost(r io.Reader, known, most int64) ([]byte, error) {
	var b []byte
	var err error
	if known >= 0 && known <= most {
		// The length was checked against most: it is no way to make us take
		// memory.
		b = make([]byte, known)
		_, err = io.ReadFull(r, b)
	} else {
		b, err = io.ReadAll(io.LimitReader(r, most+1))
	}
	if err != nil {
		return nil, unreadable(err)
	}
	return b, nil
}

// members are the members of a JSON object. Names count as they are spelled,
// unknown ones are nobody's concern. Values stay as they came until somebody
// asks, so that a refusal can name the member, and what is kept is what was
// sent.
type members map[string]json.RawMessage

// entityBody reads the body of a PUT, or of a POST that needs one, and calls
// use with its members. While use runs, a large body has one of few places. All
// of the handler runs inside: a place is held as long as the body is.
func (a *api) entityBody(c *call, use func(members) error) error {
	if c.Method == http.MethodPut { // a rule can still be turned off
		if err := a.Events.Room(); err != nil {
			return err
		}
	}
	b, done, err := a.readBig(c)
	if err != nil {
		return err
	}
	defer done()
	if len(bytes.TrimSpace(b)) == 0 {
		return malformed(textNoJSON)
	}
	if err := needJSON(c.Request); err != nil {
		return err
	}
	var m members
	if err := json.Unmarshal(b, &m); err != nil {
		return malformed(decodeText(err))
	}
	// The text null is valid JSON and leaves the map nil.
	if m == nil {
		return malformed("JSON object expected")
	}
	return use(m)
}

// readBig reads a body of at most whisk.MaxBody bytes. The caller calls done
// when it needs the body no more.
func (a *api) readBig(c *call) (b []byte, done func(), err error) {
	done = func() {}
	known := c.ContentLength
	if known > whisk.MaxBody {
		return nil, nil, rejection{tooLarge("Request", known, whisk.MaxBody)}
	}
	// Unknown lengths, -1, begin here too: what turns out to be small takes no
	// place.
	if known <= whisk.MaxPayload {
		came := expect(c.w, known)
		b, err = readAtMost(c.Body, known, whisk.MaxPayload)
		if err == nil {
			came()
		}
		if err != nil || len(b) <= whisk.MaxPayload {
			return b, done, err
		}
	}
	if done, err = c.place(a.bodies); err != nil {
		return nil, nil, err
	}
	if known >= 0 {
		b, err = readAtMost(c.Body, known, whisk.MaxBody)
	} else {
		b, err = readRest(c.Body, b)
	}
	if err != nil {
		done()
		// Nor is the server to wait for the rest before it answers.
		_ = http.NewResponseController(c.w).SetReadDeadline(time.Now())
		return nil, nil, err
	}
	if n := int64(len(b)); n > whisk.MaxBody {
		done()
		return nil, nil, rejection{tooLarge("Request", n, whisk.MaxBody)}
	}
	return b, done, nil
}

// readRest reads a body of unknown length of which the beginning is there, up
// to one byte more than whisk.MaxBody. It takes the most at once: memory that
// is not written to costs nothing, but a slice that grows leaves behind all
// that it was before.
func readRest(r io.Reader, begin []byte) ([]byte, error) {
	b := append(make([]byte, 0, whisk.MaxBody+1), begin...)
	for len(b) < cap(b) {
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil { // io.ErrUnexpectedEOF too: it broke off
			return nil, unreadable(err)
		}
	}
	return b, nil
}

// unreadable is for a body that broke off or did not come in time: whoever sent
// it is to blame, not the server.
func unreadable(err error) error {
	return reject(whisk.Invalid, "The request body could not be read: "+err.Error())
}

// place takes one of a few places for something large, which the caller gives
// back with done. So that nobody keeps one, the connection must get on within
// bigTime.
func (c *call) place(of chan struct{}) (done func(), err error) {
	select {
	case of <- struct{}{}:
	// The client has gone, or the server is about to stop.
	case <-c.Context().Done():
		return nil, whisk.E(whisk.Unavailable, "wait for room", c.Context().Err())
	}
	// A writer that has no deadlines is a test's.
	control := http.NewResponseController(c.w)
	until := time.Now().Add(bigTime)
	_, _ = control.SetReadDeadline(until), control.SetWriteDeadline(until)
	return func() {
		_, _ = control.SetReadDeadline(time.Time{}), control.SetWriteDeadline(time.Time{})
		<-of
	}, nil
}

// needJSON refuses a body of another type.
func needJSON(r *http.Request) error {
	given := r.Header.Get("Content-Type")
	// Nearly every request: no parser is needed.
	if given == typeJSON {
		return nil
	}
	if t, _, err := mime.ParseMediaType(given); err == nil && t == typeJSON {
		return nil
	}
	// The text has the type in brackets, and no brackets when none was given.
	if given != "" {
		given = " [" + given + "]"
	}
	return reject(whisk.Unsupported, "The request's Content-Type"+given+" is not supported. Expected:\n"+typeJSON)
}

// read decodes a member into v, which is left alone when the member is absent
// or null.
func (m members) read(name string, v any) error {
	if !m.has(name) {
		return nil
	}
	if err := json.Unmarshal(m[name], v); err != nil {
		return malformed(decodeText(err))
	}
	return nil
}

// has reports whether a member is there and not null.
func (m members) has(name string) bool {
	raw := m[name]
	return len(raw) > 0 && string(raw) != "null"
}

// text returns a member that is a string; false for anything else.
func (m members) text(name string) (string, bool) {
	var s string
	// No error: the caller knows what to say of a member that is no string.
	if !m.has(name) || json.Unmarshal(m[name], &s) != nil {
		return "", false
	}
	return s, true
}

// decodeText says what is wrong with a JSON text to somebody who does not know
// Go.
func decodeText(err error) string {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		where := ""
		if wrong.Field != "" {
			where = " in field '" + wrong.Field + "'"
		}
		return "Unexpected " + wrong.Value + where
	}
	return err.Error()
}
