package whisk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// JSONFault tells a person where b is not one JSON value and why, as in
// "unexpected '}' in line 2, column 7". It is empty for JSON.
func JSONFault(b []byte) string {
	var v json.RawMessage
	var syntax *json.SyntaxError
	if err := json.Unmarshal(b, &v); !errors.As(err, &syntax) {
		return ""
	}
	at := min(max(int(syntax.Offset)-1, 0), len(b)) // the offset counts what was read, the fault included
	_, size := utf8.DecodeRune(b[at:])
	what := "unexpected " + shownRune(b[at:at+size])
	// Of what ends too early there is no byte at fault: all could be followed.
	if rest := bytes.TrimSpace(b); len(rest) == 0 || syntax.Error() == "unexpected end of JSON input" {
		at, what = len(b), "it ends too early,"
	}
	before := b[:at]
	line := 1 + bytes.Count(before, []byte("\n"))
	column := 1 + utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])
	return fmt.Sprintf("%s in line %d, column %d", what, line, column)
}

// shownRune is the first character of b for people.
func shownRune(b []byte) string {
	r, _ := utf8.DecodeRune(b)
	switch {
	case r == '\n':
		return "end of the line"
	case !unicode.IsPrint(r):
		return fmt.Sprintf("character U+%04X", r)
	}
	return "'" + string(r) + "'"
}
