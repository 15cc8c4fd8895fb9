package launcher

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Kind is what a frame carries.
type Kind byte

// The kinds of frames. On the wire a frame is the length of what follows (four
// bytes, big endian), the kind, and the body.
const (
	Ping   Kind = 'P' // answered by a Ping
	File   Kind = 'F' // a FileHeader in JSON, a newline, content; not answered
	Init   Kind = 'I' // a JSON object; answered
	Run    Kind = 'R' // a JSON object; answered
	Answer Kind = 'A' // an HTTP status (two bytes, big endian) and the body that goes with it
)

// FileHeader describes a piece of a file for a launcher to write.
type FileHeader struct {
	Path   string `json:"path"`             // relative, slashes, cleaned; its folders are made
	Mode   uint32 `json:"mode"`             // permission bits
	Link   string `json:"link,omitempty"`   // target of a symbolic link
	Append bool   `json:"append,omitempty"` // more of the file that the frame before began
}

// headLen is the length of a frame's length and kind.
const headLen = 5

// AppendFrame appends a frame of kind k to buf, its body being the parts laid
// end to end.
func AppendFrame(buf []byte, k Kind, parts ...[]byte) []byte {
	n := 1
	for _, p := range parts {
		n += len(p)
	}
	buf = binary.BigEndian.AppendUint32(buf, uint32(n))
	buf = append(buf, byte(k))
	for _, p := range parts {
		buf = append(buf, p...)
	}
	return buf
}

// Reader reads frames. It asks its source for no more than it was given a
// reason to, so a peer cannot make it hold more than the limit of Next.
type Reader struct {
	src  io.Reader
	buf  []byte // what was read and not yet taken: buf[from:to]
	from int
	to   int
}

// NewReader returns a Reader of src.
func NewReader(src io.Reader) *Reader { return &Reader{src: src, buf: make([]byte, 4096)} }

// Next returns the next frame. Of a body longer than limit bytes it returns
// the first limit bytes and reads past the rest; size is the whole length.
// The body is the caller's to keep. A frame that ends early is
// io.ErrUnexpectedEOF, an end between frames io.EOF.
func (r *Reader) Next(limit int) (k Kind, body []byte, size int, err error) {
	if err := r.fill(headLen); err != nil {
		return 0, nil, 0, err
	}
	n := int(binary.BigEndian.Uint32(r.buf[r.from:]))
	if n < 1 {
		return 0, nil, 0, fmt.Errorf("frame of length %d", n)
	}
	k, size = Kind(r.buf[r.from+4]), n-1
	r.from += headLen
	keep := min(size, limit)
	body = make([]byte, 0, min(keep, 64<<10))
	for len(body) < keep {
		// The length is the peer's word: memory follows what really came.
		if r.from == r.to {
			if err := r.fill(1); err != nil {
				return 0, nil, 0, midFrame(err)
			}
		}
		part := r.buf[r.from:min(r.to, r.from+keep-len(body))]
		body = append(body, part...)
		r.from += len(part)
		// What is larger than the buffer is read into its place, without a
		// copy, in steps that double: the memory is at most twice what has
		// come.
		if left := keep - len(body); left > len(r.buf) {
			at := len(body)
			body = append(body, make([]byte, min(left, max(at, len(r.buf))))...)
			m, err := io.ReadFull(r.src, body[at:])
			body = body[:at+m]
			if err != nil {
				return 0, nil, 0, midFrame(err)
			}
		}
	}
	return k, body, size, r.skip(size - keep)
}

// skip reads past n bytes, so that the next frame is found.
func (r *Reader) skip(n int) error {
	for n > 0 {
		if r.from == r.to {
			if err := r.fill(1); err != nil {
				return midFrame(err)
			}
		}
		m := min(n, r.to-r.from)
		r.from += m
		n -= m
	}
	return nil
}

// fill reads until at least n bytes are buffered.
func (r *Reader) fill(n int) error {
	if r.from > 0 && r.from == r.to {
		r.from, r.to = 0, 0
	}
	// The rest of the buffer is too short: what is in it moves to the front.
	if r.from > 0 && len(r.buf)-r.from < n {
		r.to = copy(r.buf, r.buf[r.from:r.to])
		r.from = 0
	}
	for r.to-r.from < n {
		m, err := r.src.Read(r.buf[r.to:])
		r.to += m
		// An error that comes with enough bytes is met again by the next read.
		if r.to-r.from >= n {
			return nil
		}
		if err != nil {
			if r.to > r.from {
				return midFrame(err)
			}
			return err
		}
	}
	return nil
}

// midFrame is err inside a frame, where an end is no proper one.
func midFrame(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
