package journal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// unnamed is how long an object counts as used although nothing names it: by
// then the entry that it was put for is written, or never will be.
const unnamed = time.Hour

// digests are the objects put of late.
//
// Between putting an object and writing its name no row tells of it. Without
// these a sweep in that moment would take it.
type digests struct {
	mu  sync.Mutex
	put map[string]time.Time
}

// add notes an object before it is put, so that no sweep gets in between.
func (d *digests) add(digest string, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.put == nil {
		d.put = map[string]time.Time{}
	}
	for k, t := range d.put {
		if now.Sub(t) > unnamed {
			delete(d.put, k)
		}
	}
	d.put[digest] = now
}

// has reports whether an object was put of late, or may have been.
func (d *digests) has(digest string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.put[digest]
	return ok
}

// putObject keeps data as an object, which ObjectInUse knows from now on.
func (j *Journal) putObject(ctx context.Context, data []byte) (string, error) {
	sum := sha256.Sum256(data)
	j.using.add(hex.EncodeToString(sum[:]), time.Now())
	return j.bus.PutObject(ctx, data)
}

// ObjectInUse reports whether a record, something undone or a dead letter names
// the object digest. While the index is not whole it says yes to all.
func (j *Journal) ObjectInUse(digest string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // a sweep has no context to give
	defer cancel()
	return j.using.has(digest) || j.index.names(ctx, digest)
}

// putLogs puts log lines into an object and returns its digest. The caller
// flushes before it names it.
func (j *Journal) putLogs(ctx context.Context, lines []string) (string, error) {
	b, err := json.Marshal(lines)
	if err != nil {
		return "", fmt.Errorf("encode log text: %w", err)
	}
	return j.putObject(ctx, b)
}

// withLogs returns a record with its log text, wherever that lies.
func (j *Journal) withLogs(ctx context.Context, e *stored) (whisk.Activation, error) {
	a := *e.Record
	if e.logs == "" {
		return a, nil
	}
	b, err := j.bus.Object(ctx, e.logs)
	if err == nil {
		err = json.Unmarshal(b, &a.Logs)
	}
	if err != nil {
		return a, fmt.Errorf("read log text: %w", err)
	}
	return a, nil
}

// withBody fills in a carried or dead event that lies in an object.
func (j *Journal) withBody(ctx context.Context, ev *whisk.Event, digest string) error {
	if digest == "" {
		return nil
	}
	b, err := j.bus.Object(ctx, digest)
	if err != nil {
		return fmt.Errorf("read event: %w", err)
	}
	// What the stream says of the event is not in its JSON.
	seq, accepted := ev.Seq, ev.Accepted
	if err := json.Unmarshal(b, ev); err != nil {
		return fmt.Errorf("read event: %w", err)
	}
	ev.Seq, ev.Accepted = seq, accepted
	return nil
}
