package journal

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// ObjectInUse reports whether a record, something undone or a dead letter names
// the object digest. While the index is not whole it says yes to all. What was
// put and is not named yet is the bus's to keep.
func (j *Journal) ObjectInUse(digest string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // a sweep has no context to give
	defer cancel()
	return j.index.names(ctx, digest)
}

// putLogs puts log lines into an object and returns its digest. The caller
// flushes before it names it.
func (j *Journal) putLogs(ctx context.Context, lines []string) (string, error) {
	b, err := json.Marshal(lines)
	if err != nil {
		return "", fmt.Errorf("encode log text: %w", err)
	}
	return j.bus.PutObject(ctx, b)
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
