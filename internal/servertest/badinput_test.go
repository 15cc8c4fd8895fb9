package servertest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/servertest"
)

// TestBadInput gives a whole running server all that it should refuse: by
// REST, by the feed actions and webhooks, by the command line, and as actions
// that misbehave. Each ends as the contract says, never as a 500; what is good
// goes on to work beside it; and the server's memory stays bounded.
//
// What single rooms refuse is listed in their own tests. This one is about the
// program that they make together.
func TestBadInput(t *testing.T) {
	for _, driver := range servertest.Drivers() {
		t.Run(driver, func(t *testing.T) {
			p := newProcess(t, driver)
			p.Start()
			b := &bad{p}
			p.PutAction(t, "good", "python:3", "def main(args):\n    return {'fine': args.get('n', 0)}\n")
			p.PutRule(t, "on-good", "calm", "good", nil)
			b.stillGood(t)
			for _, part := range []struct {
				name string
				run  func(*testing.T)
			}{
				{"rest", b.rest},
				{"feeds", b.feeds},
				{"webhook", b.webhook},
				{"cli", b.cli},
				{"actions", b.actions},
				{"flood", b.flood},
			} {
				t.Run(part.name, func(t *testing.T) {
					part.run(t)
					b.stillGood(t)
					b.checkMemory(t)
				})
			}
			if code := p.Stop(); code != 0 {
				t.Errorf("the server ended with %d:\n%s", code, p.Output())
			}
			checkNothingLeft(t)
			for line := range strings.Lines(p.Output()) {
				if strings.Contains(line, "panic") || strings.Contains(line, "request failed") {
					t.Errorf("the server says: %s", line)
				}
			}
		})
	}
}

// bad is a server that is given bad input.
type bad struct{ *servertest.Process }

// maxResident is how many bytes of memory the server may ever take. Of bodies
// larger than 1 MiB it works on two at a time, and each may take five times
// the 50 MiB of the largest: as it came, as JSON members, as the members of
// its exec, as the code, and on its way into the store. What came of the two
// before them may wait for the collector meanwhile: that is the other half of
// what is allowed beyond. The rest is the server at work, with 64 bodies of
// 1 MiB in it.
const maxResident = 2*5*50<<20 + 300<<20

// checkMemory looks at the most memory that the server ever had: the kernel
// keeps that account, which no sample between two looks can miss.
func (b *bad) checkMemory(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.PID()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the server has taken at most %d MiB of memory", kb>>10)
	if kb<<10 > maxResident {
		t.Errorf("the server took %d MiB of memory, want at most %d", kb>>10, maxResident>>20)
	}
}

// stillGood checks that nobody else suffers: a good action answers, and a good
// event runs it.
func (b *bad) stillGood(t *testing.T) {
	t.Helper()
	a := b.Must(t, http.StatusOK, "POST", "/api/v1/namespaces/_/actions/good?blocking=true&result=true", `{"n":5}`, nil)
	if got := strings.TrimSpace(string(a.Body)); got != `{"fine":5}` && got != `{"fine": 5}` {
		t.Errorf("the good action answers %s", got)
	}
	b.Must(t, http.StatusAccepted, "POST", "/api/v1/namespaces/_/triggers/calm", `{"n":6}`, nil)
}

// call is one request and the answer that it should get.
type call struct {
	name, method, path, body string
	status                   int
	text                     string // a part of the answer's error
}

// entities begins the paths of the guest's own things.
const entities = "/api/v1/namespaces/_/"

// check makes a call.
func (b *bad) check(t *testing.T, c call) {
	t.Helper()
	if !strings.HasPrefix(c.path, "/") {
		c.path = entities + c.path
	}
	var body any
	if c.body != "" {
		body = c.body
	}
	a, err := b.Do(t.Context(), c.method, c.path, body)
	if err != nil {
		t.Errorf("%s %s: %v", c.method, c.path, err)
		return
	}
	var e struct{ Error, Code string }
	if err := json.Unmarshal(a.Body, &e); err != nil || e.Error == "" {
		t.Errorf("%s %s = %d %.300s, want an error in JSON", c.method, c.path, a.Status, a.Body)
	}
	if a.Status != c.status || !strings.Contains(e.Error, c.text) {
		t.Errorf("%s %s = %d %.300q, want %d %q", c.method, c.path, a.Status, e.Error, c.status, c.text)
	}
}

func (b *bad) rest(t *testing.T) {
	const malformed = "The request content was malformed:\n"
	mega := strings.Repeat("x", 2<<20)
	b.Must(t, http.StatusOK, "PUT", entities+"triggers/t", `{}`, nil)
	for _, c := range []call{
		{"action that is no JSON", "PUT", "actions/x", `{"exec":`, 400, malformed},
		{"event that is no JSON", "POST", "triggers/t", `{"a":}`, 400, malformed},
		{"event that is a list", "POST", "triggers/t", `[1]`, 400, "JSON object expected"},
		{"arguments that are a number", "POST", "actions/good", `5`, 400, "JSON object expected"},
		{"rule that is a text", "PUT", "rules/x", `"r"`, 400, malformed},
		{"nested deeply", "POST", "triggers/t", `{"a":` + strings.Repeat("[", 100_000), 400, malformed},
		{"code of the wrong type", "PUT", "actions/x", `{"exec":{"kind":"python:3","code":7}}`, 400, "'code' must be a string"},
		{"limits of the wrong type", "PUT", "actions/good?overwrite=true", `{"limits":{"memory":"much"}}`, 400, "memory limit malformed"},
		{"too much memory", "PUT", "actions/good?overwrite=true", `{"limits":{"memory":100000}}`, 400, "exceeds allowed threshold"},
		{"parameters of the wrong type", "PUT", "triggers/t?overwrite=true", `{"parameters":{"a":1}}`, 400, "parameters malformed!"},
		{"unknown kind", "PUT", "actions/x", `{"exec":{"kind":"cobol:1","code":""}}`, 400, "The specified runtime 'cobol:1' is not supported by this platform."},
		{"kind of ours", "PUT", "actions/x", `{"exec":{"kind":"builtin","code":"alarms/alarm"}}`, 400, "The specified runtime 'builtin' is not supported"},
		{"sequence", "PUT", "actions/x", `{"exec":{"kind":"sequence","components":[]}}`, 400, "not supported yet"},
		{"bad name", "PUT", "actions/$x", `{}`, 400, "The name of the entity contains illegal characters."},
		{"long name", "PUT", "triggers/" + strings.Repeat("n", 257), `{}`, 400, "Name segement longer than allowed: 257 > 256."},
		{"bad namespace", "GET", "/api/v1/namespaces/$x/rules", "", 400, "The namespace contains illegal characters."},
		{"address above the root", "GET", "/api/v1/../../etc/passwd", "", 405, "HTTP method not allowed"},
		{"unknown address", "GET", "/api/v1/namespaces/_/nothing", "", 404, "The requested resource could not be found."},
		{"limit of a list", "GET", "actions?limit=-1", "", 400, "not in the range of 0 to 200"},
		{"wait of a call", "POST", "actions/good?blocking=true&timeout=60001", `{}`, 400, "Timeout must be number of milliseconds up to 60000."},
		{"activation ID", "GET", "activations/zz", "", 400, "Activation id length is 2 but must be 32."},
		{"event of 2 MiB", "POST", "triggers/t", `{"a":"` + mega + `"}`, 413, "Request larger than allowed: 2097160 > 1048576 bytes."},
		{"arguments of 2 MiB", "POST", "actions/good?blocking=true", `{"a":"` + mega + `"}`, 413, "Request larger than allowed: 2097160 > 1048576 bytes."},
		{"parameters of 2 MiB", "PUT", "actions/good?overwrite=true", `{"parameters":[{"key":"k","value":"` + mega + `"}]}`, 413, "parameters larger than allowed: "},
		{"annotations of 2 MiB", "PUT", "packages/p", `{"annotations":[{"key":"k","value":"` + mega + `"}]}`, 413, "annotations larger than allowed: "},
		{"code of 60 MiB", "PUT", "actions/x", `{"exec":{"kind":"python:3","code":"` + strings.Repeat(mega, 30) + `"}}`, 413, "Request larger than allowed: "},
		{"code of 49 MiB", "PUT", "actions/x", `{"exec":{"kind":"python:3","code":"` + strings.Repeat(mega[:1<<20], 49) + `"}}`, 413, "exec larger than allowed: 51380224 > 50331648 bytes."},
		{"rule without a trigger", "PUT", "rules/x", `{"trigger":"/_/none","action":"/_/good"}`, 400, "trigger /guest/none does not exist"},
		{"filter that is none", "PUT", "rules/x", `{"trigger":"/_/t","action":"/_/good","annotations":[{"key":"filter","value":{"a":5}}]}`, 400, "filter"},
		{"rule option of later", "PUT", "rules/x", `{"trigger":"/_/t","action":"/_/good","annotations":[{"key":"batch","value":{"size":2}}]}`, 400, "not supported yet"},
		{"hub: bad limit", "GET", "/hub/v1/events?limit=x", "", 400, "limit"},
		{"hub: bad time", "GET", "/hub/v1/events?since=yesterday", "", 400, "since"},
		{"hub: no such event", "GET", "/hub/v1/events/" + strings.Repeat("0", 32) + "/explain", "", 404, ""},
		{"hub: no event's ID", "GET", "/hub/v1/events/x", "", 400, ""},
	} {
		t.Run(c.name, func(t *testing.T) { b.check(t, c) })
	}
	b.noneOf(t, "actions/x", "rules/x", "packages/p")
	if ids := listEvents(t, b.Process, "t"); len(ids) != 0 {
		t.Errorf("%d events came of bad ones", len(ids))
	}
	t.Run("strange key", func(t *testing.T) {
		stranger := &bad{&servertest.Process{Client: &servertest.Client{URL: b.URL, Auth: "a:b", HTTP: b.HTTP}}}
		stranger.check(t, call{"", "PUT", "actions/x", `{}`, 401, "The supplied authentication is invalid"})
	})
}

// noneOf checks that nothing was made of what was refused.
func (b *bad) noneOf(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		b.Must(t, http.StatusNotFound, "GET", entities+p, nil, nil)
	}
}

// tellFeed sends a lifecycle event to a feed action and returns the answer's
// status and the error in its result, which is a text or an object with one.
func (b *bad) tellFeed(t *testing.T, feed string, params map[string]any) (status int, text string) {
	t.Helper()
	a, err := b.Do(t.Context(), "POST", "/api/v1/namespaces/whisk.system/actions/"+feed+"?blocking=true", params)
	if err != nil {
		t.Fatal(err)
	}
	var record struct {
		Error    string
		Response struct {
			Status string
			Result struct{ Error json.RawMessage }
		}
	}
	if err := json.Unmarshal(a.Body, &record); err != nil {
		t.Fatalf("%s answered %d %s: %v", feed, a.Status, a.Body, err)
	}
	if a.Status == http.StatusBadGateway && record.Response.Status != "application error" {
		t.Errorf("%s ended with %q, want an application error", feed, record.Response.Status)
	}
	return a.Status, record.Error + string(record.Response.Result.Error)
}

func (b *bad) feeds(t *testing.T) {
	const alarm, interval, once, hook = "alarms/alarm", "alarms/interval", "alarms/once", "webhook/receive"
	type params map[string]any
	cron := func(s string) params { return params{"cron": s} }
	b.Must(t, http.StatusOK, "PUT", entities+"triggers/fed", `{}`, nil)
	for _, tt := range []struct {
		name, feed string
		params     params
		text       string
	}{
		{"no cron", alarm, nil, "alarms trigger feed is missing the cron parameter"},
		{"cron of the wrong type", alarm, params{"cron": 5}, "cron pattern '5' is not valid"},
		{"a zone alone", alarm, cron("TZ="), "cron pattern 'TZ=' is not valid"},
		{"a zone alone, by its other name", alarm, cron("CRON_TZ=UTC"), "cron pattern 'CRON_TZ=UTC' is not valid"},
		{"empty zone before fields", alarm, cron("TZ= * * * * *"), "is not valid"},
		{"four fields", alarm, cron("* * * *"), "cron pattern '* * * *' is not valid"},
		{"seven fields", alarm, cron("* * * * * * *"), "is not valid"},
		{"minute 60", alarm, cron("60 * * * *"), "is not valid"},
		{"second 60", alarm, cron("60 * * * * *"), "is not valid"},
		{"month 13 of six fields", alarm, cron("0 0 0 1 13 *"), "is not valid"},
		{"day of week 8", alarm, cron("0 0 * * 8"), "is not valid"},
		{"step beyond its range", alarm, cron("*/61 * * * *"), "is not valid"},
		{"step of nothing", alarm, cron("*/0 * * * *"), "is not valid"},
		{"half a second", alarm, cron("@every 500ms"), "is not valid"},
		{"no duration", alarm, cron("@every"), "is not valid"},
		{"a word", alarm, cron("@sometimes"), "is not valid"},
		{"30 February", alarm, cron("0 0 30 2 *"), "is not valid"},
		{"quartz", alarm, cron("0 0 L * *"), "is not valid"},
		{"a long one", alarm, cron(strings.Repeat("* ", 1<<18)), "is not valid"},
		{"unknown zone", alarm, params{"cron": "* * * * *", "timezone": "Mars/Olympus"}, "Invalid timezone."},
		{"empty zone", alarm, params{"cron": "* * * * *", "timezone": ""}, "Invalid timezone."},
		{"a file as a zone", alarm, params{"cron": "* * * * *", "timezone": "../../etc/passwd"}, "Invalid timezone."},
		{"stop date in the past", alarm, params{"cron": "* * * * *", "stopDate": "2020-01-01T00:00:00Z"}, "stopDate parameter '2020-01-01T00:00:00Z' must be in the future"},
		{"stop date that is none", alarm, params{"cron": "* * * * *", "stopDate": "soon"}, "stopDate parameter 'soon' is not a valid Date"},
		{"start date in the past", interval, params{"minutes": 5, "startDate": 1}, "startDate parameter '1' must be in the future"},
		{"unknown parameter", alarm, params{"cron": "* * * * *", "rrule": "FREQ=DAILY"}, "no parameter 'rrule'"},
		{"payload of a number", alarm, params{"cron": "* * * * *", "trigger_payload": 5}, "trigger_payload parameter must be an object or a string"},
		{"unknown misfire", alarm, params{"cron": "* * * * *", "misfire": "maybe"}, "misfire parameter must be one of"},
		{"no minutes", interval, nil, "interval trigger feed is missing the minutes parameter"},
		{"minutes of a word", interval, params{"minutes": "few"}, "the minutes parameter must be an integer"},
		{"minus one minute", interval, params{"minutes": -1}, "the minutes parameter must be an integer greater than zero"},
		{"a date gone by", once, params{"date": "2020-01-01T00:00:00Z"}, "date parameter '2020-01-01T00:00:00Z' must be in the future"},
		{"unknown preset", hook, params{"preset": "gitea"}, "preset"},
		{"preset without secret", hook, params{"preset": "github"}, "secret"},
		{"maxBytes beyond 25 MiB", hook, params{"maxBytes": 1 << 30}, "maxBytes"},
		{"secret of the wrong type", hook, params{"preset": "github", "secret": 5}, "secret"},
		{"foreign key", alarm, params{"cron": "* * * * *", "authKey": "x:y"}, "Trigger authentication request failed."},
		{"unknown event", alarm, params{"cron": "* * * * *", "lifecycleEvent": "EXPLODE"}, "unsupported lifecycleEvent"},
		{"bad trigger name", alarm, params{"cron": "* * * * *", "triggerName": "/_/$x"}, "illegal characters"},
		{"no trigger name", alarm, params{"cron": "* * * * *", "triggerName": ""}, "no trigger name parameter was provided"},
		{"trigger name of the wrong type", alarm, params{"cron": "* * * * *", "triggerName": params{"a": 1}}, "trigger"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := map[string]any{"lifecycleEvent": "CREATE", "triggerName": "/_/fed", "authKey": b.Auth}
			for k, v := range tt.params {
				body[k] = v
			}
			status, text := b.tellFeed(t, tt.feed, body)
			if status != http.StatusBadGateway || !strings.Contains(text, tt.text) {
				t.Errorf("%s with %.200v = %d %.300s, want 502 %q", tt.feed, tt.params, status, text, tt.text)
			}
		})
	}
	b.Must(t, http.StatusNotFound, "GET", "/hub/v1/feeds/guest/fed", nil, nil)
}
