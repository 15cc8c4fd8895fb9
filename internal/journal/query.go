package journal

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"
)

// listing says which rows a list wants.
//
// since and upto are of the row's start, not of when it was written. most is
// what is kept while names are read: skip and limit together.
type listing struct {
	space       string
	name        string // empty: any
	classes     []class
	since, upto int64 // milliseconds, inclusive
	most        int
}

// listed is a row of a list.
type listed struct {
	place place
	start int64
	class class
}

// newestFirst is the order of lists. The place breaks ties, so that pages do
// not overlap.
func newestFirst(a, b listed) int {
	return cmp.Or(cmp.Compare(b.start, a.start), cmp.Compare(b.place, a.place))
}

// bounds turns two times, zero for none, into milliseconds.
func bounds(since, upto time.Time) (int64, int64) {
	lo, hi := int64(math.MinInt64), int64(math.MaxInt64)
	if !since.IsZero() {
		lo = since.UnixMilli()
	}
	if !upto.IsZero() {
		hi = upto.UnixMilli()
	}
	return lo, hi
}

// wants is for the tail what the query is for the file.
func (l *listing) wants(r *row) bool {
	return r.id != "" && r.space == l.space && slices.Contains(l.classes, r.class) &&
		(l.name == "" || l.name == r.name) && r.start >= l.since && r.start <= l.upto
}

// tailed returns the rows of the tail that l wants. It looks at every row:
// there are at most maxTail, and mostly few.
func (x *indexer) tailed(l *listing) []listed {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []listed
	for i := range x.tail {
		for k := range x.tail[i].rows {
			if r := &x.tail[i].rows[k]; l.wants(r) {
				out = append(out, listed{r.place, r.start, r.class})
			}
		}
	}
	return out
}

// file returns the database, or errNoIndex while there is none.
func (x *indexer) file() (*database, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.db == nil {
		return nil, errNoIndex
	}
	return x.db, nil
}

// list returns the newest rows that l wants, at most l.most, newest first.
func (x *indexer) list(ctx context.Context, l listing) ([]listed, error) {
	x.commit.RLock()
	defer x.commit.RUnlock()
	out := x.tailed(&l)
	db, err := x.file()
	if err != nil {
		return out, nil // it says that it is not whole
	}
	slices.SortFunc(out, newestFirst)
	// One query per name, each along its key, instead of one over the
	// namespace, which would have to sort all of it.
	for _, n := range db.named(&l) {
		if len(out) >= l.most && out[l.most-1].start > n.newest {
			break // no name that follows has anything newer
		}
		more, err := db.newest(ctx, n, &l)
		if err != nil {
			return nil, fmt.Errorf("read index: %w", err)
		}
		out = append(out, more...)
		slices.SortFunc(out, newestFirst)
		out = out[:min(len(out), l.most)]
	}
	return out[:min(len(out), l.most)], nil
}

// number returns how many rows l wants. While the index is not whole, the
// number is too low.
func (x *indexer) number(ctx context.Context, l listing) (int, error) {
	x.commit.RLock()
	defer x.commit.RUnlock()
	n := len(x.tailed(&l))
	db, err := x.file()
	if err != nil {
		return n, nil
	}
	for _, name := range db.named(&l) {
		var c int
		err := db.r.QueryRowContext(ctx, "SELECT count(*) FROM entries WHERE name = ? AND start BETWEEN ? AND ?", name.id, l.since, l.upto).Scan(&c)
		if err != nil {
			return 0, fmt.Errorf("read index: %w", err)
		}
		n += c
	}
	return n, nil
}

// chosen is a name that a list wants.
type chosen struct {
	nameInfo
	class class
}

// named returns the names that l wants, those with the newest rows first.
func (d *database) named(l *listing) []chosen {
	var out []chosen
	if l.name != "" {
		for _, c := range l.classes {
			if v, ok := d.names.Load(nameKey{l.space, l.name, c}); ok {
				out = append(out, chosen{v.(nameInfo), c})
			}
		}
	} else {
		d.names.Range(func(k, v any) bool {
			if k := k.(nameKey); k.space == l.space && slices.Contains(l.classes, k.class) {
				out = append(out, chosen{v.(nameInfo), k.class})
			}
			return true
		})
	}
	slices.SortFunc(out, func(a, b chosen) int { return cmp.Compare(b.newest, a.newest) })
	return out
}

// newest returns the newest rows of one name within the bounds of l.
func (d *database) newest(ctx context.Context, n chosen, l *listing) ([]listed, error) {
	rows, err := d.r.QueryContext(ctx, "SELECT place, start FROM entries WHERE name = ? AND start BETWEEN ? AND ? ORDER BY start DESC, place DESC LIMIT ?", n.id, l.since, l.upto, l.most)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []listed
	for rows.Next() {
		e := listed{class: n.class}
		if err := rows.Scan(&e.place, &e.start); err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, rows.Err()
}

// find returns the places of the entries with an ID, oldest first.
func (x *indexer) find(ctx context.Context, id string) ([]place, error) {
	x.commit.RLock()
	defer x.commit.RUnlock()
	x.mu.Lock()
	tail := slices.Clone(x.byID[id])
	x.mu.Unlock()
	db, err := x.file()
	if err != nil {
		return tail, nil
	}
	// The file holds what is older than the tail: appending keeps the order.
	found, err := db.places(ctx, "SELECT place FROM entries WHERE id = ? ORDER BY place", idKey(id))
	if err != nil {
		return nil, err
	}
	return append(found, tail...), nil
}

func (d *database) places(ctx context.Context, query string, args ...any) ([]place, error) {
	rows, err := d.r.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	defer rows.Close()
	var out []place
	for rows.Next() {
		var p place
		if err := rows.Scan(&p); err != nil {
			return nil, fmt.Errorf("read index: %w", err)
		}
		out = append(out, p)
	}
	return out, rows.Err()
}

// verdictOf returns the place of the verdict on an event; 0 when there is none.
func (x *indexer) verdictOf(ctx context.Context, event uint64) (place, error) {
	x.commit.RLock()
	defer x.commit.RUnlock()
	var found place
	x.mu.Lock()
	for i := range x.tail {
		for k := range x.tail[i].rows {
			if r := &x.tail[i].rows[k]; r.event == event {
				found = r.place
			}
		}
	}
	x.mu.Unlock()
	db, err := x.file()
	if found != 0 || err != nil {
		return found, nil
	}
	places, err := db.places(ctx, "SELECT place FROM events WHERE seq = ?", int64(event))
	if err != nil || len(places) == 0 {
		return 0, err
	}
	return places[0], nil
}

// try is one attempt of a match, or its dead letter.
type try struct {
	attempt int
	place   place
	dead    string
}

// tries returns the attempts of a match that had several, by number.
func (x *indexer) tries(ctx context.Context, match string) ([]try, error) {
	x.commit.RLock()
	defer x.commit.RUnlock()
	var out []try
	x.mu.Lock()
	for i := range x.tail {
		for k := range x.tail[i].rows {
			if r := &x.tail[i].rows[k]; r.match == match {
				out = append(out, try{r.attempt, r.place, r.dead})
			}
		}
	}
	x.mu.Unlock()
	db, err := x.file()
	if err != nil {
		return out, nil
	}
	rows, err := db.r.QueryContext(ctx, "SELECT attempt, place, dead FROM tries WHERE match = ?", match)
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var t try
		if err := rows.Scan(&t.attempt, &t.place, &t.dead); err != nil {
			return nil, fmt.Errorf("read index: %w", err)
		}
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b try) int {
		return cmp.Or(cmp.Compare(a.attempt, b.attempt), cmp.Compare(a.place, b.place))
	})
	return out, rows.Err()
}

// names reports whether an entry names the object digest: true when in doubt.
// Who asks removes the object on a no: a row that is missing or can't be read
// must not cost anybody his log text.
func (x *indexer) names(ctx context.Context, digest string) bool {
	x.commit.RLock()
	defer x.commit.RUnlock()
	x.mu.Lock()
	whole := x.whole
	for i := range x.tail {
		for k := range x.tail[i].rows {
			if x.tail[i].rows[k].object == digest {
				whole = false // that is: yes
			}
		}
	}
	x.mu.Unlock()
	db, err := x.file()
	if err != nil || !whole {
		return true
	}
	places, err := db.places(ctx, "SELECT place FROM objects WHERE digest = ? LIMIT 1", digest)
	return err != nil || len(places) > 0
}

// expire removes the rows of messages that their streams have no more.
func (x *indexer) expire(ctx context.Context) error {
	for i, name := range streamNames {
		st, err := x.j.bus.State(ctx, name)
		if err != nil {
			return nil // the bus tells its own faults
		}
		x.mu.Lock()
		db, done := x.db, x.first[i] >= st.First
		x.mu.Unlock()
		if db == nil || done {
			continue
		}
		if err := db.expire(ctx, at(i, 0, 0), at(i, st.First, 0)); err != nil {
			return err
		}
		x.mu.Lock()
		x.first[i] = st.First
		x.mu.Unlock()
	}
	return nil
}

// expireRows is how many rows one step of an expiry removes. Steps keep each
// transaction short: rows of new messages wait for it.
const expireRows = 5_000

// expire removes the rows with places from from up to, not including, to.
func (d *database) expire(ctx context.Context, from, to place) error {
	for _, q := range []string{
		"DELETE FROM entries WHERE place IN (SELECT place FROM entries WHERE place >= ? AND place < ? ORDER BY place LIMIT ?)",
		// Events are keyed by sequence, not place, but judged nearly in order:
		// what has expired is among the oldest.
		"DELETE FROM events WHERE seq IN (SELECT seq FROM (SELECT seq, place FROM events ORDER BY seq LIMIT 20000) WHERE place >= ? AND place < ? LIMIT ?)",
		"DELETE FROM tries WHERE (match, attempt, place) IN (SELECT match, attempt, place FROM tries WHERE place >= ? AND place < ? LIMIT ?)",
		"DELETE FROM objects WHERE (digest, place) IN (SELECT digest, place FROM objects WHERE place >= ? AND place < ? LIMIT ?)",
	} {
		for {
			res, err := d.w.ExecContext(ctx, q, int64(from), int64(to), expireRows)
			if err != nil {
				return err
			}
			if n, err := res.RowsAffected(); err != nil || n < expireRows {
				if err != nil {
					return err
				}
				break
			}
		}
	}
	return nil
}
