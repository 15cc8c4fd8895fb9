package controller_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/auth"
	"github.com/millrace/millrace/internal/whisk"
)

func TestFire(t *testing.T) {
	w := newWorld(t)
	c := w.caller(t)
	c.must(200, "PUT", "triggers/t", `{"parameters":[{"key":"p","value":1}]}`)
	c.must(200, "PUT", "actions/a", echo)

	r := c.request("POST", "triggers/t", ` {"a": [1, "<"]} `)
	r.Header.Set("Cookie", "secret=1")
	r.Header.Add("X-Two", "1")
	r.Header.Add("X-Two", "2")
	answer, body := c.send(r)
	if answer.StatusCode != 204 || body != "" || answer.Header.Get("X-Openwhisk-Activation-Id") != "" {
		t.Errorf("fire without a rule = %d %q, want 204 and nothing", answer.StatusCode, body)
	}
	if len(w.events) != 1 {
		t.Fatalf("%d events were accepted, want 1: no rule is no reason", len(w.events))
	}
	ev := w.events[0]
	if string(ev.Payload) != `{"a": [1, "<"]}` || ev.Source != "api" || ev.Actor != "guest" ||
		ev.Trigger != (whisk.Name{Namespace: "guest", Entity: "t"}) || ev.Time.IsZero() || whisk.CheckID(ev.ID) != nil {
		t.Errorf("the event is %+v", ev)
	}
	if ev.Headers["x-two"] != "1, 2" || ev.Headers["host"] == "" || ev.Headers["content-type"] != "application/json" {
		t.Errorf("its headers are %v", ev.Headers)
	}
	for _, name := range []string{"authorization", "cookie", "Cookie", "content-length"} {
		if v, ok := ev.Headers[name]; ok {
			t.Errorf("its headers tell %s: %q", name, v)
		}
	}

	c.must(200, "PUT", "rules/r", `{"trigger":"/_/t","action":"/_/a"}`)
	answer, body = c.send(c.request("POST", "triggers/t", ""))
	var told struct {
		ID string `json:"activationId"`
	}
	if err := json.Unmarshal([]byte(body), &told); err != nil || answer.StatusCode != 202 ||
		told.ID != w.events[1].ID || answer.Header.Get("X-Openwhisk-Activation-Id") != told.ID {
		t.Errorf("fire = %d %s, want 202 and the event's ID %s", answer.StatusCode, body, w.events[1].ID)
	}
	if string(w.events[1].Payload) != "{}" {
		t.Errorf("the payload of nothing is %s, want {}", w.events[1].Payload)
	}
}

// What is asked for with the key of an activation is known to come from there.
func TestOrigin(t *testing.T) {
	w := newWorld(t)
	c := w.caller(t)
	c.must(200, "PUT", "triggers/t", `{}`)
	c.must(200, "PUT", "packages/p", `{}`)
	c.must(200, "PUT", "actions/a", echo)
	c.must(200, "PUT", "actions/p/a", strings.Replace(echo, "{", `{"annotations":[{"key":"web-export","value":true}],`, 1))
	owner, _ := w.keys.Owner("guest")
	from := whisk.Origin{Cause: whisk.NewID(time.Now()), Correlation: whisk.NewID(time.Now()), Hops: 4}
	owner.Origin = from
	minted := c.as(w.keys.Mint(owner, time.Now().Add(time.Minute)))
	for _, tt := range []struct {
		caller *caller
		want   whisk.Origin
	}{{minted, from}, {c, whisk.Origin{}}} {
		w.events, w.invoked = nil, nil
		tt.caller.must(204, "POST", "triggers/t", `{}`)
		tt.caller.must(202, "POST", "actions/a", `{}`)
		tt.caller.must(200, "POST", "actions/a?blocking=true", `{}`)
		tt.caller.must(200, "GET", "/api/v1/web/guest/p/a.json", "")
		ev := w.events[0]
		if got := (whisk.Origin{Cause: ev.Cause, Correlation: ev.Correlation, Hops: ev.Hops}); got != tt.want {
			t.Errorf("the event comes from %+v, want %+v", got, tt.want)
		}
		if len(w.invoked) != 3 {
			t.Fatalf("%d invocations, want 3", len(w.invoked))
		}
		for i, inv := range w.invoked {
			if inv.Correlation != tt.want.Correlation || inv.Hops != tt.want.Hops || inv.Cause != "" {
				t.Errorf("invocation %d has correlation %q, %d hops and cause %q, want those of %+v and no cause", i, inv.Correlation, inv.Hops, inv.Cause, tt.want)
			}
		}
	}
}

// A rule is linked to one incarnation of its trigger.
func TestRuleLinks(t *testing.T) {
	w := newWorld(t)
	c := w.caller(t)
	rulesOf := func(trigger string) any {
		t.Helper()
		var got map[string]any
		if err := json.Unmarshal([]byte(c.must(200, "GET", "triggers/"+trigger, "")), &got); err != nil {
			t.Fatal(err)
		}
		return got["rules"]
	}
	status := func() string {
		t.Helper()
		var got struct{ Status string }
		if err := json.Unmarshal([]byte(c.must(200, "GET", "rules/r", "")), &got); err != nil {
			t.Fatal(err)
		}
		return got.Status
	}
	want := func(what string, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%s: %v, want %v", what, got, want)
		}
	}
	linked := func(status string) any {
		return map[string]any{"guest/r": map[string]any{"action": map[string]any{"path": "guest", "name": "a"}, "status": status}}
	}

	c.must(200, "PUT", "actions/a", echo)
	c.must(200, "PUT", "triggers/one", `{}`)
	c.must(200, "PUT", "triggers/two", `{}`)
	want("before any rule", rulesOf("one"), nil)
	c.must(200, "PUT", "rules/r", `{"trigger":"/_/one","action":"/_/a"}`)
	want("linked", rulesOf("one"), linked("active"))
	c.must(200, "PUT", "rules/r?overwrite=true", `{"trigger":"/_/two"}`)
	want("moved away", rulesOf("one"), map[string]any{})
	want("moved to", rulesOf("two"), linked("active"))
	c.must(200, "POST", "rules/r", `{"status":"inactive","trigger":null,"action":null}`)
	want("made inactive", rulesOf("two"), linked("inactive"))
	c.must(200, "POST", "rules/r", `{"status":"active"}`)

	c.must(200, "DELETE", "triggers/two", "")
	want("trigger gone", status(), "inactive")
	c.must(200, "PUT", "triggers/two", `{}`)
	want("trigger made anew", status(), "inactive")
	want("the new trigger", rulesOf("two"), nil)
	c.must(200, "POST", "rules/r", `{"status":"active"}`)
	want("activated again", status(), "active")
	want("linked again", rulesOf("two"), linked("active"))

	c.must(200, "DELETE", "triggers/two", "")
	c.must(200, "PUT", "triggers/two", `{}`)
	c.must(200, "PUT", "rules/r?overwrite=true", `{}`)
	want("PUT over a lost link", status(), "inactive")
	want("shows it", rulesOf("two"), linked("inactive"))
	c.must(200, "DELETE", "rules/r", "")
	want("after the last", rulesOf("two"), map[string]any{})

	var tr struct {
		Version string
	}
	if err := json.Unmarshal([]byte(c.must(200, "GET", "triggers/one", "")), &tr); err != nil || tr.Version != "0.0.1" {
		t.Errorf("linking made the trigger's version %q, want 0.0.1", tr.Version)
	}
}

// An action is never put into a package that is being deleted: whoever comes
// first, no action is left without its package.
func TestPutIntoAPackageThatGoes(t *testing.T) {
	for _, tt := range []struct {
		name, query string
		old         string // an action that is in it already
		deleted     int    // what the deletion is answered with
	}{
		{"empty", "", "", 409},
		{"by force", "?force=true", "", 200},
		{"with another, by force", "?force=true", "b", 200},
		{"the same, by force", "?force=true", "a", 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				h := w.handler(t)
				ask := func(method, path, body string) int {
					r := httptest.NewRequestWithContext(t.Context(), method, root+path, strings.NewReader(body))
					r.Header.Set("Content-Type", "application/json")
					r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(guestKey)))
					rec := httptest.NewRecorder()
					h.ServeHTTP(rec, r)
					return rec.Code
				}
				ask("PUT", "packages/p", `{}`)
				if tt.old != "" {
					ask("PUT", "actions/p/"+tt.old, echo)
				}
				deleted := make(chan int, 1)
				w.coming = func(n whisk.Name) {
					w.coming = nil
					go func() { deleted <- ask("DELETE", "packages/p"+tt.query, "") }()
					synctest.Wait() // the deletion has come as far as it comes now
				}
				if got := ask("PUT", "actions/p/a?overwrite=true", echo); got != 200 {
					t.Errorf("PUT = %d, want 200: the package was there", got)
				}
				if got := <-deleted; got != tt.deleted {
					t.Errorf("DELETE = %d, want %d", got, tt.deleted)
				}
				_, _, err := w.packages.Get(whisk.Name{Namespace: "guest", Entity: "p"})
				if left := w.actions.List("guest"); err != nil && len(left) > 0 {
					t.Errorf("%d actions are left of a package that is gone", len(left))
				}
				if tt.deleted == 200 {
					if got := ask("PUT", "actions/p/a", echo); got != 404 {
						t.Errorf("PUT after it = %d, want 404", got)
					}
				}
			})
		})
	}
}

// Many rules may be linked to one new trigger at once.
func TestRuleLinkRace(t *testing.T) {
	w := newWorld(t)
	c := w.caller(t)
	c.must(200, "PUT", "actions/a", echo)
	c.must(200, "PUT", "triggers/t", `{}`)
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			answer, body := c.send(c.request("PUT", "rules/r"+string(rune('a'+i)), `{"trigger":"/_/t","action":"/_/a"}`))
			if answer.StatusCode != 200 {
				t.Errorf("PUT of a rule = %d %s", answer.StatusCode, body)
			}
		})
	}
	wait.Wait()
}

// A trigger that somebody else keeps writing is given up at last; a rule that
// somebody else writes, at once.
func TestLostRace(t *testing.T) {
	w := newWorld(t)
	c := w.caller(t)
	c.must(200, "PUT", "actions/a", echo)
	c.must(200, "PUT", "triggers/t", `{}`)
	race := whisk.E(whisk.Conflict, "put", errRace)
	tries := 0
	w.before = func(n whisk.Name) error {
		if n.Entity == "t" {
			tries++
			return race
		}
		return nil
	}
	if got := errorIn(t, c.must(409, "PUT", "rules/r", `{"trigger":"/_/t","action":"/_/a"}`)); got != errRace.Error() || tries < 2 {
		t.Errorf("after %d tries: %q, want more than one and %q", tries, got, errRace)
	}
	if got := errorIn(t, c.must(409, "PUT", "triggers/t?overwrite=true", `{}`)); got != errRace.Error() {
		t.Errorf("a lost PUT: %q, want %q", got, errRace)
	}
}

func TestActionUpdate(t *testing.T) {
	w := newWorld(t)
	c := w.caller(t)
	put := func(query, body string) (got struct {
		Version     string
		Parameters  whisk.Params
		Annotations whisk.Params
		Limits      map[string]int
		Exec        map[string]any
	},
	) {
		t.Helper()
		if err := json.Unmarshal([]byte(c.must(200, "PUT", "actions/a"+query, body)), &got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	a := put("", `{"exec":{"kind":" Python:Default ","code":"YWJj"},"parameters":[{"key":"p","value":1,"init":true}],
		"annotations":[{"key":"a","value":1},{"key":"b","value":1},{"key":"exec","value":"mine"},{"key":"provide-api-key","value":true}],"extra":1}`)
	if a.Exec["kind"] != "python:3" || a.Exec["binary"] != true || a.Annotations.Text("exec") != "python:3" || !a.Annotations.Truthy("provide-api-key") {
		t.Errorf("created: %+v", a)
	}
	a = put("?overwrite=true", `{"annotations":[{"key":"b","value":2},{"key":"c","value":3}],"delAnnotations":["a","none"],"limits":{"memory":128,"instances":3}}`)
	if a.Annotations.Get("a") != nil || string(a.Annotations.Get("b")) != "2" || string(a.Annotations.Get("c")) != "3" || len(a.Parameters) != 1 || !a.Parameters[0].Init {
		t.Errorf("annotations merged: %+v", a)
	}
	if a.Limits["memory"] != 128 || a.Limits["timeout"] != 60000 || a.Limits["instances"] != 3 || a.Version != "0.0.2" {
		t.Errorf("limits merged: %+v", a)
	}
	a = put("?overwrite=true", `{"parameters":[],"exec":{"kind":"blackbox","image":"host:5000/a/b:tag","code":"plain text"},"delAnnotations":["provide-api-key"]}`)
	if len(a.Parameters) != 0 || a.Exec["image"] != "host:5000/a/b:tag" || a.Exec["binary"] != false || a.Annotations.Text("exec") != "blackbox" || a.Annotations.Get("provide-api-key") != nil {
		t.Errorf("exec replaced: %+v", a)
	}
	a = put("?overwrite=true", `{"exec":{"kind":"blackbox","image":"a"}}`)
	if _, has := a.Exec["code"]; has {
		t.Errorf("an image without code shows some: %v", a.Exec)
	}
	c.must(200, "PUT", "actions/java", `{"exec":{"kind":"java:8","jar":"AAAA","main":"Hello"}}`)
	if got := c.must(200, "GET", "actions/java", ""); !strings.Contains(got, `"code":"AAAA"`) || !strings.Contains(got, `"main":"Hello"`) {
		t.Errorf("a jar is %s", got)
	}
}

// What is stored of a kind that is not made any more can be read and deleted.
func TestDeprecatedKind(t *testing.T) {
	w := newWorld(t)
	c := w.caller(t)
	n := whisk.Name{Namespace: "guest", Entity: "old"}
	act := whisk.Action{Meta: whisk.Meta{Name: n, Version: "0.0.1"}, Exec: whisk.Exec{Kind: "python:2"}, Limits: whisk.StdLimits()}
	if _, err := w.actions.Put(t.Context(), n, act, 0); err != nil {
		t.Fatal(err)
	}
	const text = "The 'python:2' runtime is no longer supported. You may read and delete but not update or invoke this action."
	for method, path := range map[string]string{"PUT": "actions/old?overwrite=true", "POST": "actions/old"} {
		if got := errorIn(t, c.must(400, method, path, `{}`)); got != text {
			t.Errorf("%s: %q, want %q", method, got, text)
		}
	}
	c.must(200, "GET", "actions/old", "")
	c.must(200, "DELETE", "actions/old", "")
}

// Packages are shared between namespaces, and nothing else is.
func TestSharing(t *testing.T) {
	w := newWorld(t)
	guest := w.caller(t)
	friend := guest.as(friendKey)
	guest.must(200, "PUT", "packages/open", `{"publish":true,"parameters":[{"key":"p","value":1}]}`)
	guest.must(200, "PUT", "packages/closed", `{}`)
	guest.must(200, "PUT", "actions/open/a", plain)
	guest.must(200, "PUT", "actions/closed/a", plain)
	guest.must(200, "PUT", "actions/a", plain)
	const theirs = "/api/v1/namespaces/guest/"
	for path, status := range map[string]int{
		"packages/open": 200, "packages/closed": 403, "packages/none": 403, "actions/open/a": 200, "actions/open/": 200, "actions/closed/a": 403,
		"actions/a": 403, "actions": 403, "triggers": 403, "rules/x": 403, "limits": 403,
	} {
		friend.must(status, "GET", theirs+path, "")
	}
	if got := friend.must(200, "GET", theirs+"packages", ""); !strings.Contains(got, `"open"`) || strings.Contains(got, `"closed"`) {
		t.Errorf("a stranger's list is %s", got)
	}
	friend.must(403, "PUT", theirs+"actions/open/b", echo)
	friend.must(403, "DELETE", theirs+"actions/open/a", "")
	friend.must(403, "PUT", theirs+"packages/open?overwrite=true", `{}`)
	if got := friend.must(200, "POST", theirs+"actions/open/a?blocking=true&result=true", `{"q":2}`); got != `{"args":{"p":1,"q":2}}` {
		t.Errorf("a shared action answers %s", got)
	}
	if inv := w.invoked[0]; inv.Namespace != "friend" || inv.Subject != "friend" {
		t.Errorf("it ran for %s of %s, want friend", inv.Subject, inv.Namespace)
	}

	friend.must(200, "PUT", "packages/mine", `{"binding":{"namespace":"guest","name":"open"}}`)
	friend.must(403, "PUT", "packages/other", `{"binding":{"namespace":"guest","name":"closed"}}`)
	friend.must(202, "POST", "actions/mine/a", `{}`)
	guest.must(200, "PUT", "actions/open/a?overwrite=true", `{"annotations":[{"key":"web-export","value":true}]}`)
	friend.must(200, "GET", "/api/v1/web/friend/mine/a.json", "")
	if inv := w.invoked[len(w.invoked)-1]; inv.Namespace != "friend" {
		t.Errorf("a web action ran for %s, want the address's owner", inv.Namespace)
	}
	guest.must(200, "PUT", "packages/open?overwrite=true", `{"publish":false}`)
	friend.must(403, "POST", "actions/mine/a", `{}`)
	friend.must(403, "GET", "packages/mine", "")
	friend.must(404, "GET", "/api/v1/web/friend/mine/a.json", "")
	friend.must(200, "DELETE", "packages/mine", "")
}

// A key may do what its role says.
func TestRoles(t *testing.T) {
	w := newWorld(t)
	c := w.caller(t)
	c.must(200, "PUT", "actions/a", echo)
	c.must(200, "PUT", "triggers/t", `{}`)
	as := func(r auth.Role) *caller {
		uuid, key, err := w.keys.Create(t.Context(), "somebody", "guest", r)
		if err != nil {
			t.Fatal(err)
		}
		return c.as(uuid + ":" + key)
	}
	viewer, invoker, editor := as(auth.Viewer), as(auth.Invoker), as(auth.Editor)
	viewer.must(200, "GET", "actions/a", "")
	viewer.must(403, "POST", "actions/a", "")
	viewer.must(403, "POST", "triggers/t", "")
	viewer.must(403, "PUT", "actions/b", echo)
	invoker.must(202, "POST", "actions/a", "")
	invoker.must(204, "POST", "triggers/t", "")
	invoker.must(403, "GET", "actions/a", "")
	editor.must(200, "PUT", "actions/b", echo)
	editor.must(200, "DELETE", "actions/b", "")
}

func TestFailures(t *testing.T) {
	w := newWorld(t)
	c := w.caller(t)
	c.must(200, "PUT", "actions/a", `{"exec":{"kind":"python:3","code":"return args"},"annotations":[{"key":"web-export","value":true}]}`)
	c.must(200, "PUT", "triggers/t", `{}`)
	for _, path := range []string{"actions/a", "actions/a?blocking=true", "triggers/t", "/api/v1/web/guest/default/a"} {
		w.refuse = whisk.E(whisk.Unavailable, "accept", errors.New("the disk at /secret is full"))
		answer, body := c.send(c.request("POST", path, `{}`))
		if got := errorIn(t, body); answer.StatusCode != 503 || answer.Header.Get("Retry-After") == "" || !strings.HasPrefix(got, "The server is currently unavailable") {
			t.Errorf("overload of %s = %d %q", path, answer.StatusCode, got)
		}
		w.refuse = errors.New("secret trouble")
		if got := errorIn(t, c.must(500, "POST", path, `{}`)); got != "There was an internal server error." {
			t.Errorf("trouble of %s = %q", path, got)
		}
	}
	w.refuse = whisk.E(whisk.Internal, "read", whisk.ErrCorrupt)
	if got := errorIn(t, c.must(500, "POST", "actions/a?blocking=true", `{}`)); got != "Resource is corrupted and cannot be read." {
		t.Errorf("what can't be read = %q", got)
	}
	// What has a remedy is told, and keeps all that would be stored out.
	w.refuse = whisk.WithHint(whisk.E(whisk.Unavailable, "accept", errors.New("the disk is nearly full")), "free some on /secret")
	for _, call := range [][3]string{
		{"POST", "triggers/t", `{}`},
		{"POST", "actions/a", `{}`},
		{"PUT", "triggers/new", `{}`},
		{"PUT", "actions/a?overwrite=true", `{"limits":{"timeout":1000}}`},
	} {
		if got := errorIn(t, c.must(503, call[0], call[1], call[2])); got != "The server is currently unavailable: the disk is nearly full." {
			t.Errorf("%s %s without room = %q", call[0], call[1], got)
		}
	}
	w.refuse, w.slow = nil, true
	c.must(404, "GET", "triggers/new", "")
	if got := c.must(202, "POST", "actions/a?blocking=true&result=true&timeout=1", `{}`); !strings.HasPrefix(got, `{"activationId":"`) {
		t.Errorf("a wait that ended = %s", got)
	}
	answer, body := c.send(c.request("GET", "/api/v1/web/guest/default/a", ""))
	if got := errorIn(t, body); answer.StatusCode != 202 || got != "Response not yet ready." || answer.Header.Get("X-Openwhisk-Activation-Id") == "" {
		t.Errorf("a web action that takes long = %d %q", answer.StatusCode, got)
	}
}

func TestSurface(t *testing.T) {
	c := newWorld(t).caller(t)
	tests := []struct {
		method, path string
		key          string
		status       int
		header, want string
	}{
		{"GET", "/nowhere", "", 405, "Allow", "OPTIONS"},
		{"POST", "/ping", "", 405, "Allow", "OPTIONS"},
		{"PUT", "/", guestKey, 405, "Content-Type", "application/json"},
		{"OPTIONS", "/nowhere", "", 200, "Access-Control-Allow-Methods", "OPTIONS, GET, POST"},
		{"OPTIONS", "/api/v1/no/such/thing", "", 200, "Access-Control-Allow-Methods", "GET, DELETE, POST, PUT, HEAD"},
		{"GET", "/api/v1/no/such/thing", "", 401, "WWW-Authenticate", `Basic realm="OpenWhisk secure realm"`},
		{"GET", "/api/v1/no/such/thing", guestKey, 404, "Access-Control-Allow-Origin", ""},
		{"GET", "/api/v10/x", "", 405, "", ""},
		{"POST", "/api/v1", guestKey, 404, "", ""},
		{"HEAD", "/api/v1/namespaces", guestKey, 404, "Content-Type", "application/json"},
		{"BREW", "/api/v1/namespaces/_/actions/a", guestKey, 404, "", ""},
		{"GET", "/ping", "", 200, "Access-Control-Allow-Origin", ""},
		{"GET", "/" + strings.Repeat("a", 9000), "", 414, "", ""},
		{"GET", "/api/v1/namespaces/_/actions/../rules", guestKey, 200, "", ""},
	}
	for _, tt := range tests {
		answer, body := c.as(tt.key).send(c.as(tt.key).request(tt.method, tt.path, ""))
		if answer.StatusCode != tt.status || tt.header != "" && answer.Header.Get(tt.header) != tt.want {
			t.Errorf("%s %.60s = %d %v %.200s, want %d %s: %s", tt.method, tt.path, answer.StatusCode, answer.Header, body, tt.status, tt.header, tt.want)
		}
		if want := "414 Request-URI Too Large"; tt.status == http.StatusRequestURITooLong && !strings.Contains(body, want) {
			t.Errorf("%s %.60s answers %q, want %q in it", tt.method, tt.path, body, want)
		}
	}
}

func TestTransactionID(t *testing.T) {
	c := newWorld(t).caller(t)
	for given, kept := range map[string]bool{
		"abc_DEF-123": true, "": false, "sid_1": false, "a b": false, "a\tb": false, strings.Repeat("a", 200): false,
	} {
		r := c.request("GET", "actions/none", "")
		if given != "" {
			r.Header.Set("X-Request-ID", given)
		}
		answer, body := c.send(r)
		id := answer.Header.Get("X-Request-ID")
		if (id == given) != kept || len(id) < 3 {
			t.Errorf("of %q the answer's ID is %q", given, id)
		}
		if !strings.Contains(body, `"code":"`+id+`"`) {
			t.Errorf("the ID %q is not in %s", id, body)
		}
	}
}

func TestAccept(t *testing.T) {
	c := newWorld(t).caller(t)
	for accept, status := range map[string]int{
		"": 200, "*/*": 200, "application/json": 200, "application/*;q=0.5": 200, "text/html, */*;q=0.1": 200,
		"text/html": 406, "application/json;q=0": 406, "nonsense": 406,
	} {
		r := c.request(http.MethodGet, "actions", "")
		if accept != "" {
			r.Header.Set("Accept", accept)
		}
		if answer, body := c.send(r); answer.StatusCode != status {
			t.Errorf("Accept %q = %d %s, want %d", accept, answer.StatusCode, body, status)
		}
	}
}
