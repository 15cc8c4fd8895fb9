package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/internal/whisk"
)

// cursorSubject is the bus subject of a feed's cursors. The feed's ID is random
// and its own: one made anew under an old name begins without a cursor.
func cursorSubject(feed string) string { return subjectCursor + "." + whisk.Token(feed) }

// cursors knows the newest cursor of each feed. All are in memory: there are as
// many as feeds, and each start of a feed asks.
type cursors struct {
	mu   sync.Mutex
	feed map[string]savedCursor
}

// savedCursor is a cursor and where the archive has it: a trim up to there must
// save it again.
type savedCursor struct {
	whisk.Cursor
	seq uint64
}

// saved notes a cursor that was acknowledged.
func (c *cursors) saved(cur whisk.Cursor, seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.feed[cur.Feed] = savedCursor{cur, seq}
}

// below returns the cursors that lie below a sequence.
func (c *cursors) below(seq uint64) []savedCursor {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []savedCursor
	for _, s := range c.feed {
		if s.seq < seq {
			out = append(out, s)
		}
	}
	return out
}

// Cursor returns the newest cursor of a feed; false when it never saved one.
func (b *Bus) Cursor(_ context.Context, feed string) (whisk.Cursor, bool, error) {
	if err := b.check(); err != nil {
		return whisk.Cursor{}, false, err
	}
	b.cursors.mu.Lock()
	defer b.cursors.mu.Unlock()
	s, ok := b.cursors.feed[feed]
	return s.Cursor, ok, nil
}

// ForgetCursor lets go of a deleted feed's cursor: it is not saved again when
// the archive is trimmed, and goes with it.
func (b *Bus) ForgetCursor(ctx context.Context, feed string) error {
	if err := b.check(); err != nil {
		return err
	}
	b.cursors.mu.Lock()
	s, ok := b.cursors.feed[feed]
	// First, so that no trim saves it again while the mark is written.
	delete(b.cursors.feed, feed)
	b.cursors.mu.Unlock()
	if !ok {
		return nil
	}
	// Said in the archive too, so that a restart does not find it again.
	s.Position, s.Previous, s.Count = "", "", 0
	data, err := json.Marshal(struct {
		whisk.Cursor
		Forgotten bool `json:"forgotten"`
	}{s.Cursor, true})
	if err != nil {
		return err
	}
	leave, err := b.enter(ctx, 1, len(data))
	if err != nil {
		return err
	}
	defer leave()
	slot, err := b.send(&nats.Msg{Subject: cursorSubject(feed), Data: data}, func(seq uint64) { b.recent.add(seq, nil) })
	if err != nil {
		return err
	}
	return b.room.refused(b.wait(slot))
}

// loadCursors finds the newest cursor of each feed. One whose batch turns out
// torn, since the power was cut between two block files, counts for nothing:
// the position before it is taken, and its events come again.
func (b *Bus) loadCursors(ctx context.Context) error {
	b.cursors.feed = map[string]savedCursor{}
	msgs, err := b.lastPerSubject(ctx, StreamEvents, subjectCursor+".>")
	if err != nil {
		return fmt.Errorf("load cursors: %w", err)
	}
	for _, m := range msgs {
		var c struct {
			whisk.Cursor
			Forgotten bool `json:"forgotten"`
		}
		if err := json.Unmarshal(m.Data, &c); err != nil {
			return fmt.Errorf("load cursor %s: %w", m.Subject, err)
		}
		if c.Forgotten {
			continue
		}
		torn, err := b.torn(ctx, m.Seq, c.Count)
		if err != nil {
			return err
		}
		if torn {
			b.o.Log.Warn("the last batch of a feed is torn: it resumes before it", "feed", c.Feed)
			c.Position, c.Count = c.Previous, 0
		}
		b.cursors.feed[c.Feed] = savedCursor{c.Cursor, m.Seq}
	}
	return nil
}

// torn reports whether one of the events just before a cursor is missing. What
// the trim took was whole once: it takes from the old end only.
func (b *Bus) torn(ctx context.Context, cursor uint64, count int) (bool, error) {
	if count == 0 {
		return false, nil
	}
	st, err := b.State(ctx, StreamEvents)
	if err != nil {
		return false, err
	}
	from := max(cursor-min(uint64(count), cursor), st.First)
	msgs, err := b.Read(ctx, StreamEvents, from, count+1, 0)
	if err != nil {
		return false, err
	}
	// A batch has consecutive sequences: the first hole or stranger is a tear.
	want := from
	for _, m := range msgs {
		if m.Seq >= cursor {
			break
		}
		if m.Seq != want || !strings.HasPrefix(m.Subject, subjectEvent+".") {
			return true, nil
		}
		want++
	}
	return want != cursor, nil
}
