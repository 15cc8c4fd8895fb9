package config

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
)

// Size is a number of bytes that shows itself the way people write it: 512m.
type Size int64

// sizeUnits are the suffixes, the largest first: String takes the first that
// fits.
var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"t", 1 << 40}, {"g", 1 << 30}, {"m", 1 << 20}, {"k", 1 << 10}}

// String returns the largest unit that holds s in whole numbers, as in 2g.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// setSize reads a number of bytes, or of the unit that its suffix names: k, m,
// g or t, in powers of 1024, with an optional b or ib.
func setSize(to *int64, s string) error {
	num := strings.ToLower(strings.TrimSpace(s))
	unit := int64(1)
	num = strings.TrimSuffix(strings.TrimSuffix(num, "b"), "i")
	for _, u := range sizeUnits {
		if n, ok := strings.CutSuffix(num, u.suffix); ok {
			num, unit = strings.TrimSpace(n), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(num, 10, 64)
	// The product must not overflow.
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return fmt.Errorf("%q is not a size, as in 512m or 2g", s)
	}
	*to = n * unit
	return nil
}

// fallbackMemory stands for the machine's when it can't be asked.
const fallbackMemory = 2 << 30

// machineMemory returns the bytes that this process may use: the machine's or,
// in a container, what the container was given.
func machineMemory() int64 {
	total := int64(math.MaxInt64)
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		total = min(total, memTotal(string(b)))
	}
	// Control groups of either version. Where there is no limit, the file
	// holds the word max, or a number that is larger than any machine.
	for _, f := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if b, err := os.ReadFile(f); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n > 0 {
				total = min(total, n)
			}
		}
	}
	if total == math.MaxInt64 {
		return fallbackMemory
	}
	return total
}

// memTotal reads the MemTotal line of /proc/meminfo, which is in KiB.
func memTotal(meminfo string) int64 {
	for line := range strings.Lines(meminfo) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == "MemTotal:" {
			if n, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				return n << 10
			}
		}
	}
	return math.MaxInt64
}
