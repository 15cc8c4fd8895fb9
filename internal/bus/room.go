package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/internal/whisk"
)

// reserve is what accepts leave free below the archive's limit, so that
// cursors can be saved and what is under way is not refused.
const reserve = windowBytes + 16<<20

// MinFree is the free space of the disk, in bytes, below which nothing is
// accepted any more: what remains is for what was.
const MinFree = 256 << 20

// room keeps account of the archive's size: the server's own refusal would
// come too late for what is under way.
//
// used errs upwards: what is refused by the server or fails stays counted until
// the next look.
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
	// On a small archive the reserve would be all of it.
	spare := min(int64(reserve), r.limit/4)
	if small {
		spare = 0
	}
	switch {
	// A cursor alone is small and lets a feed stop at the right place.
	case r.low && !small:
		return r.nearlyFull()
	case r.used+int64(size) > r.limit-spare:
		select {
		// One token is enough: the trim removes as much as it may.
		case r.wanted <- struct{}{}:
		default:
		}
		return full()
	}
	r.used += int64(size)
	return nil
}

// nearlyFull is the refusal of what would need disk.
func (r *room) nearlyFull() error {
	return whisk.WithHint(whisk.E(whisk.Unavailable, "accept", errors.New("the disk of the store is nearly full")),
		fmt.Sprintf("free some space on the disk of %s", r.dir))
}

// Room returns nil while the disk has room for what may as well be refused,
// else Unavailable: Accept asks by itself, whoever takes in something else
// than events does before.
func (b *Bus) Room() error {
	b.room.mu.Lock()
	defer b.room.mu.Unlock()
	if b.room.low {
		return b.room.nearlyFull()
	}
	return nil
}

// full is the refusal of an archive without room, with what to do about it.
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
	low, free := false, int64(0)
	if unix.Statfs(r.dir, &fs) == nil {
		free = int64(fs.Bavail) * fs.Bsize
		// A disk that can't be asked counts as roomy: the store's own errors
		// tell.
		low = free < MinFree
	}
	r.mu.Lock()
	was := r.low
	// What is under way is left out for the moment: the reserve covers it.
	r.used, r.low = st.Bytes, low
	r.mu.Unlock()
	switch {
	case low && !was:
		b.o.Log.ErrorContext(ctx, "disk nearly full: nothing is accepted until there is room again",
			slog.String("folder", r.dir), slog.Int64("free", free), slog.Int64("needed", MinFree))
	case was && !low:
		b.o.Log.InfoContext(ctx, "disk has room again", slog.String("folder", r.dir), slog.Int64("free", free))
	}
	b.met.archive.Set(float64(st.Bytes))
}
