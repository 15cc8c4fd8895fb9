package server

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/internal/whisk"
)

// Names inside the data folder.
const (
	storeDir   = "jetstream"
	indexFile  = "index.db"
	propsFile  = "wskprops"
	adminFile  = "admin.key"
	lockFile   = "lock"
	secretFile = "secret.key"
	workDir    = "work"
)

// home is the data folder, held by a lock while the server lives. The lock is
// the kernel's, on an open file: it goes with the process, however that ends.
type home struct {
	dir  string
	lock *os.File
}

// openHome makes the data folder if it is missing and locks it. A folder that
// another server holds, or that can't be written, is refused with the remedy.
func openHome(dir string) (*home, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, whisk.E(whisk.Invalid, "open data folder", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, unwritable(dir, err)
	}
	// Before anything is written: a start that fails halfway for want of room
	// tells less.
	if err := checkRoom(dir); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, unwritable(dir, err)
	}
	if err := takeLock(f); err != nil {
		// Read from the file that could not be locked: its holder has written
		// it.
		who := ""
		if pid := holder(f); pid > 0 {
			who = fmt.Sprintf(" (process %d)", pid)
		}
		f.Close()
		return nil, whisk.WithHint(
			whisk.E(whisk.Conflict, "", fmt.Errorf("the data folder %s is in use by another server%s", dir, who)),
			"stop that server, or choose another folder with --data",
		)
	}
	// After the lock: before it the number would be another server's.
	if err := writePID(f); err != nil {
		f.Close()
		return nil, unwritable(dir, err)
	}
	return &home{dir, f}, nil
}

// lockWait is how long the lock of a server that is dead may linger.
const lockWait = 5 * time.Second

// takeLock locks the file. A server that was killed while it was starting a
// container leaves a child that holds the lock for an instant: so the lock of
// a dead process is waited for, that of a living one is not.
func takeLock(f *os.File) error {
	for end := time.Now().Add(lockWait); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil || time.Now().After(end) {
			return err
		}
		if pid := holder(f); pid > 0 && !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return err
		}
	}
}

// holder is the process that wrote itself into the lock, 0 if there is none.
func holder(f *os.File) int {
	var b [20]byte
	n, _ := f.ReadAt(b[:], 0) // who holds it is a courtesy
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		return 0
	}
	return pid
}

// writePID leaves the process's number in the lock, for whoever finds it taken.
func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return err
}

// minStart is the free space of the disk, in bytes, without which a start has
// no point: the launchers, the index and what is left of earlier runs need it
// before anything can be accepted.
const minStart = 64 << 20

const hintRoom = "free some space on its disk, or choose a folder on another disk with --data"

// freeSpace is what this user may still write to the disk of a folder, in
// bytes; false where that can't be told.
func freeSpace(dir string) (int64, bool) {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return 0, false
	}
	return int64(st.Bavail) * st.Bsize, true
}

// checkRoom refuses a disk that is nearly full. One that can't be asked passes:
// the first write tells.
func checkRoom(dir string) error {
	if free, ok := freeSpace(dir); ok && free < minStart {
		return whisk.WithHint(whisk.E(whisk.Unavailable, "",
			fmt.Errorf("the disk of the data folder %s is full: %d MiB are free, and a start needs %d", dir, free>>20, minStart>>20)), hintRoom)
	}
	return nil
}

// unwritable says that the data folder can't be written. Of err, which names
// the call and the file, a person is told the reason, and the file if it is
// not the folder.
func unwritable(dir string, err error) error {
	hint := "make it writable for this user, or choose another folder with --data"
	switch {
	case errors.Is(err, syscall.ENOSPC):
		hint = hintRoom
	// No right to write would help here.
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EROFS):
		hint = "choose another folder with --data"
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		if err = p.Err; p.Path != dir && errors.Is(err, syscall.ENOTDIR) {
			err = fmt.Errorf("%s is not a directory", p.Path)
		}
	}
	return whisk.WithHint(whisk.E(whisk.Unavailable, "", fmt.Errorf("the data folder %s can't be written: %w", dir, err)), hint)
}

// path is where a file of the folder lies.
func (h *home) path(name string) string { return filepath.Join(h.dir, name) }

// Close gives the folder free.
func (h *home) Close() error { return h.lock.Close() }

// authKey returns the key that a file of the folder holds after the prefix
// "AUTH=", or in its only line; "" if there is none.
func (h *home) authKey(name string) string {
	// Whatever is wrong with the file, a new key is made and the file is
	// written anew.
	b, err := os.ReadFile(h.path(name))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if key, ok := strings.CutPrefix(line, "AUTH="); ok {
			return key
		}
		// wskprops has other lines; only this file is the key and nothing else.
		if name == adminFile && line != "" {
			return line
		}
	}
	return ""
}

// writePrivate writes a file that only this user may read, whole or not at
// all, and leaves it alone if it says the same already.
func (h *home) writePrivate(name string, content []byte) error {
	path := h.path(name)
	// Every start asks: a file that is right is not touched.
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return nil
	}
	tmp, err := os.CreateTemp(h.dir, "."+name+"-*") // made with mode 0600
	if err != nil {
		return unwritable(h.dir, err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(content)
	// Synced before the rename: otherwise a power cut may leave the name with
	// nothing behind it.
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return unwritable(h.dir, err)
	}
	return os.Rename(tmp.Name(), path)
}
