package bus

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Flush is what one flush covered: the files with the size that is on stable
// storage, and the folders whose entries are.
type Flush struct {
	Files   map[string]int64
	Folders []string
	// All says that everything under the store's folder was covered.
	All bool
}

// blockFiles flushes the block files in which the server keeps its messages:
// <stream>/msgs/<n>.blk, n rising, only the last one growing.
//
// That is the server's private layout, of the version that go.mod pins. It is
// checked at each start; where it does not hold, the whole file system is
// synced instead.
//
// syncfs alone would do, but waits for whatever else is written to the disk.
type blockFiles struct {
	root    string // of the streams
	log     *slog.Logger
	rootFD  *os.File
	mu      sync.Mutex
	streams map[string]*blocks // by folder
	whole   bool               // the layout is unknown: syncfs
}

// blocks are the block files of one stream. synced is -1 where nothing is known
// to be flushed.
type blocks struct {
	dir    string
	last   int // the number of the last block; 0 if there is none
	f      *os.File
	ino    uint64
	synced int64 // bytes of the last block that are on stable storage

	folder  *os.File  // dir, to ask for names in it
	changed time.Time // its time stamp when an empty stream was last looked at
	looked  time.Time // and when that was
}

// ext4 is the magic number of the file system whose defaults protect a rename
// over a file.
const ext4 = 0xEF53

func newBlockFiles(dir string, log *slog.Logger) (*blockFiles, error) {
	root := filepath.Join(dir, "jetstream")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("make the store's folder: %w", err)
	}
	f, err := os.Open(root)
	if err != nil {
		return nil, fmt.Errorf("open the store's folder: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err == nil && st.Type != ext4 {
		log.Warn("store is not on ext4: a power cut while the store compacts itself may lose what was acknowledged",
			slog.String("folder", root), slog.String("type", fmt.Sprintf("%#x", st.Type)))
	}
	return &blockFiles{root: root, log: log, rootFD: f, streams: map[string]*blocks{}}, nil
}

func (b *blockFiles) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.streams {
		s.close()
	}
	b.rootFD.Close()
}

// syncAll syncs the whole file system, and looks which streams there are.
func (b *blockFiles) syncAll() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	dirs, err := filepath.Glob(filepath.Join(b.root, "*", "streams", "*", "msgs"))
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if b.streams[d] == nil {
			// With no block known, the first flush finds and flushes all of
			// them.
			b.streams[d] = &blocks{dir: d}
		}
	}
	if err := unix.Syncfs(int(b.rootFD.Fd())); err != nil {
		return fmt.Errorf("sync the file system of the store: %w", err)
	}
	return nil
}

// sync flushes what was written since the last time, to all streams or to one.
func (b *blockFiles) sync(stream string) (Flush, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.whole {
		return Flush{All: true}, unix.Syncfs(int(b.rootFD.Fd()))
	}
	f := Flush{Files: map[string]int64{}}
	var grown []*blocks
	for _, s := range b.streams {
		if (stream == "" || stream == s.stream()) && s.grown() {
			grown = append(grown, s)
		}
	}
	// Side by side the disk writes several streams about as fast as one.
	parts, errs := make([]Flush, len(grown)), make([]error, len(grown))
	var wg sync.WaitGroup
	for i, s := range grown {
		parts[i].Files = map[string]int64{}
		if i == len(grown)-1 { // alone, mostly: no other goroutine is needed
			errs[i] = s.sync(&parts[i])
			break
		}
		wg.Go(func() { errs[i] = s.sync(&parts[i]) })
	}
	wg.Wait()
	for i, s := range grown {
		if errors.Is(errs[i], fs.ErrNotExist) {
			// A block that vanished alone was purged, and the next flush sees
			// it; the error of one that is there counts.
			if _, gone := os.Stat(s.dir); gone != nil { // the stream was deleted
				s.close()
				delete(b.streams, s.dir)
				continue
			}
		}
		if errs[i] != nil {
			return f, errs[i]
		}
		maps.Copy(f.Files, parts[i].Files)
		f.Folders = append(f.Folders, parts[i].Folders...)
	}
	return f, nil
}

// grown reports whether there may be something to flush. It is asked of every
// stream at every flush, so it goes by descriptors: a path costs several times
// as much.
func (s *blocks) grown() bool {
	if s.folder == nil {
		f, err := os.Open(s.dir)
		if err != nil {
			// In doubt yes: sync looks closer and tells what is wrong.
			return true
		}
		s.folder = f
	}
	var st unix.Stat_t
	if s.f == nil { // no block yet, or none that could be kept
		return s.last != 0 || s.folderChanged()
	}
	// A block that was written anew or purged has no name any more.
	if err := unix.Fstat(int(s.f.Fd()), &st); err != nil || st.Nlink == 0 || st.Size != s.synced {
		return true
	}
	return unix.Fstatat(int(s.folder.Fd()), strconv.Itoa(s.last+1)+".blk", &st, 0) == nil
}

// folderChanged reports whether an empty stream may have got its first block.
// Its time stamp tells, unless it is so young that it may not have moved on.
func (s *blocks) folderChanged() bool {
	var st unix.Stat_t
	if err := unix.Fstat(int(s.folder.Fd()), &st); err != nil || st.Nlink == 0 {
		return true
	}
	changed := time.Unix(st.Mtim.Unix())
	if changed.Equal(s.changed) && s.looked.Sub(changed) > stampTick {
		return false
	}
	s.changed, s.looked = changed, time.Now()
	return true
}

// stampTick is above the resolution of a folder's time stamp.
const stampTick = 50 * time.Millisecond

// drop lets go of the last block's descriptor.
func (s *blocks) drop() {
	if s.f != nil {
		s.f.Close()
		s.f = nil
	}
}

func (s *blocks) close() {
	s.drop()
	if s.folder != nil {
		s.folder.Close()
		s.folder = nil
	}
}

// stream is the name of the stream whose blocks they are.
func (s *blocks) stream() string { return filepath.Base(filepath.Dir(s.dir)) }

func (s *blocks) path(n int) string { return filepath.Join(s.dir, strconv.Itoa(n)+".blk") }

// sync flushes the last block it knows and those that came after it.
func (s *blocks) sync(f *Flush) error {
	if s.last == 0 {
		return s.find(f)
	}
	for {
		// By name, not by descriptor: the name may belong to another file.
		st, err := os.Stat(s.path(s.last))
		if errors.Is(err, fs.ErrNotExist) {
			return s.find(f) // purged, with all before it
		}
		if err != nil {
			return err
		}
		if err := s.syncLast(st, f); err != nil {
			return err
		}
		// The next block may have come with messages of this flush.
		if _, err := os.Stat(s.path(s.last + 1)); err != nil {
			return nil
		}
		// Then the one before is full, and may have grown since it was synced.
		if st, err = os.Stat(s.path(s.last)); err == nil {
			err = s.syncLast(st, f)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := s.enter(s.last+1, f); err != nil {
			return err
		}
	}
}

// syncLast flushes the last block if it grew, or if another file has taken its
// name.
func (s *blocks) syncLast(st fs.FileInfo, f *Flush) error {
	ino := st.Sys().(*syscall.Stat_t).Ino
	// The descriptor is kept: opening a file for every flush costs more than
	// asking whether it grew.
	if s.f == nil || ino != s.ino {
		if s.f != nil {
			s.f.Close()
		}
		var err error
		if s.f, err = os.Open(s.path(s.last)); err != nil {
			s.f = nil
			return err
		}
		if st, err = s.f.Stat(); err != nil {
			return err
		}
		if s.ino != 0 && s.ino != st.Sys().(*syscall.Stat_t).Ino {
			// The server wrote the block anew and renamed it over the old one.
			if err := s.syncFolder(f); err != nil {
				return err
			}
		}
		s.ino, s.synced = st.Sys().(*syscall.Stat_t).Ino, -1
	}
	if st.Size() == s.synced {
		return nil
	}
	// Asked before the sync: what is written while it runs may not be covered.
	size := st.Size()
	if err := unix.Fdatasync(int(s.f.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", s.path(s.last), err)
	}
	s.synced = size
	f.Files[s.path(s.last)] = size
	return nil
}

// enter goes on to a new block: its name must be on stable storage too.
func (s *blocks) enter(n int, f *Flush) error {
	s.drop()
	s.last, s.synced, s.ino = n, -1, 0
	return s.syncFolder(f)
}

// syncFolder puts the folder's entries on stable storage. The server does not
// do so when it makes a block: after a power cut the file would have no name.
func (s *blocks) syncFolder(f *Flush) error {
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", s.dir, err)
	}
	f.Folders = append(f.Folders, s.dir)
	return nil
}

// find looks for blocks where none is known, or where the known one is gone,
// and flushes all of them.
func (s *blocks) find(f *Flush) error {
	names, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var found []int
	for _, e := range names {
		if n, err := strconv.Atoi(strings.TrimSuffix(e.Name(), ".blk")); err == nil && strings.HasSuffix(e.Name(), ".blk") && n > s.last {
			found = append(found, n)
		}
	}
	lowest, highest := 0, 0
	for _, n := range found {
		if lowest == 0 || n < lowest {
			lowest = n
		}
		highest = max(highest, n)
	}
	if highest == 0 {
		return nil
	}
	// In order, so that what a power cut leaves behind is a beginning.
	for n := lowest; n <= highest; n++ {
		st, err := os.Stat(s.path(n))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := s.enter(n, f); err != nil {
			return err
		}
		if err := s.syncLast(st, f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// everything lists the store as it lies there: what a sync of the whole file
// system covered.
func (b *blockFiles) everything() (Flush, error) {
	f := Flush{Files: map[string]int64{}, All: true}
	err := filepath.WalkDir(b.root, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		st, err := e.Info()
		if err == nil {
			f.Files[path] = st.Size()
		}
		return nil
	})
	return f, err
}

// checkLayout publishes a message and looks for its bytes where they are
// expected. If they are not there, flushes sync the whole file system.
func (b *Bus) checkLayout(ctx context.Context) error {
	if b.o.Durability == Process {
		return nil
	}
	if err := b.files.syncAll(); err != nil {
		return err
	}
	mark := make([]byte, 16)
	rand.Read(mark) //nolint:errcheck // never fails
	text := []byte(hex.EncodeToString(mark))
	if _, err := b.Publish(ctx, Message{Subject: subjectCheck, Data: text}, nil); err != nil {
		return fmt.Errorf("check the store: %w", err)
	}
	dir := filepath.Join(b.files.root, "$G", "streams", streamCheck, "msgs")
	names, _ := os.ReadDir(dir) // an unknown layout is what is looked for
	for _, e := range names {
		if !strings.HasSuffix(e.Name(), ".blk") {
			continue
		}
		if content, err := os.ReadFile(filepath.Join(dir, e.Name())); err == nil && bytes.Contains(content, text) {
			return nil
		}
	}
	b.o.Log.Warn("store layout not as expected: each flush syncs the whole file system", slog.String("folder", dir))
	b.files.mu.Lock()
	b.files.whole = true
	b.files.mu.Unlock()
	return nil
}
