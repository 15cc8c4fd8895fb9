package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"reflect"
	"testing"
	"time"

	"github.com/millrace/millrace/feeds"
	"github.com/millrace/millrace/internal/auth"
	"github.com/millrace/millrace/internal/client"
	"github.com/millrace/millrace/internal/hub"
	"github.com/millrace/millrace/internal/whisk"
)

// told is all that a hub is made of, with one event in it.
type told struct {
	verdict whisk.Verdict
	event   whisk.Event
	dead    whisk.DeadLetter
	feed    feeds.Info
	entries []whisk.Entry
}

func (t *told) Events(context.Context, hub.Query) ([]whisk.Verdict, error) {
	return []whisk.Verdict{t.verdict}, nil
}

func (t *told) Verdict(context.Context, string, string) (whisk.Verdict, error) { return t.verdict, nil }

func (t *told) Attempts(context.Context, whisk.Match) ([]whisk.Attempt, string, error) {
	return t.dead.Attempts, t.dead.ID, nil
}

func (t *told) DeadLetters(context.Context, string, int, int) ([]whisk.DeadLetter, error) {
	return []whisk.DeadLetter{t.dead}, nil
}

func (t *told) DeadLetter(context.Context, string, string) (whisk.DeadLetter, error) {
	return t.dead, nil
}
func (t *told) Judged() whisk.Place                                { return t.verdict.Event }
func (t *told) Event(context.Context, uint64) (whisk.Event, error) { return t.event, nil }
func (t *told) FindEvent(context.Context, uint64, string) (whisk.Event, error) {
	return whisk.Event{}, whisk.NotFound
}
func (t *told) List(string) any                 { return []feeds.Info{t.feed} }
func (t *told) Get(string, string) (any, error) { return t.feed, nil }
func (t *told) Authenticate(uuid, _ string) (auth.Identity, error) {
	if uuid == "11111111-2222-3333-4444-555555555555" {
		return auth.Identity{Subject: "guest", Namespace: "guest", UUID: uuid, Role: auth.Owner}, nil
	}
	return auth.Identity{}, whisk.E(whisk.Unauthorized, "", errors.New("The supplied authentication is invalid"))
}

func (t *told) Follow(_ context.Context, fn func(whisk.Entry, bool) error) error {
	for i, e := range t.entries {
		if err := fn(e, i > 0); err != nil { // some were lost before all but the first
			return err
		}
	}
	return nil
}

// The hub and its client must mean the same by every member: what goes in at
// one end comes out at the other.
func TestHubAndClientAgree(t *testing.T) {
	at := time.Date(2026, 11, 24, 12, 0, 4, 0, time.UTC)
	id := whisk.DeriveID(at, "event")
	name := func(s string) whisk.Name { return whisk.Name{Namespace: "guest", Entity: s} }
	rule := whisk.RuleVerdict{Rule: name("r"), Revision: 3, Action: name("a"), Decision: whisk.Matched, ActivationID: whisk.DeriveID(at, "run")}
	w := &told{
		verdict: whisk.Verdict{Event: whisk.Place{Seq: 7, ID: id}, Trigger: name("t"), Time: at, At: at, Rules: []whisk.RuleVerdict{rule}},
		event:   whisk.Event{ID: id, Trigger: name("t"), Time: at, Payload: json.RawMessage(`{"a":1}`), Meta: json.RawMessage(`{"missed":2}`), Source: "s"},
		dead: whisk.DeadLetter{
			ID: whisk.DeriveID(at, "dead"), Time: at, Match: whisk.Match{Event: 7, Rule: name("r")}, Action: name("a"), Reason: "3 attempts failed",
			Attempts: []whisk.Attempt{{ActivationID: rule.ActivationID, Started: at, Ended: at, Status: "whisk internal error", Error: "gone", Due: at}},
		},
		feed: feeds.Info{
			Feed: "/whisk.system/alarms/alarm", Trigger: "/guest/t", Config: map[string]json.RawMessage{"cron": json.RawMessage(`"@hourly"`)},
			Status: feeds.Status{State: feeds.Degraded, Reason: &feeds.Reason{Message: "because"}, NextFire: []string{at.Format(time.RFC3339)}},
			Stats:  feeds.Stats{Events: 5, Failures: 2, LagMillis: 9, LastEventAt: &at, LastError: "oh", Cursor: "c"},
		},
	}
	w.entries = []whisk.Entry{
		{Kind: whisk.EntryVerdict, Verdict: &w.verdict},
		{Kind: whisk.EntryRecord, Match: whisk.Match{Event: 7, Rule: name("r")}, Attempt: 2, Final: true, Record: &whisk.Activation{
			ID: rule.ActivationID, Namespace: "guest", Name: "a", Version: "0.0.1", Start: at, End: at, Size: -1, Outcome: whisk.ApplicationError, Logs: []string{"x"}, Annotations: whisk.Params{},
		}},
		{Kind: whisk.EntryDead, Match: whisk.Match{Event: 7, Rule: name("r")}, Dead: "d"},
	}
	srv := httptest.NewServer(hub.New(hub.Deps{Journal: w, Archive: w, Feeds: w, Keys: w, Log: slog.New(slog.DiscardHandler)}))
	defer srv.Close()
	key := "11111111-2222-3333-4444-555555555555:kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"
	c, err := client.New(client.Endpoint{Host: srv.URL, Auth: key, APIVersion: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	same := func(what string, got, want any, err error) {
		t.Helper()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s = %+v, %v\nwant %+v", what, got, err, want)
		}
	}
	list, err := c.Events(ctx, "t", at, 5)
	same("Events", list, []whisk.Verdict{w.verdict}, err)
	one, err := c.Event(ctx, id)
	same("Event", one, client.EventDetail{Event: w.event, Verdict: &w.verdict}, err)
	why, err := c.Explain(ctx, id)
	same("Explain", why, client.Explanation{Event: w.event, Rules: []client.RuleExplanation{{
		Rule: rule.Rule, Decision: rule.Decision, Action: rule.Action, Attempts: w.dead.Attempts, DeadLetter: w.dead.ID,
	}}}, err)
	letters, err := c.DeadLetters(ctx, client.Page{Limit: 5})
	same("DeadLetters", letters, []whisk.DeadLetter{w.dead}, err)
	letter, err := c.DeadLetter(ctx, w.dead.ID)
	same("DeadLetter", letter, w.dead, err)

	fed, err := c.Feeds(ctx)
	if err != nil || len(fed) != 1 {
		t.Fatalf("Feeds = %v, %v", fed, err)
	}
	f, _, err := c.FeedOf(ctx, whisk.Name{Namespace: "_", Entity: "t"})
	same("FeedOf", f, fed[0], err)
	if f.Feed != w.feed.Feed || f.Trigger != "/guest/t" || string(f.Config["cron"]) != `"@hourly"` || f.Status.State != feeds.Degraded ||
		f.Status.Reason.Message != "because" || !f.Status.NextFire[0].Equal(at) || f.Stats.Events != 5 || f.Stats.Failures != 2 ||
		f.Stats.LagMillis != 9 || !f.Stats.LastEventAt.Equal(at) || f.Stats.LastError != "oh" || f.Stats.Cursor != "c" {
		t.Errorf("FeedOf = %+v, want what %+v says", f, w.feed)
	}

	var got []whisk.Entry
	lost := 0
	err = c.Follow(ctx, "", func() {}, func(m client.Told) error {
		if m.Lost {
			lost++
		} else {
			got = append(got, m.Entry)
		}
		return nil
	})
	same("Follow", got, w.entries, err)
	if lost != 2 {
		t.Errorf("told of a loss %d times, want 2", lost)
	}
}
