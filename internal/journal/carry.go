package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/whisk"
)

// Parts of JOURNAL's limit. All lie below the stream's own limit, so that what
// is on its way (starts, records, dead letters, carries) always finds room:
//
//	since Low: from three quarters on no more matches are taken.
//	in all: from 15/16 on what is done is trimmed, until it is 14/16.
//
// What is carried goes by the window, which is the limit on a small disk: from
// a half of it since Low on the oldest are carried, until it is three eighths.
// So a start reads about half a window; what is undone is at most an eighth of
// a window and is carried at most once per quarter, so carries are at most a
// third of what is written.
const (
	sixteen    = 16
	carryFrom  = 8
	carryUntil = 6
	fullFrom   = 12
	trimFrom   = 15
	trimUntil  = 14
	maxUndone  = 2 // the bodies of all that is undone, of the limit
	carryAgain = 4 // others' bytes between two carries of one match
)

// held is how many bytes lie at or above Low. The caller holds mu.
func (j *Journal) held() int64 { return j.volume.since(j.low()) }

// tight reports whether the keeper has something to do. The caller holds mu.
func (j *Journal) tight() bool {
	return j.held() > j.window(carryFrom) || j.stored > j.share(trimFrom)
}

// share is so many sixteenths of JOURNAL's limit.
func (j *Journal) share(n int64) int64 { return j.limit / sixteen * n }

// minWindow keeps starts short where the limit is large: half of it is read in
// less than a second.
const minWindow = 128 << 20

// window is so many sixteenths of what carries go by. It grows with what is
// undone. The caller holds mu. So what is undone stays an eighth of a window,
// and carries stay a small part of what is written.
func (j *Journal) window(n int64) int64 {
	return min(j.limit, max(minWindow, sixteen/maxUndone*j.ledger.bytes)) / sixteen * n
}

// full reports whether no more matches may be taken.
func (j *Journal) full() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.fullLocked()
}

// fullLocked is full. Two bounds: bytes since Low, which carries free, and
// bytes that are undone, which only runs do. The caller holds mu.
func (j *Journal) fullLocked() bool {
	return j.held() >= j.share(fullFrom) || j.ledger.bytes >= j.share(maxUndone)
}

// waitForRoom returns when more matches may be taken, or ctx ends.
func (j *Journal) waitForRoom(ctx context.Context) error {
	for told := false; ; {
		j.mu.Lock()
		full, eased, bytes := j.fullLocked(), j.eased, j.ledger.bytes
		j.mu.Unlock()
		if !full {
			return nil
		}
		// Told once a wait: a full journal wakes its waiters often.
		if !told {
			told = true
			j.met.waits.Inc()
			j.log.InfoContext(ctx, "verdicts wait: too much is undone", slog.Int64("bytes", bytes), slog.Int64("limit", j.limit))
		}
		// Asked on every round: the keeper's last one may have freed too
		// little.
		j.wakeKeeper()
		select {
		case <-eased:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wakeKeeper has the trimmer and the carrier look at once.
func (j *Journal) wakeKeeper() {
	// A token that is there already does: the keeper has not looked yet.
	for _, c := range []chan struct{}{j.trimNow, j.carryNow} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// keep carries, and trims beside it, until ctx ends. A carry may wait for the
// writer while that waits for a trim.
func (j *Journal) keep(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() {
		j.look(ctx, j.trimNow, "trim journal", func(ctx context.Context) error {
			return errors.Join(j.trim(ctx), j.countDead(ctx))
		})
	})
	j.look(ctx, j.carryNow, "carry", j.carry)
	wg.Wait()
}

// look calls do now and then and whenever it is woken, until ctx ends.
func (j *Journal) look(ctx context.Context, now chan struct{}, what string, do func(context.Context) error) {
	tick := time.NewTicker(j.pace.keep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-now:
		}
		if err := do(ctx); err != nil && ctx.Err() == nil {
			j.log.WarnContext(ctx, what, slog.Any("err", err))
		}
		// A journal that stays full calls again at once: not more often than
		// this.
		select {
		case <-ctx.Done():
			return
		case <-time.After(j.pace.keep / 20):
		}
	}
}

// carry writes the oldest of what is undone again at the end, as long as it
// holds up the trim of JOURNAL or of EVENTS.
func (j *Journal) carry(ctx context.Context) error {
	below, err := j.wantedFloor(ctx)
	if err != nil {
		return err
	}
	j.mu.Lock()
	goal := uint64(0)
	if j.held() > j.window(carryFrom) {
		goal = j.volume.above(j.window(carryUntil))
	}
	j.mu.Unlock()
	for ctx.Err() == nil {
		r, err := j.oldest(ctx, below, goal)
		if err != nil || len(r.parts) == 0 {
			return err
		}
		// A step at a time, flushed, so that what it frees can be trimmed while
		// the next is read. The bodies of one step are all that is in memory.
		if err := j.writer.write(ctx, r); err != nil {
			return err
		}
		if err := j.flush(ctx); err != nil {
			return err
		}
	}
	return nil
}

// wantedFloor is the event below which nothing undone should hold the archive:
// 0 while less than half of it is held. It also learns how large events are.
func (j *Journal) wantedFloor(ctx context.Context) (uint64, error) {
	st, err := j.bus.State(ctx, bus.StreamEvents)
	if err != nil || st.Messages == 0 || st.Limit <= 0 {
		return 0, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	// Only an event up to maxBody is carried in the journal itself.
	j.average = min(st.Bytes/int64(st.Messages), maxBody)
	floor := max(j.ledger.floor(), st.First)
	// Bytes per sequence: the distance to the floor is counted in sequences.
	each := float64(st.Bytes) / float64(st.Last-st.First+1)
	if float64(st.Last-floor+1)*each <= float64(st.Limit)*carryFrom/sixteen {
		return 0, nil
	}
	keep := uint64(float64(st.Limit) * carryUntil / sixteen / each)
	return st.Last - min(keep, st.Last) + 1, nil
}

// maxCarries bounds the matches, and maxCarried the bytes of their bodies, that
// are carried at once.
const (
	maxCarries = 64
	maxCarried = 4 << 20
)

// oldest returns the carries that are due, with their bodies: of matches whose
// event is older than below, or that are held by a message older than goal.
func (j *Journal) oldest(ctx context.Context, below, goal uint64) (*request, error) {
	j.mu.Lock()
	nodes := j.chooseCarries(below, goal)
	j.mu.Unlock()
	r := new(request)
	for _, n := range nodes {
		// The bodies are read without the lock. A match may be done meanwhile:
		// finishCarry looks again.
		p, err := j.Pending(ctx, n.match)
		if errors.Is(err, whisk.NotFound) && !j.isUndone(n) {
			continue // it was done meanwhile
		}
		if errors.Is(err, whisk.NotFound) {
			// The archive has lost its event. The carry says so by having
			// none, and whoever runs the match will find out.
			p, err = n.view(), nil
		}
		if err != nil {
			return nil, fmt.Errorf("read what is carried: %w", err)
		}
		c := part{carry: n, body: p, weight: int(carriedSize(&p)) + nodeOverhead}
		if p.Event != nil && len(p.Event.Payload)+len(p.Event.Meta) > maxBody {
			b, err := json.Marshal(p.Event)
			if err == nil {
				c.digest, err = j.bus.PutObject(ctx, b)
			}
			if err == nil {
				// Flushed before the carry that names it, as all objects are.
				err = j.bus.Flush(ctx)
			}
			if err != nil {
				return nil, fmt.Errorf("keep a carried event: %w", err)
			}
			c.weight = nodeOverhead
		}
		r.add(c)
	}
	return r, nil
}

// chooseCarries returns the oldest nodes that hold up a trim. The caller holds
// mu.
func (j *Journal) chooseCarries(below, goal uint64) []*node {
	var out []*node
	size := int64(0)
	take := func(n *node) bool {
		if n.phase == done {
			return true // it leaves with the next flush
		}
		// One alone may be larger than maxCarried: else it would never go.
		if len(out) == maxCarries || size > 0 && size+n.size > maxCarried {
			return false
		}
		out = append(out, n)
		size += n.size
		return true
	}
	j.ledger.events.each(func(n *node) bool { return n.match.Event < below && take(n) })
	j.ledger.fresh.each(func(n *node) bool { return n.held < goal && take(n) })
	// What was carried shortly before is passed over, not the end of the
	// search. Else the carries themselves would fill the journal.
	j.ledger.carried.each(func(n *node) bool {
		return n.held < goal && (j.ledger.filled-n.filled < j.window(carryAgain) || take(n))
	})
	return unique(out)
}

// unique removes what was chosen twice: for its event and for its message.
func unique(nodes []*node) []*node {
	seen := make(map[*node]bool, len(nodes))
	out := nodes[:0]
	for _, n := range nodes {
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	return out
}

func (j *Journal) isUndone(n *node) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return !n.released && n.phase != done
}

// finishCarry encodes a carry as its match stands now: the writer calls it when
// everything before it is written. A match that is done leaves nothing.
func (j *Journal) finishCarry(data []byte, p *part) ([]byte, error) {
	j.mu.Lock()
	n := p.carry
	if n.released || n.phase == done {
		j.mu.Unlock()
		return data, nil
	}
	view := n.view()
	j.mu.Unlock()
	// The state is of this moment, the body of when it was chosen: bodies do
	// not change.
	view.Event, view.Invoke = p.body.Event, p.body.Invoke
	p.entries = []stored{{Entry: whisk.Entry{Kind: whisk.EntryCarry, Match: view.Match, Carry: &view}, body: p.digest}}
	data, err := appendEntry(data, &p.entries[0])
	j.met.carries.Inc()
	return data, err
}
