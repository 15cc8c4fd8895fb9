package whisk

import (
	"encoding/json"
	"time"
)

// Event is one occurrence on one trigger.
type Event struct {
	ID      string    `json:"id"`      // see NewID; also the trigger's activation ID; same happening, same ID
	Trigger Name      `json:"trigger"` // Package is always empty
	Time    time.Time `json:"time"`    // when the source says it happened, UTC
	// Payload is a JSON object: what the source said, without the trigger's
	// parameters.
	Payload json.RawMessage `json:"payload"`

	Source  string `json:"source,omitempty"`  // who emitted it: a feed action's path, "api"; CloudEvents source where there is one
	Type    string `json:"type,omitempty"`    // the source's name for this sort of event
	Subject string `json:"subject,omitempty"` // what it is about, in the source's words

	Actor   string            `json:"actor,omitempty"`   // the subject that fired it
	Headers map[string]string `json:"headers,omitempty"` // of the request that fired it, lower-case names, without credentials
	Meta    json.RawMessage   `json:"meta,omitempty"`    // a feed's own members of __ow_event: a JSON object

	Cause       string `json:"cause,omitempty"`       // the event or activation that led to it
	Correlation string `json:"correlation,omitempty"` // the first cause's ID
	Hops        int    `json:"hops,omitempty"`        // events between the first cause and this one

	Seq      uint64    `json:"-"` // its place in the archive, from 1; 0 before it is accepted
	Accepted time.Time `json:"-"` // when the archive took it
}

// Origin is what led to a request: the activation that it comes from, which is
// known by the key that was given to that activation alone. It is zero for
// whoever calls with a key of their own.
type Origin struct {
	Cause       string // the activation
	Correlation string // the first cause's ID
	Hops        int    // events between the first cause and the request
}

// Place is a point in the archive of events: a sequence and the ID found
// there, so that a sequence given out twice (after a power cut) is noticed.
type Place struct {
	Seq uint64 `json:"seq"`
	ID  string `json:"id"`
}

// Cursor is the position of a pull source, saved in the same batch as the
// events that it covers.
type Cursor struct {
	Feed     string `json:"feed"`               // the feed's own random ID
	Position string `json:"position"`           // opaque to all but the feed
	Previous string `json:"previous,omitempty"` // the position before the batch, to resume at if the batch turns out torn
	Count    int    `json:"count"`              // events in the batch
}
