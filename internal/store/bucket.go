package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/whisk"
)

// history is how many values of one key a bucket keeps, the present one
// included. Old revisions of an action keep their code from being swept.
const history = 10

// Headers of a bucket's messages. The first two are those of NATS' own buckets.
const (
	headerOp     = "KV-Operation"
	headerKind   = "Millrace-Kind"
	headerExpect = "Nats-Expected-Last-Subject-Sequence"
	opDelete     = "DEL"
	opPurge      = "PURGE"
)

// decoder reads a stored value.
type decoder func(data []byte) (any, error)

// bucket is one stream of values by key, laid out as NATS' key-value buckets
// are, and its memory copy.
//
// Laid out so, the nats tools can read it. What is written by them is taken in
// as well, if it is of a kind that is known here.
type bucket struct {
	*rows
	bus   *bus.Bus
	name  string
	kinds map[string]decoder
	log   *slog.Logger

	// batch is held while several values are written at once, and while what
	// was read from the stream is taken in, so that nobody sees a part of them.
	batch sync.Mutex
}

func newBucket(b *bus.Bus, name string, kinds map[string]decoder, changed func(string), log *slog.Logger) *bucket {
	return &bucket{
		rows: newRows(changed), bus: b, name: name, kinds: kinds,
		log: log.With(slog.String("bucket", name)),
	}
}

// stream is the name that NATS gives the stream of a bucket.
func (b *bucket) stream() string { return "KV_" + b.name }

func (b *bucket) prefix() string { return "$KV." + b.name + "." }

// subject is where the value of a name is published.
func (b *bucket) subject(n whisk.Name) string {
	return b.prefix() + whisk.Token(n.Namespace) + "." + whisk.Token(n.Package) + "." + whisk.Token(n.Entity)
}

// parse is subject's inverse.
func (b *bucket) parse(subject string) (whisk.Name, error) {
	key, ok := strings.CutPrefix(subject, b.prefix())
	parts := strings.Split(key, ".")
	if !ok || len(parts) != 3 {
		return whisk.Name{}, fmt.Errorf("%q is not a key of bucket %s", subject, b.name)
	}
	var n whisk.Name
	for i, p := range []*string{&n.Namespace, &n.Package, &n.Entity} {
		var err error
		if *p, err = whisk.ParseToken(parts[i]); err != nil {
			return whisk.Name{}, err
		}
	}
	return n, nil
}

// open makes the stream if it is missing and reads it.
func (b *bucket) open(ctx context.Context) error {
	js := b.bus.JetStream()
	want := jetstream.StreamConfig{
		Name: b.stream(), Subjects: []string{b.prefix() + ">"},
		MaxMsgsPerSubject: history, MaxMsgs: -1, MaxBytes: -1, MaxMsgSize: -1, MaxConsumers: -1,
		Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew,
		AllowRollup: true, AllowDirect: true, AllowAtomicPublish: true,
	}
	s, err := js.Stream(ctx, want.Name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		_, err = js.CreateStream(ctx, want)
	case err == nil && !s.CachedInfo().Config.AllowAtomicPublish:
		// One that the nats tools have made. What differs otherwise does no harm.
		have := s.CachedInfo().Config
		have.AllowAtomicPublish = true
		_, err = js.UpdateStream(ctx, have)
	case err == nil:
		return b.load(ctx)
	}
	if err != nil {
		return err
	}
	// The server renames a stream's files without syncing them: a power cut
	// could hide the stream, and with it all that is written next.
	if err := b.bus.SyncAll(ctx); err != nil {
		return err
	}
	return b.load(ctx)
}

// row returns the row that a message stands for.
func (b *bucket) row(header nats.Header, data []byte, seq uint64, at time.Time) row {
	r := row{rev: seq, since: at}
	if op := header.Get(headerOp); op == opDelete || op == opPurge {
		r.gone = true
		return r
	}
	// The kind lies in the header, so that a message tells it without being
	// decoded.
	r.kind = header.Get(headerKind)
	// A value that can't be read keeps its row: its name is taken.
	decode := b.kinds[r.kind]
	if decode == nil {
		r.err = fmt.Errorf("%q is not a kind of value of bucket %s", r.kind, b.name)
		return r
	}
	r.value, r.err = decode(data)
	return r
}

// write is one value to be put, or deleted where data is nil.
type write struct {
	name whisk.Name
	kind string
	data []byte
	prev whisk.Revision
}

// writeWait bounds a write once it has begun. Above what the bus waits for one
// answer before it gives the store up.
const writeWait = 40 * time.Second

// commit checks the writes against the memory copy, publishes them, takes them
// in, and returns when they are flushed: all or none. It returns the new
// revisions, in order.
func (b *bucket) commit(ctx context.Context, ws ...write) ([]whisk.Revision, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// A write that has begun is ended, even if the caller goes away: else
	// nobody would know what became of it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeWait)
	defer cancel()
	// In memory before it is flushed: another writer must see the revision at
	// once. If the flush fails, the process ends, and nobody was told.
	first, err := b.publish(ctx, ws)
	if err != nil {
		return nil, err
	}
	revs := make([]whisk.Revision, len(ws))
	for i := range ws {
		revs[i] = whisk.Revision(first + uint64(i))
	}
	return revs, b.bus.Flush(ctx)
}

// publish writes ws and takes them in. It returns the revision of the first;
// those of the others follow it.
func (b *bucket) publish(ctx context.Context, ws []write) (first uint64, err error) {
	// One write alone needs no lock: the server compares its revision.
	if len(ws) > 1 {
		b.batch.Lock()
		defer b.batch.Unlock()
	}
	expected := make([]uint64, len(ws))
	for i, w := range ws {
		// From memory, so that what can't be is refused without a write. The
		// server decides all the same: another process may have been faster.
		if expected[i], err = b.expect(w); err != nil {
			return 0, err
		}
	}
	for retried := false; ; retried = true {
		msgs := make([]*nats.Msg, len(ws))
		for i, w := range ws {
			msgs[i] = b.message(w, expected[i])
		}
		first, err = b.send(ctx, msgs)
		if err == nil {
			// From the very bytes that were sent, as a reader would take them
			// in: the copy in memory can't differ from what a start reads.
			cs := make([]change, len(ws))
			for i, w := range ws {
				cs[i] = change{w.name, b.row(msgs[i].Header, w.data, first+uint64(i), time.Now())}
			}
			b.set(cs...)
			return first, nil
		}
		if !errors.Is(err, whisk.Conflict) {
			return 0, err
		}
		// A mark of deletion that the copy still has may have been removed from
		// the stream: what was expected to be deleted is so all the more.
		marked := false
		for i, w := range ws {
			if w.prev == 0 && expected[i] != 0 {
				expected[i], marked = 0, true
			}
		}
		// Once: then the name has a new writer.
		if retried || !marked {
			return 0, errRace
		}
	}
}

// expect returns the sequence that the key of w must have in the stream, or
// why w can't be written.
func (b *bucket) expect(w write) (uint64, error) {
	r := b.get(w.name)
	exists := r.rev != 0 && !r.gone
	switch {
	case exists && r.kind != w.kind:
		return 0, errOther
	case !exists && w.data == nil:
		return 0, errMissing
	case exists && whisk.Revision(r.rev) != w.prev, !exists && w.prev != 0:
		return 0, errRace
	}
	return r.rev, nil
}

// message makes the message of a write, with the sequence that the key's last
// one must have. 0 stands for none.
func (b *bucket) message(w write, expected uint64) *nats.Msg {
	m := &nats.Msg{Subject: b.subject(w.name), Data: w.data, Header: nats.Header{}}
	m.Header.Set(headerExpect, strconv.FormatUint(expected, 10))
	if w.kind != "" {
		m.Header.Set(headerKind, w.kind)
	}
	if w.data == nil {
		m.Header.Set(headerOp, opDelete)
	}
	return m
}

// send publishes messages, several as one atomic batch, and returns the
// sequence of the first. Conflict when one is not as expected.
func (b *bucket) send(ctx context.Context, msgs []*nats.Msg) (first uint64, err error) {
	if len(msgs) == 1 {
		return b.bus.Publish(ctx, bus.Message{Subject: msgs[0].Subject, Header: msgs[0].Header, Data: msgs[0].Data}, nil)
	}
	last, err := publishBatch(ctx, b.bus.JetStream().Conn(), msgs)
	if err != nil {
		return 0, err
	}
	return last - uint64(len(msgs)) + 1, nil
}
