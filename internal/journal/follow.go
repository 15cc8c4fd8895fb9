package journal

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/internal/whisk"
)

// followBuffer is how many entries wait for one follower.
const followBuffer = 4096

// ErrLost tells a follower that it was too slow and has missed entries.
var ErrLost = errors.New("too slow: some of what happened was missed")

// followers are those who want to see entries as they are written.
type followers struct {
	some atomic.Bool // spares the writer the lock when there are none
	mu   sync.Mutex
	all  map[*follower]struct{}
}

// follower is one of them. Whoever is slow loses and is told, instead of
// holding the writer up.
type follower struct {
	entries chan whisk.Entry
	lost    chan struct{} // closed when one did not fit
}

// Follow calls fn for every verdict, invoke, start, record and dead entry that
// is written from now on, in order, and for the records of blocking calls,
// which have no Match. What an entry points to must not be changed. Follow
// returns nil when ctx ends, the error of fn, and ErrLost when fn was so slow
// that entries were missed; following again shows what comes then.
func (j *Journal) Follow(ctx context.Context, fn func(whisk.Entry) error) error {
	f := &follower{entries: make(chan whisk.Entry, followBuffer), lost: make(chan struct{})}
	j.tails.add(f)
	defer j.tails.remove(f)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.lost:
			return f.rest(fn)
		case e := <-f.entries:
			if err := fn(e); err != nil {
				return err
			}
		}
	}
}

// rest hands over what came before the loss.
func (f *follower) rest(fn func(whisk.Entry) error) error {
	for {
		select {
		case e := <-f.entries:
			if err := fn(e); err != nil {
				return err
			}
		default:
			return ErrLost
		}
	}
}

func (t *followers) add(f *follower) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		t.all = map[*follower]struct{}{}
	}
	t.all[f] = struct{}{}
	t.some.Store(true)
}

func (t *followers) remove(f *follower) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.all, f)
	t.some.Store(len(t.all) > 0)
}

// tell hands a message's entries to all who follow, without waiting.
func (t *followers) tell(batch []part) {
	if !t.some.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range batch {
		for k := range batch[i].entries {
			e := batch[i].entries[k].Entry
			if e.Kind == whisk.EntryCarry {
				continue // it says nothing new
			}
			for f := range t.all {
				f.offer(e)
			}
		}
	}
}

// offer hands over an entry if there is room. After the first loss nothing more
// is taken: what a follower sees has no hole before its end. It is called under
// the lock of followers, so lost is closed once.
func (f *follower) offer(e whisk.Entry) {
	select {
	case <-f.lost:
		return
	default:
	}
	select {
	case f.entries <- e:
	default:
		close(f.lost)
	}
}
