package rules

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/whisk"
)

// verdict runs one pattern against one event: "match", "no", "error" (the event
// cannot be read) or "refused" (the pattern).
func verdict(pattern, event string) string {
	p, err := ParsePattern([]byte(pattern))
	if err != nil {
		return "refused"
	}
	ix := newIndex()
	m := ix.compile(p)
	var f flat
	f.reset(ix)
	if err := f.fill(nil, []byte(event), nil); err != nil {
		return "error"
	}
	if m.match(&f) != "" {
		return "no"
	}
	return "match"
}

func TestVerdicts(t *testing.T) {
	for _, line := range strings.Split(strings.TrimSpace(verdicts), "\n") {
		pattern, rest, ok := strings.Cut(line, " <= ")
		event, want, ok2 := strings.Cut(rest, " => ")
		if !ok || !ok2 {
			t.Fatalf("line %q", line)
		}
		if got := verdict(pattern, event); got != want {
			t.Errorf("%s on %s = %s, want %s", pattern, event, got, want)
		}
	}
}

const verdicts = `
{"a":[1]} <= {"a":1} => match
{"a":[1]} <= {"a":1.0} => match
{"a":[1]} <= {"a":"1"} => no
{"a":["1"]} <= {"a":1} => no
{"a":[1.0]} <= {"a":1} => match
{"a":[1e2]} <= {"a":100} => match
{"a":[1e2]} <= {"a":1E+2} => match
{"a":[123456789012345678901234567890]} <= {"a":123456789012345678901234567890} => match
{"a":[12345678901234567890]} <= {"a":12345678901234567891} => no
{"a":[12345678901234567890]} <= {"a":1.2345678901234567890e19} => match
{"a":[9007199254740993]} <= {"a":9007199254740993} => match
{"a":[9007199254740993]} <= {"a":9007199254740992} => no
{"a":[0.1]} <= {"a":0.10} => match
{"a":[0]} <= {"a":-0.0} => match
{"a":[0]} <= {"a":-0} => match
{"a":[0]} <= {"a":0e99999999999999999999} => match
{"a":[-1]} <= {"a":1} => no
{"a":[-1]} <= {"a":-1.0} => match
{"a":[1]} <= {"a":1e99999999999999999999} => no
{"a":[0.1234567890123456789]} <= {"a":0.1234567890123456789} => match
{"a":[0.1234567890123456789]} <= {"a":0.12345678901234567890} => match
{"a":[null]} <= {"a":null} => match
{"a":[null]} <= {} => no
{"a":[null]} <= {"b":1} => no
{"a":[null]} <= {"a":"null"} => no
{"a":[true]} <= {"a":true} => match
{"a":[true]} <= {"a":"true"} => no
{"a":["true"]} <= {"a":true} => no
{"a":[false]} <= {"a":false} => match
{"a":[""]} <= {"a":""} => match
{"a":["x"]} <= {"a":["x","y"]} => match
{"a":["x"]} <= {"a":[["x"],"y"]} => match
{"a":["x"]} <= {"a":{"x":1}} => no
{"a":["x"]} <= {"a":[]} => no
{"a":["\u0041"]} <= {"a":"A"} => match
{"a":["A"]} <= {"a":"\u0041"} => match
{"\u0061":["A"]} <= {"a":"A"} => match
{"a":["A"]} <= {"\u0061":"A"} => match
{"a":["q\"\\"]} <= {"a":"q\"\\"} => match
{"a":["::1"]} <= {"a":"0:0:0:0:0:0:0:1"} => match
{"a":["2001:DB8::1"]} <= {"a":"2001:db8::1"} => match
{"a":["10.0.0.1"]} <= {"a":"10.0.0.1"} => match
{"a":["10.0.0.1"]} <= {"a":"010.0.0.001"} => no
{"a":["10.0.0.1"]} <= {"a":"::ffff:10.0.0.1"} => no
{"a":["1.2.3.4.5"]} <= {"a":"1.2.3.4.5"} => match
{"a":["999.1.1.1"]} <= {"a":"999.1.1.1"} => match
{"a":["1:2"]} <= {"a":"1:2"} => match
{"a":["a:b"]} <= {"a":"a:b"} => match
{"a":["fe80::1%eth0"]} <= {"a":"fe80::1%eth0"} => match
{"a":["fe80::1%eth0"]} <= {"a":"FE80::1%eth0"} => no
{"a":["é"]} <= {"a":"e\u0301"} => no
{"a":["é"]} <= {"a":"\u00e9"} => match
{"a":[1],"a":[2]} <= {"a":1} => refused
{"a":[1],"a":[2]} <= {"a":2} => refused
{"a":{"b":[1]},"a":{"c":[1]}} <= {"a":{"b":1,"c":1}} => refused
{"a":{"b":[1]},"a":{"c":[1]}} <= {"a":{"c":1}} => refused
{"a":[1]} <= {"a":1,"a":2} => no
{"a":[2]} <= {"a":1,"a":2} => match
{"a":{"b":[1]}} <= {"a":{"b":1},"a":{"c":2}} => no
{"a":{"b":[1]}} <= {"a":{"b":1},"a":7} => no
{"a":{"b":[1]}} <= {"a":{"b":2},"a":{"b":1}} => match
{"a":{"b":[1]}} <= {"a":{"b":1},"a.b":2} => match
{"a":{"b":[1]}} <= {"a.b":1,"a":{"b":3},"a":{"b":4},"a.b":2} => no
{"a.b":[1]} <= {"a":{"b":1}} => match
{"a":{"b":[1]}} <= {"a.b":1} => match
{"a":{"b.c":[1]}} <= {"a.b":{"c":1}} => match
{"":[1]} <= {"":1} => match
{"":{"a":[1]}} <= {"":{"a":1}} => match
{"":{"a":[1]}} <= {".a":1} => match
{"":{"a":[1]}} <= {"a":1} => no
{"a":{"":[1]}} <= {"a.":1} => match
{"a":[1]} <= [1] => error
{"a":[1]} <= "x" => error
{"a":[1]} <= {"a":1 => error
{"a":[1]} <= {"a":1} garbage => error
{"a":[1]} <= {"b":{"a":1}} => no
{"e":{"f":["Anna"],"l":["Jones"]}} <= {"e":[{"f":"Anna","l":"Smith"},{"f":"Peter","l":"Jones"}]} => no
{"e":{"f":["Anna"],"l":["Smith"]}} <= {"e":[{"f":"Anna","l":"Smith"},{"f":"Peter","l":"Jones"}]} => match
{"e":{"f":["Anna"],"l":["Smith"]}} <= {"e":[[{"f":"Anna"},{"l":"Smith"}]]} => no
{"e":{"f":["Anna"],"l":["Smith"]}} <= {"e":[[{"f":"Anna","l":"Smith"}]]} => match
{"e":{"f":["Anna"],"g":{"l":["Smith"]}}} <= {"e":[{"f":"Anna","g":[{"l":"x"},{"l":"Smith"}]}]} => match
{"e":{"f":["Anna"]},"h":["x"]} <= {"e":[{"f":"Anna"}],"h":["y","x"]} => match
{"e":["x"],"e.f":["y"]} <= {"e":["x",{"f":"y"}]} => match
{"e":["x"],"e.f":["y"]} <= {"e":["x","z",{"f":"y"}]} => match
{"e":["x"],"e.f":["y"],"e.g":["w"]} <= {"e":[{"f":"y"},"x",{"g":"w"}]} => no
{"e":["x"],"e.f":["y"],"e.g":["w"]} <= {"e":[{"g":"w"},"x",{"f":"y"},"x",{"g":"w","f":"y"}]} => match
{"o":{"e":["x"],"e.f":["y"],"e.g":["w"]}} <= {"o":[{"e":[{"f":"y"},"x",{"g":"w"}]}]} => no
{"a":{"b":[1],"c":[2]}} <= {"a":{"b":[1,5],"c":[2,7]}} => match
{"a":{"t":["p"],"u":["q"]}} <= {"a":[{"t":["p","z"],"u":["q"]}]} => match
{"a":{"b":[1],"c":[2]},"d":[3]} <= {"a":[{"b":1},{"b":1,"c":2}],"d":[9,3]} => match
{"p":{"q":[1]},"p.r":[2]} <= {"p":[{"q":1},{"r":2}]} => no
{"a":["x"],"b":["y"]} <= {"a":["x","w"],"b":["q","y"]} => match
{"a":{"b":{"x":[1],"y":[2]}}} <= {"a":[{"b":[{"x":1}]},{"b":[{"y":2}]}]} => no
{"a":{"b":{"x":[1]},"c":{"y":[2]}}} <= {"a":[{"b":[{"x":1},{"x":5}],"c":[{"y":9},{"y":2}]}]} => match
{"a":{"b":{"x":[1]},"c":{"y":[2]}}} <= {"a":[{"b":[{"x":1}]},{"c":[{"y":2}]}]} => no
{"a":[5]} <= {"a":[[5,6],[7]]} => match
{"a":{"b":["x"]}} <= {"a":[{"b":["x","y"]},{"b":"z"}]} => match
{"a":{"b":["x"],"c":["q"]}} <= {"a":[{"b":["x","y"],"c":"r"},{"b":"z","c":"q"}]} => no
{"A":[1]} <= {"a":1} => no
{"a":[1],"b":[2]} <= {"a":1} => no
{"a":[1],"b":[2]} <= {"a":1,"b":2,"c":3} => match
{"a":{"b":{"c":["x"]}}} <= {"a":{"b":{"c":"x"}}} => match
{"a":{"b":{"c":["x"]}}} <= {"a":{"b":"x"}} => no
{"a":{"b":["x"]}} <= {"a":"x"} => no
{"a":["x"]} <= { "s" : "]}\"{" , "o":{"k":["}",{}]}, "a" : "x" } => match
`

func TestParsePatternRefuses(t *testing.T) {
	for _, tt := range []struct{ pattern, want string }{
		{`{}`, "found an empty object, expected at least one member (line 1, column 1)"},
		{`[]`, "found an array, expected an object (line 1, column 1)"},
		{`"x"`, "found a string, expected an object (line 1, column 1)"},
		{`{"a":1}`, "a: found a number, expected an object or an array of values (line 1, column 6)"},
		{`{"a":"x"}`, "a: found a string, expected an object or an array of values (line 1, column 6)"},
		{`{"a":null}`, "a: found null, expected an object or an array of values (line 1, column 6)"},
		{`{"a":{}}`, "a: found an empty object, expected at least one member (line 1, column 6)"},
		{`{"a":[]}`, "a: found an empty array, expected at least one value (line 1, column 6)"},
		{`{"a":[[1]]}`, "a: found an array in an array, expected a string, a number, true, false or null (line 1, column 7)"},
		{`{"a":[{}]}`, "a: found an empty object, expected a string, a number, true, false or null: operators are not supported yet (line 1, column 7)"},
		{`{"a":{"b":[{"prefix":"x"}]}}`, `a.b: found the operator "prefix", expected a string, a number, true, false or null: operators are not supported yet (line 1, column 12)`},
		{`{"a":["x",{"exists":false}],"b":[1]}`, `a: found the operator "exists", expected a string, a number, true, false or null: operators are not supported yet (line 1, column 11)`},
		{`{"a":[{"exactly":"x"}]}`, `a: found the operator "exactly", expected a string, a number, true, false or null: operators are not supported yet (line 1, column 7)`},
		{`{"a":[{"$or":[1,2]}]}`, `a: found the operator "$or", expected a string, a number, true, false or null: operators are not supported yet (line 1, column 7)`},
		{`{"$or":[{"a":[1]},{"b":[2]}]}`, `$or: found "$or", expected a field: operators are not supported yet (line 1, column 2)`},
		{`{"a":{"$or":["x","y"]}}`, `a.$or: found "$or", expected a field: operators are not supported yet (line 1, column 7)`},
		{`{"a":[1],"a":[2]}`, "a: found twice in one object, expected once: list all its values in one array (line 1, column 10)"},
		{`{"a":{"b":[1]},"a":{"c":[1]}}`, "a: found twice in one object, expected once: list all its values in one array (line 1, column 16)"},
		{`{"a":[1],"a":{"b":[2]}}`, "a: found twice in one object, expected once: list all its values in one array (line 1, column 10)"},
		{`{"a.b":[1],"a":{"b":[2]}}`, "a.b: found twice, expected once: list all its values in one array (line 1, column 17)"},
		{"{\n \"é\": [1e401]}", "é: found 1e401, expected a number between 1e-400 and 1e400 (line 2, column 8)"},
		{`{"a":[1e-401]}`, "a: found 1e-401, expected a number between 1e-400 and 1e400 (line 1, column 7)"},
		{`{"a":[1,]}`, "not JSON: invalid character ']' looking for beginning of value (line 1, column 9)"},
		{`{"a":[1]} trailing`, "not JSON: invalid character 't' after top-level value (line 1, column 11)"},
		{`{"a":[NaN]}`, "not JSON: invalid character 'N' looking for beginning of value (line 1, column 7)"},
		{`{"a":[01]}`, "not JSON: invalid character '1' after array element (line 1, column 8)"},
		{``, "not JSON: unexpected end of JSON input (line 1, column 1)"},
		{`{"a":1,"b":[]}`, "a: found a number, expected an object or an array of values (line 1, column 6); b: found an empty array, expected at least one value (line 1, column 12)"},
	} {
		_, err := ParsePattern([]byte(tt.pattern))
		if !errors.Is(err, whisk.Invalid) {
			t.Errorf("ParsePattern(%s) error = %v, want Invalid", tt.pattern, err)
			continue
		}
		if got := whisk.Message(err); got != tt.want {
			t.Errorf("ParsePattern(%s)\n got %q\nwant %q", tt.pattern, got, tt.want)
		}
	}
}

func TestParsePatternBounds(t *testing.T) {
	paths := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"p%d":[1]`, i)
		}
		return "{" + b.String()[1:] + "}"
	}
	if _, err := ParsePattern([]byte(paths(maxPaths))); err != nil {
		t.Errorf("%d paths: %v", maxPaths, err)
	}
	if _, err := ParsePattern([]byte(paths(maxPaths + 1))); !errors.Is(err, whisk.Invalid) {
		t.Errorf("%d paths: error = %v, want Invalid", maxPaths+1, err)
	}
	long := `{"a":["` + strings.Repeat("x", maxPattern) + `"]}`
	if _, err := ParsePattern([]byte(long)); !errors.Is(err, whisk.Invalid) {
		t.Errorf("long pattern: error = %v, want Invalid", err)
	}
	if _, err := ParsePattern([]byte(`{"a":[1e400,0e999]}`)); err != nil {
		t.Errorf("the largest number: %v", err)
	}
}

func TestReasons(t *testing.T) {
	for _, tt := range []struct{ pattern, event, want string }{
		{`{"a":{"b":["x","y"]}}`, `{"a":{"b":"z"}}`, `a.b: wanted "x" or "y", found "z"`},
		{`{"a":[1]}`, `{}`, `a: wanted 1, found nothing`},
		{`{"a":[1]}`, `{"a":{}}`, `a: wanted 1, found an object`},
		{`{"a":[1]}`, `{"a":[]}`, `a: wanted 1, found an empty array`},
		{`{"a":[1,2,3,4,5,6]}`, `{"a":[7,8,9,10,11,12,13]}`, `a: wanted 1 or 2 or 3 or 4 or 5 or 1 other, found 7, 8, 9, 10, 11, 2 others`},
		{`{"a":[0,4,8,12,16,20,24]}`, `{"a":[1,2,3,5,6]}`, `a: wanted 0 or 4 or 8 or 12 or 16 or 2 others, found 1, 2, 3, 5, 6`},
		{`{"a":[1]}`, `{"a":"` + strings.Repeat("é", 100) + `"}`, `a: wanted 1, found "` + strings.Repeat("é", 31) + `… (202 bytes)`},
		{
			`{"e":{"f":["Anna"],"l":["Jones"]}}`, `{"e":[{"f":"Anna","l":"Smith"},{"f":"Peter","l":"Jones"}]}`,
			`e.f, e.l: each holds a wanted value, but not within one element of the arrays that they share`,
		},
	} {
		p, err := ParsePattern([]byte(tt.pattern))
		if err != nil {
			t.Fatal(err)
		}
		ix := newIndex()
		m := ix.compile(p)
		var f flat
		f.reset(ix)
		if err := f.fill(nil, []byte(tt.event), nil); err != nil {
			t.Fatal(err)
		}
		if got := m.match(&f); got != tt.want {
			t.Errorf("%s on %s:\n got %q\nwant %q", tt.pattern, tt.event, got, tt.want)
		}
	}
}

// TestEntangledArrays shows that an event made to be costly costs a bounded
// effort, and that large honest ones are decided.
func TestEntangledArrays(t *testing.T) {
	var el []string
	for i := range 50_000 {
		el = append(el, fmt.Sprintf(`{"f":1,"x":[{"y":%d}]}`, i))
	}
	event := `{"e":[` + strings.Join(el, ",") + `,{"f":1,"l":2}]}`
	if got := verdict(`{"e":{"f":[1],"l":[2]}}`, event); got != "match" {
		t.Errorf("a long array: %s, want match", got)
	}
	// The same paths lie in two arrays at once, so choices multiply.
	one, two := `{"p1":1,"p2":1},{"p3":1,"p4":1},{"p1":1,"p3":1},{"p2":1,"p4":1}`, ""
	for range 12 {
		one += "," + one
		if len(one) > 200_000 {
			break
		}
	}
	two = one
	entangled := `{"x":{"y":[` + one + `]},"x.y":[` + two + `]}`
	if got := verdict(`{"x":{"y":{"p1":[1],"p2":[1],"p3":[1],"p4":[1]}}}`, entangled); got != "match" {
		t.Errorf("two arrays that complete each other: %s, want match", got)
	}
	if got := verdict(`{"x":{"y":{"p1":[1],"p2":[1],"p3":[1],"p4":[1],"p5":[1]}}}`, entangled); got != "no" {
		t.Errorf("an absent path: %s, want no", got)
	}
}

func FuzzPattern(f *testing.F) {
	for _, line := range strings.Split(strings.TrimSpace(verdicts), "\n") {
		pattern, rest, _ := strings.Cut(line, " <= ")
		event, _, _ := strings.Cut(rest, " => ")
		f.Add(pattern, event)
	}
	f.Add(`{"a":{"b":[1],"c":[1],"d":[1]}}`, `{"a":[{"b":1},[{"b":1,"c":1},{"c":1,"d":1}]],"a.b":[1],"a.d":[{"":1}]}`)
	f.Fuzz(func(t *testing.T, pattern, event string) {
		got := verdict(pattern, event)
		if !json.Valid([]byte(event)) || got == "refused" {
			return // it must not panic, no more is promised
		}
		if len(pattern) > 200 || len(event) > 200 || wild(pattern) || wild(event) {
			return // beyond what the slow matcher can do
		}
		want := "no"
		switch ok, err := slow([]byte(pattern), []byte(event)); {
		case err != nil:
			want = "error"
		case ok:
			want = "match"
		}
		if got != want {
			t.Errorf("%s on %s = %s, want %s", pattern, event, got, want)
		}
	})
}

// wild reports whether a text may hold a number that big.Rat would take long
// for.
func wild(text string) bool {
	for _, e := range []string{"e", "E"} {
		for _, part := range strings.Split(text, e)[1:] {
			if n := len(strings.TrimLeft(strings.TrimLeft(part, "+-"), "0")); n > 0 {
				digits := 0
				for digits < len(part) && strings.ContainsRune("+-0123456789", rune(part[digits])) {
					digits++
				}
				if digits > 3 {
					return true
				}
			}
		}
	}
	return false
}
