package invoker

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/millrace/millrace/invoker/launcher"
)

// Bounds of what an archive may unpack to.
const (
	// A few MiB of archive can hold any number of bytes of the same kind, or
	// of empty files: both would fill the memory or the disk of whoever
	// unpacks them.
	maxUnpacked = 512 << 20 // bytes
	maxFiles    = 50_000
	filePart    = 1 << 20 // bytes of content in one frame
)

// codeError is a fault of an action's code, to be told to its developer.
type codeError struct{ text string }

func (e codeError) Error() string { return e.text }

func badCode(format string, args ...any) error { return codeError{fmt.Sprintf(format, args...)} }

// emit takes a piece of a file.
type emit func(h launcher.FileHeader, content []byte) error

// unpack gives the files that code stands for to put: those of a zip, tar or
// gzipped tar archive, else the one program, called "exec". An archive that
// has a path or a link out of its folder is refused.
func unpack(code string, binary bool, put emit) error {
	data := []byte(code)
	if binary {
		var err error
		if data, err = base64.StdEncoding.DecodeString(strings.TrimSpace(code)); err != nil {
			return badCode("the code is not valid base64")
		}
	}
	u := &unpacker{put: put, room: maxUnpacked}
	switch {
	// The second is how an archive without any file begins.
	case bytes.HasPrefix(data, []byte("PK\x03\x04")), bytes.HasPrefix(data, []byte("PK\x05\x06")):
		return u.zip(data)
	case bytes.HasPrefix(data, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return badCode("the archive is damaged: %v", err)
		}
		return u.tar(z)
	// A tar archive has its magic word at 257, behind the fields of the first
	// file.
	case len(data) > 262 && string(data[257:262]) == "ustar":
		return u.tar(bytes.NewReader(data))
	}
	return u.file("exec", 0o755, bytes.NewReader(data))
}

// unpacker checks an archive and passes its files on, a piece at a time. Pieces
// that were passed on before a fault was found are not taken back: the launcher
// gets no Init, and its container goes.
type unpacker struct {
	put   emit
	room  int64 // bytes that may still come
	files int
	links map[string]bool // paths of symbolic links
}

func (u *unpacker) zip(data []byte) error {
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	// The library's own warning is of paths that clean refuses as well, in our
	// words.
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return badCode("the archive is damaged: %v", err)
	}
	for _, f := range z.File {
		mode := f.Mode()
		if mode.IsDir() || strings.HasSuffix(f.Name, "/") {
			if _, err := u.clean(f.Name); err != nil {
				return err
			}
			continue
		}
		r, err := f.Open()
		if err != nil {
			return badCode("%q in the archive cannot be read: %v", f.Name, err)
		}
		if mode&fs.ModeSymlink != 0 {
			// A zip holds the target as content. Paths end at 4096 bytes with
			// the kernel.
			target, rerr := io.ReadAll(io.LimitReader(r, 4096))
			if err = rerr; err == nil {
				err = u.link(f.Name, string(target))
			}
		} else {
			err = u.file(f.Name, mode.Perm(), r)
		}
		r.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) tar(r io.Reader) error {
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		switch {
		case err == io.EOF:
			return nil
		case err != nil && !errors.Is(err, tar.ErrInsecurePath):
			return badCode("the archive is damaged: %v", err)
		}
		switch h.Typeflag {
		case tar.TypeReg:
			err = u.file(h.Name, fs.FileMode(h.Mode).Perm(), t)
		case tar.TypeSymlink:
			err = u.link(h.Name, h.Linkname)
		// Folders are made for the files in them, so that an empty one is not
		// made.
		case tar.TypeDir, tar.TypeXGlobalHeader:
			_, err = u.clean(h.Name)
		// Devices, pipes and hard links. The last could name a file outside.
		default:
			err = badCode("%q in the archive is neither a file, a folder nor a symbolic link", h.Name)
		}
		if err != nil {
			return err
		}
	}
}

// clean checks that a path stays inside and does not go through a link. A
// backslash is refused, as some tools that write archives separate folders by
// it.
func (u *unpacker) clean(name string) (string, error) {
	p := path.Clean(strings.TrimSuffix(name, "/"))
	if name == "" || path.IsAbs(name) || strings.ContainsAny(name, "\\\x00") || p == ".." || strings.HasPrefix(p, "../") {
		return "", badCode("%q in the archive leaves its folder", name)
	}
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if u.links[dir] {
			return "", badCode("%q in the archive goes through a symbolic link", name)
		}
	}
	return p, nil
}

func (u *unpacker) count() error {
	if u.files++; u.files > maxFiles {
		return badCode("the archive holds more than %d files", maxFiles)
	}
	return nil
}

func (u *unpacker) link(name, target string) error {
	p, err := u.clean(name)
	if err != nil {
		return err
	}
	to := path.Join(path.Dir(p), target)
	if target == "" || path.IsAbs(target) || strings.ContainsRune(target, 0) || to == ".." || strings.HasPrefix(to, "../") {
		return badCode("the symbolic link %q in the archive leaves its folder", name)
	}
	// Steps up come first: after a step down they could start from where
	// another link leads.
	down := false
	for step := range strings.SplitSeq(target, "/") {
		if step == ".." && down {
			return badCode("the symbolic link %q in the archive goes down and up again", name)
		}
		down = down || step != ".." && step != "." && step != ""
	}
	if u.links == nil {
		u.links = map[string]bool{}
	}
	u.links[p] = true
	if err := u.count(); err != nil {
		return err
	}
	return u.put(launcher.FileHeader{Path: p, Link: target}, nil)
}

func (u *unpacker) file(name string, mode fs.FileMode, r io.Reader) error {
	p, err := u.clean(name)
	if err != nil {
		return err
	}
	if p == "." || u.links[p] {
		return badCode("%q in the archive is no path of a file, or a link as well", name)
	}
	if err := u.count(); err != nil {
		return err
	}
	// The owner must be able to write: further pieces are appended when the
	// mode is set already.
	h := launcher.FileHeader{Path: p, Mode: uint32(mode | 0o600)}
	var buf bytes.Buffer
	for {
		buf.Reset()
		n, err := io.CopyN(&buf, r, filePart)
		if err != nil && err != io.EOF {
			return badCode("%q in the archive cannot be read: %v", name, err)
		}
		if u.room -= n; u.room < 0 {
			return badCode("the archive unpacks to more than %d MiB", maxUnpacked>>20)
		}
		// A file without content is passed on once; one whose length is a
		// multiple of a piece needs no empty piece at its end.
		if n > 0 || !h.Append {
			if err := u.put(h, buf.Bytes()); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		h.Append = true
	}
}
