package bus_test

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/whisk"
)

// disk remembers what flushes have put on stable storage.
type disk struct {
	mu    sync.Mutex
	sizes map[string]int64
}

func (d *disk) flushed(f bus.Flush) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for path, size := range f.Files {
		// A file whose name is not on the disk is lost with all its bytes.
		if _, named := d.sizes[path]; named || f.All || slices.Contains(f.Folders, filepath.Dir(path)) {
			d.sizes[path] = size
		}
	}
}

// afterPowerCut copies a store as the machine would find it again: each file
// no longer than what was flushed of it, and none that no flush has covered.
// The server's own caches of its state are left out: they are written unsynced.
func (d *disk) afterPowerCut(t *testing.T, from, to string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "index.db" || e.Name() == "o.dat" {
			return err
		}
		size, ok := d.sizes[path]
		if !ok {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, rel)), 0o700); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), content[:min(size, int64(len(content)))], 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// missingAfterPowerCut accepts events from many producers, cuts the power
// while they work, and returns how many of the acknowledged events a start on
// what is left does not find.
func missingAfterPowerCut(t *testing.T, durability bus.Durability) (missing, acknowledged int) {
	d := &disk{sizes: map[string]int64{}}
	dir, copied := t.TempDir(), t.TempDir()
	o := options(dir)
	o.Durability, o.OnFlush, o.SyncInterval = durability, d.flushed, 24*time.Hour
	b := open(t, o)
	if durability == bus.Process {
		// The streams were made long ago: only the events are at stake.
		everything(t, d, dir)
	}
	var (
		mu    sync.Mutex
		acked = map[string]bool{}
		wg    sync.WaitGroup
		stop  = make(chan struct{})
		half  = make(chan struct{})
		once  sync.Once
	)
	for p := range 16 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				ev := event(p*100_000 + i)
				ev.Payload = []byte(fmt.Sprintf(`{"pad":%q}`, strings.Repeat("x", 20_000)))
				if _, err := b.Accept(t.Context(), ev); err != nil {
					return // full: enough was accepted
				}
				mu.Lock()
				acked[ev.ID] = true
				if len(acked) >= 1000 {
					once.Do(func() { close(half) })
				}
				mu.Unlock()
			}
		})
	}
	<-half
	// The power goes at this instant: what is acknowledged up to here counts.
	mu.Lock()
	before := maps.Clone(acked)
	mu.Unlock()
	d.afterPowerCut(t, dir, copied)
	close(stop)
	wg.Wait()
	b.Close()

	after := open(t, options(copied))
	_, last, err := after.EventSpan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for next := uint64(1); next <= last; {
		evs, err := after.ReadEvents(t.Context(), next, 500)
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range evs {
			delete(before, ev.ID)
			next = ev.Seq + 1
		}
	}
	return len(before), len(acked)
}

func everything(t *testing.T, d *disk, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		st, err := e.Info()
		if err == nil {
			d.sizes[path] = st.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPowerCutLosesNothingAcknowledged(t *testing.T) {
	missing, acked := missingAfterPowerCut(t, bus.Disk)
	if missing != 0 {
		t.Errorf("%d of %d acknowledged events are gone after a power cut", missing, acked)
	}
}

// TestPowerCutIsNoticed shows that the test above can fail: without the flush
// the same power cut loses events.
func TestPowerCutIsNoticed(t *testing.T) {
	if missing, acked := missingAfterPowerCut(t, bus.Process); missing == 0 {
		t.Errorf("none of %d acknowledged events is missing although nothing was flushed", acked)
	}
}

// TestTornBatch cuts the last batch of a feed in two: the feed resumes before
// it.
func TestTornBatch(t *testing.T) {
	d := &disk{sizes: map[string]int64{}}
	dir, copied := t.TempDir(), t.TempDir()
	o := options(dir)
	o.OnFlush = d.flushed
	b := open(t, o)
	if err := b.AcceptBatch(t.Context(), whisk.Cursor{Feed: "f", Position: "1"}, events(0, 3)...); err != nil {
		t.Fatal(err)
	}
	if err := b.AcceptBatch(t.Context(), whisk.Cursor{Feed: "f", Position: "2", Previous: "1"}, events(3, 6)...); err != nil {
		t.Fatal(err)
	}
	// Remove an event in the middle of the second batch, as a lost tail of a
	// block would.
	s, err := b.JetStream().Stream(t.Context(), bus.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteMsg(t.Context(), 6); err != nil {
		t.Fatal(err)
	}
	b.Close()
	everything(t, d, dir)
	d.afterPowerCut(t, dir, copied)
	after := open(t, options(copied))
	if c, ok, err := after.Cursor(t.Context(), "f"); err != nil || !ok || c.Position != "1" {
		t.Errorf("cursor = %+v, %v, %v, want the position before the torn batch", c, ok, err)
	}
}

// Who waits for an event does not wait for what the journal wrote meanwhile,
// save when the event's payload lies outside the archive.
func TestAcceptFlushesTheArchiveAlone(t *testing.T) {
	var mu sync.Mutex
	var covered []string // streams
	o := options(t.TempDir())
	o.OnFlush = func(f bus.Flush) {
		mu.Lock()
		defer mu.Unlock()
		for path := range f.Files {
			covered = append(covered, filepath.Base(filepath.Dir(filepath.Dir(path))))
		}
	}
	b := open(t, o) // it does not run: nothing is flushed but by the calls below
	streams := func(f func() error) []string {
		t.Helper()
		mu.Lock()
		covered = nil
		mu.Unlock()
		if err := f(); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(covered)
		return covered
	}
	accept := func(ev whisk.Event) func() error {
		return func() error {
			_, err := b.Accept(t.Context(), ev)
			return err
		}
	}
	note := func() {
		t.Helper()
		if _, err := b.Publish(t.Context(), bus.Message{Subject: bus.SubjectJournal, Data: []byte("entry")}, nil); err != nil {
			t.Fatal(err)
		}
	}
	note()
	if got, want := streams(accept(event(1))), []string{bus.StreamEvents}; !slices.Equal(got, want) {
		t.Errorf("accepting an event flushed %q, want %q", got, want)
	}
	flush := func() error { return b.Flush(t.Context()) }
	if got := streams(flush); !slices.Contains(got, bus.StreamJournal) || slices.Contains(got, bus.StreamEvents) {
		t.Errorf("a flush of everything then flushed %q, want the journal and not the events again", got)
	}
	large := event(2)
	large.Payload = fmt.Appendf(nil, `{"text":%q}`, strings.Repeat("x", whisk.MaxPayload))
	if got := streams(accept(large)); !slices.Contains(got, "OBJ_objects") || !slices.Contains(got, bus.StreamEvents) {
		t.Errorf("accepting an event with a large payload flushed %q, want the objects too", got)
	}
}

// A large payload lies outside the archive. A flush that another event asked
// for must not make its event, or the feed's position past it, survive a power
// cut that takes the payload.
func TestPowerCutKeepsPayloadsOfWhatItKeeps(t *testing.T) {
	const small, batches = 6, 12
	d := &disk{sizes: map[string]int64{}}
	dir := t.TempDir()
	o := options(dir)
	o.SyncInterval = 24 * time.Hour
	var mu sync.Mutex
	var copies []string
	o.OnFlush = func(f bus.Flush) {
		d.flushed(f)
		// The power goes just after this flush, some of the time.
		mu.Lock()
		defer mu.Unlock()
		if _, events := f.Files[filepath.Join(dir, "jetstream", "$G", "streams", bus.StreamEvents, "msgs", "1.blk")]; events && len(copies) < 30 {
			to := t.TempDir()
			d.afterPowerCut(t, dir, to)
			copies = append(copies, to)
		}
	}
	b := open(t, o)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range small {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if _, err := b.Accept(ctx, event(n)); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for n := range batches {
		large := event(1_000_000 + n)
		large.Payload = fmt.Appendf(nil, `{"n":%d,"text":%q}`, n, strings.Repeat("x", whisk.MaxPayload))
		if err := b.AcceptBatch(t.Context(), whisk.Cursor{Feed: "f", Position: fmt.Sprint(n)}, large); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	wg.Wait()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	larges := 0
	for _, to := range copies {
		o := options(to)
		o.Durability = bus.Process // what is there is looked at, not kept
		b := open(t, o)
		_, last, err := b.EventSpan(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for seq := uint64(1); seq <= last; seq++ {
			ev, err := b.Event(t.Context(), seq)
			if err != nil {
				continue // a cursor
			}
			if len(ev.Payload) == 0 {
				t.Fatalf("event %d of %d survived without its payload", seq, last)
			}
			if len(ev.Payload) > whisk.MaxPayload {
				larges++
			}
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if larges == 0 {
		t.Fatal("no copy holds a large event: the test shows nothing")
	}
}
