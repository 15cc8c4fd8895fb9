package journal

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// schema of the index. Places grow with their stream, so entries are appended
// and expire from the old end; IDs are nearly in the order of time, which
// makes their key cheap to keep.
const schema = `
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE names (id INTEGER PRIMARY KEY, space TEXT NOT NULL, class INTEGER NOT NULL, name TEXT NOT NULL, UNIQUE (space, class, name));
CREATE TABLE entries (place INTEGER PRIMARY KEY, id BLOB NOT NULL, name INTEGER NOT NULL, start INTEGER NOT NULL);
CREATE INDEX entries_id ON entries (id);
CREATE INDEX entries_list ON entries (name, start);
CREATE TABLE events (seq INTEGER PRIMARY KEY, place INTEGER NOT NULL);
CREATE TABLE tries (match TEXT NOT NULL, attempt INTEGER NOT NULL, place INTEGER NOT NULL, dead TEXT NOT NULL, PRIMARY KEY (match, attempt, place)) WITHOUT ROWID;
CREATE TABLE objects (digest TEXT NOT NULL, place INTEGER NOT NULL, PRIMARY KEY (digest, place)) WITHOUT ROWID;
`

// schemaVersion changes with schema: an index of another one is made anew.
const schemaVersion = "1"

const (
	metaVersion  = "version"
	metaBoot     = "boot" // the start of the machine in which the file is open; absent when it was closed
	metaPosition = "position."
)

// position is how far the index has come in one stream. The checksum tells
// whether the stream still has the message that was indexed, or another one
// with its sequence.
type position struct {
	seq uint64
	sum uint64 // checksum of that message
}

// database is the index's file.
type database struct {
	path string
	w    *sql.DB // one connection: writes
	r    *sql.DB // reads beside it

	names sync.Map // nameKey to nameInfo

	many map[int]*sql.Stmt // inserts of insertRows rows, by table
}

type nameKey struct {
	space, name string
	class       class
}

// openDatabase opens the file at path, or makes it. Sync is off: what a power
// cut breaks is made anew, as boot tells.
func openDatabase(ctx context.Context, path string) (*database, error) {
	dsn := func(more string) string {
		return "file:" + strings.ReplaceAll(path, "?", "%3f") + "?_pragma=journal_mode(wal)&_pragma=busy_timeout(5000)&_pragma=cache_size(-8192)" + more
	}
	w, err := sql.Open("sqlite", dsn("&_pragma=synchronous(off)&_pragma=wal_autocheckpoint(4000)&_txlock=immediate"))
	if err != nil {
		return nil, err
	}
	// SQLite has one writer: a second connection would only meet a busy file.
	// The pragmas of claim and close hold for this one connection.
	w.SetMaxOpenConns(1)
	r, err := sql.Open("sqlite", dsn("&_pragma=query_only(1)"))
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	r.SetMaxOpenConns(4)
	d := &database{path: path, w: w, r: r, many: map[int]*sql.Stmt{}}
	if err := d.prepare(ctx); err != nil {
		return nil, errors.Join(err, d.w.Close(), d.r.Close())
	}
	return d, nil
}

func (d *database) prepare(ctx context.Context) error {
	var n int
	if err := d.w.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master WHERE name = 'meta'").Scan(&n); err != nil {
		return err
	}
	if n == 0 {
		if _, err := d.w.ExecContext(ctx, schema); err != nil {
			return err
		}
		if err := d.setMeta(ctx, metaVersion, schemaVersion); err != nil {
			return err
		}
	}
	if err := d.loadNames(ctx); err != nil {
		return err
	}
	for t, ins := range inserts {
		s, err := d.w.PrepareContext(ctx, ins.text(insertRows))
		if err != nil {
			return err
		}
		d.many[t] = s
	}
	return nil
}

// close marks the file as whole and closes it.
//
// Without boot the next start trusts the file whatever happened to the machine
// in between.
func (d *database) close() error {
	// From here on the file must be on the disk before the mark is.
	_, err := d.w.Exec("PRAGMA synchronous = FULL")
	if err == nil {
		_, err = d.w.Exec("DELETE FROM meta WHERE key = ?", metaBoot)
	}
	return errors.Join(err, d.drop())
}

// drop closes the file as it is. The mark stays, so the next start in the same
// boot still trusts what was committed: the death of a process loses nothing of
// it.
func (d *database) drop() error {
	for _, s := range d.many {
		s.Close() //nolint:errcheck // its connection is closed next
	}
	return errors.Join(d.r.Close(), d.w.Close())
}

// claim marks the file as open in this start of the machine, before anything
// is written to it. It returns false when it was open in another one.
func (d *database) claim(ctx context.Context, boot string) (bool, error) {
	made, err := d.meta(ctx, metaVersion)
	if err != nil || made != schemaVersion {
		return false, err
	}
	was, err := d.meta(ctx, metaBoot)
	if err != nil || was != "" && (was != boot || boot == "") {
		return false, err
	}
	// A mark all the same, so that a start that can't tell takes the file for
	// open: the power may have been cut since.
	boot = cmp.Or(boot, "unknown")
	// The mark has to reach the disk before the first unsynced row: otherwise a
	// power cut could leave damage under a file that looks closed.
	for _, q := range []string{"PRAGMA synchronous = FULL", "", "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA synchronous = OFF"} {
		if q == "" {
			err = d.setMeta(ctx, metaBoot, boot)
		} else {
			_, err = d.w.ExecContext(ctx, q)
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// bootID names this start of the machine; empty where the system has no name
// for it.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// meta is what is noted under key; empty for nothing.
func (d *database) meta(ctx context.Context, key string) (string, error) {
	var v string
	err := d.w.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = ?", key).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return v, err
}

func (d *database) setMeta(ctx context.Context, key, value string) error {
	_, err := d.w.ExecContext(ctx, "INSERT OR REPLACE INTO meta VALUES (?, ?)", key, value)
	return err
}

// position is how far the file has come in a stream; zero for not at all.
func (d *database) position(ctx context.Context, stream int) (position, error) {
	v, err := d.meta(ctx, metaPosition+strconv.Itoa(stream))
	if err != nil || v == "" {
		return position{}, err
	}
	var p position
	_, err = fmt.Sscanf(v, "%d %d", &p.seq, &p.sum)
	return p, err
}

// nameInfo is a name's number and the newest start under it: lists of a whole
// namespace begin with the names that have something new.
type nameInfo struct {
	id     int64
	newest int64
}

// loadNames reads all names into memory: there are as many as triggers and
// actions, and every row that is written and every list needs one.
func (d *database) loadNames(ctx context.Context) error {
	rows, err := d.w.QueryContext(ctx, "SELECT id, space, class, name, (SELECT coalesce(max(start), 0) FROM entries WHERE entries.name = names.id) FROM names")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var k nameKey
		var i nameInfo
		if err := rows.Scan(&i.id, &k.space, &k.class, &k.name, &i.newest); err != nil {
			return err
		}
		d.names.Store(k, i)
	}
	return rows.Err()
}
