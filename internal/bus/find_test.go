package bus_test

import (
	"errors"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

func TestFindEvent(t *testing.T) {
	b := open(t, options(t.TempDir()))
	var evs []whisk.Event
	for n := range 1500 {
		ev := event(n)
		ev.ID = whisk.NewID(time.Now())
		evs = append(evs, ev)
	}
	evs[7].Payload = []byte(`{"about":"` + evs[1200].ID + `"}`) // the ID of another
	if _, err := b.Accept(t.Context(), evs...); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 7, 1200, 1499} {
		if ev, err := b.FindEvent(t.Context(), 1, evs[n].ID); err != nil || ev.ID != evs[n].ID || ev.Seq != uint64(n+1) {
			t.Errorf("FindEvent of event %d = %s, %d, %v", n, ev.ID, ev.Seq, err)
		}
	}
	for name, tt := range map[string]struct {
		from uint64
		id   string
	}{
		"before the first": {8, evs[6].ID},
		"beyond the last":  {1501, evs[0].ID},
		"unknown":          {1, whisk.NewID(time.Now())},
		"long ago":         {1, whisk.NewID(time.Now().Add(-time.Hour))},
	} {
		if _, err := b.FindEvent(t.Context(), tt.from, tt.id); !errors.Is(err, whisk.NotFound) {
			t.Errorf("%s: FindEvent = %v, want NotFound", name, err)
		}
	}
}
