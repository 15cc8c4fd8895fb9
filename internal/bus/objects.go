package bus

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/whisk"
)

// PutObject keeps data under its SHA-256, in hex, which it returns. What is
// there already is not written again. It is on stable storage after the next
// Flush: flush before storing anything that names it.
func (b *Bus) PutObject(ctx context.Context, data []byte) (string, error) {
	if err := b.check(); err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	digest := hex.EncodeToString(sum[:])
	if _, err := b.objects.GetInfo(ctx, digest); err == nil {
		return digest, nil
	}
	if _, err := b.objects.Put(ctx, jetstream.ObjectMeta{Name: digest}, bytes.NewReader(data)); err != nil {
		return "", fmt.Errorf("keep object %s: %w", digest, err)
	}
	return digest, nil
}

// Object returns what was kept under a digest. NotFound.
func (b *Bus) Object(ctx context.Context, digest string) ([]byte, error) {
	o, err := b.objects.Get(ctx, digest)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return nil, whisk.E(whisk.NotFound, "read object", fmt.Errorf("object %s does not exist", digest))
	}
	if err != nil {
		return nil, fmt.Errorf("read object %s: %w", digest, err)
	}
	defer o.Close()
	data, err := io.ReadAll(o)
	if err != nil {
		return nil, fmt.Errorf("read object %s: %w", digest, err)
	}
	return data, nil
}

// SweepObjects removes the objects that keep does not want and returns how
// many they were.
func (b *Bus) SweepObjects(ctx context.Context, keep func(digest string) bool) (int, error) {
	list, err := b.objects.List(ctx)
	if errors.Is(err, jetstream.ErrNoObjectsFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("list objects: %w", err)
	}
	removed := 0
	for _, o := range list {
		if keep(o.Name) {
			continue
		}
		if err := b.objects.Delete(ctx, o.Name); err != nil {
			return removed, fmt.Errorf("remove object %s: %w", o.Name, err)
		}
		removed++
	}
	return removed, nil
}
