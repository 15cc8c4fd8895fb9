package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/millrace/millrace/internal/whisk"
)

// sealedPrefix begins every sealed text and tells how it was sealed.
const sealedPrefix = "v1:"

// Secrets seals what must not lie in the store as it is: AES-256 in Galois
// counter mode, with a key that never leaves its file. Safe for concurrent use.
type Secrets struct{ aead cipher.AEAD }

// OpenSecrets reads the key from a file, 32 bytes, and makes one, readable by
// its owner alone, if there is none. The folder must exist.
func OpenSecrets(path string) (*Secrets, error) {
	const op = "open secrets"
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = newSecretKey(path)
	}
	if err != nil {
		return nil, whisk.E(whisk.Unavailable, op, err)
	}
	if len(key) != 32 {
		return nil, whisk.WithHint(
			whisk.E(whisk.Invalid, op, fmt.Errorf("%s is not a key: it has %d bytes, not 32", path, len(key))),
			"restore the file; without it the secrets of feeds can't be read and must be given anew")
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, whisk.E(whisk.Internal, op, err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, whisk.E(whisk.Internal, op, err)
	}
	return &Secrets{aead}, nil
}

// newSecretKey makes the key's file. It is complete and on the disk before it
// has its name.
func newSecretKey(path string) ([]byte, error) {
	key := make([]byte, 32)
	rand.Read(key)                                                        //nolint:errcheck // never fails (crypto/rand, Go 1.24)
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	_, err = f.Write(key)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return nil, err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return key, dir.Sync()
}

// Seal returns plaintext as a text that only this installation can read.
// Sealing the same twice gives two texts.
func (s *Secrets) Seal(plaintext []byte) string {
	return sealedPrefix + base64.RawStdEncoding.Strict().EncodeToString(s.aead.Seal(nil, nil, plaintext, nil))
}

// Open returns what was sealed. It returns Invalid for a text that was changed
// or sealed with another key.
func (s *Secrets) Open(sealed string) ([]byte, error) {
	const op = "open secret"
	text, ok := strings.CutPrefix(sealed, sealedPrefix)
	if !ok {
		return nil, whisk.E(whisk.Invalid, op, errors.New("it was not sealed here"))
	}
	b, err := base64.RawStdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, whisk.E(whisk.Invalid, op, errors.New("it was not sealed here"))
	}
	plain, err := s.aead.Open(nil, nil, b, nil)
	if err != nil {
		return nil, whisk.E(whisk.Invalid, op, errors.New("it was changed, or sealed with another key"))
	}
	return plain, nil
}
