package whisk_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

func TestIDs(t *testing.T) {
	at := time.Date(2026, 3, 29, 1, 30, 0, 123456789, time.UTC)
	id := whisk.NewID(at)
	if err := whisk.CheckID(id); err != nil {
		t.Fatalf("NewID = %q: %v", id, err)
	}
	if got := whisk.IDTime(id); !got.Equal(at.Truncate(time.Millisecond)) {
		t.Errorf("IDTime(%q) = %v, want %v", id, got, at)
	}
	if id == whisk.NewID(at) {
		t.Error("two fresh IDs are the same")
	}
	if later := whisk.NewID(at.Add(time.Millisecond)); later <= id {
		t.Errorf("%s, a millisecond later, sorts before %s", later, id)
	}
	a, b := whisk.DeriveID(at, "feed", "7"), whisk.DeriveID(at, "feed", "7")
	if a != b {
		t.Errorf("the same happening has two IDs: %s, %s", a, b)
	}
	if c := whisk.DeriveID(at, "feed7", ""); c == a {
		t.Error("parts run together")
	}
	if c := whisk.DeriveID(at.Add(time.Hour), "feed", "7"); whisk.IDHash(c) != whisk.IDHash(a) || c == a {
		t.Errorf("an hour later: %s and %s must differ in time only", a, c)
	}
	if got := whisk.IDTime("nonsense"); !got.IsZero() {
		t.Errorf("IDTime(nonsense) = %v, want the zero time", got)
	}
}

func TestCheckID(t *testing.T) {
	for in, text := range map[string]string{
		"abc":                   "Activation id length is 3 but must be 32.",
		strings.Repeat("g", 32): "The activation id is not valid.",
		strings.Repeat("A", 32): "The activation id is not valid.",
	} {
		err := whisk.CheckID(in)
		if !errors.Is(err, whisk.Invalid) || whisk.Message(err) != text {
			t.Errorf("CheckID(%q) = %v, want Invalid with %q", in, err, text)
		}
	}
}
