package bus_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/whisk"
)

// TestBacklogIsReadInRuns reads a backlog that memory does not hold as queues
// do: several at a time, nearly in order. It must cost a fraction of a request
// for each event.
func TestBacklogIsReadInRuns(t *testing.T) {
	const total, backlog, readers = 20_000, 1_500, 8
	b := open(t, options(t.TempDir()))
	for from := 0; from < total; from += 1000 {
		if _, err := b.Accept(t.Context(), events(from, from+1000)...); err != nil {
			t.Fatal(err)
		}
	}
	var requests atomic.Int64
	nc := b.JetStream().Conn()
	sub, err := nc.Subscribe("$JS.API.DIRECT.GET."+bus.StreamEvents, func(*nats.Msg) { requests.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			for n := next.Add(1); n <= backlog; n = next.Add(1) {
				ev, err := b.Event(t.Context(), uint64(n))
				if err != nil {
					t.Errorf("Event(%d) = %v", n, err)
					return
				}
				if want := event(int(n) - 1).ID; ev.ID != want || ev.Seq != uint64(n) {
					t.Errorf("Event(%d) = %d, %s, want %s", n, ev.Seq, ev.ID, want)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	if n := requests.Load(); n == 0 || n > backlog/10 {
		t.Errorf("%d events took %d requests to the store, want at most a tenth", backlog, n)
	}
	// What the archive does not have is not made up.
	if err := b.Purge(t.Context(), bus.StreamEvents, 3_000); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Event(t.Context(), 2_500); !errors.Is(err, whisk.NotFound) {
		t.Errorf("reading a purged event = %v, want NotFound", err)
	}
	if ev, err := b.Event(t.Context(), 3_000); err != nil || ev.ID != event(2_999).ID {
		t.Errorf("Event(3000) = %s, %v", ev.ID, err)
	}
}
