package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/whisk"
)

const (
	// maxTail is how many rows written and not yet indexed are kept in memory;
	// over it the writer waits.
	maxTail = 50_000
	// indexRows is how many rows one transaction of the index takes, about.
	indexRows = 5_000
	// nearEnd is how many messages may be missing when the index, reading the
	// streams, begins to follow the writer; a start waits for no more than that.
	nearEnd = 512
	// expireEvery is how often rows of trimmed messages are removed, in looks
	// of the keeper.
	expireEvery = 10
)

// indexer makes the index follow the flushed streams. It is in one of two
// states: whole, when everything written is in the file or in the tail, or
// else catching up from the streams.
//
// mu is taken last: under the journal's mu, or under commit. When the index is
// whole, an entry is in the tail or in the file: a reader that holds commit
// looks into both and finds it once.
type indexer struct {
	j    *Journal
	path string
	wake chan struct{}

	// commit is held while rows move from the tail to the file, and by readers
	// while they look at both.
	commit sync.RWMutex

	mu      sync.Mutex
	db      *database // nil while there is none
	whole   bool
	on      bool // the tail takes what is written
	tail    []tailBatch
	byID    map[string][]place // of the tail
	count   int                // rows in the tail
	durable [streams]uint64
	done    [streams]position // how far the file has come
	eased   chan struct{}     // closed and replaced when the tail shrinks
	first   [streams]uint64   // below it rows were removed
}

// tailBatch is one message of the tail.
type tailBatch struct {
	stream int
	at     position
	rows   []row
}

func newIndexer(j *Journal, path string) *indexer {
	return &indexer{
		j: j, path: path, wake: make(chan struct{}, 1), eased: make(chan struct{}),
		byID: map[string][]place{}, durable: j.last,
	}
}

// wrote takes the rows of a message that was just written. The caller holds the
// journal's mu, so that messages come in order. It never waits: room has waited
// before the message was written.
func (x *indexer) wrote(stream int, seq, sum uint64, rows []row) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.on {
		return
	}
	x.tail = append(x.tail, tailBatch{stream, position{seq, sum}, rows})
	x.count += len(rows)
	for i := range rows {
		if id := rows[i].id; id != "" {
			x.byID[id] = append(x.byID[id], rows[i].place)
		}
	}
}

// room waits while the tail is full. It returns an error when ctx ends first.
// The bound may be passed by one message: it is looked at before one is made.
func (x *indexer) room(ctx context.Context) error {
	for {
		x.mu.Lock()
		full, eased := x.on && x.count >= maxTail, x.eased
		x.mu.Unlock()
		if !full {
			return nil
		}
		select {
		case <-eased:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// flushed is told how far the streams are on stable storage.
func (x *indexer) flushed(last [streams]uint64) {
	x.mu.Lock()
	for i, seq := range last {
		x.durable[i] = max(x.durable[i], seq)
	}
	x.mu.Unlock()
	select {
	// A wake that is pending covers this one: run looks at durable when it
	// starts.
	case x.wake <- struct{}{}:
	default:
	}
}

// behind reports whether something written is not known to be flushed.
func (x *indexer) behind(last [streams]uint64) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, seq := range last {
		if x.durable[i] < seq {
			return true
		}
	}
	return false
}

// reached is the last message of a stream that the index has. Without an index
// there is nothing that a trim could pass.
func (x *indexer) reached(stream int) uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	// The next index is made from what the streams have then.
	if x.db == nil {
		return math.MaxUint64
	}
	return x.done[stream].seq
}

// lag is how many rows the tail holds.
func (x *indexer) lag() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.count
}

// open opens the file. Without one readers scan, and run tries again.
func (x *indexer) open(ctx context.Context) {
	if err := x.openFile(ctx); err != nil {
		x.fault(ctx, "open index", err)
	}
}

// start brings a file that is nearly up to date to the end. One that is far
// behind follows while the server works: readers are told that it is not whole.
func (x *indexer) start(ctx context.Context) {
	if _, err := x.file(); err != nil || x.missing() > nearEnd {
		return
	}
	if err := x.catchUp(ctx); err != nil {
		x.fault(ctx, "bring index to the end", err)
	}
}

// openFile opens the file, or makes it anew when it is not to be trusted.
func (x *indexer) openFile(ctx context.Context) error {
	boot := bootID()
	db, err := openDatabase(ctx, x.path)
	var done [streams]position
	if err == nil {
		var trusted bool
		if trusted, err = db.claim(ctx, boot); err == nil && trusted {
			done, trusted, err = x.verify(ctx, db)
		}
		if err == nil && trusted {
			x.set(db, done)
			return nil
		}
		// Nothing in it is repaired: making it anew costs time and is always
		// right.
		err = errors.Join(err, db.drop())
	}
	x.j.log.InfoContext(ctx, "index is made anew", slog.Any("err", err))
	x.j.met.rebuilds.Inc()
	// A log of the old file beside a new one would be played into it.
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(x.path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if db, err = openDatabase(ctx, x.path); err != nil {
		return err
	}
	if _, err = db.claim(ctx, boot); err != nil {
		return errors.Join(err, db.drop())
	}
	x.set(db, [streams]position{})
	return nil
}

func (x *indexer) set(db *database, done [streams]position) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.db, x.done, x.first = db, done, [streams]uint64{}
}

// verify compares the last message that the index knows of each stream with
// what the stream has there.
func (x *indexer) verify(ctx context.Context, db *database) (done [streams]position, ok bool, err error) {
	for i := range done {
		p, err := db.position(ctx, i)
		if err != nil {
			return done, false, err
		}
		done[i] = p
		if p.seq == 0 {
			continue
		}
		// A power cut took the end of the stream, and other messages will get
		// its sequences: rows would point at strangers.
		if p.seq > x.j.lastOf(i) {
			return done, false, nil
		}
		m, err := x.j.bus.Get(ctx, streamNames[i], p.seq)
		switch {
		case errors.Is(err, whisk.NotFound) && i != inJournal:
			continue // grown old: calls and dead letters expire by themselves
		// JOURNAL is never trimmed above what the index has, so it is another
		// journal, or another index.
		case errors.Is(err, whisk.NotFound):
			return done, false, nil
		case err != nil:
			return done, false, err
		case checksum(m.Data) != p.sum:
			return done, false, nil
		}
	}
	return done, true, nil
}

// missing is how many messages the index has to read to come to the end.
func (x *indexer) missing() uint64 {
	n := uint64(0)
	for i := range streamNames {
		x.mu.Lock()
		done := x.done[i].seq
		x.mu.Unlock()
		n += x.j.lastOf(i) - min(done, x.j.lastOf(i))
	}
	return n
}

// fault gives the index up until it is opened again. An error of the index is
// told, and ends nothing: readers scan the streams meanwhile.
//
// The tail goes with the file: rows that are only in memory would grow without
// bound while nobody takes them. The streams have them all.
func (x *indexer) fault(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		x.j.log.ErrorContext(ctx, "index failed", slog.String("step", what), slog.Any("err", err))
	}
	x.mu.Lock()
	db := x.db
	x.db, x.whole, x.on = nil, false, false
	x.clearTail(len(x.tail))
	x.mu.Unlock()
	if db != nil {
		db.drop() //nolint:errcheck // it has failed already
	}
}

// clearTail removes the first n messages of the tail. The caller holds mu.
func (x *indexer) clearTail(n int) {
	for i := range x.tail[:n] {
		for k := range x.tail[i].rows {
			r := &x.tail[i].rows[k]
			// Oldest first, as they were added.
			left := x.byID[r.id]
			if len(left) > 1 {
				x.byID[r.id] = left[1:]
			} else if len(left) == 1 {
				delete(x.byID, r.id)
			}
		}
		x.count -= len(x.tail[i].rows)
	}
	clear(x.tail[:n])
	x.tail = x.tail[n:]
	// Without regard to whether somebody waits: that is what a writer that was
	// full looks at next.
	close(x.eased)
	x.eased = make(chan struct{})
}

// run keeps the index up to date until ctx ends.
//
// One goroutine does all that changes the file, so steps need no order between
// them but their own.
func (x *indexer) run(ctx context.Context) {
	tick := time.NewTicker(x.j.pace.keep * expireEvery)
	defer tick.Stop()
	for failures := 0; ctx.Err() == nil; {
		what, err := x.step(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			x.fault(ctx, what, err)
			if failures++; failures > 1 {
				// Opening it again has not helped. The next step then makes it
				// anew. The first failure may have been of the moment.
				err := os.Remove(x.path)
				x.j.log.WarnContext(ctx, "index removed", slog.Any("err", err))
			}
			select {
			case <-ctx.Done():
			case <-time.After(x.j.pace.retry):
			}
			continue
		}
		failures = 0
		select {
		case <-ctx.Done():
		case <-x.wake:
		case <-tick.C:
			if err := x.expire(ctx); err != nil && ctx.Err() == nil {
				x.fault(ctx, "expire", err)
			}
		}
	}
}

// step does what is to be done now: open, catch up, or follow.
func (x *indexer) step(ctx context.Context) (what string, err error) {
	x.mu.Lock()
	db, whole := x.db, x.whole
	x.mu.Unlock()
	if db == nil {
		if err := x.openFile(ctx); err != nil {
			return "open", err
		}
	}
	if !whole {
		return "catch up", x.catchUp(ctx)
	}
	return "follow", x.follow(ctx)
}

// finish indexes what is flushed when the journal stops. A whole index that is
// finished spares the next start the reading.
func (x *indexer) finish(ctx context.Context) {
	x.mu.Lock()
	whole := x.whole
	x.mu.Unlock()
	if !whole {
		return // the next start goes on
	}
	if err := x.follow(ctx); err != nil {
		x.fault(ctx, "finish", err)
	}
}

func (x *indexer) close() error {
	x.mu.Lock()
	db := x.db
	x.db, x.whole, x.on = nil, false, false
	x.mu.Unlock()
	if db == nil {
		return nil
	}
	if err := db.close(); err != nil {
		return fmt.Errorf("close index: %w", err)
	}
	return nil
}

// follow moves what is flushed from the tail into the file.
func (x *indexer) follow(ctx context.Context) error {
	for ctx.Err() == nil {
		x.mu.Lock()
		var rows []row
		reached := [streams]position{}
		n := 0
		for ; n < len(x.tail) && len(rows) < indexRows; n++ {
			b := &x.tail[n]
			// What is not flushed may be lost, and its sequence given out
			// again: the file must not know of it. Later messages wait with it.
			if b.at.seq > x.durable[b.stream] {
				break
			}
			rows = append(rows, b.rows...)
			reached[b.stream] = b.at
		}
		db := x.db
		x.mu.Unlock()
		if n == 0 {
			return nil
		}
		if err := x.put(ctx, db, rows, reached, n); err != nil {
			return err
		}
	}
	return nil
}

// put writes rows and takes n messages off the tail in the same moment.
func (x *indexer) put(ctx context.Context, db *database, rows []row, reached [streams]position, n int) error {
	// Short, and not to be broken off: the names that it makes are remembered.
	return db.write(context.WithoutCancel(ctx), rows, reached, func(tx *sql.Tx) error {
		// Commit and clearing under one lock: between them a row would be found
		// twice, and a list would show it twice.
		x.commit.Lock()
		defer x.commit.Unlock()
		if err := tx.Commit(); err != nil {
			return err
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		for i, p := range reached {
			if p.seq != 0 {
				x.done[i] = p
			}
		}
		x.clearTail(n)
		return nil
	})
}

// catchUp reads the streams from where the index is to their ends. Near the
// ends the tail begins to take what is written, so that nothing falls between.
func (x *indexer) catchUp(ctx context.Context) error {
	for x.missing() > nearEnd {
		if err := x.readStreams(ctx); err != nil {
			return err
		}
	}
	x.j.mu.Lock()
	x.mu.Lock()
	// Under the journal's lock, which wrote is called under too: every message
	// up to last is read below, and every one after it is in the tail.
	x.on = true
	x.mu.Unlock()
	last := x.j.last
	x.j.mu.Unlock()
	if err := x.readUpTo(ctx, last); err != nil {
		return err
	}
	x.mu.Lock()
	x.whole = true
	x.mu.Unlock()
	return x.follow(ctx)
}

func (x *indexer) readStreams(ctx context.Context) error {
	x.j.mu.Lock()
	last := x.j.last
	x.j.mu.Unlock()
	return x.readUpTo(ctx, last)
}

func (x *indexer) readUpTo(ctx context.Context, last [streams]uint64) error {
	// Nothing may be indexed that a power cut could still take back.
	if err := x.j.flush(ctx); err != nil {
		return err
	}
	for i, name := range streamNames {
		x.mu.Lock()
		db, from := x.db, x.done[i].seq+1
		x.mu.Unlock()
		if db == nil {
			return errNoIndex
		}
		for from <= last[i] {
			if err := ctx.Err(); err != nil {
				return err
			}
			msgs, err := x.j.bus.Read(ctx, name, from, replayMessages, replayBytes)
			if err != nil {
				return err
			}
			var rows []row
			reached := [streams]position{}
			for k := range msgs {
				if msgs[k].Seq > last[i] {
					break
				}
				rows = append(rows, rowsOf(ctx, x.j, i, &msgs[k])...)
				reached[i] = position{msgs[k].Seq, checksum(msgs[k].Data)}
			}
			if reached[i].seq == 0 {
				break // the rest has expired
			}
			if err := x.put(ctx, db, rows, reached, 0); err != nil {
				return err
			}
			from = reached[i].seq + 1
		}
	}
	return nil
}

var errNoIndex = errors.New("the index is not open")

// rowsOf returns what is to be indexed of a message that was read. One that
// can't be read is told and passed over.
func rowsOf(ctx context.Context, j *Journal, stream int, m *bus.Message) []row {
	if stream == inDead {
		d, err := parseDead(m.Data)
		if err == nil {
			return deadRows(nil, &d.DeadLetter, d.Body, at(stream, m.Seq, 0))
		}
		j.log.ErrorContext(ctx, "dead letter can't be read", slog.Uint64("seq", m.Seq), slog.Any("err", err))
		return nil
	}
	// The whole entries before the damage are indexed all the same.
	entries, err := decodeEntries(m.Data)
	if err != nil {
		j.log.ErrorContext(ctx, "journal message can't be read", slog.Uint64("seq", m.Seq), slog.Any("err", err))
	}
	var rows []row
	for n := range entries {
		rows = appendRows(rows, &entries[n], at(stream, m.Seq, n))
	}
	return rows
}
