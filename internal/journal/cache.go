package journal

import (
	"context"
	"fmt"
	"sync"

	"github.com/millrace/millrace/internal/bus"
)

// cachedMessages is how many messages the cache holds, of maxMessage bytes
// each at most: larger ones are not kept.
const cachedMessages = 16

// messageCache holds the messages read last. Readers that follow one another
// mostly want entries of the same message.
//
// It holds no lock while it reads: two readers may read the same message, which
// only takes a second place.
type messageCache struct {
	bus streamBus

	mu   sync.Mutex
	keys [cachedMessages]place // with number 0
	data [cachedMessages][]byte
	next int
}

func newMessageCache(b streamBus) *messageCache { return &messageCache{bus: b} }

// message returns the bytes of a message, which must not be changed. NotFound.
func (c *messageCache) message(ctx context.Context, p place) ([]byte, error) {
	key := at(p.stream(), p.seq(), 0)
	c.mu.Lock()
	for i, k := range c.keys {
		if data := c.data[i]; k == key && data != nil {
			c.mu.Unlock()
			return data, nil
		}
	}
	c.mu.Unlock()
	var m bus.Message
	m, err := c.bus.Get(ctx, streamNames[p.stream()], p.seq())
	if err != nil {
		return nil, err
	}
	if len(m.Data) <= maxMessage {
		c.mu.Lock()
		c.keys[c.next], c.data[c.next] = key, m.Data
		c.next = (c.next + 1) % cachedMessages
		c.mu.Unlock()
	}
	return m.Data, nil
}

// entry returns the entry at a place. NotFound when its message is trimmed.
func (c *messageCache) entry(ctx context.Context, p place) (stored, error) {
	data, err := c.message(ctx, p)
	if err != nil {
		return stored{}, err
	}
	var e stored
	// Stands unless the entry is found: a message with fewer entries is
	// damaged.
	bad := fmt.Errorf("read journal entry %d of message %d: %w", p.number(), p.seq(), errWire)
	err = splitEntries(data, func(n int, b []byte) bool {
		if n < p.number() {
			return true
		}
		e, bad = decodeEntry(b)
		return false
	})
	if bad != nil {
		return stored{}, bad
	}
	return e, err
}
