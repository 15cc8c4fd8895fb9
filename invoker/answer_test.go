package invoker

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/whisk"
)

func TestAnswerOfRun(t *testing.T) {
	const invalid = "The action did not produce a valid JSON or JSON Array response"
	tests := []struct {
		name   string
		status int
		body   string
		want   whisk.Outcome
		result string
	}{
		{"object", 200, ` {"a": 1} `, whisk.Success, `{"a": 1}`},
		{"array", 200, `[1]`, whisk.Success, `[1]`},
		{"error", 200, `{"x":1,"error":{"a":[1,"}"]},"y":2}`, whisk.ApplicationError, `{"error":{"a":[1,"}"]}}`},
		{"null error", 200, `{"error":null}`, whisk.ApplicationError, `{"error":null}`},
		{"escaped error", 200, `{"\u0065rror":"x"}`, whisk.ApplicationError, `{"error":"x"}`},
		{"error inside", 200, `{"a":{"error":1},"b":["error",1]}`, whisk.Success, `{"a":{"error":1},"b":["error",1]}`},
		{"error as value", 200, `{"a":"error"}`, whisk.Success, `{"a":"error"}`},
		{"two errors", 200, `{"error":1,"error":2}`, whisk.ApplicationError, `{"error":2}`},
		{"scalar", 200, `7`, whisk.DeveloperError, `{"error":"` + invalid + `: 7"}`},
		{"empty", 200, ``, whisk.DeveloperError, `{"error":"` + invalid + `."}`},
		{"text", 200, `<b>&`, whisk.DeveloperError, `{"error":"` + invalid + `: <b>&"}`},
		{"failed with error", 502, `{"error":"no"}`, whisk.DeveloperError, `{"error":"no"}`},
		{"failed with object", 502, `{"a":1}`, whisk.DeveloperError, `{"error":"` + invalid + `: {\"a\":1}"}`},
		{"failed with array", 502, `[1]`, whisk.DeveloperError, `{"error":"` + invalid + `: [1]"}`},
		{"bad UTF-8", 200, "{\"a\":\"\xff\"}", whisk.Success, "{\"a\":\"\ufffd\"}"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := answer{tt.status, []byte(tt.body), len(tt.body)}.ofRun()
			if r.outcome != tt.want || string(r.result) != tt.result {
				t.Errorf("%d %s = %v, %s, want %v, %s", tt.status, tt.body, r.outcome, r.result, tt.want, tt.result)
			}
		})
	}
}

func TestAnswerOfInit(t *testing.T) {
	for body, want := range map[string]string{
		`{"error":{"x":1}}`: `{"error":{"x":1}}`,
		`{"a":1}`:           `{"error":"The action failed during initialization: {\"a\":1}"}`,
		``:                  `{"error":"The action failed during initialization."}`,
		`oh "no"`:           `{"error":"The action failed during initialization: oh \"no\""}`,
	} {
		if r := (answer{502, []byte(body), len(body)}).ofInit(); r.outcome != whisk.DeveloperError || string(r.result) != want {
			t.Errorf("init answered %q = %v, %s, want %s", body, r.outcome, r.result, want)
		}
	}
	long := answer{502, []byte(strings.Repeat("x", whisk.MaxPayload)), whisk.MaxPayload + 1}
	if r := long.ofInit(); r.outcome != whisk.DeveloperError || r.size != whisk.MaxPayload+1 {
		t.Errorf("a long answer to init = %v, size %d", r.outcome, r.size)
	}
	if r := long.ofRun(); r.outcome != whisk.ApplicationError || !json.Valid(r.result) {
		t.Errorf("a long answer to run = %v", r.outcome)
	}
}

func TestAnswerLength(t *testing.T) {
	for body, want := range map[string]int{"": 0, "abc": 3, "ü": 1, "€": 1, "𝄞": 2} {
		if got := (answer{200, []byte(body), len(body)}).length(); got != want {
			t.Errorf("length of %q = %d, want %d", body, got, want)
		}
	}
}

func FuzzMember(f *testing.F) {
	for _, s := range []string{`{"error":1}`, `{"a":{"error":[]},"\u0065rror":"\""}`, `{ }`, `{"x":1.5e3 , "error" : {"}":1}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		body := strings.TrimSpace(s)
		var want map[string]json.RawMessage
		if !strings.HasPrefix(body, "{") || json.Unmarshal([]byte(body), &want) != nil {
			return
		}
		got, found := member([]byte(body), "error")
		if w, ok := want["error"]; ok != found || string(w) != string(got) {
			t.Errorf("member of %q = %q, %v, want %q, %v", body, got, found, w, ok)
		}
	})
}
