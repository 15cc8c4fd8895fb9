package whisk_test

import (
	"regexp"
	"testing"

	"github.com/millrace/millrace/internal/whisk"
)

var keyAlphabet = regexp.MustCompile(`^[-/_=A-Za-z0-9]+$`)

func TestToken(t *testing.T) {
	for in, want := range map[string]string{
		"":      "_",
		"_":     "=5F",
		"guest": "guest",
		"a.b":   "a=2Eb",
		"a b":   "a=20b",
		"a=2Eb": "a=3D2Eb",
		"über":  "=C3=BCber",
	} {
		if got := whisk.Token(in); got != want {
			t.Errorf("Token(%q) = %q, want %q", in, got, want)
		}
	}
	for _, bad := range []string{"", "a.b", "a=", "a=2", "=41", "=2e", "a_"} {
		if got, err := whisk.ParseToken(bad); err == nil {
			t.Errorf("ParseToken(%q) = %q, want an error", bad, got)
		}
	}
}

func FuzzToken(f *testing.F) {
	for _, s := range []string{"", "_", "a.b", "a=2Eb", "guest", "\x00\xff", "*", ">"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tok := whisk.Token(s)
		if !keyAlphabet.MatchString(tok) {
			t.Fatalf("Token(%q) = %q leaves the alphabet of keys", s, tok)
		}
		back, err := whisk.ParseToken(tok)
		if err != nil || back != s {
			t.Fatalf("ParseToken(Token(%q)) = %q, %v", s, back, err)
		}
		// What ParseToken accepts at all, Token writes just so.
		if raw, err := whisk.ParseToken(s); err == nil && whisk.Token(raw) != s {
			t.Fatalf("ParseToken(%q) = %q, which Token writes as %q", s, raw, whisk.Token(raw))
		}
	})
}
