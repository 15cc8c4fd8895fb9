package feeds

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/millrace/millrace/internal/whisk"
)

// VaultKeySize is the length of a vault's key in bytes.
const VaultKeySize = 32

var errBox = errors.New("the stored secrets cannot be opened with this server's key")

// aesVault is a Vault over AES-256-GCM with random nonces.
type aesVault struct{ aead cipher.AEAD }

// NewVault returns a Vault that seals with AES-256-GCM. The key has
// VaultKeySize random bytes; whoever loses it must give every secret again.
func NewVault(key []byte) (Vault, error) {
	if len(key) != VaultKeySize {
		return nil, whisk.E(whisk.Invalid, "open vault", fmt.Errorf("the key has %d bytes, not %d", len(key), VaultKeySize))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, whisk.E(whisk.Internal, "open vault", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, whisk.E(whisk.Internal, "open vault", err)
	}
	return &aesVault{aead}, nil
}

func (v *aesVault) Seal(plain []byte, context string) ([]byte, error) {
	// The box begins with its nonce.
	nonce := make([]byte, v.aead.NonceSize(), v.aead.NonceSize()+len(plain)+v.aead.Overhead())
	rand.Read(nonce) //nolint:errcheck // never fails (crypto/rand, Go 1.24)
	return v.aead.Seal(nonce, nonce, plain, []byte(context)), nil
}

func (v *aesVault) Open(box []byte, context string) ([]byte, error) {
	n := v.aead.NonceSize()
	if len(box) < n {
		return nil, whisk.E(whisk.Internal, "open secrets", errBox)
	}
	plain, err := v.aead.Open(nil, box[:n], box[n:], []byte(context))
	if err != nil {
		return nil, whisk.E(whisk.Internal, "open secrets", errBox)
	}
	return plain, nil
}
