package whisk

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// IDs of events and activations are OpenWhisk's 32 hex digits and sort by
// time: 12 digits of milliseconds since 1970, then 20 of hash or randomness.
// Keys in the order of time make the index of records four times cheaper than
// random ones.
const idLen = 32

// NewID returns a fresh ID for something that happened at t.
func NewID(t time.Time) string {
	var b [16]byte
	putMillis(&b, t)
	rand.Read(b[6:]) //nolint:errcheck // never fails (crypto/rand, Go 1.24)
	return hex.EncodeToString(b[:])
}

// DeriveID returns the ID of what happened at t and is told apart by parts:
// the same arguments give the same ID, on any machine, at any time.
func DeriveID(t time.Time, parts ...string) string {
	h := sha256.New()
	var n [4]byte
	for _, p := range parts {
		// Lengths keep ("ab","c") and ("a","bc") apart.
		binary.BigEndian.PutUint32(n[:], uint32(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	var b [16]byte
	putMillis(&b, t)
	copy(b[6:], h.Sum(nil))
	return hex.EncodeToString(b[:])
}

func putMillis(b *[16]byte, t time.Time) {
	ms := uint64(max(t.UnixMilli(), 0))
	b[0], b[1], b[2] = byte(ms>>40), byte(ms>>32), byte(ms>>24)
	b[3], b[4], b[5] = byte(ms>>16), byte(ms>>8), byte(ms)
}

// IDTime returns the time in an ID, to the millisecond; the zero time if id is
// not one.
func IDTime(id string) time.Time {
	if len(id) != idLen {
		return time.Time{}
	}
	b, err := hex.DecodeString(id[:12])
	if err != nil {
		return time.Time{}
	}
	var ms uint64
	for _, c := range b {
		ms = ms<<8 | uint64(c)
	}
	return time.UnixMilli(int64(ms)).UTC()
}

// IDHash returns the part of an ID after its time: what tells two happenings
// apart when the time of the same happening may differ.
func IDHash(id string) string { return id[min(12, len(id)):] }

// CheckID returns nil when s is an activation ID, else Invalid with
// OpenWhisk's text.
func CheckID(s string) error {
	if len(s) != idLen {
		return E(Invalid, "check activation id", fmt.Errorf("Activation id length is %d but must be %d.", len(s), idLen)) //nolint:staticcheck // upstream's wording
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return E(Invalid, "check activation id", errors.New("The activation id is not valid.")) //nolint:staticcheck // upstream's wording
		}
	}
	return nil
}
