//go:build faultpoints

package main

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/millrace/millrace/internal/server"
)

// forTests makes a server as the environment of a test asks for: with a fault
// (TEST_FAULT), and with streams of at most TEST_STREAM_LIMIT bytes. Only
// tests build it.
func forTests(o *server.Options) error {
	o.Fault = fault()
	if limit := os.Getenv("TEST_STREAM_LIMIT"); limit != "" {
		var err error
		o.StreamLimit, err = strconv.ParseInt(limit, 10, 64)
		return err
	}
	return nil
}

// fault kills the process, as kill -9 would, when it comes to the point that
// TEST_FAULT names, for the nth time if it says "point#n".
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
