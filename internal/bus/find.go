package bus

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// Bounds of a search: how much earlier than the time in its ID an event may
// have been accepted, by clocks of sources that are ahead of ours, and how many
// messages are looked at: some seconds' worth of the fullest road.
const (
	findSlack = 5 * time.Second
	findCount = 1 << 17
	findStep  = 1000
)

// FindEvent returns the flushed event with an ID among those from a sequence
// on. The archive has no index of IDs: it is for events of a moment ago, which
// the journal does not know yet, and looks about the time of the ID. NotFound.
func (b *Bus) FindEvent(ctx context.Context, from uint64, id string) (whisk.Event, error) {
	st, err := b.State(ctx, StreamEvents)
	if err != nil {
		return whisk.Event{}, err
	}
	b.recent.mu.Lock()
	last := min(b.recent.durable, st.Last)
	b.recent.mu.Unlock()
	if from > last {
		return whisk.Event{}, noEvent(id)
	}
	near, err := b.firstAfter(ctx, st, whisk.IDTime(id).Add(-findSlack))
	if err != nil {
		return whisk.Event{}, err
	}
	// In the message an ID stands as it is: most are passed over unread.
	text := []byte(`"` + id + `"`)
	for next, seen := max(from, near), 0; next <= last && seen < findCount; seen += findStep {
		msgs, err := b.Read(ctx, StreamEvents, next, findStep, 0)
		if err != nil {
			return whisk.Event{}, err
		}
		if len(msgs) == 0 {
			break
		}
		for _, m := range msgs {
			if m.Seq > last || !strings.HasPrefix(m.Subject, subjectEvent+".") || !bytes.Contains(m.Data, text) {
				continue
			}
			if ev, err := b.decode(ctx, m); err != nil || ev.ID == id {
				return ev, err
			}
		}
		next = msgs[len(msgs)-1].Seq + 1
	}
	return whisk.Event{}, noEvent(id)
}

func noEvent(id string) error {
	return whisk.E(whisk.NotFound, "find event", fmt.Errorf("event %s does not exist", id))
}
