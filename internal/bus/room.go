package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/internal/whisk"
)

// reserve is what accepts leave free below the archive's limit, so that
// cursors can be saved and what is under way is not refused.
const reserve = windowBytes + 16<<20

// floorOfSpace is the free space of the disk, in bytes, below which nothing is
// accepted any more.
const floorOfSpace = 256 << 20

// room keeps account of the archive's size: the server's own refusal would
// come too late for what is under way.
type room struct {
	mu     sync.Mutex
	dir    string
	used   int64 // bytes in EVENTS, with what is under way
	limit  int64
	low    bool          // the disk is nearly full
	wanted chan struct{} // someone was refused: trim now
}

func (r *room) init(st State, limit int64, dir string) {
	r.used, r.limit, r.dir, r.wanted = st.Bytes, limit, dir, make(chan struct{}, 1)
}

// take counts what is about to be published, or returns Unavailable. Cursors
// alone may use the reserve.
func (r *room) take(size int, small bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	spare := min(int64(reserve), r.limit/4)
	if small {
		spare = 0
	}
	switch {
	case r.low && !small:
		return whisk.WithHint(whisk.E(whisk.Unavailable, "accept", errors.New("the disk of the store is nearly full")),
			fmt.Sprintf("free some space on the disk of %s", r.dir))
	case r.used+int64(size) > r.limit-spare:
		select {
		case r.wanted <- struct{}{}:
		default:
		}
		return full()
	}
	r.used += int64(size)
	return nil
}

func full() error {
	return whisk.WithHint(whisk.E(whisk.Unavailable, "accept", errors.New("the archive of events is full: too many wait for their actions")),
		"try again later; see which queue holds them in /metrics")
}

// refused gives the server's own refusal our words.
func (r *room) refused(err error) error {
	if errors.Is(err, whisk.Unavailable) {
		return errors.Join(full(), err)
	}
	return err
}

// look corrects the account by what the server says, and looks at the disk.
func (r *room) look(ctx context.Context, b *Bus) {
	st, err := b.State(ctx, StreamEvents)
	if err != nil {
		return // it says so itself when it matters
	}
	var fs unix.Statfs_t
	low := unix.Statfs(r.dir, &fs) == nil && int64(fs.Bavail)*fs.Bsize < floorOfSpace
	r.mu.Lock()
	r.used, r.low = st.Bytes, low
	r.mu.Unlock()
	b.met.archive.Set(float64(st.Bytes))
}
