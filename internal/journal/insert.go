package journal

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
)

// insertRows is how many rows one statement inserts: from 20 on a row costs
// two thirds of one alone.
const insertRows = 40

// insert is a statement that puts rows into one table. Replacing makes a row
// that is written twice harmless: after a crash messages are indexed again from
// the last position.
type insert struct {
	head    string
	columns int
}

const (
	intoEntries = iota
	intoEvents
	intoTries
	intoObjects
)

var inserts = [...]insert{
	intoEntries: {"INSERT OR REPLACE INTO entries VALUES ", 4},
	intoEvents:  {"INSERT OR REPLACE INTO events VALUES ", 2},
	intoTries:   {"INSERT OR REPLACE INTO tries VALUES ", 4},
	intoObjects: {"INSERT OR REPLACE INTO objects VALUES ", 2},
}

// text is the statement for n rows.
func (i insert) text(n int) string {
	one := "(" + strings.TrimSuffix(strings.Repeat("?,", i.columns), ",") + "),"
	return i.head + strings.TrimSuffix(strings.Repeat(one, n), ",")
}

// write puts rows into the index, and how far it has come with them, as one
// transaction, which commit ends. After an error the database is not to be
// used any more: names may stand for numbers that it does not have.
func (d *database) write(ctx context.Context, rows []row, reached [streams]position, commit func(*sql.Tx) error) error {
	tx, err := d.w.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	var args [len(inserts)][]any
	for i := range rows {
		r := &rows[i]
		if r.id != "" {
			name, err := d.name(ctx, tx, r)
			if err != nil {
				return err
			}
			args[intoEntries] = append(args[intoEntries], int64(r.place), idKey(r.id), name, r.start)
		}
		if r.event != 0 {
			args[intoEvents] = append(args[intoEvents], int64(r.event), int64(r.place))
		}
		if r.match != "" {
			args[intoTries] = append(args[intoTries], r.match, r.attempt, int64(r.place), r.dead)
		}
		if r.object != "" {
			args[intoObjects] = append(args[intoObjects], r.object, int64(r.place))
		}
	}
	for t := range args {
		if err := d.insert(ctx, tx, t, args[t]); err != nil {
			return err
		}
	}
	// In the same transaction as the rows: the file never claims more or less
	// than it has.
	for s, p := range reached {
		if p.seq == 0 {
			continue
		}
		_, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO meta VALUES (?, ?)", metaPosition+strconv.Itoa(s), fmt.Sprint(p.seq, " ", p.sum))
		if err != nil {
			return err
		}
	}
	return commit(tx)
}

// insert runs the prepared statement for full sets of rows, and one of the
// right size for the rest.
func (d *database) insert(ctx context.Context, tx *sql.Tx, table int, args []any) error {
	full := insertRows * inserts[table].columns
	if len(args) >= full {
		s := tx.StmtContext(ctx, d.many[table])
		for ; len(args) >= full; args = args[full:] {
			if _, err := s.ExecContext(ctx, args[:full]...); err != nil {
				return err
			}
		}
	}
	if len(args) == 0 {
		return nil
	}
	_, err := tx.ExecContext(ctx, inserts[table].text(len(args)/inserts[table].columns), args...)
	return err
}

// name returns the number of r's name and notes that it has something new.
func (d *database) name(ctx context.Context, tx *sql.Tx, r *row) (int64, error) {
	k := nameKey{r.space, r.name, r.class}
	if v, ok := d.names.Load(k); ok {
		i := v.(nameInfo)
		// Noted before the commit, which is harmless: lists then look at a name
		// that has nothing newer.
		if i.newest < r.start {
			d.names.Store(k, nameInfo{i.id, r.start})
		}
		return i.id, nil
	}
	_, err := tx.ExecContext(ctx, "INSERT OR IGNORE INTO names (space, class, name) VALUES (?, ?, ?)", k.space, k.class, k.name)
	if err != nil {
		return 0, err
	}
	var id int64
	if err := tx.QueryRowContext(ctx, "SELECT id FROM names WHERE space = ? AND class = ? AND name = ?", k.space, k.class, k.name).Scan(&id); err != nil {
		return 0, err
	}
	d.names.Store(k, nameInfo{id, r.start})
	return id, nil
}
