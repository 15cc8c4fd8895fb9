package client

import (
	"bufio"
	"bytes"
	"io"
)

const (
	maxLine    = 32 << 20 // bytes of one line of a stream: a record with its logs
	maxFailure = 1 << 20  // bytes of an error's body that are read
)

// message is one server-sent event.
type message struct {
	Event string // "message" where none was named
	ID    string // the last one seen
	Data  []byte // lines joined with \n; fn must copy what it keeps
}

// readStream reads server-sent events, as WHATWG describes them, until r ends
// (nil; what is unfinished then is dropped) or fn fails. Messages without data
// are skipped.
func readStream(r io.Reader, fn func(message) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	lines.Split(splitLines)
	var m message
	var data []byte
	has := false
	for first := true; lines.Scan(); first = false {
		line := lines.Bytes()
		// A byte order mark may come first and says nothing.
		if first {
			line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
		}
		if len(line) == 0 {
			if has {
				m.Data = bytes.TrimSuffix(data, []byte("\n"))
				if m.Event == "" {
					m.Event = "message"
				}
				if err := fn(m); err != nil {
					return err
				}
			}
			m.Event, data, has = "", data[:0], false
			continue
		}
		// A line without a colon is a field without a value; one that begins
		// with a colon is a comment, with which a server keeps the connection
		// open: its field is empty and matches nothing here.
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			m.Event = string(value)
		case "data":
			data = append(append(data, value...), '\n')
			has = true
		case "id":
			if bytes.IndexByte(value, 0) < 0 {
				m.ID = string(value)
			}
		}
	}
	return lines.Err()
}

// splitLines is a bufio.SplitFunc for lines that end with \n, \r\n or \r.
func splitLines(data []byte, atEOF bool) (int, []byte, error) {
	i := bytes.IndexAny(data, "\r\n")
	switch {
	case i < 0 && atEOF:
		return len(data), nil, nil // an unfinished line says nothing
	case i < 0:
		return 0, nil, nil
	case data[i] == '\n':
		return i + 1, data[:i], nil
	case i+1 < len(data) && data[i+1] == '\n':
		return i + 2, data[:i], nil
	case i+1 < len(data) || atEOF:
		return i + 1, data[:i], nil
	}
	return 0, nil, nil // \r so far: the next byte tells
}

// firstBytes reads the body of an error, as far as it matters.
func firstBytes(r io.Reader) []byte {
	b, _ := io.ReadAll(io.LimitReader(r, maxFailure)) // what came is better than nothing
	return b
}
