package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// maxSwept bounds what one sweep removes; the next one goes on.
const maxSwept = 1000

// EventObjects returns the digests that events of the archive name. It reads
// only the events that name one, by the last token of their subject.
func (b *Bus) EventObjects(ctx context.Context) (map[string]bool, error) {
	named := map[string]bool{}
	for from := uint64(1); ; {
		msgs, err := b.direct(ctx, StreamEvents, map[string]any{
			"seq": from, "next_by_subj": subjectEvent + ".*.*." + tokenLarge, "batch": 1000, "max_bytes": directBytes,
		})
		if err != nil {
			return nil, fmt.Errorf("list the objects of events: %w", err)
		}
		if len(msgs) == 0 {
			return named, nil
		}
		for _, m := range msgs {
			var a struct {
				Object string `json:"object"`
			}
			if err := json.Unmarshal(m.Data, &a); err != nil {
				return nil, fmt.Errorf("list the objects of events: event %d: %w", m.Seq, err)
			}
			named[a.Object] = true
			from = m.Seq + 1
		}
	}
}

// SweepObjects removes objects that nothing names, as keep tells, and what is
// left of those that were never put to their end, a thousand at most. It
// returns how many objects it removed. What this process was told to keep less
// than unnamed ago stays: that which is to name it may be under way.
func (b *Bus) SweepObjects(ctx context.Context, unnamed time.Duration, keep func(digest string) bool) (int, error) {
	// Forgotten first: from here on such an object goes unless something names
	// it.
	b.objects.forget(time.Now().Add(-unnamed))
	metas, err := b.lastPerSubject(ctx, objectStream, objectMeta+">")
	if err != nil {
		return 0, fmt.Errorf("list objects: %w", err)
	}
	// An error ends the sweep: when in doubt an object stays.
	removed := 0
	for _, m := range metas {
		if removed == maxSwept {
			return removed, nil
		}
		var info jetstream.ObjectInfo
		if err := json.Unmarshal(m.Data, &info); err != nil {
			return removed, fmt.Errorf("list objects: %w", err)
		}
		gone, err := b.sweepObject(ctx, m.Subject, info, keep)
		if err != nil {
			return removed, fmt.Errorf("remove object %s: %w", info.Name, err)
		}
		if gone && !info.Deleted {
			removed++
		}
	}
	return removed, b.sweepRests(ctx)
}

// forget lets go of what was put before a time.
func (o *objects) forget(before time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for digest, at := range o.put {
		if at.Before(before) {
			delete(o.put, digest)
		}
	}
}

// sweepObject removes an object that nobody wants, description first: without
// it the chunks are nothing. No mark of the deletion stays.
func (b *Bus) sweepObject(ctx context.Context, subject string, info jetstream.ObjectInfo, keep func(digest string) bool) (bool, error) {
	// Between the question and the removal nobody may put the object again:
	// PutObject would find it, and name what is about to go.
	b.objects.mu.Lock()
	defer b.objects.mu.Unlock()
	if _, ok := b.objects.put[info.Name]; ok || keep(info.Name) {
		return false, nil
	}
	s, err := b.js.Stream(ctx, objectStream)
	if err != nil {
		return false, err
	}
	return true, errors.Join(
		s.Purge(ctx, jetstream.WithPurgeSubject(subject)),
		s.Purge(ctx, jetstream.WithPurgeSubject(objectChunk+info.NUID)),
	)
}

// sweepRests removes chunks that no description speaks of: those of a put, or
// of a sweep, that a crash cut off. The chunks are listed before the
// descriptions, with every put that had written some at its end in between: what
// has no description then is nobody's.
func (b *Bus) sweepRests(ctx context.Context) error {
	s, err := b.js.Stream(ctx, objectStream)
	if err != nil {
		return err
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(objectChunk+">"))
	if err != nil {
		return fmt.Errorf("list chunks: %w", err)
	}
	// After every put that had written chunks by then: it holds mu to its end.
	b.objects.mu.Lock()
	b.objects.mu.Unlock() //nolint:staticcheck // it is waited for
	metas, err := b.lastPerSubject(ctx, objectStream, objectMeta+">")
	if err != nil {
		return fmt.Errorf("list objects: %w", err)
	}
	// Read under the lock: a put writes its chunks first, and those of one
	// under way would look left behind.
	known := map[string]bool{}
	for _, m := range metas {
		var info jetstream.ObjectInfo
		if err := json.Unmarshal(m.Data, &info); err != nil {
			return fmt.Errorf("list objects: %w", err)
		}
		known[objectChunk+info.NUID] = true
	}
	// The others wait for the next sweep.
	left := maxSwept
	for subject := range info.State.Subjects {
		if known[subject] || left == 0 {
			continue
		}
		left--
		if err := s.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
			return fmt.Errorf("remove chunks: %w", err)
		}
	}
	return nil
}
