package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// maxDepth bounds the nesting that is walked: encoding/json's own bound.
const maxDepth = 10_000

var (
	errText  = errors.New("it is not JSON that begins with an object")
	errDepth = errors.New("it is nested too deeply")
)

// scanner walks over a JSON text without building anything: most of an event is
// never looked at by a filter, and skipping it costs a fraction of decoding it.
// It takes the text to be JSON, and fails on one that is not, at the latest
// where it would run past the end.
type scanner struct {
	data []byte
	pos  int
}

// next returns the first byte of the next token, without taking it; 0 at the
// end.
func (s *scanner) next() byte {
	for ; s.pos < len(s.data); s.pos++ {
		switch c := s.data[s.pos]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// take steps over c, which must come next.
func (s *scanner) take(c byte) error {
	if s.next() != c {
		return errText
	}
	s.pos++
	return nil
}

// more steps to the next member of an object or element of an array that ends
// with end, and reports whether there is one. first says that no comma is due.
func (s *scanner) more(end byte, first bool) (bool, error) {
	switch c := s.next(); {
	case c == end:
		s.pos++
		return false, nil
	case first:
		return true, nil
	default:
		return true, s.take(',')
	}
}

// text returns the next string as it stands between its quotes, and whether
// that is also what it says.
func (s *scanner) text() (raw []byte, plain bool, err error) {
	if err := s.take('"'); err != nil {
		return nil, false, err
	}
	start := s.pos
	plain = true
	for {
		// Two searches for a byte are much faster than a look at each.
		i := bytes.IndexByte(s.data[s.pos:], '"')
		if i < 0 {
			return nil, false, errText
		}
		if j := bytes.IndexByte(s.data[s.pos:s.pos+i], '\\'); j >= 0 {
			plain = false
			s.pos += j + 2 // whatever is escaped is no end
			if s.pos > len(s.data) {
				return nil, false, errText
			}
			continue
		}
		// Invalid UTF-8 is not what it says: decoding replaces it, and both
		// sides of a comparison must have gone through that.
		raw = s.data[start : s.pos+i]
		s.pos += i + 1
		return raw, plain && utf8.Valid(raw), nil
	}
}

// decoded returns the next string decoded. It may share the scanner's memory.
func (s *scanner) decoded() ([]byte, error) {
	start := s.pos
	raw, plain, err := s.text()
	if err != nil || plain {
		return raw, err
	}
	var text string
	if json.Unmarshal(s.data[start:s.pos], &text) != nil {
		return nil, errText
	}
	return []byte(text), nil
}

// literal returns the next number, true, false or null as it is spelled. It
// takes every letter that could belong to one and leaves it to the reader of
// the value to refuse what is none.
func (s *scanner) literal() ([]byte, error) {
	s.next()
	start := s.pos
	for ; s.pos < len(s.data); s.pos++ {
		switch c := s.data[s.pos]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c == '-', c == '+', c == '.', c == 'E':
			continue
		}
		break
	}
	if s.pos == start {
		return nil, errText
	}
	return s.data[start:s.pos], nil
}

// skip steps over the next value, whatever it is.
func (s *scanner) skip() error {
	switch s.next() {
	case '"':
		_, _, err := s.text()
		return err
	case '{', '[':
	default:
		_, err := s.literal()
		return err
	}
	// Brackets are counted without their kind: the text is taken to be JSON.
	for depth := 0; ; {
		i := bytes.IndexAny(s.data[s.pos:], `{}[]"`)
		if i < 0 {
			return errText
		}
		s.pos += i
		switch s.data[s.pos] {
		case '"':
			if _, _, err := s.text(); err != nil {
				return err
			}
			continue
		case '{', '[':
			depth++
		default:
			depth--
		}
		s.pos++
		if depth == 0 {
			return nil
		}
	}
}
