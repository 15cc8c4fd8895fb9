package whisk_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/whisk"
)

func TestParseName(t *testing.T) {
	long := strings.Repeat("a", 257)
	tests := []struct {
		name, in string
		want     whisk.Name
		kind     error
		text     string
	}{
		{name: "entity", in: "/ns/a", want: whisk.Name{Namespace: "ns", Entity: "a"}},
		{name: "packaged", in: "/ns/p/a", want: whisk.Name{Namespace: "ns", Package: "p", Entity: "a"}},
		{name: "no leading slash", in: "ns/a", want: whisk.Name{Namespace: "ns", Entity: "a"}},
		{name: "own namespace", in: "/_/a", want: whisk.Name{Namespace: "guest", Entity: "a"}},
		{name: "blanks inside", in: "/ns/a b@c.d-e&f", want: whisk.Name{Namespace: "ns", Entity: "a b@c.d-e&f"}},
		{name: "bare", in: "a", kind: whisk.Invalid, text: "must contain at least the namespace"},
		{name: "too deep", in: "/a/b/c/d", kind: whisk.Invalid, text: "must contain at least the namespace"},
		{name: "empty", in: "", kind: whisk.Invalid, text: "must contain at least the namespace"},
		{name: "bad entity", in: "/ns/$a", kind: whisk.Invalid, text: "The name of the entity contains illegal characters."},
		{name: "bad namespace", in: "/$/a", kind: whisk.Invalid, text: "The namespace contains illegal characters."},
		{name: "blank at the end", in: "/ns/a ", kind: whisk.Invalid, text: "The name of the entity contains illegal characters."},
		{name: "line break at the end", in: "/ns/a\n", kind: whisk.Invalid, text: "illegal characters"},
		{name: "long entity", in: "/ns/" + long, kind: whisk.Invalid, text: "Name segement longer than allowed: 257 > 256."},
		{name: "long namespace", in: "/" + long + "/a", kind: whisk.Invalid, text: "Namespace longer than allowed: 257 > 256."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := whisk.ParseName(tt.in, "guest")
			if !errors.Is(err, tt.kind) {
				t.Fatalf("ParseName(%q) error = %v, want %v", tt.in, err, tt.kind)
			}
			if err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("ParseName(%q) error = %q, want it to contain %q", tt.in, err, tt.text)
			}
			if got != tt.want {
				t.Errorf("ParseName(%q) = %v, want %v", tt.in, got, tt.want)
			}
		})
	}
}

func TestParseRelative(t *testing.T) {
	for in, want := range map[string]string{
		"a": "/guest/a", "p/a": "/guest/p/a", "/x/a": "/x/a", "/_/p/a": "/guest/p/a",
	} {
		got, err := whisk.ParseRelative(in, "guest")
		if err != nil || got.String() != want {
			t.Errorf("ParseRelative(%q) = %v, %v, want %s", in, got, err, want)
		}
	}
}

func TestNameParts(t *testing.T) {
	n := whisk.Name{Namespace: "ns", Package: "p", Entity: "a"}
	if n.Path() != "ns/p/a" || n.Dir() != "ns/p" || n.Local() != "p/a" || n.String() != "/ns/p/a" {
		t.Errorf("parts of %#v: %s %s %s %s", n, n.Path(), n.Dir(), n.Local(), n)
	}
	n.Package = ""
	if n.Path() != "ns/a" || n.Dir() != "ns" || n.Local() != "a" {
		t.Errorf("parts of %#v: %s %s %s", n, n.Path(), n.Dir(), n.Local())
	}
}

// FuzzParseName checks that a name which is accepted survives being written
// and read again.
func FuzzParseName(f *testing.F) {
	for _, s := range []string{"/ns/a", "/ns/p/a", "_/a", "a", "", "//", "/ns/a b", "/ns/ä"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := whisk.ParseName(s, "guest")
		if err != nil {
			if !errors.Is(err, whisk.Invalid) {
				t.Fatalf("ParseName(%q) error = %v, want Invalid", s, err)
			}
			return
		}
		again, err := whisk.ParseName(n.String(), "other")
		if err != nil || again != n {
			t.Fatalf("ParseName(%q) = %v, but ParseName(%q) = %v, %v", s, n, n.String(), again, err)
		}
	})
}

// FuzzCheckSegment holds the check against OpenWhisk's own expression.
func FuzzCheckSegment(f *testing.F) {
	for _, s := range []string{"a", "", " ", "a ", " a", "a b", "_", "@a", "a@.&-", "ä", "a\n", "a\x00b", "-a", "a/b"} {
		f.Add(s)
	}
	entityName := regexp.MustCompile(`^[\w]([\w@ .&-]*[\w@.&-])?$`)
	f.Fuzz(func(t *testing.T, s string) {
		want := entityName.MatchString(s) && len(s) <= whisk.MaxName
		if err := whisk.CheckSegment(s); (err == nil) != want || err != nil && !errors.Is(err, whisk.Invalid) {
			t.Errorf("CheckSegment(%q) = %v, want it taken: %v", s, err, want)
		}
	})
}

func TestNameJSON(t *testing.T) {
	type holder struct {
		A whisk.Name         `json:"a"`
		B whisk.Name         `json:"b,omitzero"`
		M map[whisk.Name]int `json:"m"`
	}
	in := holder{A: whisk.Name{Namespace: "ns", Package: "p", Entity: "a b"}, M: map[whisk.Name]int{{Namespace: "n", Entity: "e"}: 1}}
	b, err := json.Marshal(in)
	if err != nil || string(b) != `{"a":"/ns/p/a b","m":{"/n/e":1}}` {
		t.Fatalf("JSON = %s, %v", b, err)
	}
	var out holder
	if err := json.Unmarshal(b, &out); err != nil || !reflect.DeepEqual(out, in) {
		t.Errorf("read back %+v, %v, want %+v", out, err, in)
	}
	if b, _ := json.Marshal(whisk.Name{}); string(b) != `""` {
		t.Errorf("the zero name = %s, want an empty string", b)
	}
	var n whisk.Name
	if err := json.Unmarshal([]byte(`"alone"`), &n); !errors.Is(err, whisk.Invalid) {
		t.Errorf("reading a bare name: error = %v, want Invalid", err)
	}
}
