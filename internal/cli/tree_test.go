package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/client"
	"github.com/millrace/millrace/internal/whisk"
)

var noon = time.Date(2026, 11, 24, 12, 0, 4, 2e6, time.UTC)

func entity(s string) whisk.Name { return whisk.Name{Namespace: "guest", Entity: s} }

func verdictOf(seq uint64, rules ...whisk.RuleVerdict) client.Told {
	return client.Told{Entry: whisk.Entry{Kind: whisk.EntryVerdict, Verdict: &whisk.Verdict{
		Event: whisk.Place{Seq: seq, ID: "e" + string(rune('0'+seq))}, Trigger: entity("tick"), Time: noon, Rules: rules,
	}}}
}

func ruleVerdict(name string, d whisk.Decision, reason string) whisk.RuleVerdict {
	return whisk.RuleVerdict{Rule: entity(name), Action: entity("hello"), Decision: d, Reason: reason}
}

func recordOf(seq uint64, rule string, attempt int, final bool, o whisk.Outcome, annots whisk.Params, logs ...string) client.Told {
	e := whisk.Entry{
		Kind: whisk.EntryRecord, Match: whisk.Match{Event: seq, Rule: entity(rule)}, Attempt: attempt, Final: final,
		Record: &whisk.Activation{ID: "a" + rule, Name: "hello", Start: noon, End: noon.Add(3 * time.Millisecond), Duration: 3 * time.Millisecond, Outcome: o, Annotations: annots, Logs: logs},
	}
	if o != whisk.Success {
		e.Record.Result = json.RawMessage(`{"error":"<no>"}`)
	}
	if !final {
		e.Due = noon.Add(time.Second)
	}
	return client.Told{Entry: e}
}

func plainPaint(_, s string) string { return s }

func TestTree(t *testing.T) {
	cold := whisk.Params{}.Set("initTime", "30")
	dead := client.Told{Entry: whisk.Entry{Kind: whisk.EntryDead, Match: whisk.Match{Event: 1, Rule: entity("m")}, Dead: "d1"}}
	many := make([]string, maxLogLines+3)
	for i := range many {
		many[i] = "x"
	}
	tests := []struct {
		name string
		told []client.Told
		late []client.Told // after the patience has run out
		want string
	}{
		{
			name: "filtered and inactive",
			told: []client.Told{verdictOf(1, ruleVerdict("f", whisk.Filtered, "second is 2"), ruleVerdict("other", whisk.Off, ""))},
			want: `
12:00:04.002  tick  e1
├─ f      filtered: second is 2
└─ other  inactive`,
		},
		{
			name: "no rule", told: []client.Told{verdictOf(1)},
			want: `
12:00:04.002  tick  e1
└─ no rule`,
		},
		{
			name: "a problem", told: []client.Told{{Entry: whisk.Entry{Kind: whisk.EntryVerdict, Verdict: &whisk.Verdict{Event: whisk.Place{Seq: 1, ID: "e1"}, Trigger: entity("tick"), Time: noon, Problem: "too many hops"}}}},
			want: `
12:00:04.002  tick  e1
   too many hops`,
		},
		{
			name: "matched",
			told: []client.Told{
				verdictOf(1, ruleVerdict("m", whisk.Matched, ""), ruleVerdict("n", whisk.Filtered, "")),
				recordOf(1, "m", 1, true, whisk.Success, cold, "2026-11-24T12:00:04.1Z stdout: hi\x1b[2J", "2026-11-24T12:00:04.1Z stderr: oh"),
			},
			want: `
12:00:04.002  tick  e1
├─ m  matched → hello  success  cold  3 ms  am
│      hi[2J
│      oh
└─ n  filtered`,
		},
		{
			name: "two matches are one tree",
			told: []client.Told{
				verdictOf(1, ruleVerdict("m", whisk.Matched, ""), ruleVerdict("n", whisk.Matched, "")),
				recordOf(1, "n", 1, true, whisk.Success, nil), recordOf(1, "m", 1, true, whisk.ApplicationError, nil),
			},
			want: `
12:00:04.002  tick  e1
├─ m  matched → hello  application error  warm  3 ms  am
│      {"error":"<no>"}
└─ n  matched → hello  success  warm  3 ms  an`,
		},
		{
			name: "two events at once",
			told: []client.Told{
				verdictOf(1, ruleVerdict("m", whisk.Matched, "")), verdictOf(2, ruleVerdict("m", whisk.Matched, "")),
				recordOf(2, "m", 1, true, whisk.Success, nil), recordOf(1, "m", 1, true, whisk.Success, nil),
			},
			want: `
12:00:04.002  tick  e2
└─ m  matched → hello  success  warm  3 ms  am
12:00:04.002  tick  e1
└─ m  matched → hello  success  warm  3 ms  am`,
		},
		{
			name: "retries, then a dead letter",
			told: []client.Told{
				verdictOf(1, ruleVerdict("m", whisk.Matched, "")),
				recordOf(1, "m", 1, false, whisk.WhiskError, nil), recordOf(1, "m", 2, false, whisk.WhiskError, nil), dead,
			},
			want: `
12:00:04.002  tick  e1
└─ m  matched → hello  whisk internal error  warm  3 ms  am  again at 12:00:05.002
       {"error":"<no>"}
     attempt 2  whisk internal error  warm  3 ms  am  again at 12:00:05.002
       {"error":"<no>"}
     given up: dead letter d1`,
		},
		{
			name: "late", told: []client.Told{verdictOf(1, ruleVerdict("m", whisk.Matched, ""), ruleVerdict("n", whisk.Filtered, "no"))},
			late: []client.Told{recordOf(1, "m", 1, true, whisk.Success, nil)},
			want: `
12:00:04.002  tick  e1
├─ m  matched → hello  running
└─ n  filtered: no
12:00:04.002  tick  e1  (later)
└─ m  matched → hello  success  warm  3 ms  am`,
		},
		{
			name: "of before we looked", told: []client.Told{recordOf(9, "m", 2, true, whisk.Success, nil)},
			want: `
… of an earlier event, rule m
     attempt 2  success  warm  3 ms  am`,
		},
		{
			name: "invoked", told: []client.Told{{Entry: whisk.Entry{
				Kind: whisk.EntryRecord, Match: whisk.Match{Invoke: "x"}, Final: true, Attempt: 1,
				Record: &whisk.Activation{ID: "x", Name: "hello", Start: noon, Logs: []string{"out"}, Annotations: whisk.Params{}.Set("path", `"guest/p/hello"`)},
			}}},
			want: `
12:00:04.002  invoke p/hello  success  warm  0 ms  x
    out`,
		},
		{
			name: "lost", told: []client.Told{{Lost: true}},
			want: `
… some messages were lost: this was read too slowly; 'millrace event list' has all events`,
		},
		{
			name: "long log", told: []client.Told{verdictOf(1, ruleVerdict("m", whisk.Matched, "")), recordOf(1, "m", 1, true, whisk.Success, nil, many...)},
			want: `
12:00:04.002  tick  e1
└─ m  matched → hello  success  warm  3 ms  am
` + strings.Repeat("       x\n", maxLogLines) + `       … 3 lines more: millrace activation logs am`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			tr := newTree(&out, plainPaint)
			for _, m := range tt.told {
				tr.take(m, noon)
			}
			tr.tick(noon.Add(patience - 1)) // too early for what waits
			if len(tt.late) > 0 {
				tr.tick(noon.Add(patience))
			}
			for _, m := range tt.late {
				tr.take(m, noon.Add(patience))
			}
			if got := strings.TrimSpace(out.String()); got != strings.TrimSpace(tt.want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, strings.TrimSpace(tt.want))
			}
			if len(tr.grows) != 0 {
				t.Errorf("%d events are still waited for", len(tr.grows))
			}
		})
	}
}

// Events whose end never comes must not fill the memory.
func TestTreeForgets(t *testing.T) {
	var out strings.Builder
	tr := newTree(&out, plainPaint)
	for seq := uint64(1); seq <= maxGrowing+5; seq++ {
		tr.take(verdictOf(seq, ruleVerdict("m", whisk.Matched, "")), noon)
	}
	if len(tr.grows) != maxGrowing {
		t.Errorf("%d events are kept, want %d", len(tr.grows), maxGrowing)
	}
	if tr.grows[5] != nil || tr.grows[6] == nil {
		t.Error("it is not the oldest that were forgotten")
	}
}

func TestTreeColours(t *testing.T) {
	var out strings.Builder
	a := &app{sys: System{Color: true}}
	newTree(&out, a.paint).take(verdictOf(1, ruleVerdict("f", whisk.Filtered, "")), noon)
	if !strings.Contains(out.String(), "\x1b[33mfiltered\x1b[0m") {
		t.Errorf("no colour in %q", out.String())
	}
}
