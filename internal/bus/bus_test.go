package bus_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/whisk"
)

var trigger = whisk.Name{Namespace: "guest", Entity: "a b.c"}

func options(dir string) bus.Options {
	return bus.Options{Dir: dir, Log: slog.New(slog.DiscardHandler), EventsLimit: 64 << 20, JournalLimit: 16 << 20, CallsLimit: 1 << 20, DeadLimit: 1 << 20}
}

func open(t testing.TB, o bus.Options) *bus.Bus {
	t.Helper()
	b, err := bus.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func event(n int) whisk.Event {
	at := time.UnixMilli(1_700_000_000_000 + int64(n)).UTC()
	return whisk.Event{
		ID: whisk.DeriveID(at, "test", fmt.Sprint(n)), Trigger: trigger, Time: at,
		Payload: json.RawMessage(fmt.Sprintf(`{"n":%d}`, n)),
	}
}

func events(from, to int) []whisk.Event {
	var out []whisk.Event
	for n := from; n < to; n++ {
		out = append(out, event(n))
	}
	return out
}

// readAll reads the archive from its beginning until it has seen want events.
func readAll(t testing.TB, b *bus.Bus, want int) []whisk.Event {
	t.Helper()
	var out []whisk.Event
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for next := uint64(1); len(out) < want; next = out[len(out)-1].Seq + 1 {
		evs, err := b.ReadEvents(ctx, next, 100)
		if err != nil {
			t.Fatalf("after %d of %d events: %v", len(out), want, err)
		}
		out = append(out, evs...)
	}
	return out
}

func TestAcceptAndRead(t *testing.T) {
	b := open(t, options(t.TempDir()))
	places, err := b.Accept(t.Context(), events(0, 250)...)
	if err != nil {
		t.Fatal(err)
	}
	got := readAll(t, b, 250)
	for i, ev := range got {
		want := event(i)
		if ev.ID != want.ID || ev.Trigger != trigger || string(ev.Payload) != string(want.Payload) || !ev.Time.Equal(want.Time) {
			t.Fatalf("event %d = %+v, want %+v", i, ev, want)
		}
		if (whisk.Place{Seq: ev.Seq, ID: ev.ID}) != places[i] || ev.Accepted.IsZero() {
			t.Fatalf("event %d is at %d, accepted %v; Accept said %v", i, ev.Seq, ev.Accepted, places[i])
		}
	}
	if ev, err := b.Event(t.Context(), places[7].Seq); err != nil || ev.ID != places[7].ID {
		t.Errorf("Event(%d) = %+v, %v", places[7].Seq, ev, err)
	}
	if _, err := b.Event(t.Context(), 9999); !errors.Is(err, whisk.NotFound) {
		t.Errorf("Event(9999) error = %v, want NotFound", err)
	}
}

func TestReadWaitsForTheNextEvent(t *testing.T) {
	b := open(t, options(t.TempDir()))
	got := make(chan []whisk.Event, 1)
	go func() {
		evs, _ := b.ReadEvents(t.Context(), 1, 10)
		got <- evs
	}()
	if _, err := b.Accept(t.Context(), event(1)); err != nil {
		t.Fatal(err)
	}
	if evs := <-got; len(evs) != 1 || evs[0].ID != event(1).ID {
		t.Errorf("read %+v, want the event", evs)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.ReadEvents(ctx, 2, 10); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want Canceled", err)
	}
}

func TestAcceptFromMany(t *testing.T) {
	b := open(t, options(t.TempDir()))
	const producers, each = 32, 50
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			for i := range each {
				if _, err := b.Accept(t.Context(), event(p*each+i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	last := uint64(0)
	for _, ev := range readAll(t, b, producers*each) {
		if ev.Seq <= last {
			t.Fatalf("sequence %d after %d", ev.Seq, last)
		}
		last = ev.Seq
		seen[ev.ID] = true
	}
	if len(seen) != producers*each {
		t.Errorf("%d events, want %d", len(seen), producers*each)
	}
}

func TestRestartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	b := open(t, options(dir))
	if _, err := b.Accept(t.Context(), events(0, 20)...); err != nil {
		t.Fatal(err)
	}
	if err := b.AcceptBatch(t.Context(), whisk.Cursor{Feed: "f", Position: "two", Previous: "one"}, events(20, 25)...); err != nil {
		t.Fatal(err)
	}
	digest, err := b.PutObject(t.Context(), []byte("code"))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Accept(t.Context(), event(1)); !errors.Is(err, whisk.Unavailable) {
		t.Errorf("Accept after Close: %v, want Unavailable", err)
	}

	b = open(t, options(dir))
	got := readAll(t, b, 25)
	for i, ev := range got {
		if ev.ID != event(i).ID || ev.Accepted.IsZero() {
			t.Errorf("event %d = %+v", i, ev)
		}
	}
	c, ok, err := b.Cursor(t.Context(), "f")
	if err != nil || !ok || c.Position != "two" || c.Count != 5 {
		t.Errorf("cursor = %+v, %v, %v", c, ok, err)
	}
	if code, err := b.Object(t.Context(), digest); err != nil || string(code) != "code" {
		t.Errorf("object = %q, %v", code, err)
	}
}

func TestBatch(t *testing.T) {
	b := open(t, options(t.TempDir()))
	if _, ok, err := b.Cursor(t.Context(), "f"); ok || err != nil {
		t.Fatalf("a cursor before any was saved: %v, %v", ok, err)
	}
	for i := range 3 {
		c := whisk.Cursor{Feed: "f", Position: fmt.Sprint(i + 1), Previous: fmt.Sprint(i)}
		if err := b.AcceptBatch(t.Context(), c, events(i*10, i*10+10)...); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.AcceptBatch(t.Context(), whisk.Cursor{Feed: "f", Position: "empty", Previous: "3"}); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, b, 30); len(got) != 30 {
		t.Errorf("%d events, want 30", len(got))
	}
	if c, ok, _ := b.Cursor(t.Context(), "f"); !ok || c.Position != "empty" || c.Count != 0 {
		t.Errorf("cursor = %+v, %v", c, ok)
	}
	err := b.AcceptBatch(t.Context(), whisk.Cursor{Feed: "f"}, make([]whisk.Event, bus.MaxBatch+1)...)
	if !errors.Is(err, whisk.Invalid) {
		t.Errorf("a batch too large: %v, want Invalid", err)
	}
	if err := b.ForgetCursor(t.Context(), "f"); err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := b.Cursor(t.Context(), "f"); ok {
		t.Error("a forgotten cursor is still there")
	}
}

func TestLargePayload(t *testing.T) {
	dir := t.TempDir()
	b := open(t, options(dir))
	ev := event(1)
	ev.Payload = json.RawMessage(`{"x":"` + strings.Repeat("y", 9<<20) + `"}`)
	places, err := b.Accept(t.Context(), ev)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, err := b.Event(t.Context(), places[0].Seq)
		if err != nil || string(got.Payload) != string(ev.Payload) {
			t.Fatalf("a payload of %d bytes came back with %d, %v", len(ev.Payload), len(got.Payload), err)
		}
		b.Close()
		b = open(t, options(dir))
	}
	if _, err := b.Accept(t.Context(), events(0, 3)...); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(ev.Payload)
	named, err := b.EventObjects(t.Context())
	if err != nil || len(named) != 1 || !named[hex.EncodeToString(sum[:])] {
		t.Errorf("events name %v, %v, want the payload alone", named, err)
	}
	n, err := b.SweepObjects(t.Context(), time.Hour, func(string) bool { return false })
	if err != nil || n != 1 {
		t.Errorf("swept %d objects, %v, want 1", n, err)
	}
	if got, err := b.Event(t.Context(), places[0].Seq); err != nil || got.ID != ev.ID || got.Payload != nil {
		t.Errorf("an event whose payload is gone: %d bytes, %v, want none", len(got.Payload), err)
	}
	if err := b.Purge(t.Context(), bus.StreamEvents, places[0].Seq+1); err != nil {
		t.Fatal(err)
	}
	if named, err := b.EventObjects(t.Context()); err != nil || len(named) != 0 {
		t.Errorf("events name %v, %v after the trim, want nothing", named, err)
	}
}

func TestFullArchive(t *testing.T) {
	o := options(t.TempDir())
	o.EventsLimit = 2 << 20
	b := open(t, o)
	big := event(0)
	big.Payload = json.RawMessage(`{"x":"` + strings.Repeat("y", 100<<10) + `"}`)
	var last whisk.Place
	accepted := 0
	for {
		p, err := b.Accept(t.Context(), big)
		if err != nil {
			if !errors.Is(err, whisk.Unavailable) || whisk.HintOf(err) == "" {
				t.Fatalf("a full archive gives %v (hint %q), want Unavailable and a hint", err, whisk.HintOf(err))
			}
			break
		}
		if accepted++; accepted > 40 {
			t.Fatal("the archive never fills up")
		}
		last = p[0]
	}
	if err := b.AcceptBatch(t.Context(), whisk.Cursor{Feed: "f", Position: "p"}); err != nil {
		t.Errorf("a cursor is refused by a full archive: %v", err)
	}
	// Nothing is trimmed above the floor.
	floor := uint64(1)
	b.SetFloor(func() uint64 { return floor })
	if err := b.Trim(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if first, _, _ := b.EventSpan(t.Context()); first != 1 {
		t.Errorf("trimmed up to %d past the floor", first)
	}
	floor = last.Seq
	if err := b.Trim(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if first, _, _ := b.EventSpan(t.Context()); first <= 1 || first > floor {
		t.Errorf("first sequence after the trim = %d, want above 1 and at most %d", first, floor)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { b.Run(ctx) })
	for err := error(whisk.Unavailable); err != nil; {
		if _, err = b.Accept(t.Context(), big); err != nil && !errors.Is(err, whisk.Unavailable) {
			t.Fatal(err)
		}
	}
	cancel()
	wg.Wait()
}

func TestTrimKeepsCursorsAndTheLastMessage(t *testing.T) {
	dir := t.TempDir()
	b := open(t, options(dir))
	if err := b.AcceptBatch(t.Context(), whisk.Cursor{Feed: "old", Position: "here"}, events(0, 5)...); err != nil {
		t.Fatal(err)
	}
	if err := b.AcceptBatch(t.Context(), whisk.Cursor{Feed: "gone", Position: "x"}, events(5, 6)...); err != nil {
		t.Fatal(err)
	}
	if err := b.ForgetCursor(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Accept(t.Context(), events(6, 20)...); err != nil {
		t.Fatal(err)
	}
	b.SetFloor(func() uint64 { return 1 << 40 })
	if err := b.Trim(t.Context(), time.Now().Add(8*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	first, last, _ := b.EventSpan(t.Context())
	if first < 20 || last < first {
		t.Errorf("after the trim the archive spans %d to %d", first, last)
	}
	b.Close()
	b = open(t, options(dir))
	if c, ok, _ := b.Cursor(t.Context(), "old"); !ok || c.Position != "here" {
		t.Errorf("cursor after the trim = %+v, %v", c, ok)
	}
	if _, ok, _ := b.Cursor(t.Context(), "gone"); ok {
		t.Error("the cursor of a deleted feed is back")
	}
}

func TestPublishExpectations(t *testing.T) {
	b := open(t, options(t.TempDir()))
	zero, five := uint64(0), uint64(5)
	seq, err := b.Publish(t.Context(), bus.Message{Subject: bus.SubjectJournal, Data: []byte("a")}, &zero)
	if err != nil || seq != 1 {
		t.Fatalf("Publish = %d, %v, want 1", seq, err)
	}
	if _, err := b.Publish(t.Context(), bus.Message{Subject: bus.SubjectJournal, Data: []byte("b")}, &five); !errors.Is(err, whisk.Conflict) {
		t.Errorf("wrong expectation: %v, want Conflict", err)
	}
	if _, err := b.Publish(t.Context(), bus.Message{Subject: "nowhere", Data: []byte("b")}, nil); !errors.Is(err, whisk.Unavailable) {
		t.Errorf("no stream: %v, want Unavailable", err)
	}
	m, err := b.Get(t.Context(), bus.StreamJournal, 1)
	if err != nil || string(m.Data) != "a" || m.Subject != bus.SubjectJournal || m.Time.IsZero() {
		t.Errorf("Get = %+v, %v", m, err)
	}
	if msgs, err := b.Read(t.Context(), bus.StreamJournal, 2, 10, 0); err != nil || len(msgs) != 0 {
		t.Errorf("Read past the end = %v, %v, want nothing", msgs, err)
	}
}

func TestPurgeKeepsTheLastMessage(t *testing.T) {
	b := open(t, options(t.TempDir()))
	for range 3 {
		if _, err := b.Publish(t.Context(), bus.Message{Subject: bus.SubjectJournal, Data: []byte("a")}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Purge(t.Context(), bus.StreamJournal, 100); err != nil {
		t.Fatal(err)
	}
	if st, err := b.State(t.Context(), bus.StreamJournal); err != nil || st.First != 3 || st.Last != 3 {
		t.Errorf("state = %+v, %v, want the last message alone", st, err)
	}
}
