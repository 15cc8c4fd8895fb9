// Package launcher holds the small programs that run inside a container and
// load and call an action's code, and the frames that the invoker speaks with
// them.
//
// A launcher is started with its frames on file descriptors 3 (in) and 4 (out)
// and the action's output on 1 and 2. With a folder as its argument it makes
// these itself: it connects to the unix socket "sock" there, which the invoker
// listens on, and opens the pipes "out" and "err". It answers Ping at once,
// writes the Files it is sent into its work folder (MILLRACE_WORK, by default
// /tmp/action), then takes one Init and any number of Runs, one at a time, and
// ends when its input does.
//
// The bodies of Init and Run are those of OpenWhisk's /init and /run, those of
// answers its HTTP statuses and JSON. Before it answers, a launcher has written
// all output of the action to its pipe, so that a reader who has the answer
// finds the output there and need not wait for it.
package launcher

import (
	_ "embed"
	"fmt"
)

// The names that a runtime's launcher member may hold.
const (
	Python = "python"
	Node   = "node"
	Native = "native" // a program of ours in Go: see RunNative
)

//go:embed python/launcher.py
var pythonSource []byte

//go:embed node/launcher.js
var nodeSource []byte

// Program is a launcher as it is put into a container.
type Program struct {
	Name string // one of the constants
	File string // the file's base name; empty for Native, which is this binary
	Code []byte // the file's content
}

// Find returns the launcher called name.
func Find(name string) (Program, error) {
	switch name {
	case Python:
		return Program{name, "launcher.py", pythonSource}, nil
	case Node:
		return Program{name, "launcher.js", nodeSource}, nil
	case Native:
		return Program{Name: name}, nil
	}
	return Program{}, fmt.Errorf("there is no launcher %q", name)
}

// Command returns the command line that starts p once its file lies at path
// and its interpreter at interpreter. Memory is the container's, in MiB: V8
// has to be told, or it collects its garbage too late. Native programs are
// started as Native's documentation says.
func (p Program) Command(interpreter, path string, memory int) []string {
	switch p.Name {
	case Python:
		// Isolated and without site: a third of the start time. What site
		// would have added is added when an import first misses it.
		return []string{interpreter, "-I", "-S", "-B", path}
	case Node:
		return []string{interpreter, fmt.Sprintf("--max-old-space-size=%d", memory), "--no-warnings", path}
	}
	return []string{interpreter, NativeArg}
}

// NativeArg is the first argument that makes this binary the native launcher.
const NativeArg = "millrace-native-launcher"
