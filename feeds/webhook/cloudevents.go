package webhook

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

var errBatch = errors.New("batches of CloudEvents are not read")

// cloud is a CloudEvent of version 1.0: its context, and its data. Extension
// attributes are not read; they are among the event's headers in binary mode.
type cloud struct {
	SpecVersion string `json:"specversion"`
	ID          string `json:"id"`
	Source      string `json:"source"`
	Type        string `json:"type"`
	Subject     string `json:"subject"`
	Time        string `json:"time"`
	DataType    string `json:"datacontenttype"`
	content     content
}

// cloudEvent reads a request as a CloudEvent in structured or binary mode, and
// says whether it is one. It returns Invalid for one that breaks the rules.
func cloudEvent(h http.Header, c content) (cloud, bool, error) {
	mt, _, err := mime.ParseMediaType(c.typ)
	switch {
	// One request is one event here, with one answer.
	case err == nil && mt == "application/cloudevents-batch+json":
		return cloud{}, true, whisk.E(whisk.Invalid, "receive", errBatch)
	case err == nil && mt == "application/cloudevents+json":
		return structured(c.body)
	case h.Get("Ce-Specversion") != "":
		ce := cloud{
			SpecVersion: h.Get("Ce-Specversion"), ID: decoded(h, "Id"), Source: decoded(h, "Source"), Type: decoded(h, "Type"),
			Subject: decoded(h, "Subject"), Time: decoded(h, "Time"), content: c,
		}
		return ce, true, ce.check()
	}
	return cloud{}, false, nil
}

// decoded returns an attribute from its header, where what is not plain ASCII
// is percent-encoded.
func decoded(h http.Header, name string) string {
	v := h.Get("Ce-" + name)
	// Where the header is no valid encoding, it is taken as it stands.
	if s, err := url.PathUnescape(v); err == nil {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	return v
}

// structured reads an event whose context and data are one JSON object.
func structured(body []byte) (cloud, bool, error) {
	var ce struct {
		cloud
		Data   json.RawMessage `json:"data"`
		Base64 *string         `json:"data_base64"`
	}
	if err := json.Unmarshal(body, &ce); err != nil {
		return cloud{}, true, whisk.E(whisk.Invalid, "receive", errJSON)
	}
	if ce.Base64 != nil && ce.Data != nil {
		return cloud{}, true, whisk.E(whisk.Invalid, "receive", errors.New("a CloudEvent has data or data_base64, not both"))
	}
	switch {
	case ce.Base64 != nil:
		data, err := base64.StdEncoding.DecodeString(*ce.Base64)
		if err != nil {
			return cloud{}, true, whisk.E(whisk.Invalid, "receive", errors.New("data_base64 is not base64"))
		}
		ce.content = content{ce.DataType, data}
	case ce.Data != nil && !isJSON(ce.DataType) && ce.Data[0] == '"':
		// Data of another type stands in the JSON as a text.
		var text string
		if err := json.Unmarshal(ce.Data, &text); err != nil {
			return cloud{}, true, whisk.E(whisk.Invalid, "receive", errJSON)
		}
		ce.content = content{ce.DataType, []byte(text)}
	// Null is no data, as none is.
	case !bytes.Equal(ce.Data, []byte("null")):
		ce.content = content{"application/json", ce.Data}
	}
	return ce.cloud, true, ce.check()
}

// isJSON reports whether data of this type stands in the JSON as itself. Data
// without a type is JSON.
func isJSON(typ string) bool { return typ == "" || sortOf(typ, []byte("x")) == jsonBody }

// check refuses an event without what every CloudEvent must have.
func (ce *cloud) check() error {
	if ce.SpecVersion != "1.0" {
		return whisk.E(whisk.Invalid, "receive", fmt.Errorf("CloudEvents of version %q are not read, only 1.0", ce.SpecVersion))
	}
	for name, v := range map[string]string{"id": ce.ID, "source": ce.Source, "type": ce.Type} {
		if v == "" {
			return whisk.E(whisk.Invalid, "receive", fmt.Errorf("the CloudEvent has no %s", name))
		}
	}
	if _, err := time.Parse(time.RFC3339, ce.Time); ce.Time != "" && err != nil {
		return whisk.E(whisk.Invalid, "receive", errors.New("the CloudEvent's time is not RFC 3339"))
	}
	return nil
}

// describe gives an event the CloudEvent's own words.
func (ce *cloud) describe(ev *whisk.Event) {
	ev.Source, ev.Type, ev.Subject = ce.Source, ce.Type, ce.Subject
	// Without a time, that of the request stays.
	if t, err := time.Parse(time.RFC3339, ce.Time); err == nil {
		ev.Time = t.UTC()
	}
}
