//go:build faultpoints

package main

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// fault kills the process, as kill -9 would, when it comes to the point that
// TEST_FAULT names, for the nth time if it says "point#n". Only tests
// build it.
func fault() func(point string) {
	want, times, _ := strings.Cut(os.Getenv("TEST_FAULT"), "#")
	if want == "" {
		return nil
	}
	n, err := strconv.ParseInt(times, 10, 64)
	if err != nil {
		n = 1
	}
	var left atomic.Int64
	left.Store(n)
	return func(point string) {
		if point == want && left.Add(-1) == 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // nothing may happen after the point
		}
	}
}
