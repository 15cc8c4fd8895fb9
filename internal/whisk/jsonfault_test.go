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
		"{\"a\": 1,\n \"b\": }":  "unexpected '}' in line 2, column 7",
		"{\"a\": 1,\n \"b\": 2":  "it ends too early, in line 2, column 8",
		`{"a": 1} x`:             "unexpected 'x' in line 1, column 10",
		``:                       "it ends too early, in line 1, column 1",
		"\n \n":                  "it ends too early, in line 3, column 1",
		`{'a': 1}`:               `unexpected ''' in line 1, column 2`,
		`{"ä": ü}`:               "unexpected 'ü' in line 1, column 7",
		"{\"a\": \"x\n\"}":       "unexpected end of the line in line 1, column 9",
		"[\x00]":                 "unexpected character U+0000 in line 1, column 2",
		"{\"a\": 1,\n\n  \"b\"}": "unexpected '}' in line 3, column 6",
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
