package launcher_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/millrace/millrace/invoker/launcher"
)

func TestFrames(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789"), 30_000)
	var wire []byte
	wire = launcher.AppendFrame(wire, launcher.Ping, []byte("hi"))
	wire = launcher.AppendFrame(wire, launcher.Run)
	wire = launcher.AppendFrame(wire, launcher.File, []byte("head\n"), big)
	wire = launcher.AppendFrame(wire, launcher.Answer, []byte("end"))
	for name, src := range map[string]io.Reader{
		"at once":  bytes.NewReader(wire),
		"halves":   iotest.HalfReader(bytes.NewReader(wire)),
		"by bytes": iotest.OneByteReader(bytes.NewReader(wire)),
	} {
		r := launcher.NewReader(src)
		for _, want := range []struct {
			kind launcher.Kind
			body string
			size int
		}{{'P', "hi", 2}, {'R', "", 0}, {'F', "head\n" + string(big[:195]), 5 + len(big)}, {'A', "end", 3}} {
			k, body, size, err := r.Next(200)
			if err != nil || k != want.kind || string(body) != want.body || size != want.size {
				t.Errorf("%s: Next = %c, %d bytes, %d, %v, want %c, %d, %d", name, k, len(body), size, err, want.kind, len(want.body), want.size)
			}
		}
		if _, _, _, err := r.Next(200); err != io.EOF {
			t.Errorf("%s: Next at the end = %v, want EOF", name, err)
		}
	}
	r := launcher.NewReader(bytes.NewReader(launcher.AppendFrame(nil, launcher.Run, big)))
	if _, body, _, err := r.Next(1 << 20); err != nil || !bytes.Equal(body, big) {
		t.Errorf("a whole long frame = %d bytes, %v", len(body), err)
	}
}

func TestBrokenFrames(t *testing.T) {
	for name, tt := range map[string]struct {
		wire string
		want error
	}{
		"nothing":       {"", io.EOF},
		"half a head":   {"\x00\x00", io.ErrUnexpectedEOF},
		"half a body":   {"\x00\x00\x00\x05Rab", io.ErrUnexpectedEOF},
		"a huge claim":  {"\xff\xff\xff\xffA" + strings.Repeat("x", 9000), io.ErrUnexpectedEOF},
		"length zero":   {"\x00\x00\x00\x00R", nil},
		"cut while cut": {"\x00\x00\x10\x00R" + strings.Repeat("x", 2000), io.ErrUnexpectedEOF},
	} {
		_, _, _, err := launcher.NewReader(strings.NewReader(tt.wire)).Next(1000)
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: error = %v, want %v", name, err, tt.want)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(launcher.AppendFrame(launcher.AppendFrame(nil, launcher.Ping), launcher.Run, []byte("{}")), 10)
	f.Add([]byte("\xff\xff\xff\xffA"), 1<<20)
	f.Fuzz(func(t *testing.T, wire []byte, limit int) {
		limit = max(0, min(limit, 1<<20))
		r := launcher.NewReader(bytes.NewReader(wire))
		var again []byte
		for {
			k, body, size, err := r.Next(limit)
			if err != nil {
				break
			}
			if len(body) != min(size, limit) {
				t.Fatalf("%d bytes of %d with limit %d", len(body), size, limit)
			}
			if len(body) == size {
				again = launcher.AppendFrame(again, k, body)
			} else {
				again = append(again, wire[len(again):len(again)+5+size]...)
			}
		}
		if !bytes.HasPrefix(wire, again) {
			t.Fatalf("read %q out of %q", again, wire)
		}
	})
}

func TestFind(t *testing.T) {
	for _, name := range []string{launcher.Python, launcher.Node, launcher.Native} {
		p, err := launcher.Find(name)
		if err != nil || p.Name != name || (p.File == "") != (name == launcher.Native) || (len(p.Code) == 0) != (name == launcher.Native) {
			t.Errorf("Find(%q) = %v, %v", name, p.File, err)
		}
		if c := p.Command("/i", "/l", 256); c[0] != "/i" {
			t.Errorf("command = %q", c)
		}
	}
	if _, err := launcher.Find("perl"); err == nil {
		t.Error("there is a launcher for perl")
	}
}
