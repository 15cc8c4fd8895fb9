package bus

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/internal/whisk"
)

// The streams.
const (
	StreamEvents  = "EVENTS"      // accepted events and the cursors of feeds
	StreamJournal = "JOURNAL"     // what became of the events
	StreamCalls   = "CALLS"       // records of blocking calls
	StreamDead    = "DEADLETTERS" // matches that were given up
	streamCheck   = "CHECK"       // one message, to find out where the server writes
)

// Bus subjects of the streams: events and dead letters have a token per name,
// cursors one per feed.
const (
	SubjectJournal = "journal"
	SubjectCalls   = "calls"
	SubjectDead    = "dead" // dead.<namespace>.<trigger>.<rule>
	subjectEvent   = "ev"   // ev.<namespace>.<trigger>[.large]
	subjectCursor  = "cur"  // cur.<feed id>
	subjectCheck   = "check"
)

// tokenLarge is the last token of events whose payload is an object, so that
// those are found without reading the others.
const tokenLarge = "large"

// largest is the byte limit of a stream on a large disk; on a smaller one it is
// a fifth.
const largest = 8 << 30

// keep is how long what may be forgotten by age is kept.
const (
	keepCalls = 7 * 24 * time.Hour
	keepDead  = 30 * 24 * time.Hour
)

// State is how full a stream is.
type State struct {
	First, Last uint64 // sequences; First is Last+1 when it is empty
	Messages    uint64
	Bytes       int64
	Limit       int64
}

// makeStreams makes what is missing and changes what differs.
func (b *Bus) makeStreams(ctx context.Context) error {
	// The sizes first: the limits go by them.
	held := map[string]State{}
	for _, name := range []string{StreamEvents, StreamJournal, StreamCalls, StreamDead} {
		st, err := b.State(ctx, name)
		if err != nil && !errors.Is(err, whisk.NotFound) {
			return err
		}
		held[name] = st
	}
	var err error
	if b.limits, err = b.computeLimits(held); err != nil {
		return err
	}
	for _, c := range []jetstream.StreamConfig{
		{
			// No age: it would eat cursors and unjudged events. The bus trims.
			Name: StreamEvents, Subjects: []string{subjectEvent + ".>", subjectCursor + ".>"},
			Discard: jetstream.DiscardNew, AllowAtomicPublish: true,
		},
		{Name: StreamJournal, Subjects: []string{SubjectJournal}, Discard: jetstream.DiscardNew},
		{Name: StreamCalls, Subjects: []string{SubjectCalls}, Discard: jetstream.DiscardOld, MaxAge: keepCalls},
		{Name: StreamDead, Subjects: []string{SubjectDead + ".>"}, Discard: jetstream.DiscardOld, MaxAge: keepDead},
		{Name: streamCheck, Subjects: []string{subjectCheck}, MaxMsgs: 1},
	} {
		// Readers ask the store directly. The memory of message IDs is kept
		// short: each costs 280 bytes and is read again at start, and nobody
		// here sends any.
		c.Storage, c.AllowDirect, c.MaxBytes, c.Duplicates = jetstream.FileStorage, true, b.limits[c.Name], time.Second
		// CHECK has no limit of its own, and the server knows none as -1.
		if c.MaxBytes == 0 {
			c.MaxBytes = -1
		}
		if err := b.ensureStream(ctx, c); err != nil {
			return err
		}
	}
	return b.openObjects(ctx)
}

// openObjects makes the object store if it is missing. It is not updated where
// it is there: the update would rewrite its file, unsynced.
func (b *Bus) openObjects(ctx context.Context) error {
	store, err := b.js.ObjectStore(ctx, objectBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		store, err = b.js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: objectBucket})
	}
	b.objects.store, b.objects.put = store, map[string]time.Time{}
	return wrapStream(objectStream, err)
}

// ensureStream makes a stream, or changes it where it differs: an update that
// changes nothing would rewrite its file, unsynced.
func (b *Bus) ensureStream(ctx context.Context, c jetstream.StreamConfig) error {
	s, err := b.js.Stream(ctx, c.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = b.js.CreateStream(ctx, c)
		return wrapStream(c.Name, err)
	}
	if err != nil {
		return wrapStream(c.Name, err)
	}
	// Compared field by field: the server fills in others by itself.
	have := s.CachedInfo().Config
	if reflect.DeepEqual(have.Subjects, c.Subjects) && have.MaxBytes == c.MaxBytes && have.MaxAge == c.MaxAge && have.Discard == c.Discard {
		return nil
	}
	have.Subjects, have.MaxBytes, have.MaxAge, have.Discard = c.Subjects, c.MaxBytes, c.MaxAge, c.Discard
	_, err = b.js.UpdateStream(ctx, have)
	return wrapStream(c.Name, err)
}

func wrapStream(name string, err error) error {
	if err != nil {
		return fmt.Errorf("make stream %s: %w", name, err)
	}
	return nil
}

// computeLimits gives each stream what was asked for, else the limit that it
// has, else the lesser of 8 GiB and a fifth of what the disk has for us, free
// or held; and never less than it holds.
func (b *Bus) computeLimits(held map[string]State) (map[string]int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(b.o.Dir, &fs); err != nil {
		return nil, fmt.Errorf("look at the disk of %s: %w", b.o.Dir, err)
	}
	// Free and held together: the limits of a store that fills up do not shrink
	// from start to start.
	ours := int64(fs.Bavail) * fs.Bsize
	for _, st := range held {
		ours += st.Bytes
	}
	share := min(largest, ours/5)
	limits := map[string]int64{}
	for name, asked := range map[string]int64{
		StreamEvents: b.o.EventsLimit, StreamJournal: b.o.JournalLimit, StreamCalls: b.o.CallsLimit, StreamDead: b.o.DeadLimit,
	} {
		if asked == 0 {
			asked = held[name].Limit
		}
		if asked == 0 {
			asked = share
			if name == StreamDead {
				asked = share / 4
			}
		}
		if bytes := held[name].Bytes; asked < bytes {
			// A limit below what is held would have the server refuse
			// everything, or, where the oldest go, remove at once what was
			// promised for days.
			asked = bytes + bytes/8
		}
		limits[name] = max(asked, 1<<20)
	}
	return limits, nil
}

// State returns how full a stream is, from the server. NotFound.
func (b *Bus) State(ctx context.Context, stream string) (State, error) {
	s, err := b.js.Stream(ctx, stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return State{}, whisk.E(whisk.NotFound, "look at stream", fmt.Errorf("there is no stream %s", stream))
	}
	if err != nil {
		return State{}, fmt.Errorf("look at stream %s: %w", stream, err)
	}
	i := s.CachedInfo()
	return State{i.State.FirstSeq, i.State.LastSeq, i.State.Msgs, int64(i.State.Bytes), i.Config.MaxBytes}, nil
}

// Purge removes the messages of a stream below a sequence, oldest first, in
// steps so small that nobody else waits long. The last message always stays.
func (b *Bus) Purge(ctx context.Context, stream string, before uint64) error {
	s, err := b.js.Stream(ctx, stream)
	if err != nil {
		return fmt.Errorf("purge stream %s: %w", stream, err)
	}
	st := s.CachedInfo().State
	// The last message stays: it tells where the sequences go on.
	before = min(before, st.LastSeq)
	step := uint64(1)
	if st.Bytes > 0 {
		// By the mean size of a message.
		step = max(purgeStep*st.Msgs/st.Bytes, 1)
	}
	for from := st.FirstSeq; from < before; {
		from = min(from+step, before)
		begun := time.Now()
		if err := s.Purge(ctx, jetstream.WithPurgeSequence(from)); err != nil {
			return fmt.Errorf("purge stream %s: %w", stream, err)
		}
		// The stream takes nothing during a step: let others have as long.
		select {
		case <-time.After(time.Since(begun)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// purgeStep is about how many bytes one step of a purge removes: a block file.
const purgeStep = 8 << 20

// EventSubject is the bus subject of a trigger's events. Names may hold what a
// bus subject may not, so each is encoded as one token.
func EventSubject(trigger whisk.Name) string {
	return strings.Join([]string{subjectEvent, whisk.Token(trigger.Namespace), whisk.Token(trigger.Entity)}, ".")
}
