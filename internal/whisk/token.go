package whisk

import (
	"fmt"
	"strings"
)

const hexDigits = "0123456789ABCDEF"

// Token encodes s so that it can be one token of a bus subject or of a bucket
// key: letters, digits and "-" stay, every other byte becomes "=" and two
// upper-case hex digits, and the empty string becomes "_". Keys of NATS buckets
// allow only -/_=.A-Za-z0-9, and "." and "/" divide tokens.
func Token(s string) string {
	if s == "" {
		return "_"
	}
	plain := true
	for i := range len(s) {
		if !tokenByte(s[i]) {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 8)
	for i := range len(s) {
		c := s[i]
		if tokenByte(c) {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('=')
		b.WriteByte(hexDigits[c>>4])
		b.WriteByte(hexDigits[c&15])
	}
	return b.String()
}

// ParseToken is Token's inverse. It returns Invalid for what Token never
// writes, so that two tokens never mean the same.
func ParseToken(t string) (string, error) {
	if t == "_" {
		return "", nil
	}
	var b strings.Builder
	for i := 0; i < len(t); i++ {
		c := t[i]
		if tokenByte(c) {
			b.WriteByte(c)
			continue
		}
		if c != '=' || i+2 >= len(t) {
			return "", E(Invalid, "parse token", fmt.Errorf("%q is not a token", t))
		}
		hi, lo := strings.IndexByte(hexDigits, t[i+1]), strings.IndexByte(hexDigits, t[i+2])
		if hi < 0 || lo < 0 || tokenByte(byte(hi<<4|lo)) {
			return "", E(Invalid, "parse token", fmt.Errorf("%q is not a token", t))
		}
		b.WriteByte(byte(hi<<4 | lo))
		i += 2
	}
	if b.Len() == 0 {
		return "", E(Invalid, "parse token", fmt.Errorf("%q is not a token", t))
	}
	return b.String(), nil
}

func tokenByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-'
}
