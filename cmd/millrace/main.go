// Command millrace is the whole of Millrace: the server and the command line.
//
// All it does is hand arguments and signals to package cli; its script tests
// are the acceptance tests of the command line. The process driver starts this
// binary again to set up the process of an action.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/millrace/millrace/internal/cli"
	"github.com/millrace/millrace/invoker/process"
)

// Set by the linker: which version this is, and of when.
var (
	version = "unknown"
	built   = ""
)

func main() {
	process.MaybeShim() // this binary is also what sets an action's process up
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal asks for an orderly end; the next one is not waited for.
	context.AfterFunc(ctx, stop)
	return cli.Main(ctx, cli.OS(version), os.Args[1:], nil)
}
