package whisk

import (
	"testing"
	"time"
)

func TestAttemptID(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_123)
	event := DeriveID(at, "event")
	m := Match{Event: 7, Rule: Name{Namespace: "guest", Entity: "r"}}
	first := m.AttemptID(event, 1)
	if err := CheckID(first); err != nil {
		t.Fatalf("AttemptID = %q: %v", first, err)
	}
	if got := IDTime(first); !got.Equal(at) {
		t.Errorf("time of %q = %v, want the event's, %v", first, got, at)
	}
	if again := m.AttemptID(event, 1); again != first {
		t.Errorf("AttemptID again = %q, want %q", again, first)
	}
	other := m
	other.Event = 8
	seen := map[string]string{first: "attempt 1"}
	for name, id := range map[string]string{
		"attempt 2":           m.AttemptID(event, 2),
		"the same event anew": other.AttemptID(event, 1),
		"another event":       m.AttemptID(DeriveID(at, "other"), 1),
		"another rule":        Match{Event: 7, Rule: Name{Namespace: "guest", Entity: "q"}}.AttemptID(event, 1),
	} {
		if was, ok := seen[id]; ok {
			t.Errorf("%s has the ID of %s: %s", name, was, id)
		}
		seen[id] = name
	}
}

func TestAttemptIDOfInvocation(t *testing.T) {
	m := Match{Invoke: NewID(time.Now())}
	if got := m.AttemptID("", 1); got != m.Invoke {
		t.Errorf("first attempt = %q, want the ID that was answered, %q", got, m.Invoke)
	}
	if got := m.AttemptID("", 2); got == m.Invoke || CheckID(got) != nil {
		t.Errorf("second attempt = %q, want an ID of its own", got)
	}
}
