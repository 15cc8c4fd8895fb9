package invoker

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"io/fs"
	"path"
	"strings"
	"testing"

	"github.com/millrace/millrace/invoker/launcher"
)

type packed struct {
	name, text string
	mode       fs.FileMode
}

func zipped(t testing.TB, files ...packed) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range files {
		h := &zip.FileHeader{Name: f.name}
		h.SetMode(f.mode)
		w, err := z.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(b.Bytes())
}

func tarred(t testing.TB, files ...packed) string {
	t.Helper()
	var b bytes.Buffer
	g := gzip.NewWriter(&b)
	w := tar.NewWriter(g)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: int64(f.mode.Perm()), Typeflag: tar.TypeReg, Size: int64(len(f.text))}
		switch {
		case f.mode&fs.ModeSymlink != 0:
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, f.text, 0
		case f.mode&fs.ModeDevice != 0:
			h.Typeflag, h.Size = tar.TypeChar, 0
		case f.mode.IsDir():
			h.Typeflag, h.Size = tar.TypeDir, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(f.text)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(w.Close(), g.Close()); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(b.Bytes())
}

// collect unpacks code into one text: path=content or path->target.
func collect(code string, binary bool) (string, error) {
	var out strings.Builder
	err := unpack(code, binary, func(h launcher.FileHeader, content []byte) error {
		switch {
		case h.Link != "":
			out.WriteString(" " + h.Path + "->" + h.Link)
		case h.Append:
			out.Write(content)
		default:
			out.WriteString(" " + h.Path + "=")
			out.Write(content)
		}
		return nil
	})
	return out.String(), err
}

func TestUnpack(t *testing.T) {
	const link = fs.ModeSymlink | 0o777
	tests := []struct {
		name  string
		files []packed
		want  string // empty: refused
	}{
		{"files", []packed{{"a", "1", 0o644}, {"d/e/b.py", "2", 0o755}, {"c", "", 0o600}}, " a=1 d/e/b.py=2 c="},
		{"folders", []packed{{"d/", "", fs.ModeDir | 0o755}, {"./d/x", "1", 0o644}}, " d/x=1"},
		{"link inside", []packed{{"bin/x", "../lib/x", link}, {"lib/x", "1", 0o644}}, " bin/x->../lib/x lib/x=1"},
		{"dots", []packed{{"../a", "1", 0o644}}, ""},
		{"dots within", []packed{{"a/../../b", "1", 0o644}}, ""},
		{"absolute", []packed{{"/etc/passwd", "1", 0o644}}, ""},
		{"backslash", []packed{{`..\a`, "1", 0o644}}, ""},
		{"folder outside", []packed{{"../d/", "", fs.ModeDir | 0o755}}, ""},
		{"link outside", []packed{{"x", "../../etc", link}}, ""},
		{"absolute link", []packed{{"x", "/etc", link}}, ""},
		{"through a link", []packed{{"x", "lib", link}, {"x/y", "1", 0o644}}, ""},
		{"link to a link", []packed{{"a", "b/c", link}, {"b", ".", link}, {"d", "b/../..", link}}, ""},
		{"link by a link", []packed{{"d/a", "..", link}, {"e", "d/a/..", link}}, ""},
		{"link replaced", []packed{{"x", "y", link}, {"x", "1", 0o644}}, ""},
	}
	for _, tt := range tests {
		for form, make := range map[string]func(testing.TB, ...packed) string{"zip": zipped, "tar": tarred} {
			t.Run(form+" "+tt.name, func(t *testing.T) {
				got, err := collect(make(t, tt.files...), true)
				var bad codeError
				if tt.want == "" && !errors.As(err, &bad) || tt.want != "" && (err != nil || got != tt.want) {
					t.Errorf("unpacked %q, %v, want %q", got, err, tt.want)
				}
			})
		}
	}
	if got, err := collect(tarred(t, packed{"dev", "", fs.ModeDevice | 0o644}), true); err == nil {
		t.Errorf("a device was unpacked: %q", got)
	}
	if got, err := collect("#!/bin/sh\n", false); got != " exec=#!/bin/sh\n" || err != nil {
		t.Errorf("a script = %q, %v", got, err)
	}
	for _, bad := range []string{"%%%", base64.StdEncoding.EncodeToString([]byte("PK\x03\x04nonsense")), base64.StdEncoding.EncodeToString([]byte{0x1f, 0x8b, 0, 1})} {
		if got, err := collect(bad, true); err == nil {
			t.Errorf("nonsense %q was unpacked: %q", bad, got)
		}
	}
}

// A small archive of much must not be unpacked without end.
func TestUnpackBounds(t *testing.T) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create("zeros")
	if err != nil {
		t.Fatal(err)
	}
	zero := make([]byte, 1<<20)
	for range 9 {
		if _, err := w.Write(zero); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	most := 0
	u := &unpacker{room: 8 << 20, put: func(_ launcher.FileHeader, c []byte) error {
		most = max(most, len(c))
		return nil
	}}
	err = u.zip(b.Bytes())
	if want := "the archive unpacks to more than 512 MiB"; err == nil || err.Error() != want {
		t.Errorf("error = %v, want %s", err, want)
	}
	if most > filePart {
		t.Errorf("a part of %d bytes", most)
	}
}

func FuzzUnpack(f *testing.F) {
	for _, code := range []string{
		zipped(f, packed{"a", "1", 0o644}, packed{"l", "a", fs.ModeSymlink}),
		tarred(f, packed{"a/b", "1", 0o644}, packed{"../x", "1", 0o644}),
	} {
		data, err := base64.StdEncoding.DecodeString(code)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		links := map[string]bool{}
		_ = unpack(base64.StdEncoding.EncodeToString(data), true, func(h launcher.FileHeader, _ []byte) error {
			if path.IsAbs(h.Path) || h.Path != path.Clean(h.Path) || strings.HasPrefix(h.Path, "..") && (h.Path == ".." || h.Path[2] == '/') {
				t.Fatalf("path %q", h.Path)
			}
			for d := h.Path; d != "."; d = path.Dir(d) {
				if links[d] {
					t.Fatalf("%q goes through a link", h.Path)
				}
			}
			if h.Link != "" {
				if strings.Contains(strings.TrimLeft(h.Link, "./"), "/../") {
					t.Fatalf("link %q goes down and up", h.Link)
				}
				if to := path.Join(path.Dir(h.Path), h.Link); path.IsAbs(h.Link) || to == ".." || strings.HasPrefix(to, "../") {
					t.Fatalf("link %q to %q", h.Path, h.Link)
				}
				links[h.Path] = true
			}
			return nil
		})
	})
}
