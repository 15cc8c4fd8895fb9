package rules

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

func name(entity string) whisk.Name { return whisk.Name{Namespace: "guest", Entity: entity} }

func trigger(n, incarnation string) whisk.Trigger {
	return whisk.Trigger{Meta: whisk.Meta{Name: name(n), Version: "0.0.2"}, Incarnation: incarnation}
}

// rule is an active rule from trigger t to action a.
func rule(n, annotations string) Entry {
	var as whisk.Params
	if annotations != "" {
		if err := json.Unmarshal([]byte(annotations), &as); err != nil {
			panic(err)
		}
	}
	return Entry{Revision: 7, Rule: whisk.Rule{
		Meta: whisk.Meta{Name: name(n), Annotations: as}, Trigger: name("t"), Action: name("a"),
		Status: whisk.Active, Incarnation: "1",
	}}
}

func filter(pattern string) string { return `[{"key":"filter","value":` + pattern + `}]` }

func event(payload string) *whisk.Event {
	at := time.UnixMilli(1_700_000_000_000).UTC()
	return &whisk.Event{
		ID: whisk.DeriveID(at, payload), Trigger: name("t"), Time: at, Payload: json.RawMessage(payload), Seq: 5, Actor: "me",
	}
}

// told renders what rules made of an event.
func told(v whisk.Verdict) string {
	var out []string
	for _, r := range v.Rules {
		s := r.Rule.Entity + " " + string(r.Decision)
		if r.Reason != "" {
			s += " (" + r.Reason + ")"
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

func TestJudge(t *testing.T) {
	off := rule("off", filter(`{"n":[1]}`))
	off.Rule.Status = whisk.Inactive
	stale := rule("stale", "")
	stale.Rule.Incarnation = "0"
	other := rule("other", "")
	other.Rule.Trigger = name("u")
	broken := rule("broken", filter(`{"n":[{"prefix":"x"}]}`))
	table := NewTable([]whisk.Trigger{trigger("t", "1")}, []Entry{
		rule("z", ""), rule("one", filter(`{"n":[1]}`)), rule("two", filter(`{"n":[2],"m":["x"]}`)), off, stale, other, broken,
	})
	at := time.Now()
	ev := event(`{"n":1,"m":"x"}`)
	v := table.Judge(ev, at)
	want := `broken filtered (its options cannot be read: filter: n: found the operator "prefix", expected a string, a number, true, false or null: operators are not supported yet (line 1, column 7)); ` +
		`off inactive; one matched; stale inactive; two filtered (n: wanted 2, found 1); z matched`
	if got := told(v); got != want {
		t.Errorf("Judge:\n got %s\nwant %s", got, want)
	}
	if v.Event != (whisk.Place{Seq: 5, ID: ev.ID}) || v.Trigger != name("t") || v.Version != "0.0.2" || v.Actor != "me" ||
		!v.Time.Equal(ev.Time) || !v.At.Equal(at) || v.Size != len(ev.Payload) || v.Problem != "" {
		t.Errorf("verdict = %+v", v)
	}
	for _, r := range v.Rules {
		id := ""
		if r.Decision == whisk.Matched {
			id = whisk.Match{Event: 5, Rule: r.Rule}.AttemptID(ev.ID, 1)
		}
		if r.ActivationID != id || r.Revision != 7 || r.Action != name("a") {
			t.Errorf("rule verdict = %+v, want activation %q", r, id)
		}
	}
	if again := table.Judge(ev, at); told(again) != want {
		t.Errorf("judged again: %s", told(again))
	}
}

func TestJudgeWithoutRules(t *testing.T) {
	table := NewTable([]whisk.Trigger{trigger("t", "1")}, nil)
	if v := table.Judge(event(`{}`), time.Now()); len(v.Rules) != 0 || v.Problem != "" || v.Version != "0.0.2" {
		t.Errorf("verdict = %+v, want one without rules", v)
	}
	// The trigger went after the event was accepted.
	table = NewTable(nil, []Entry{rule("r", "")})
	if got := told(table.Judge(event(`{}`), time.Now())); got != "r inactive" {
		t.Errorf("a rule of a trigger that is gone: %s, want inactive", got)
	}
	if table.Active(name("t")) {
		t.Error("a trigger that is gone has an active rule")
	}
}

func TestJudgeProblems(t *testing.T) {
	table := NewTable([]whisk.Trigger{trigger("t", "1")}, []Entry{rule("r", filter(`{"a":[1]}`))})
	for _, tt := range []struct {
		name   string
		change func(*whisk.Event)
		want   string
	}{
		{"none", func(*whisk.Event) {}, ""},
		{"the last hop", func(ev *whisk.Event) { ev.Hops = whisk.MaxHops - 1 }, ""},
		{"too many hops", func(ev *whisk.Event) { ev.Hops = whisk.MaxHops }, "it is 16 events away from its first cause, and at most 16 are followed"},
		{"no payload", func(ev *whisk.Event) { ev.Payload = nil }, "its payload is missing from the store"},
		{"null is an empty payload", func(ev *whisk.Event) { ev.Payload = json.RawMessage("null") }, ""},
		{"no object", func(ev *whisk.Event) { ev.Payload = json.RawMessage("[1]") }, "its payload cannot be read: it is not JSON that begins with an object"},
		{"cut off", func(ev *whisk.Event) { ev.Payload = json.RawMessage(`{"a":1`) }, "its payload cannot be read: it is not JSON that begins with an object"},
		{"too deep", func(ev *whisk.Event) {
			ev.Payload = json.RawMessage(`{"a":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`)
		}, "its payload cannot be read: it is nested too deeply"},
	} {
		ev := event(`{"a":1}`)
		tt.change(ev)
		v := table.Judge(ev, time.Now())
		if v.Problem != tt.want {
			t.Errorf("%s: problem = %q, want %q", tt.name, v.Problem, tt.want)
		}
		if (len(v.Rules) == 0) != (tt.want != "") {
			t.Errorf("%s: rules = %v", tt.name, v.Rules)
		}
	}
}

// TestWhatAFilterSees lays parameters, payload and what we add over each other.
func TestWhatAFilterSees(t *testing.T) {
	tr := trigger("t", "1")
	tr.Parameters = whisk.Params{}.Set("a", `{"b":"param"}`).Set("p", `["x"]`).Set("__ow_event", `{"source":"param"}`)
	for _, tt := range []struct {
		pattern, payload string
		want             whisk.Decision
	}{
		{`{"p":["x"]}`, `{}`, whisk.Matched},
		{`{"p":["x"]}`, `{"p":"y"}`, whisk.Filtered},
		{`{"p":["y"]}`, `{"p":"y"}`, whisk.Matched},
		{`{"a":{"b":["param"]}}`, `{"a":{"c":1}}`, whisk.Filtered}, // whole members, not merged deeply
		{`{"a":{"b":["param"]}}`, `{}`, whisk.Matched},
		{`{"__ow_event":{"source":["cron"]}}`, `{}`, whisk.Matched},
		{`{"__ow_event":{"source":["fake"]}}`, `{"__ow_event":{"source":"fake"}}`, whisk.Filtered},
		{`{"__ow_event":{"source":["fake"]}}`, `{"__ow_event.source":"fake"}`, whisk.Filtered},
		{`{"__ow_event":{"source":["param"]}}`, `{}`, whisk.Filtered},
		{`{"__ow_event":{"fake":["x"]}}`, `{"__ow_event":{"fake":"x"}}`, whisk.Filtered},
		{`{"__ow_event":{"type":["tick"],"subject":["s"]}}`, `{}`, whisk.Matched},
		{`{"__ow_event":{"missed":[3]}}`, `{}`, whisk.Matched},
		{`{"__ow_event":{"id":["forged"]}}`, `{}`, whisk.Filtered},
		{`{"__ow_event":{"time":["2023-11-14T22:13:20Z"]}}`, `{}`, whisk.Matched},
	} {
		ev := event(tt.payload)
		ev.Source, ev.Type, ev.Subject = "cron", "tick", "s"
		ev.Meta = json.RawMessage(`{"missed":3,"id":"forged","source":"forged"}`)
		v := NewTable([]whisk.Trigger{tr}, []Entry{rule("r", filter(tt.pattern))}).Judge(ev, time.Now())
		if len(v.Rules) != 1 || v.Rules[0].Decision != tt.want {
			t.Errorf("%s on %s: %s %s, want %s", tt.pattern, tt.payload, v.Problem, told(v), tt.want)
		}
	}
	// A source that says nothing of itself leaves no member for a feed to fill.
	ev := event(`{}`)
	ev.Meta = json.RawMessage(`{"source":"forged"}`)
	v := NewTable([]whisk.Trigger{tr}, []Entry{rule("r", filter(`{"__ow_event":{"source":["forged"]}}`))}).Judge(ev, time.Now())
	if v.Rules[0].Decision != whisk.Filtered {
		t.Errorf("forged source: %s", told(v))
	}
}

func TestManyRulesShareOneWalk(t *testing.T) {
	var entries []Entry
	for i := range 300 {
		entries = append(entries, rule(fmt.Sprintf("r%03d", i), filter(fmt.Sprintf(`{"n":[%d],"g":["x","y"]}`, i%100))))
	}
	table := NewTable([]whisk.Trigger{trigger("t", "1")}, entries)
	for n := range 100 {
		v := table.Judge(event(fmt.Sprintf(`{"n":%d,"g":"y"}`, n)), time.Now())
		for i, r := range v.Rules {
			if got := r.Decision == whisk.Matched; got != (i%100 == n) {
				t.Fatalf("event %d, rule %d: %s", n, i, r.Decision)
			}
		}
	}
}

func TestTableActiveAndRetry(t *testing.T) {
	off := rule("off", "")
	off.Rule.Status, off.Rule.Trigger = whisk.Inactive, name("u")
	table := NewTable([]whisk.Trigger{trigger("t", "1"), trigger("u", "1"), trigger("v", "1")}, []Entry{
		off, rule("r", `[{"key":"retry","value":{"attempts":1}}]`),
	})
	for n, want := range map[string]bool{"t": true, "u": false, "v": false, "w": false} {
		if got := table.Active(name(n)); got != want {
			t.Errorf("Active(%s) = %v, want %v", n, got, want)
		}
	}
	if r, ok := table.Retry(name("r")); !ok || r.Attempts != 1 {
		t.Errorf("Retry = %+v, %v", r, ok)
	}
	if r, ok := table.Retry(name("off")); !ok || r != whisk.StdRetry() {
		t.Errorf("Retry of a rule that names none = %+v, %v", r, ok)
	}
	if _, ok := table.Retry(name("gone")); ok {
		t.Error("Retry knows a rule that is gone")
	}
}
