// Package auth says who calls and what they may do.
//
// A caller shows a key of OpenWhisk's shape, uuid:key, by Basic
// authentication: ParseBasic takes it off the request and Keys.Authenticate
// turns it into an Identity, which has a subject, a namespace and a role. Allow
// then decides whether that identity may do something to an entity. Keys are
// kept by their SHA-256 alone: they are random, so nothing slower is needed,
// and nobody can read them back. The package does not know HTTP routes nor how
// its table is stored.
package auth

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// Challenge is the WWW-Authenticate header of every 401.
const Challenge = `Basic realm="OpenWhisk secure realm"`

// MinSubject is the least number of characters in a subject.
const MinSubject = 5

// Role is what a key may be used for in its namespace.
type Role string

// The roles. An Editor may do everything to entities, an Invoker may fire
// triggers and invoke actions and nothing else, a Viewer may read. An Owner is
// an Editor who also manages the keys of the namespace; an Admin is one who
// manages namespaces and keys everywhere.
const (
	Owner   Role = "owner"
	Editor  Role = "editor"
	Invoker Role = "invoker"
	Viewer  Role = "viewer"
	Admin   Role = "admin"
)

// Identity is who a request comes from.
type Identity struct {
	Subject   string
	Namespace string
	UUID      string    // of the key that was shown; names it, and is no secret
	Role      Role      // what the key may be used for
	Expires   time.Time // when the key dies; zero: never
	// Origin is the activation that a minted key was made for, and what had led
	// to it.
	Origin whisk.Origin
}

// OpenWhisk's texts of the two ways to fail.
var (
	errNone    = errors.New("The resource requires authentication, which was not supplied with the request")
	errInvalid = errors.New("The supplied authentication is invalid")
)

func invalid(op string) error { return whisk.E(whisk.Unauthorized, op, errInvalid) }

// ParseBasic takes uuid and key off an Authorization header's value. It returns
// Unauthorized with OpenWhisk's texts: one for an empty header, another for
// anything that can't be a key.
func ParseBasic(header string) (uuid, key string, err error) {
	const op = "read credentials"
	if header == "" {
		return "", "", whisk.E(whisk.Unauthorized, op, errNone)
	}
	scheme, text, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", "", invalid(op)
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return "", "", invalid(op)
	}
	return ParseKey(string(b))
}

const (
	uuidLen = 36
	keyLen  = 64
)

// ParseKey splits uuid:key, which is 8-4-4-4-12 hex digits, a colon and 64
// visible characters of ASCII. The uuid comes back in lower case. It returns
// Unauthorized for what has not the shape of a key.
func ParseKey(s string) (uuid, key string, err error) {
	if len(s) != uuidLen+1+keyLen || s[uuidLen] != ':' {
		return "", "", invalid("read key")
	}
	uuid, key = s[:uuidLen], s[uuidLen+1:]
	for i := range len(uuid) {
		switch dash := i == 8 || i == 13 || i == 18 || i == 23; {
		case dash && uuid[i] != '-', !dash && !isHex(uuid[i]):
			return "", "", invalid("read key")
		}
	}
	for i := range len(key) {
		if key[i] <= ' ' || key[i] > '~' {
			return "", "", invalid("read key")
		}
	}
	return strings.ToLower(uuid), key, nil
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// newKey returns a fresh random key: a version 4 UUID and 64 letters and
// digits.
func newKey() (uuid, key string) {
	var b [16]byte
	rand.Read(b[:]) //nolint:errcheck // never fails (crypto/rand, Go 1.24)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	uuid = h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]

	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	out := make([]byte, 0, keyLen)
	var r [keyLen]byte
	for len(out) < keyLen {
		rand.Read(r[:]) //nolint:errcheck // never fails (crypto/rand, Go 1.24)
		for _, c := range r {
			// What is beyond the last whole alphabet would favour its beginning.
			if int(c) < 256/len(alphabet)*len(alphabet) && len(out) < keyLen {
				out = append(out, alphabet[int(c)%len(alphabet)])
			}
		}
	}
	return uuid, string(out)
}
