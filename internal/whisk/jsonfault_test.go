package whisk

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestJSONFault(t *testing.T) {
	for text, want := range map[string]string{
		`{"a": [1, null]}`:       "",
		` 1 `:                    "",
		"{\"a\": 1,\n \"b\": }":  "line 2, column 7: unexpected '}'",
		"{\"a\": 1,\n \"b\": 2":  "line 2, column 8: it ends too early",
		`{"a": 1} x`:             "line 1, column 10: unexpected 'x'",
		``:                       "line 1, column 1: it ends too early",
		"\n \n":                  "line 3, column 1: it ends too early",
		`{'a': 1}`:               `line 1, column 2: unexpected '''`,
		`{"ä": ü}`:               "line 1, column 7: unexpected 'ü'",
		"{\"a\": \"x\n\"}":       "line 1, column 9: unexpected end of the line",
		"[\x00]":                 "line 1, column 2: unexpected character U+0000",
		"{\"a\": 1,\n\n  \"b\"}": "line 3, column 6: unexpected '}'",
	} {
		if got := JSONFault([]byte(text)); got != want {
			t.Errorf("JSONFault(%q) = %q, want %q", text, got, want)
		}
	}
}

// Whatever the text, a fault is told exactly of what is no JSON, in one line.
func FuzzJSONFault(f *testing.F) {
	for _, s := range []string{"", "{", "{\"a\":\xff}", "[1,]", "\n\n]", "ü", "{}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got := JSONFault(b)
		if (got == "") != json.Valid(b) {
			t.Errorf("JSONFault(%q) = %q, valid is %v", b, got, json.Valid(b))
		}
		if strings.ContainsAny(got, "\n\x00") {
			t.Errorf("JSONFault(%q) = %q", b, got)
		}
	})
}
