package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/millrace/millrace/internal/whisk"
)

// PutCode stores the code of an action and returns its digest, the SHA-256 in
// hex. It is durable when the entity that names it is. Equal code is stored
// once, whoever puts it.
func (s *Store) PutCode(ctx context.Context, code string) (digest string, err error) {
	if digest, err = s.bus.PutObject(ctx, []byte(code)); err != nil {
		return "", whisk.E(whisk.KindOf(err), "store code", err)
	}
	return digest, nil
}

// Code returns the code of a digest: NotFound when there is none.
func (s *Store) Code(ctx context.Context, digest string) (string, error) {
	b, err := s.bus.Object(ctx, digest)
	if err != nil {
		return "", whisk.E(whisk.KindOf(err), "read code", err)
	}
	return string(b), nil
}

// NamedCode returns the digests of all code that an action names, or named in
// one of the revisions that are kept of it. What is stored meanwhile may be
// missing, unless an older revision names it as well. It reads the stream, not
// memory, which has the newest revisions alone.
func (s *Store) NamedCode(ctx context.Context) (map[string]bool, error) {
	named := map[string]bool{}
	stream := s.entities.Actions.bucket.stream()
	for from := uint64(1); ; {
		msgs, err := s.bus.Read(ctx, stream, from, readCount, 0)
		if err != nil {
			return nil, whisk.E(whisk.KindOf(err), "list code", err)
		}
		if len(msgs) == 0 {
			return named, nil
		}
		for _, m := range msgs {
			from = m.Seq + 1
			if m.Header.Get(headerKind) != kindAction || len(m.Data) == 0 {
				continue
			}
			var a struct {
				Exec struct {
					Digest string `json:"digest"`
				} `json:"exec"`
			}
			if err := json.Unmarshal(m.Data, &a); err != nil {
				return nil, whisk.E(whisk.Internal, "list code", fmt.Errorf("revision %d: %w", m.Seq, err))
			}
			named[a.Exec.Digest] = true
		}
	}
}

// readCount is how many stored revisions are read at a time.
const readCount = 500
