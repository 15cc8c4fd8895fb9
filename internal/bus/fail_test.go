package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

func openHere(t *testing.T) *Bus {
	t.Helper()
	b, err := Open(t.Context(), Options{
		Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler), EventsLimit: 64 << 20, JournalLimit: 16 << 20, CallsLimit: 1 << 20, DeadLimit: 1 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func anEvent(n int) whisk.Event {
	at := time.UnixMilli(1_700_000_000_000 + int64(n)).UTC()
	return whisk.Event{ID: whisk.DeriveID(at, fmt.Sprint(n)), Trigger: whisk.Name{Namespace: "guest", Entity: "t"}, Time: at, Payload: []byte(`{}`)}
}

// TestNoRoomOnTheDisk accepts on a disk that is nearly full: nothing is written,
// not even a payload that would lie outside the archive; what the journal
// needs to come to an end still is.
func TestNoRoomOnTheDisk(t *testing.T) {
	b := openHere(t)
	b.room.mu.Lock()
	b.room.low = true
	b.room.mu.Unlock()
	large := anEvent(1)
	large.Payload = fmt.Appendf(nil, `{"text":%q}`, strings.Repeat("x", whisk.MaxPayload))
	for what, accept := range map[string]func() error{
		"an event":      func() error { _, err := b.Accept(t.Context(), anEvent(1)); return err },
		"a large event": func() error { _, err := b.Accept(t.Context(), large); return err },
		"a batch":       func() error { return b.AcceptBatch(t.Context(), whisk.Cursor{Feed: "f", Position: "p"}, large) },
	} {
		if err := accept(); !errors.Is(err, whisk.Unavailable) || whisk.HintOf(err) == "" {
			t.Errorf("%s: %v (hint %q), want Unavailable and a hint", what, err, whisk.HintOf(err))
		}
	}
	for _, stream := range []string{StreamEvents, objectStream} {
		if st, err := b.State(t.Context(), stream); err != nil || st.Messages != 0 {
			t.Errorf("%s holds %d messages, %v, want none", stream, st.Messages, err)
		}
	}
	if err := b.AcceptBatch(t.Context(), whisk.Cursor{Feed: "f", Position: "p"}); err != nil {
		t.Errorf("a cursor alone: %v", err)
	}
	if _, err := b.PutObject(t.Context(), []byte("log text")); err != nil {
		t.Errorf("log text: %v", err)
	}
	if _, err := b.Publish(t.Context(), Message{Subject: SubjectJournal, Data: []byte("record")}, nil); err != nil {
		t.Errorf("a record: %v", err)
	}
}

// mustEnd checks that a bus takes nothing more and that Run ends with an error.
func mustEnd(t *testing.T, b *Bus) {
	t.Helper()
	if err := b.Run(t.Context()); err == nil {
		t.Error("Run ends without an error although the store has failed")
	}
	if _, err := b.Accept(t.Context(), anEvent(9)); !errors.Is(err, whisk.Unavailable) {
		t.Errorf("Accept after the failure: %v, want Unavailable", err)
	}
}

// TestFailedFlushIsTheEnd makes a sync fail: the accept that waits for it is
// not confirmed, and it is not tried again.
func TestFailedFlushIsTheEnd(t *testing.T) {
	b := openHere(t)
	if _, err := b.Accept(t.Context(), anEvent(1)); err != nil {
		t.Fatal(err)
	}
	b.files.mu.Lock()
	for dir, s := range b.files.streams {
		if filepath.Base(filepath.Dir(dir)) == StreamEvents {
			s.f.Close() // the descriptor is bad now, as that of a lost disk
		}
	}
	b.files.mu.Unlock()
	if _, err := b.Accept(t.Context(), anEvent(2)); err == nil {
		t.Error("an event is confirmed although its flush failed")
	}
	mustEnd(t, b)
}

// TestEngineWriteErrorIsTheEnd lets the server say that it writes no more.
func TestEngineWriteErrorIsTheEnd(t *testing.T) {
	for _, say := range []func(l engineLog){
		func(l engineLog) {
			l.Errorf("JetStream stream '%s > %s' critical write error: %v", "$G", StreamEvents, os.ErrPermission)
		},
		func(l engineLog) { l.Errorf("JetStream out of space, will be DISABLED") },
		func(l engineLog) { l.Fatalf("gone") },
	} {
		b := openHere(t)
		l := engineLog{b.o.Log, func(text string) { b.fail(writeFailure(b.o.Dir, text)) }}
		l.Warnf("JetStream is slow")
		if err := b.check(); err != nil {
			t.Fatalf("a warning ends the bus: %v", err)
		}
		say(l)
		mustEnd(t, b)
	}
}

// TestTrimLosesToTheFeed: a cursor is saved again by the trim only while it is the newest of its feed.
func TestTrimLosesToTheFeed(t *testing.T) {
	b := openHere(t)
	save := func(position string) {
		t.Helper()
		if err := b.AcceptBatch(t.Context(), whisk.Cursor{Feed: "f", Position: position}, anEvent(1)); err != nil {
			t.Fatal(err)
		}
	}
	save("old")
	seen := b.cursors.below(1 << 40)[0] // by the trim, before the feed saves
	save("new")
	if err := b.writeBatch(t.Context(), seen.Cursor, nil, &seen.seq); !errors.Is(err, whisk.Conflict) {
		t.Errorf("saving an old cursor again = %v, want a conflict", err)
	}
	if c, _, err := b.Cursor(t.Context(), "f"); err != nil || c.Position != "new" {
		t.Errorf("the cursor is %q, %v, want what the feed saved", c.Position, err)
	}
}

// TestEventShowsOnlyWhenFlushed looks at an event between its acknowledgement
// and its flush.
func TestEventShowsOnlyWhenFlushed(t *testing.T) {
	r := newRecent(4)
	ev := anEvent(1)
	r.add(5, &ev)
	if got, flushed := r.get(5); got != nil || flushed {
		t.Errorf("an event that is not flushed shows: %v, %v", got, flushed)
	}
	r.flushed(5)
	if got, flushed := r.get(5); got != &ev || !flushed {
		t.Errorf("get = %v, %v after the flush", got, flushed)
	}
	if got, flushed := r.get(3); got != nil || !flushed {
		t.Errorf("get = %v, %v of what is older than the memory; the store must be asked", got, flushed)
	}
}

// TestFlushFindsRewrittenBlocks writes a block anew under its old name, as the
// server's compaction does, and then lets others follow.
func TestFlushFindsRewrittenBlocks(t *testing.T) {
	dir := t.TempDir()
	msgs := filepath.Join(dir, "jetstream", "$G", "streams", "S", "msgs")
	if err := os.MkdirAll(msgs, 0o700); err != nil {
		t.Fatal(err)
	}
	files, err := newBlockFiles(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer files.close()
	if err := files.syncAll(); err != nil {
		t.Fatal(err)
	}
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(msgs, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(what string, folder bool, want map[string]int64) {
		t.Helper()
		f, err := files.sync("")
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if len(f.Files) != len(want) || (len(f.Folders) > 0) != folder {
			t.Fatalf("%s: flushed %v, folders %v; want %v, folder %v", what, f.Files, f.Folders, want, folder)
		}
		for name, size := range want {
			if f.Files[filepath.Join(msgs, name)] != size {
				t.Errorf("%s: %s is safe up to %d, want %d", what, name, f.Files[filepath.Join(msgs, name)], size)
			}
		}
	}
	expect("empty", false, nil)
	write("1.blk", "one")
	expect("first block", true, map[string]int64{"1.blk": 3})
	expect("at rest", false, nil)
	write("1.new", "1")
	if err := os.Rename(filepath.Join(msgs, "1.new"), filepath.Join(msgs, "1.blk")); err != nil {
		t.Fatal(err)
	}
	expect("written anew", true, map[string]int64{"1.blk": 1})
	write("1.new", "2")
	if err := os.Rename(filepath.Join(msgs, "1.new"), filepath.Join(msgs, "1.blk")); err != nil {
		t.Fatal(err)
	}
	expect("written anew with the same size", true, map[string]int64{"1.blk": 1})
	write("1.blk", "1 and more")
	write("2.blk", "two")
	write("3.blk", "three")
	expect("two new blocks", true, map[string]int64{"1.blk": 10, "2.blk": 3, "3.blk": 5})
	for _, n := range []string{"1.blk", "2.blk", "3.blk"} {
		if err := os.Remove(filepath.Join(msgs, n)); err != nil {
			t.Fatal(err)
		}
	}
	write("7.blk", "seven")
	expect("purged and gone on", true, map[string]int64{"7.blk": 5})
	if err := os.RemoveAll(filepath.Dir(msgs)); err != nil {
		t.Fatal(err)
	}
	expect("stream deleted", false, nil)
}

// FuzzAck checks the short way of reading an acknowledgement against the long
// one.
func FuzzAck(f *testing.F) {
	for _, s := range []string{
		`{"stream":"EVENTS","seq":7}`, `{"stream":"EVENTS", "seq": 7}`, `{"stream":"EVENTS","seq":7,"duplicate": true}`,
		`{"stream":"EVENTS","seq":7,"batch":"b","count":3}`, `{"error":{"code":503,"err_code":10077,"description":"full"},"stream":"EVENTS","seq":0}`,
		`{"stream":"EVENTS","seq":99999999999999999999}`, `{"stream":"\"seq\":5","x":1}`, `{"stream":"`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, ok := plainAck(data)
		if !ok {
			return
		}
		var want struct {
			Seq   *uint64         `json:"seq"`
			Error json.RawMessage `json:"error"`
		}
		if err := json.Unmarshal(data, &want); err != nil {
			return // the server writes JSON
		}
		if want.Error == nil && (want.Seq == nil || *want.Seq != got) {
			t.Errorf("plainAck(%s) = %d", data, got)
		}
	})
}
