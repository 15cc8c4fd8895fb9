package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// descendants returns the processes that pid has made, and theirs. For the
// first process of a container that is all of them: those whose parent has
// ended become its children, in a pid namespace by the kernel's rules, without
// one by keepTree's. What is forked meanwhile may be missing.
func descendants(pid int) []int {
	var out []int
	// Each thread has children of its own.
	for _, t := range entries(fmt.Sprintf("/proc/%d/task", pid)) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t))
		if err != nil {
			continue
		}
		for _, f := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(f); err == nil {
				out = append(append(out, n), descendants(n)...)
			}
		}
	}
	return out
}

// entries returns the names in a folder, in no order; none if it cannot be
// read.
func entries(dir string) []string {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	return names
}

// threads returns how many threads there are on this machine.
func threads() uint64 {
	b, _ := os.ReadFile("/proc/loadavg") // "0.20 0.18 0.12 1/80 11206"
	var n uint64
	if f := strings.Fields(string(b)); len(f) > 3 {
		_, all, _ := strings.Cut(f[3], "/")
		n, _ = strconv.ParseUint(all, 10, 64)
	}
	return n
}

// startOf returns when a process began, in the kernel's ticks since the
// machine did: together with the pid it names a process for good. 0 if there
// is none.
func startOf(pid int) uint64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name, in brackets, may hold anything.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	const starttime = 22 - 3 // its number in proc(5), less those before
	if len(fields) <= starttime || fields[0] == "Z" {
		return 0
	}
	n, _ := strconv.ParseUint(fields[starttime], 10, 64)
	return n
}
