package whisk_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/whisk"
)

func TestParamsWire(t *testing.T) {
	var p whisk.Params
	in := `[{"key":"b","value":{"x": 1}},{"key":"a","value":null},{"key":"b","value":"later","init":true}]`
	if err := json.Unmarshal([]byte(in), &p); err != nil {
		t.Fatal(err)
	}
	out, _ := json.Marshal(p)
	if want := `[{"key":"b","value":"later","init":true},{"key":"a","value":null}]`; string(out) != want {
		t.Errorf("round trip of %s = %s, want %s", in, out, want)
	}
	var none whisk.Params
	if out, _ := json.Marshal(none); string(out) != "[]" {
		t.Errorf("no parameters = %s, want []", out)
	}
	for _, bad := range []string{`{"a":1}`, `[{"key":"a"}]`, `[{"value":1}]`, `[1]`, `"x"`} {
		if err := json.Unmarshal([]byte(bad), &p); err == nil || err.Error() != "parameters malformed!" {
			t.Errorf("reading %s: error = %v, want parameters malformed!", bad, err)
		}
	}
}

func TestParamsTruthy(t *testing.T) {
	for value, want := range map[string]bool{
		"true": true, `"yes"`: true, "1": true, "{}": true,
		"false": false, "null": false, "0": false, `""`: false,
	} {
		if got := (whisk.Params{}).Set("k", value).Truthy("k"); got != want {
			t.Errorf("Truthy of %s = %v, want %v", value, got, want)
		}
	}
	if (whisk.Params{}).Truthy("k") {
		t.Error("an absent annotation is truthy")
	}
}

func TestParamsLayers(t *testing.T) {
	base := whisk.Params{}.Set("a", "1").Set("b", "2")
	over := whisk.Params{}.Set("b", "3").Set("c", "4")
	got, _ := json.Marshal(over.Over(base))
	if want := `[{"key":"a","value":1},{"key":"b","value":3},{"key":"c","value":4}]`; string(got) != want {
		t.Errorf("Over = %s, want %s", got, want)
	}
	if string(base.Get("b")) != "2" {
		t.Error("Over changed its base")
	}
	if n := len(base.Without("a")); n != 1 || len(base) != 2 {
		t.Errorf("Without left %d entries and the base %d, want 1 and 2", n, len(base))
	}
}

func TestParamsObject(t *testing.T) {
	p := whisk.Params{}.Set("a", "1").With(whisk.Param{Key: "secret", Value: json.RawMessage(`"s"`), Init: true})
	tests := []struct {
		name, payload string
		init          bool
		want          string
	}{
		{"payload wins", `{"a":2}`, false, `{"a":2}`},
		{"defaults fill in", `{"b":2}`, false, `{"a":1,"b":2}`},
		{"init on request", `{}`, true, `{"a":1,"secret":"s"}`},
		{"no payload", ``, false, `{"a":1}`},
		{"null payload", `null`, false, `{"a":1}`},
		{"array passes", `[1]`, false, `[1]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := p.Object(json.RawMessage(tt.payload), tt.init)
			if err != nil || string(got) != tt.want {
				t.Errorf("Object(%s) = %s, %v, want %s", tt.payload, got, err, tt.want)
			}
		})
	}
	if _, err := p.Object(json.RawMessage(`{"a"`), false); err == nil {
		t.Error("Object of a broken payload gave no error")
	}
}

// Parameters are what strangers send: reading and laying over each other must
// not take the square of their number.
func TestParamsMany(t *testing.T) {
	var b strings.Builder
	b.WriteByte('[')
	for i := range 200_000 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"key":"k%d","value":1}`, i)
	}
	b.WriteByte(']')
	var p whisk.Params
	if err := json.Unmarshal([]byte(b.String()), &p); err != nil {
		t.Fatal(err)
	}
	if out := p.Over(p); len(out) != len(p) {
		t.Errorf("%d parameters over themselves are %d", len(p), len(out))
	}
}
