package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

const hubRoot = "/hub/v1"

// EventDetail is one event with what its rules made of it; Verdict is nil
// while it is not judged.
type EventDetail struct {
	Event   whisk.Event    `json:"event"`
	Verdict *whisk.Verdict `json:"verdict,omitempty"`
}

// Explanation is the whole story of one event.
type Explanation struct {
	Event   whisk.Event       `json:"event"`
	Waiting bool              `json:"waiting,omitempty"` // it is not judged yet
	Problem string            `json:"problem,omitempty"` // why its rules could not judge it
	Rules   []RuleExplanation `json:"rules"`
}

// RuleExplanation is what one rule made of an event, and what came of that.
type RuleExplanation struct {
	Rule       whisk.Name      `json:"rule"`
	Decision   whisk.Decision  `json:"decision"`
	Reason     string          `json:"reason,omitempty"`
	Action     whisk.Name      `json:"action"`
	Attempts   []whisk.Attempt `json:"attempts,omitempty"`
	DeadLetter string          `json:"deadLetter,omitempty"`
}

// Feed is how a feed is.
type Feed struct {
	Feed    string                     `json:"feed"`    // full name of its action
	Trigger string                     `json:"trigger"` // full name
	Config  map[string]json.RawMessage `json:"config"`  // without secrets
	Status  struct {
		Active bool   `json:"active"`
		State  string `json:"state"`
		Reason *struct {
			Message string `json:"message"`
		} `json:"reason,omitempty"`
		NextFire []time.Time `json:"nextFire,omitempty"`
	} `json:"status"`
	Stats struct {
		Events      uint64    `json:"events"`
		Fired       uint64    `json:"fired,omitempty"`
		Missed      uint64    `json:"missed,omitempty"`
		Failures    int       `json:"failures"` // in a row
		LagMillis   int64     `json:"lagMillis"`
		LastEventAt time.Time `json:"lastEventAt,omitzero"`
		LastError   string    `json:"lastError,omitempty"`
		LastErrorAt time.Time `json:"lastErrorAt,omitzero"`
		Cursor      string    `json:"cursor,omitempty"`
	} `json:"stats"`
	URL string `json:"url,omitempty"` // a webhook's address
}

// Events lists judged events, newest first: of one trigger unless that is
// empty, and not older than since unless that is zero.
func (c *Client) Events(ctx context.Context, trigger string, since time.Time, limit int) ([]whisk.Verdict, error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if trigger != "" {
		q.Set("trigger", trigger)
	}
	if !since.IsZero() {
		q.Set("since", strconv.FormatInt(since.UnixMilli(), 10))
	}
	var out struct {
		Events []whisk.Verdict `json:"events"`
	}
	_, _, err := c.do(ctx, call{method: http.MethodGet, path: hubRoot + "/events", query: q}, &out)
	return out.Events, err
}

// Event returns one event.
func (c *Client) Event(ctx context.Context, id string) (EventDetail, error) {
	var out EventDetail
	_, _, err := c.do(ctx, call{method: http.MethodGet, path: hubRoot + "/events/" + url.PathEscape(id)}, &out)
	return out, err
}

// Explain tells what became of one event, rule by rule.
func (c *Client) Explain(ctx context.Context, id string) (Explanation, error) {
	var out Explanation
	_, _, err := c.do(ctx, call{method: http.MethodGet, path: hubRoot + "/events/" + url.PathEscape(id) + "/explain"}, &out)
	return out, err
}

// Feeds lists the feeds of the key's namespace.
func (c *Client) Feeds(ctx context.Context) ([]Feed, error) {
	var out struct {
		Feeds []Feed `json:"feeds"`
	}
	_, _, err := c.do(ctx, call{method: http.MethodGet, path: hubRoot + "/feeds"}, &out)
	return out.Feeds, err
}

// FeedOf returns the feed of a trigger, with the answer as it came: a feed may
// tell more than Feed holds.
func (c *Client) FeedOf(ctx context.Context, trigger whisk.Name) (Feed, json.RawMessage, error) {
	var out Feed
	path := hubRoot + "/feeds/" + url.PathEscape(trigger.Namespace) + "/" + url.PathEscape(trigger.Entity)
	raw, _, err := c.do(ctx, call{method: http.MethodGet, path: path}, &out)
	return out, raw, err
}

// DeadLetters lists dead letters, newest first.
func (c *Client) DeadLetters(ctx context.Context, p Page) ([]whisk.DeadLetter, error) {
	var out struct {
		DeadLetters []whisk.DeadLetter `json:"deadLetters"`
	}
	_, _, err := c.do(ctx, call{method: http.MethodGet, path: hubRoot + "/dead-letters", query: p.query()}, &out)
	return out.DeadLetters, err
}

// DeadLetter returns one dead letter.
func (c *Client) DeadLetter(ctx context.Context, id string) (whisk.DeadLetter, error) {
	var out whisk.DeadLetter
	_, _, err := c.do(ctx, call{method: http.MethodGet, path: hubRoot + "/dead-letters/" + url.PathEscape(id)}, &out)
	return out, err
}

// Told is one message of Follow: an entry of the journal or, with Lost, that
// some were passed over because we read too slowly.
type Told struct {
	Entry whisk.Entry
	Lost  bool
}

// Follow hands fn what becomes of events, of one trigger unless that is empty,
// as it happens. It calls open once when the server listens, and returns when
// ctx ends, the server closes the stream (nil) or fn fails.
func (c *Client) Follow(ctx context.Context, trigger string, open func(), fn func(Told) error) error {
	q := url.Values{}
	if trigger != "" {
		q.Set("trigger", trigger)
	}
	resp, _, err := c.send(ctx, call{method: http.MethodGet, path: hubRoot + "/events/stream", query: q}, "text/event-stream")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return c.failure(resp.StatusCode, firstBytes(resp.Body))
	}
	// Only after the answer has begun: what happens from here on is told.
	open()
	err = readStream(resp.Body, func(m message) error {
		t, ok, err := told(m)
		if err != nil || !ok {
			return err
		}
		return fn(t)
	})
	// A stream that was cut off by the caller fails in many ways.
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// told reads one message. What a newer server may tell besides is skipped.
func told(m message) (Told, bool, error) {
	var t Told
	switch m.Event {
	case "lost":
		return Told{Lost: true}, true, nil
	case "end":
		var e struct {
			Error string `json:"error"`
		}
		if err := json.Unmarshal(m.Data, &e); err != nil {
			return t, false, whisk.E(whisk.Internal, "read stream", err)
		}
		return t, false, whisk.E(whisk.Unavailable, "", fmt.Errorf("the server ended the stream: %s", e.Error))
	case string(whisk.EntryVerdict), string(whisk.EntryStart), string(whisk.EntryRecord), string(whisk.EntryDead):
		if err := json.Unmarshal(m.Data, &t.Entry); err != nil {
			return t, false, whisk.E(whisk.Internal, "read stream", fmt.Errorf("%s: %w", m.Event, err))
		}
		// On the stream the kind is the message's name.
		t.Entry.Kind = whisk.EntryKind(m.Event)
		return t, true, nil
	}
	return t, false, nil
}
