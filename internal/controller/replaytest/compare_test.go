package replaytest

import "testing"

func TestDifferences(t *testing.T) {
	tests := []struct {
		name, want, got string
		same            bool
	}{
		{"equal", `{"a":[1,{"b":null}]}`, `{"a":[1,{"b":null}]}`, true},
		{"anything", `{"a":"~"}`, `{"a":{"b":1}}`, true},
		{"anything must be there", `{"a":"~"}`, `{}`, false},
		{"one too many", `{}`, `{"a":null}`, false},
		{"null is not absent", `{"a":null}`, `{}`, false},
		{"other value", `{"a":1}`, `{"a":2}`, false},
		{"other type", `{"a":1}`, `{"a":"1"}`, false},
		{"annotations in another order", `[{"key":"a","value":1},{"key":"b","value":2}]`, `[{"key":"b","value":2},{"key":"a","value":1}]`, true},
		{"a cold start", `[{"key":"a","value":1}]`, `[{"key":"initTime","value":3},{"key":"a","value":1}]`, true},
		{"a list in another order", `[1,2]`, `[2,1]`, false},
		{"a shorter list", `[1,2]`, `[1]`, false},
		{"a placeholder", `"at <host>/x"`, `"at localhost:1/x"`, true},
		{"a placeholder for nothing", `"at <host>/x"`, `"at /x"`, false},
		{"a parser's words", `"The request content was malformed:\nUnexpected end-of-input"`, `"The request content was malformed:\nEOF"`, true},
		{"a parser's silence", `"The request content was malformed:\nUnexpected end-of-input"`, `"The request content was malformed:\n"`, false},
		{"our own words", `"The request content was malformed:\nkey not found: status"`, `"The request content was malformed:\nEOF"`, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var d differences
			d.values("", decode([]byte(tt.want)), decode([]byte(tt.got)))
			if (len(d) == 0) != tt.same {
				t.Errorf("differences of %s and %s = %v", tt.want, tt.got, d)
			}
		})
	}
}

func TestTypeDifferences(t *testing.T) {
	want := `{"n":"number","runtimes":{"nodejs":[{"kind":"str"}]}}`
	for got, same := range map[string]bool{
		`{"n":1,"runtimes":{"python":[{"kind":"python:3"}]}}`: true,
		`{"n":1,"runtimes":{"python":[{"kind":1}]}}`:          false,
		`{"n":1,"runtimes":{}}`:                               false,
		`{"n":"1","runtimes":{"python":[{"kind":"x"}]}}`:      false,
		`{"runtimes":{"python":[{"kind":"x"}]}}`:              false,
	} {
		var d differences
		d.types("", decode([]byte(want)), decode([]byte(got)))
		if (len(d) == 0) != same {
			t.Errorf("differences of %s = %v", got, d)
		}
	}
}
