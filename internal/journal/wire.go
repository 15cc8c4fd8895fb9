package journal

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// The wire form is a list of fields, each a key (number and type as one
// varint) and a value. A reader skips fields that it does not know, so fields
// may be added; a number is never given another meaning. It costs a fraction
// of JSON, and IDs, which are half of what a verdict holds, take 16 bytes.
const (
	typeVarint = 0
	typeBytes  = 1 // a length, then that many bytes
	typeID     = 2 // 16 bytes: an ID without its hex digits
	typeBits   = 2
	idBytes    = 16
)

var errWire = errors.New("journal entry is damaged")

// encoder appends fields to b. Zero values are left out.
type encoder struct{ b []byte }

func (e *encoder) key(field, typ int) {
	e.b = binary.AppendUvarint(e.b, uint64(field<<typeBits|typ))
}

func (e *encoder) uint(field int, v uint64) {
	if v != 0 {
		e.key(field, typeVarint)
		e.b = binary.AppendUvarint(e.b, v)
	}
}

// int writes zigzag: small negative numbers take as little as positive ones.
func (e *encoder) int(field int, v int64) { e.uint(field, uint64(v)<<1^uint64(v>>63)) }

func (e *encoder) bool(field int, v bool) {
	if v {
		e.uint(field, 1)
	}
}

func (e *encoder) str(field int, s string) {
	if s != "" {
		e.key(field, typeBytes)
		e.b = binary.AppendUvarint(e.b, uint64(len(s)))
		e.b = append(e.b, s...)
	}
}

func (e *encoder) bytes(field int, b []byte) {
	if len(b) != 0 {
		e.key(field, typeBytes)
		e.b = binary.AppendUvarint(e.b, uint64(len(b)))
		e.b = append(e.b, b...)
	}
}

// id writes an ID as 16 bytes, and anything else as the string it is.
func (e *encoder) id(field int, s string) {
	var raw [idBytes]byte
	if !rawID(&raw, s) {
		e.str(field, s)
		return
	}
	e.key(field, typeID)
	e.b = append(e.b, raw[:]...)
}

// time writes seconds and nanoseconds: a single count of nanoseconds would
// not hold every time that a source may claim.
func (e *encoder) time(field int, t time.Time) {
	if t.IsZero() {
		return
	}
	m := e.begin(field)
	// No key and no zone: readers get UTC, as all times in the journal are.
	e.b = binary.AppendVarint(e.b, t.Unix())
	e.b = binary.AppendUvarint(e.b, uint64(t.Nanosecond()))
	e.end(m)
}

// name writes the parts of a name without keys: every verdict has several. The
// entity needs no length, being the rest.
func (e *encoder) name(field int, n whisk.Name) {
	if n.IsZero() {
		return
	}
	m := e.begin(field)
	for _, s := range [...]string{n.Namespace, n.Package} {
		e.b = binary.AppendUvarint(e.b, uint64(len(s)))
		e.b = append(e.b, s...)
	}
	e.b = append(e.b, n.Entity...)
	e.end(m)
}

// begin opens a field that holds fields of its own; end(begin(f)) closes it.
func (e *encoder) begin(field int) int {
	e.key(field, typeBytes)
	e.b = append(e.b, 0) // most are shorter than 128 bytes: one byte of length
	return len(e.b)
}

func (e *encoder) end(mark int) {
	// A longer length needs more than the one byte that begin left: what was
	// written moves up. That is rarer and cheaper than measuring everything
	// first.
	n := len(e.b) - mark
	if n < 0x80 {
		e.b[mark-1] = byte(n)
		return
	}
	var l [binary.MaxVarintLen64]byte
	w := binary.PutUvarint(l[:], uint64(n))
	e.b = append(e.b, l[:w-1]...)
	copy(e.b[mark+w-1:], e.b[mark:mark+n])
	copy(e.b[mark-1:], l[:w])
}

// rawID reports whether s is an ID and leaves its bytes in raw. Upper-case
// digits would come back as lower-case ones, so they do not count.
func rawID(raw *[idBytes]byte, s string) bool {
	if len(s) != 2*idBytes {
		return false
	}
	for i := range raw {
		hi, lo := unhex(s[2*i]), unhex(s[2*i+1])
		if hi|lo > 15 {
			return false
		}
		raw[i] = hi<<4 | lo
	}
	return true
}

// unhex returns more than 15 for what is no digit, so that two can be tested
// with one or.
func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

// decoder reads fields one after the other. After the first fault next returns
// false and err tells of it.
type decoder struct {
	b     []byte
	field int
	typ   int
	num   uint64 // value of a varint
	val   []byte // value of the other types; a part of b
	err   error
}

func (d *decoder) next() bool {
	if d.err != nil || len(d.b) == 0 {
		return false
	}
	key := d.uvarint()
	d.field, d.typ = int(key>>typeBits), int(key&(1<<typeBits-1))
	switch d.typ {
	// Values are taken here, before anybody looks at the number of the field:
	// so an unknown field is skipped whatever it holds.
	case typeVarint:
		d.num = d.uvarint()
	case typeBytes:
		d.val = d.take(d.uvarint())
	case typeID:
		d.val = d.take(idBytes)
	default:
		d.fail()
	}
	return d.err == nil
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// take returns the next n bytes. The capacity is cut, so that an append by a
// reader can't reach into the message, which the cache shares.
func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

// fail keeps the first fault: what follows it is guesswork.
func (d *decoder) fail() {
	if d.err == nil {
		d.err = errWire
	}
}

// want fails the decoder when the field at hand is not of type typ.
func (d *decoder) want(typ int) bool {
	if d.typ != typ {
		d.fail()
		return false
	}
	return true
}

func (d *decoder) uint() uint64 {
	if !d.want(typeVarint) {
		return 0
	}
	return d.num
}

func (d *decoder) int() int64 { v := d.uint(); return int64(v>>1) ^ -int64(v&1) }

func (d *decoder) bool() bool { return d.uint() != 0 }

func (d *decoder) str() string {
	if !d.want(typeBytes) {
		return ""
	}
	return string(d.val)
}

// bytes returns a copy: what is decoded does not keep a whole message alive.
func (d *decoder) bytes() []byte {
	if !d.want(typeBytes) {
		return nil
	}
	return append([]byte(nil), d.val...)
}

func (d *decoder) id() string {
	if d.typ == typeID {
		return hex.EncodeToString(d.val)
	}
	return d.str()
}

// time is strict about the end and the nanoseconds: damage that passed the
// checksum of the store must not turn into a due time.
func (d *decoder) time() time.Time {
	if !d.want(typeBytes) {
		return time.Time{}
	}
	sec, n := binary.Varint(d.val)
	if n <= 0 {
		d.fail()
		return time.Time{}
	}
	nsec, m := binary.Uvarint(d.val[n:])
	if m <= 0 || n+m != len(d.val) || nsec >= uint64(time.Second) {
		d.fail()
		return time.Time{}
	}
	return time.Unix(sec, int64(nsec)).UTC()
}

func (d *decoder) name() whisk.Name {
	in := d.inner()
	ns := in.take(in.uvarint())
	pkg := in.take(in.uvarint())
	if in.err != nil {
		d.fail()
		return whisk.Name{}
	}
	return whisk.Name{Namespace: string(ns), Package: string(pkg), Entity: string(in.b)}
}

// inner returns a decoder of the fields inside the field at hand.
func (d *decoder) inner() decoder {
	if !d.want(typeBytes) {
		return decoder{err: errWire}
	}
	return decoder{b: d.val}
}

// join takes over the fault of an inner decoder that has come to its end.
func (d *decoder) join(in *decoder, what string) {
	if in.err != nil && d.err == nil {
		d.err = fmt.Errorf("%s: %w", what, in.err)
	}
}
