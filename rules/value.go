package rules

import (
	"bytes"
	"net/netip"
	"strconv"
)

// maxExponent bounds the powers of ten that a pattern may name. Every number
// that a float can hold lies within.
const maxExponent = 400

// Two values are the same for a filter when their keys are. A key begins with a
// letter for the sort of value: strings never equal numbers. Keys are compared
// as bytes and looked up in a map: so equal values must have equal keys,
// whatever their spelling.
const (
	keyString  = 's'
	keyAddress = 'i' // a string that is an IP address, in whatever spelling
	keyNumber  = 'n'
	keyLiteral = 'l' // true, false, null
)

// appendString appends the key of a decoded string.
func appendString(key, text []byte) []byte {
	if looksLikeAddress(text) {
		// An address with a zone names an interface besides: it is plain text.
		// IPv4 in IPv6 stays IPv6: the families never match each other.
		if ip, err := netip.ParseAddr(string(text)); err == nil && ip.Zone() == "" {
			return append(append(key, keyAddress), ip.AsSlice()...)
		}
	}
	return append(append(key, keyString), text...)
}

// looksLikeAddress spares nearly every string the parser of addresses.
func looksLikeAddress(text []byte) bool {
	const longest = len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255")
	if len(text) < len("::") || len(text) > longest {
		return false
	}
	for _, c := range text {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F', c == '.', c == ':':
		default:
			return false
		}
	}
	return bytes.IndexByte(text, ':') >= 0 || bytes.Count(text, []byte{'.'}) == 3
}

// appendLiteral appends the key of a number, true, false or null as it is
// spelled. It reports false for a text that is none of them and for a number
// whose size cannot be told: no other value equals it.
func appendLiteral(key, text []byte) ([]byte, bool) {
	switch string(text) {
	case "true", "false", "null":
		return append(append(key, keyLiteral), text...), true
	}
	n, ok := parseDecimal(text)
	if !ok {
		return key, false
	}
	key = append(key, keyNumber)
	if n.digits == nil {
		return append(key, '0'), true
	}
	if n.negative {
		key = append(key, '-')
	}
	key = append(append(key, n.digits...), 'e')
	return strconv.AppendInt(key, n.exponent, 10), true
}

// decimal is the exact value of a number: digits × 10^exponent, the digits
// without zeros at either end. Zero has none.
//
// Floats would make different numbers equal: 64-bit identifiers differ in
// digits that a float does not have.
type decimal struct {
	negative bool
	digits   []byte
	exponent int64
}

// magnitude is the power of ten of the first digit.
func (d decimal) magnitude() int64 { return d.exponent + int64(len(d.digits)) - 1 }

// parseDecimal reads a JSON number. Spellings of one value give one decimal: 1,
// 1.0 and 1e0; 0 and -0.0. It reports false for what is no number or has an
// exponent of more than 18 digits.
func parseDecimal(text []byte) (decimal, bool) {
	var d decimal
	if len(text) > 0 && text[0] == '-' {
		d.negative = true
		text = text[1:]
	}
	mantissa := text
	if i := bytes.IndexAny(text, "eE"); i >= 0 {
		mantissa = text[:i]
		exp := bytes.TrimPrefix(text[i+1:], []byte{'+'})
		n, err := strconv.ParseInt(string(exp), 10, 64)
		if err != nil || len(exp) > 19 {
			// Nothing to compare with, unless it multiplies zero.
			if !isNumber(mantissa) || len(bytes.Trim(mantissa, "0.")) > 0 {
				return d, false
			}
		}
		d.exponent = n
	}
	if !isNumber(mantissa) {
		return d, false
	}
	whole, fraction, _ := bytes.Cut(mantissa, []byte{'.'})
	digits := whole
	if len(fraction) > 0 {
		// A copy: whole is a part of the event.
		digits = append(bytes.Clone(whole), fraction...)
		d.exponent -= int64(len(fraction))
	}
	digits = bytes.TrimLeft(digits, "0")
	short := bytes.TrimRight(digits, "0")
	if len(short) == 0 {
		return decimal{}, true
	}
	d.exponent += int64(len(digits) - len(short))
	d.digits = short
	// So that magnitude can't overflow.
	if d.exponent > 1e18 || d.exponent < -1e18 {
		return d, false
	}
	return d, true
}

// isNumber reports whether text is digits with at most one point between them.
func isNumber(text []byte) bool {
	points := 0
	for _, c := range text {
		switch {
		case c == '.':
			points++
		case c < '0' || c > '9':
			return false
		}
	}
	return points <= 1 && len(text) > 0 && text[0] != '.' && text[len(text)-1] != '.'
}
