package bus

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/whisk"
)

// The object store's bucket, its stream and its bus subjects, as NATS clients
// name them.
const (
	objectBucket = "objects"
	objectStream = "OBJ_" + objectBucket
	objectMeta   = "$O." + objectBucket + ".M."
	objectChunk  = "$O." + objectBucket + ".C."
	chunkBatch   = 128 // chunks of 128 KiB asked for at a time
)

// objects is the object store. It is written by the client library and read by
// direct reads: the library reads through consumers, which may stall.
type objects struct {
	store jetstream.ObjectStore

	// mu makes looking and writing one step. Objects are few and large, so
	// they go one by one.
	mu sync.Mutex
	// put tells when this process was last told to keep a digest. Whatever is
	// to name it may not be written yet: a sweep lets it be for a while.
	put map[string]time.Time
}

// PutObject keeps data under its SHA-256, in hex, which it returns. What is
// there already, whole, is not written again. It is on stable storage after
// the next Flush: flush before storing anything that names it.
func (b *Bus) PutObject(ctx context.Context, data []byte) (string, error) {
	if err := b.check(); err != nil {
		return "", err
	}
	// The name is the content: the same payload or code is kept once, and a
	// read can check itself.
	sum := sha256.Sum256(data)
	digest := hex.EncodeToString(sum[:])
	o := &b.objects
	o.mu.Lock()
	defer o.mu.Unlock()
	// This process has written or read it whole: no need to read it again. The
	// time is renewed, since something new is about to name it.
	if _, ok := o.put[digest]; ok {
		o.put[digest] = time.Now()
		return digest, nil
	}
	// A power cut may have left the object's end without its middle.
	if _, err := b.Object(ctx, digest); err == nil {
		o.put[digest] = time.Now()
		return digest, nil
	}
	if _, err := o.store.Put(ctx, jetstream.ObjectMeta{Name: digest}, bytes.NewReader(data)); err != nil {
		return "", fmt.Errorf("keep object %s: %w", digest, err)
	}
	o.put[digest] = time.Now()
	return digest, nil
}

// Object returns what was kept under a digest. It returns NotFound when there
// is nothing, or not all of it.
func (b *Bus) Object(ctx context.Context, digest string) ([]byte, error) {
	metas, err := b.direct(ctx, objectStream, map[string]any{
		"last_by_subj": objectMeta + base64.URLEncoding.EncodeToString([]byte(digest)),
	})
	if err != nil {
		return nil, fmt.Errorf("read object %s: %w", digest, err)
	}
	var info jetstream.ObjectInfo
	if len(metas) > 0 {
		if err := json.Unmarshal(metas[0].Data, &info); err != nil {
			return nil, fmt.Errorf("read object %s: %w", digest, err)
		}
	}
	missing := whisk.E(whisk.NotFound, "read object", fmt.Errorf("object %s does not exist", digest))
	if len(metas) == 0 || info.Deleted {
		return nil, missing
	}
	data := make([]byte, 0, info.Size)
	// By the number of chunks that the description tells: a read that ends
	// early is an object that is not all there.
	for chunks, from := uint32(0), uint64(1); chunks < info.Chunks; {
		msgs, err := b.direct(ctx, objectStream, map[string]any{
			"seq": from, "next_by_subj": objectChunk + info.NUID, "batch": chunkBatch, "max_bytes": directBytes,
		})
		if err != nil {
			return nil, fmt.Errorf("read object %s: %w", digest, err)
		}
		if len(msgs) == 0 {
			return nil, missing
		}
		for _, m := range msgs {
			data = append(data, m.Data...)
			from = m.Seq + 1
		}
		chunks += uint32(len(msgs))
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != digest {
		return nil, missing
	}
	return data, nil
}
