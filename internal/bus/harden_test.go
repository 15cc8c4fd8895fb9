package bus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/whisk"
)

// TestManyBatchesAtOnce has more feeds save a position at the same moment, as
// schedules do, than the engine holds open batches.
func TestManyBatchesAtOnce(t *testing.T) {
	b := open(t, options(t.TempDir()))
	const feeds, each = 200, 3
	var wg sync.WaitGroup
	start := make(chan struct{})
	for f := range feeds {
		wg.Go(func() {
			<-start
			c := whisk.Cursor{Feed: fmt.Sprint("feed", f), Position: "p"}
			if err := b.AcceptBatch(t.Context(), c, events(f*each, f*each+each)...); err != nil {
				t.Errorf("batch of feed %d: %v", f, err)
			}
		})
	}
	close(start)
	wg.Wait()
	if t.Failed() {
		return
	}
	// Events of one batch lie side by side.
	got := readAll(t, b, feeds*each)
	for i := 0; i < len(got); i += each {
		if got[i+each-1].Seq != got[i].Seq+each-1 {
			t.Fatalf("a batch lies at %d to %d", got[i].Seq, got[i+each-1].Seq)
		}
	}
}

// TestComputedLimitsStay opens a store again without limits: they are computed
// once, whatever the disk has free by then.
func TestComputedLimitsStay(t *testing.T) {
	o := options(t.TempDir())
	b := open(t, o)
	before, err := b.State(t.Context(), bus.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	o.EventsLimit = 0
	b = open(t, o)
	if after, err := b.State(t.Context(), bus.StreamEvents); err != nil || after.Limit != before.Limit {
		t.Errorf("limit = %d, %v, want %d as when the stream was made", after.Limit, err, before.Limit)
	}
}

// TestLimitsNeverBelowWhatIsHeld opens a store again with a limit that is less
// than it holds: what is there stays, and there is room for a little more.
func TestLimitsNeverBelowWhatIsHeld(t *testing.T) {
	o := options(t.TempDir())
	b := open(t, o)
	big := event(0)
	big.Payload = fmt.Appendf(nil, `{"x":%q}`, bytes.Repeat([]byte("y"), 900<<10))
	for range 4 {
		if _, err := b.Accept(t.Context(), big); err != nil {
			t.Fatal(err)
		}
	}
	before, err := b.State(t.Context(), bus.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	o.EventsLimit = 1 << 20
	b = open(t, o)
	after, err := b.State(t.Context(), bus.StreamEvents)
	if err != nil || after.Messages != before.Messages || after.Bytes != before.Bytes || after.Limit <= before.Bytes {
		t.Errorf("after = %+v, %v, want all of %+v and a limit above what is held", after, err, before)
	}
	if err := b.AcceptBatch(t.Context(), whisk.Cursor{Feed: "f", Position: "p"}); err != nil {
		t.Errorf("a cursor is refused: %v", err)
	}
}

// TestTrimSavesCursorsBeforeItPurges looks at the archive whenever it is flushed:
// what a trim takes away is there until the cursors that lay in it are safe.
func TestTrimSavesCursorsBeforeItPurges(t *testing.T) {
	o := options(t.TempDir())
	var b *bus.Bus
	var mu sync.Mutex
	var firsts []uint64
	looking := false
	o.OnFlush = func(bus.Flush) {
		mu.Lock()
		defer mu.Unlock()
		if looking {
			st, err := b.State(context.Background(), bus.StreamEvents)
			if err != nil {
				t.Error(err)
			}
			firsts = append(firsts, st.First)
		}
	}
	b = open(t, o)
	if err := b.AcceptBatch(t.Context(), whisk.Cursor{Feed: "f", Position: "here", Previous: "before"}, events(0, 5)...); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Accept(t.Context(), events(5, 20)...); err != nil {
		t.Fatal(err)
	}
	b.SetFloor(func() uint64 { return 1 << 40 })
	mu.Lock()
	looking = true
	mu.Unlock()
	if err := b.Trim(t.Context(), time.Now().Add(8*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(firsts) == 0 || firsts[0] != 1 {
		t.Errorf("the archive began at %v when it was flushed, want 1: the cursor must be safe before the purge", firsts)
	}
	if c, ok, err := b.Cursor(t.Context(), "f"); err != nil || !ok || c.Position != "here" || c.Count != 0 || c.Previous != "" {
		t.Errorf("cursor = %+v, %v, %v, want its position and no events", c, ok, err)
	}
}

// TestSameObjectAtOnce puts one object from many sides: it is stored once.
func TestSameObjectAtOnce(t *testing.T) {
	b := open(t, options(t.TempDir()))
	data := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MiB
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := b.PutObject(t.Context(), data); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	st, err := b.State(t.Context(), "OBJ_objects")
	if err != nil {
		t.Fatal(err)
	}
	if st.Bytes > int64(len(data))*5/4 {
		t.Errorf("the store holds %d bytes for one object of %d", st.Bytes, len(data))
	}
}

// TestSweepKeepsWhatWasJustPut sweeps between the putting of an object and the
// writing of what names it.
func TestSweepKeepsWhatWasJustPut(t *testing.T) {
	dir := t.TempDir()
	b := open(t, options(dir))
	digest, err := b.PutObject(t.Context(), []byte("new"))
	if err != nil {
		t.Fatal(err)
	}
	none := func(string) bool { return false }
	if n, err := b.SweepObjects(t.Context(), time.Hour, none); err != nil || n != 0 {
		t.Errorf("swept %d, %v, want none: whoever put it has not named it yet", n, err)
	}
	b.Close()
	b = open(t, options(dir))
	if n, err := b.SweepObjects(t.Context(), time.Hour, none); err != nil || n != 1 {
		t.Errorf("after a restart swept %d, %v, want 1", n, err)
	}
	if _, err := b.Object(t.Context(), digest); !errors.Is(err, whisk.NotFound) {
		t.Errorf("a swept object: %v, want NotFound", err)
	}
	if st, err := b.State(t.Context(), "OBJ_objects"); err != nil || st.Messages != 0 {
		t.Errorf("%d messages stay of a swept object, %v", st.Messages, err)
	}
}

// TestSweepTakesWhatIsLeftOfAPut sweeps after a crash that cut a put off: its
// chunks are there, and no description.
func TestSweepTakesWhatIsLeftOfAPut(t *testing.T) {
	b := open(t, options(t.TempDir()))
	whole, err := b.PutObject(t.Context(), bytes.Repeat([]byte("whole"), 100<<10))
	if err != nil {
		t.Fatal(err)
	}
	before, err := b.State(t.Context(), "OBJ_objects")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := b.Publish(t.Context(), bus.Message{Subject: "$O.objects.C.CUTOFF", Data: []byte("a chunk")}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := b.SweepObjects(t.Context(), time.Hour, func(string) bool { return true }); err != nil || n != 0 {
		t.Errorf("swept %d objects, %v, want none", n, err)
	}
	if st, err := b.State(t.Context(), "OBJ_objects"); err != nil || st.Messages != before.Messages {
		t.Errorf("%d messages, %v, want the %d of the whole object", st.Messages, err, before.Messages)
	}
	if _, err := b.Object(t.Context(), whole); err != nil {
		t.Errorf("the whole object: %v", err)
	}
}

// TestKilled reopens a copy of a store that is being written, as a process
// finds it that comes after kill -9: everything acknowledged is there, flushed
// or not, and batches are whole.
func TestKilled(t *testing.T) {
	dir, copied := t.TempDir(), t.TempDir()
	b := open(t, options(dir))
	var (
		mu    sync.Mutex
		acked = map[string]bool{}
		wg    sync.WaitGroup
		stop  = make(chan struct{})
		many  = make(chan struct{})
		once  sync.Once
	)
	note := func(evs ...whisk.Event) {
		mu.Lock()
		defer mu.Unlock()
		for _, ev := range evs {
			acked[ev.ID] = true
		}
		if len(acked) > 1500 {
			once.Do(func() { close(many) })
		}
	}
	for p := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				evs := events(p*100_000+i*4, p*100_000+i*4+4)
				var err error
				if p < 2 {
					err = b.AcceptBatch(t.Context(), whisk.Cursor{Feed: fmt.Sprint(p), Position: fmt.Sprint(i)}, evs...)
				} else {
					_, err = b.Accept(t.Context(), evs...)
				}
				if err != nil {
					return
				}
				note(evs...)
			}
		})
	}
	<-many
	mu.Lock()
	want := make(map[string]bool, len(acked))
	for id := range acked {
		want[id] = true
	}
	mu.Unlock()
	copyStore(t, dir, copied)
	close(stop)
	wg.Wait()

	after := open(t, options(copied))
	_, last, err := after.EventSpan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for next := uint64(1); next <= last; {
		msgs, err := after.Read(t.Context(), bus.StreamEvents, next, 500, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range msgs {
			if ev, err := after.Event(t.Context(), m.Seq); err == nil {
				delete(want, ev.ID)
			}
			next = m.Seq + 1
		}
	}
	if len(want) > 0 {
		t.Errorf("%d acknowledged events are missing after a kill", len(want))
	}
	for p := range 2 {
		c, ok, err := after.Cursor(t.Context(), fmt.Sprint(p))
		if err != nil || !ok || c.Count != 4 {
			t.Errorf("cursor %d = %+v, %v, %v, want one of a whole batch", p, c, ok, err)
		}
	}
}

// copyStore copies the files of a live store one after another. The blocks come
// last, so that what is copied of the engine's own state is never newer.
func copyStore(t *testing.T, from, to string) {
	t.Helper()
	for _, blocks := range []bool{false, true} {
		names, err := filepath.Glob(filepath.Join(from, "jetstream", "$G", "streams", "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range names {
			st, err := os.Stat(path)
			if err != nil || filepath.Base(path) == "batches" {
				continue // what is staged differs from moment to moment
			}
			if st.IsDir() {
				inner, err := filepath.Glob(filepath.Join(path, "*"))
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range inner {
					if blocks == (filepath.Ext(p) == ".blk") {
						copyFile(t, p, from, to)
					}
				}
			} else if !blocks {
				copyFile(t, path, from, to)
			}
		}
	}
}

func copyFile(t *testing.T, path, from, to string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	rel, err := filepath.Rel(from, path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(filepath.Join(to, rel)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to, rel), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestPurgeStepsByBytes purges large messages while others publish: no step
// removes more than a few MiB.
func TestPurgeOfLargeMessages(t *testing.T) {
	o := options(t.TempDir())
	o.JournalLimit = 128 << 20
	b := open(t, o)
	data := make([]byte, 256<<10)
	for range 200 {
		if _, err := b.Publish(t.Context(), bus.Message{Subject: bus.SubjectJournal, Data: data}, nil); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	if err := b.Purge(t.Context(), bus.StreamJournal, 190); err != nil {
		t.Fatal(err)
	}
	t.Logf("purge of 47 MiB took %v", time.Since(begun))
	if st, err := b.State(t.Context(), bus.StreamJournal); err != nil || st.First != 190 || st.Last != 200 {
		t.Errorf("state = %+v, %v, want 190 to 200", st, err)
	}
}
