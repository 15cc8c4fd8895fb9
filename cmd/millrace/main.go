// Command millrace is the whole of Millrace: the server and the command line.
//
// All it does is hand arguments and signals to package cli, and a server to
// the commands that start one; its script tests are the acceptance tests of
// the command line.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/millrace/millrace/internal/cli"
	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/server"
	"github.com/millrace/millrace/internal/telemetry"
	"github.com/millrace/millrace/invoker/process"
)

// Set by the linker: which version this is, and of when.
var (
	version = "unknown"
	built   = ""
)

func main() {
	process.MaybeShim() // does not return in a process that is to become an action
	os.Exit(run())
}

// stamp returns the version and its time: what the linker was told, else what
// Go noted of a build without our Makefile. Clients expect a time of /api/v1.
func stamp(version, built string, info *debug.BuildInfo) (string, string) {
	if info == nil {
		return version, built
	}
	if v := info.Main.Version; version == "unknown" && v != "" && v != "(devel)" {
		version = v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" && built == "" {
			built = s.Value
		}
	}
	return version, built
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal asks for an orderly end; the next one is not waited for.
	context.AfterFunc(ctx, stop)
	info, _ := debug.ReadBuildInfo()
	version, built = stamp(version, built, info)
	return cli.Main(ctx, cli.OS(version), os.Args[1:], start)
}

// start runs a server until ctx ends.
func start(ctx context.Context, c config.Config, ready func(cli.Ready)) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return err
	}
	o := server.Options{
		Config: c, Version: version, Built: built,
		Log: telemetry.NewLogger(os.Stderr, telemetry.Format(c.LogFormat), level),
	}
	if err := forTests(&o); err != nil {
		return err
	}
	s, err := server.New(ctx, o)
	if err != nil {
		return err
	}
	return s.Run(ctx, func(i server.Info) {
		ready(cli.Ready{URL: i.URL, Data: i.Data, Driver: i.Driver, Isolation: i.Isolation, Notes: i.Notes})
	})
}
