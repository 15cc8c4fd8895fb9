package bus

import (
	"errors"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/whisk"
)

// TestNearlyFullDisk lets the disk have no room: events are refused with the
// remedy, while cursors, which say what was done, are still saved.
func TestNearlyFullDisk(t *testing.T) {
	b := openHere(t)
	if err := b.Room(); err != nil {
		t.Fatalf("Room = %v on this machine's disk: the test needs %d bytes of it free", err, int64(MinFree))
	}
	set := func(low bool) {
		b.room.mu.Lock()
		b.room.low = low
		b.room.mu.Unlock()
	}
	set(true)
	for what, err := range map[string]error{
		"Accept": func() error { _, err := b.Accept(t.Context(), anEvent(1)); return err }(),
		"batch":  b.AcceptBatch(t.Context(), whisk.Cursor{Feed: "f"}, anEvent(1)),
		"Room":   b.Room(),
	} {
		if !errors.Is(err, whisk.Unavailable) || !strings.Contains(whisk.Message(err), "nearly full") || !strings.Contains(whisk.HintOf(err), b.o.Dir) {
			t.Errorf("%s = %v (hint %q), want Unavailable and the remedy", what, err, whisk.HintOf(err))
		}
	}
	if err := b.AcceptBatch(t.Context(), whisk.Cursor{Feed: "f", Position: "p"}); err != nil {
		t.Errorf("a cursor alone: %v", err)
	}
	b.room.look(t.Context(), b) // the disk is what it is
	if err := b.Room(); err != nil {
		t.Errorf("Room with room again: %v", err)
	}
	if _, err := b.Accept(t.Context(), anEvent(1)); err != nil {
		t.Errorf("Accept with room again: %v", err)
	}
	st, err := b.State(t.Context(), StreamEvents)
	if err != nil || st.Last != 2 {
		t.Errorf("the archive ends at %d, %v: want the cursor and one event", st.Last, err)
	}
}

// TestWriteFailureTellsTheRemedy checks that a person reads what to do, and no
// chain of what wrapped what.
func TestWriteFailureTellsTheRemedy(t *testing.T) {
	for text, want := range map[string]struct{ cause, hint string }{
		"Filestore [EVENTS] Critical write error: write /d/1.blk: no space left on device": {"the disk of the store in /d is full", "free some space"},
		"JetStream out of space, will be DISABLED":                                         {"the disk of the store in /d is full", "free some space"},
		"fdatasync /d/1.blk: input/output error":                                           {"the store in /d can't be written: fdatasync /d/1.blk: input/output error", "its disk"},
	} {
		err := writeFailure("/d", text)
		if err.Error() != want.cause || !strings.Contains(whisk.HintOf(err), want.hint) || !strings.Contains(whisk.HintOf(err), "start the server again") {
			t.Errorf("writeFailure(%q) = %v (hint %q), want %v", text, err, whisk.HintOf(err), want)
		}
	}
}
