package process

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	watchMost  = 100 * time.Millisecond // between two looks at a container
	watchLeast = 10 * time.Millisecond
	// fillRate is how many bytes a second a program can take at the most: how
	// soon to look again follows from it.
	fillRate = 2 << 30
)

// watch ends the container when it uses too much. It stands in for control
// groups.
func (c *container) watch() {
	timer := time.NewTimer(watchLeast)
	defer timer.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-timer.C:
		}
		if c.paused.Load() { // what is stopped takes nothing
			timer.Reset(watchMost)
			continue
		}
		used, processes := c.uses()
		if used > c.limit || processes > maxProcesses {
			c.d.log.Info("container over its limits", slog.String("container", c.id), slog.Int64("bytes", used), slog.Int("processes", processes))
			if used > c.limit {
				c.starved.Store(true)
			}
			// Not the end of the watch: what was forked meanwhile is found by
			// the next look.
			c.kill()
		}
		room := time.Duration(max(c.limit-used, 0)) * time.Second / fillRate
		// The nearer the limit, the sooner the next look: no later than the
		// rest could be used up.
		timer.Reset(min(max(room, watchLeast), watchMost))
	}
}

// uses returns how many bytes of memory the processes of a container use, and
// how many there are. Pages of programs and libraries do not count: they are
// there once for all. Files in the container's own /tmp are memory too.
func (c *container) uses() (bytes int64, processes int) {
	pids := descendants(c.pid)
	files := c.inMemory()
	sum := func(of func(pid int) (own, shared int64)) int64 {
		var own, shared int64
		for _, pid := range pids {
			o, s := of(pid)
			own, shared = own+o, shared+s
		}
		return own + max(shared, files) // files that are mapped count as shared
	}
	if bytes = sum(resident); bytes > c.limit && len(pids) > 1 {
		// What a fork shares with its parent was counted with each of them. To
		// know better costs more, so it is asked only when it matters.
		bytes = sum(portion)
	}
	return bytes, len(pids)
}

// inMemory returns how many bytes of files lie in the container's own folders.
func (c *container) inMemory() int64 {
	if c.d.bare != nil {
		return 0 // it has none: its files are on disk
	}
	sum := int64(0)
	for _, dir := range ownFolders {
		var st unix.Statfs_t
		// Before they are mounted, or where one is missing, this is the machine's.
		if unix.Statfs(fmt.Sprintf("/proc/%d/root%s", c.pid, dir), &st) == nil && st.Type == unix.TMPFS_MAGIC && int64(st.Blocks)*st.Bsize <= c.limit {
			sum += int64(st.Blocks-st.Bfree) * st.Bsize
		}
	}
	return sum
}

// resident returns the bytes of memory that pid has of its own, and shares
// with others of its making.
func resident(pid int) (own, shared int64) {
	// RssFile is left out: it is the programs and libraries.
	kb := lines(fmt.Sprintf("/proc/%d/status", pid), "RssAnon", "RssShmem")
	return kb["RssAnon"], kb["RssShmem"]
}

// portion is resident with each page divided by the number of its users.
func portion(pid int) (own, shared int64) {
	kb := lines(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss_Anon", "Pss_Shmem")
	if len(kb) == 0 {
		return resident(pid) // an old kernel, or one that does not tell us
	}
	return kb["Pss_Anon"], kb["Pss_Shmem"]
}

// lines returns the bytes that some lines of a file in /proc tell in kB.
func lines(path string, names ...string) map[string]int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	found := map[string]int64{}
	for line := range bytes.Lines(b) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if slices.Contains(names, string(name)) {
			kib, _ := strconv.ParseInt(string(bytes.TrimSuffix(bytes.TrimSpace(value), []byte(" kB"))), 10, 64)
			found[string(name)] = kib << 10
		}
	}
	return found
}
