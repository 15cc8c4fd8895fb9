package hub_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/millrace/millrace/internal/auth"
	"github.com/millrace/millrace/internal/hub"
	"github.com/millrace/millrace/internal/whisk"
)

const (
	uuid = "11111111-2222-3333-4444-555555555555"
	key  = "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"
)

var (
	at        = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	eventID   = whisk.DeriveID(at, "event")
	otherID   = whisk.DeriveID(at, "other namespace")
	trimmedID = whisk.DeriveID(at, "trimmed")
	freshID   = whisk.DeriveID(at, "not judged yet")
	othersID  = whisk.DeriveID(at, "not judged yet, of another namespace")
	deadID    = whisk.DeriveID(at, "dead")
	trigger   = whisk.Name{Namespace: "guest", Entity: "t"}
	onT       = whisk.Name{Namespace: "guest", Entity: "on-t"}
	offT      = whisk.Name{Namespace: "guest", Entity: "off-t"}
	hello     = whisk.Name{Namespace: "guest", Entity: "hello"}
)

// known is a world of three events: one whole, one that the archive let go,
// one of somebody else.
type known struct {
	role    auth.Role
	asked   hub.Query
	entries []whisk.Entry
	lost    bool
	failed  error
}

func (k *known) verdict(seq uint64, id string) whisk.Verdict {
	return whisk.Verdict{
		Event: whisk.Place{Seq: seq, ID: id}, Trigger: trigger, Time: at, At: at,
		Rules: []whisk.RuleVerdict{
			{Rule: offT, Action: hello, Decision: whisk.Filtered, Reason: "payload.a is 1"},
			{Rule: onT, Revision: 4, Action: hello, Decision: whisk.Matched, ActivationID: "a1"},
		},
	}
}

func (k *known) Events(_ context.Context, q hub.Query) ([]whisk.Verdict, error) {
	k.asked = q
	if k.failed != nil {
		return nil, k.failed
	}
	return []whisk.Verdict{k.verdict(7, eventID)}, nil
}

func (k *known) Verdict(_ context.Context, ns, id string) (whisk.Verdict, error) {
	switch {
	case ns == "guest" && id == eventID:
		return k.verdict(7, id), nil
	case ns == "guest" && id == trimmedID:
		return k.verdict(1, id), nil
	}
	return whisk.Verdict{}, whisk.E(whisk.NotFound, "get event", errors.New("the event "+id+" does not exist"))
}

func (k *known) Attempts(_ context.Context, m whisk.Match) ([]whisk.Attempt, string, error) {
	if m != (whisk.Match{Event: 7, Rule: onT}) {
		return nil, "", nil
	}
	return []whisk.Attempt{{ActivationID: "a1", Started: at, Ended: at, Status: "action developer error"}}, deadID, nil
}

func (k *known) DeadLetters(context.Context, string, int, int) ([]whisk.DeadLetter, error) {
	return []whisk.DeadLetter{{ID: deadID, Time: at, Action: hello, Reason: "3 attempts failed"}}, nil
}

func (k *known) DeadLetter(_ context.Context, ns, id string) (whisk.DeadLetter, error) {
	if ns != "guest" || id != deadID {
		return whisk.DeadLetter{}, whisk.E(whisk.NotFound, "get dead letter", errors.New("there is none"))
	}
	return whisk.DeadLetter{ID: deadID, Time: at, Action: hello, Reason: "3 attempts failed"}, nil
}

func (k *known) Follow(_ context.Context, fn func(whisk.Entry, bool) error) error {
	for i, e := range k.entries {
		if err := fn(e, k.lost && i == 0); err != nil {
			return err
		}
	}
	return nil
}

func (k *known) Event(_ context.Context, seq uint64) (whisk.Event, error) {
	if seq != 7 {
		return whisk.Event{}, whisk.E(whisk.NotFound, "read event", errors.New("it was trimmed"))
	}
	return whisk.Event{ID: eventID, Trigger: trigger, Time: at, Payload: json.RawMessage(`{"a":1}`), Meta: json.RawMessage(`{"missed":2}`)}, nil
}

func (k *known) Judged() whisk.Place { return whisk.Place{Seq: 7, ID: eventID} }

func (k *known) FindEvent(_ context.Context, from uint64, id string) (whisk.Event, error) {
	switch {
	case from == 8 && id == freshID:
		return whisk.Event{ID: freshID, Trigger: trigger, Time: at, Payload: json.RawMessage(`{"a":2}`)}, nil
	case from == 8 && id == othersID:
		return whisk.Event{ID: othersID, Trigger: whisk.Name{Namespace: "else", Entity: "t"}, Time: at}, nil
	}
	return whisk.Event{}, whisk.E(whisk.NotFound, "find event", errors.New("there is none"))
}

func (k *known) List(string) any { return []map[string]string{{"trigger": "/guest/t"}} }

func (k *known) Get(ns, name string) (any, error) {
	if ns != "guest" || name != "t" {
		return nil, whisk.E(whisk.NotFound, "get feed", errors.New("the trigger has no feed"))
	}
	return map[string]string{"trigger": "/guest/t"}, nil
}

func (k *known) Authenticate(u, s string) (auth.Identity, error) {
	if u != uuid || s != key {
		return auth.Identity{}, whisk.E(whisk.Unauthorized, "authenticate", errors.New("The supplied authentication is invalid"))
	}
	return auth.Identity{Subject: "guest", Namespace: "guest", UUID: uuid, Role: k.role}, nil
}

func newHub(k *known) http.Handler {
	if k.role == "" {
		k.role = auth.Owner
	}
	return hub.New(hub.Deps{Journal: k, Archive: k, Feeds: k, Keys: k, Log: slog.New(slog.DiscardHandler)})
}

func get(h http.Handler, path string, authed bool) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	if authed {
		r.SetBasicAuth(uuid, key)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestAnswers(t *testing.T) {
	tests := []struct {
		name, path string
		status     int
		has        []string
	}{
		{"list", "/hub/v1/events", 200, []string{`"events":[{"event":{"seq":7,"id":"` + eventID, `"decision":"filtered","reason":"payload.a is 1"`}},
		{"event", "/hub/v1/events/" + eventID, 200, []string{`"payload":{"a":1}`, `"meta":{"missed":2}`, `"verdict":{`}},
		{"event that was trimmed", "/hub/v1/events/" + trimmedID, 200, []string{`"payload":null`, `"verdict":{`}},
		{"event of others", "/hub/v1/events/" + otherID, 404, []string{"does not exist"}},
		{"not an ID", "/hub/v1/events/7", 400, []string{"Activation id length is 1 but must be 32."}},
		{"event not judged yet", "/hub/v1/events/" + freshID, 200, []string{`"payload":{"a":2}`}},
		{"explain before it is judged", "/hub/v1/events/" + freshID + "/explain", 200, []string{`"waiting":true`, `"rules":[]`}},
		{"another namespace's event not judged yet", "/hub/v1/events/" + othersID, 404, []string{"does not exist"}},
		{"explain", "/hub/v1/events/" + eventID + "/explain", 200, []string{`"rule":"/guest/on-t"`, `"attempts":[{"activationId":"a1"`, `"deadLetter":"` + deadID, `"reason":"payload.a is 1"`}},
		{"feeds", "/hub/v1/feeds", 200, []string{`{"feeds":[{"trigger":"/guest/t"}]}`}},
		{"feed", "/hub/v1/feeds/_/t", 200, []string{`{"trigger":"/guest/t"}`}},
		{"feed by an escaped name", "/hub/v1/feeds/_/%74", 200, []string{`{"trigger":"/guest/t"}`}},
		{"feed of others", "/hub/v1/feeds/other/t", 403, []string{"not authorized to access 'other/t'"}},
		{"no feed", "/hub/v1/feeds/guest/x", 404, []string{"no feed"}},
		{"dead letters", "/hub/v1/dead-letters", 200, []string{`{"deadLetters":[{"id":"` + deadID}},
		{"dead letter", "/hub/v1/dead-letters/" + deadID, 200, []string{`"reason":"3 attempts failed"`}},
		{"no dead letter", "/hub/v1/dead-letters/" + eventID, 404, []string{"there is none"}},
		{"bad limit", "/hub/v1/events?limit=201&skip=x", 400, []string{"'limit' must be a whole number from 0 to 200, not '201'", "'skip'"}},
		{"bad since", "/hub/v1/events?since=yesterday", 400, []string{"not 'yesterday'"}},
		{"trigger of others", "/hub/v1/events?trigger=/other/t", 403, []string{"not in your namespace"}},
		{"bad trigger", "/hub/v1/events?trigger=$", 400, []string{"illegal characters"}},
		{"no such path", "/hub/v1/nothing", 404, []string{"could not be found"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := get(newHub(&known{}), tt.path, true)
			if w.Code != tt.status {
				t.Fatalf("GET %s = %d %s, want %d", tt.path, w.Code, w.Body, tt.status)
			}
			for _, has := range tt.has {
				if !strings.Contains(w.Body.String(), has) {
					t.Errorf("GET %s = %s, want it to contain %s", tt.path, w.Body, has)
				}
			}
			if !json.Valid(w.Body.Bytes()) {
				t.Errorf("GET %s answered no JSON: %s", tt.path, w.Body)
			}
		})
	}
}

func TestQueryReachesTheJournal(t *testing.T) {
	k := &known{}
	get(newHub(k), "/hub/v1/events?trigger=t&since=2026-05-01T12:00:00Z&limit=0&skip=3", true)
	want := hub.Query{Namespace: "guest", Trigger: "t", Since: at, Skip: 3, Limit: 200}
	if k.asked != want {
		t.Errorf("asked for %+v, want %+v", k.asked, want)
	}
	get(newHub(k), "/hub/v1/events?since=1777636800000", true)
	if !k.asked.Since.Equal(at) || k.asked.Limit != 30 {
		t.Errorf("asked for %+v, want since %v and limit 30", k.asked, at)
	}
}

func TestInternalErrorsStayInside(t *testing.T) {
	w := get(newHub(&known{failed: errors.New("disk on fire")}), "/hub/v1/events", true)
	if w.Code != 500 || strings.Contains(w.Body.String(), "fire") || w.Header().Get("X-Request-ID") == "" {
		t.Errorf("answer = %d %s, want 500 without the cause, with a request ID", w.Code, w.Body)
	}
}

func TestNeedsAKey(t *testing.T) {
	for _, path := range []string{"/hub/v1/events", "/hub/v1/events/stream", "/hub/v1/feeds", "/hub/v1/dead-letters"} {
		if w := get(newHub(&known{}), path, false); w.Code != 401 || w.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("GET %s without a key = %d %s, want 401", path, w.Code, w.Body)
		}
	}
	r := httptest.NewRequest(http.MethodPost, "/hub/v1/events", nil)
	r.SetBasicAuth(uuid, key)
	w := httptest.NewRecorder()
	newHub(&known{}).ServeHTTP(w, r)
	if w.Code != 405 || w.Header().Get("Allow") != "GET" {
		t.Errorf("POST = %d, Allow %q, want 405 and GET", w.Code, w.Header().Get("Allow"))
	}
}

// TestDocument checks that the OpenAPI document names each route, and no other.
func TestDocument(t *testing.T) {
	w := get(newHub(&known{}), "/hub/v1/openapi.json", false)
	var doc struct {
		OpenAPI string                    `json:"openapi"`
		Paths   map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || doc.OpenAPI != "3.1.0" {
		t.Fatalf("document: %v, version %q", err, doc.OpenAPI)
	}
	var routes, documented []string
	err := chi.Walk(newHub(&known{}).(chi.Routes), func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		routes = append(routes, method+" "+strings.TrimPrefix(route, "/hub/v1"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, verbs := range doc.Paths {
		for verb := range verbs {
			documented = append(documented, strings.ToUpper(verb)+" "+path)
		}
	}
	slices.Sort(routes)
	slices.Sort(documented)
	if !slices.Equal(routes, documented) {
		t.Errorf("routes %v\ndocumented %v", routes, documented)
	}
	for _, m := range regexp.MustCompile(`"#/components/(\w+)/(\w+)"`).FindAllStringSubmatch(w.Body.String(), -1) {
		if !strings.Contains(w.Body.String(), `"`+m[2]+`": {`) {
			t.Errorf("the document refers to %s, which it does not have", m[0])
		}
	}
}

func TestStream(t *testing.T) {
	mine := whisk.Match{Event: 7, Rule: onT}
	k := &known{lost: true}
	v := k.verdict(7, eventID)
	foreign := v
	foreign.Trigger.Namespace = "other"
	foreign.Event.Seq = 8
	second := v
	second.Trigger.Entity = "u"
	second.Event.Seq = 9
	k.entries = []whisk.Entry{
		{Kind: whisk.EntryVerdict, Verdict: &v},
		{Kind: whisk.EntryVerdict, Verdict: &foreign},
		{Kind: whisk.EntryVerdict, Verdict: &second},
		{Kind: whisk.EntryStart, Match: mine, ActivationID: "a1"},
		{Kind: whisk.EntryStart, Match: whisk.Match{Event: 8, Rule: whisk.Name{Namespace: "other", Entity: "r"}}},
		{Kind: whisk.EntryRecord, Match: mine, Record: &whisk.Activation{ID: "a1", Namespace: "guest"}},
		{Kind: whisk.EntryRecord, Match: whisk.Match{Invoke: "i1"}, Record: &whisk.Activation{ID: "i1", Namespace: "guest"}},
		{Kind: whisk.EntryRecord, Match: whisk.Match{Invoke: "i2"}, Record: &whisk.Activation{ID: "i2", Namespace: "other"}},
		{Kind: whisk.EntryDead, Match: mine, Dead: deadID},
		{Kind: whisk.EntryCarry, Match: mine},
	}
	for query, want := range map[string]string{
		"":           "lost verdict verdict start record record dead",
		"?trigger=t": "lost verdict start record dead",
	} {
		srv := httptest.NewServer(newHub(k))
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/hub/v1/events/stream"+query, nil)
		req.SetBasicAuth(uuid, key)
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
			t.Errorf("content type = %q", ct)
		}
		var names []string
		for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
			if name, ok := strings.CutPrefix(sc.Text(), "event: "); ok {
				names = append(names, name)
			}
			if data, ok := strings.CutPrefix(sc.Text(), "data: "); ok && !json.Valid([]byte(data)) {
				t.Errorf("data is no JSON: %s", data)
			}
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("stream%s = %q, want %q", query, got, want)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		srv.Close()
	}
}

// A key that may only start things reads nothing here.
func TestRoles(t *testing.T) {
	for role, want := range map[auth.Role]int{
		auth.Owner: 200, auth.Editor: 200, auth.Viewer: 200, auth.Invoker: 403, auth.Admin: 200,
	} {
		for _, path := range []string{"/hub/v1/events", "/hub/v1/dead-letters", "/hub/v1/feeds"} {
			if w := get(newHub(&known{role: role}), path, true); w.Code != want {
				t.Errorf("%s with a key of role %s = %d %s, want %d", path, role, w.Code, w.Body, want)
			}
		}
	}
}
