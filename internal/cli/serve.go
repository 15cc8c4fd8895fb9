package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/client"
	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/whisk"
)

// serving is one of the commands that start a server. Base holds its defaults;
// banner is where it tells that the server is up.
type serving struct {
	use, short, long string
	base             config.Config
	demo             bool // set up the demonstration, without being asked
	askDemo          bool // has the flag that asks for it
	banner           io.Writer
}

// devCommand is the server for one person's machine.
func (a *app) devCommand() *cobra.Command {
	return a.serverCommand(serving{
		use: "dev", short: "start everything on this machine, for trying and developing", askDemo: true,
		long: "Start the server on this machine alone: logs for people, actions in Docker\nwhen it is there and in processes when not. Ctrl-C stops it.",
		base: config.Dev(), banner: a.sys.Out,
	})
}

// tryCommand is dev with the demonstration.
func (a *app) tryCommand() *cobra.Command {
	return a.serverCommand(serving{
		use: "try", short: "the same as 'dev --try': see events being filtered, matched and run",
		base: config.Dev(), banner: a.sys.Out, demo: true,
	})
}

// serveCommand is the server for production. It differs from dev in its
// defaults alone.
func (a *app) serveCommand() *cobra.Command {
	return a.serverCommand(serving{
		use: "serve", short: "start the server for production",
		long: "Start the server: logs as JSON, actions in Docker. Settings come from flags,\nfrom MILLRACE_* in the environment and from the YAML file of --config, in that\norder of precedence.",
		base: config.Serve(), banner: a.sys.Err, // standard output is left to whoever collects it
	})
}

// serverCommand makes a command that starts a server: with a flag for every
// setting, whose defaults are those of s.base.
func (a *app) serverCommand(s serving) *cobra.Command {
	// The home of this System, which a test sets, and not of the process.
	s.base.Data = a.defaultData()
	demo := s.demo
	var file string
	c := a.verb(verb{
		use: s.use, short: s.short, need: "No arguments are required.", noOutput: true,
		run: func(ctx context.Context, _ []string) error {
			if f := a.callersFlag(); f != "" {
				return a.usage(fmt.Sprintf("--%s is for commands that call a server, not for one that is one", f))
			}
			// Only what was given: a default that is passed on as a flag would
			// win over the environment and the file.
			flags := map[string]string{}
			for _, f := range config.Fields() {
				if l := a.now.Flags().Lookup(f.Name); l != nil && l.Changed {
					flags[f.Name] = l.Value.String()
				}
			}
			cfg, err := config.Load(s.base, config.Sources{Flags: flags, Environ: a.sys.Environ, File: file})
			if err != nil {
				return &failure{text: "these settings are not valid:\n" + err.Error(), exit: exitUsage, hint: usageOf(a.now)}
			}
			return a.serve(ctx, cfg, s.banner, demo)
		},
	})
	if s.long != "" {
		c.Long = s.long
	}
	c.Flags().StringVar(&file, "config", "", "YAML `FILE` of settings")
	for _, f := range config.Fields() {
		switch {
		case f.Secret: // other users can see flags
		case f.Switch:
			c.Flags().Bool(f.Name, false, f.Usage)
		// Not a string flag: pflag would name every value "string" in the
		// help.
		default:
			// The defaults of the machine would make the help differ by machine.
			std := f.Get(s.base)
			if f.Name == "memory" || f.Name == "data" {
				std = ""
			}
			c.Flags().Var(&word{text: std, kind: f.Value}, f.Name, f.Usage)
		}
	}
	if s.askDemo {
		c.Flags().BoolVar(&demo, "try", false, "set up a demonstration: events of a cron feed, filtered, matched and run")
	}
	return c
}

// word is a flag of text whose help says what text: pflag calls any other one
// a string.
type word struct{ text, kind string }

func (w *word) String() string     { return w.text }
func (w *word) Type() string       { return w.kind }
func (w *word) Set(s string) error { w.text = s; return nil }

// callersFlag returns the first flag given that only means something to
// commands that call a server.
func (a *app) callersFlag() string {
	for _, name := range []string{"auth", "apihost", "apiversion", "cert", "key", "insecure", "verbose", "debug"} {
		if f := a.now.Flags().Lookup(name); f != nil && f.Changed {
			return name
		}
	}
	return ""
}

// serve runs a server until ctx ends or it fails and, with demo, the
// demonstration against it.
func (a *app) serve(ctx context.Context, cfg config.Config, banner io.Writer, demo bool) error {
	if a.start == nil {
		return whisk.E(whisk.Unavailable, "", errors.New("this build has no server"))
	}
	asked := ctx // ends when somebody asks for it, not when something fails
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	demoDone := make(chan error, 1)
	running := false
	// Closed when the farewell is printed, so that nothing is printed after
	// serve has returned.
	told := make(chan struct{})
	quit := context.AfterFunc(asked, func() {
		defer close(told)
		if banner == a.sys.Out { // else the log tells it
			fmt.Fprintf(banner, "\nStopping: what runs may finish, for a while. Ctrl-C again ends it at once.\n")
		}
	})
	// Start calls back before it returns, from the same goroutine or one that
	// it waits for; so running is safe to read after it.
	err := a.start(ctx, cfg, func(r Ready) {
		a.announce(banner, r)
		if demo {
			running = true
			go func() {
				err := a.demonstrate(ctx, r)
				if err != nil {
					cancel() // without what was asked for there is no point in going on
				}
				demoDone <- err
			}()
		}
	})
	cancel()
	if !quit() {
		<-told
	}
	if running {
		// The demonstration first: where it failed, the server only ended for
		// it.
		err = errors.Join(<-demoDone, err)
	}
	if err != nil {
		return a.startFailure(err, cfg.Listen, demo)
	}
	return nil
}

// startFailure gives a remedy to the failures of a start that bring none. Where
// the port is taken it is the command that starts the same on the next one:
// 'make run' shows nobody what it called.
func (a *app) startFailure(err error, listen string, demo bool) error {
	f := *a.failureOf(err)
	if next := nextPort(listen); errors.Is(err, syscall.EADDRINUSE) && next != "" && a.now != nil {
		words := []string{cmp.Or(a.sys.Program, "millrace"), a.now.Name()}
		if demo && a.now.Name() == "dev" {
			words = append(words, "--try")
		}
		f.hint = fmt.Sprintf("stop that program, or take another port: '%s --listen %s'", strings.Join(words, " "), next)
	}
	if f.hint == "" {
		f.hint = "'millrace doctor' looks for what is wrong"
	}
	return &f
}

// nextPort returns an address with the port after its own, "" if there is none.
func nextPort(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	n, nerr := strconv.ParseUint(port, 10, 16)
	if err != nil || nerr != nil || n >= 1<<16-1 {
		return ""
	}
	return net.JoinHostPort(host, strconv.FormatUint(n+1, 10))
}

// announce prints the lines that say where everything is.
func (a *app) announce(w io.Writer, r Ready) {
	line := func(name, value string) {
		fmt.Fprintf(w, "%s  %s\n", a.paintOn(w, bold, fmt.Sprintf("%-9s", name)), value)
	}
	line("API", r.URL+"/api/v1")
	line("Data", r.Data)
	line("Driver", r.Driver)
	line("Isolation", r.Isolation)
	for _, n := range r.Notes {
		fmt.Fprintf(w, "%s\n", n)
	}
	if why := a.elsewhere(r); why != "" {
		fmt.Fprintf(w, "\n%s\n  export WSK_CONFIG_FILE=%s\n", why, shellQuote(filepath.Join(r.Data, "wskprops")))
	}
}

// elsewhere tells why commands in other terminals need to be told of this
// server; "" when they find it by themselves.
func (a *app) elsewhere(r Ready) string {
	plain := "For millrace and wsk in other terminals:"
	at, err := client.Discover(client.Settings{}, a.sys.getenv, a.sys.Home, a.defaultData())
	usual := filepath.Clean(r.Data) == a.defaultData()
	switch {
	case err != nil:
		return plain // they would not find it, and say so
	case at.AuthFrom == "nowhere":
		if usual && a.sys.getenv("WSK_CONFIG_FILE") == "" {
			return ""
		}
		return plain
	}
	remedy := "for this server:"
	for _, v := range []string{at.AuthFrom, at.HostFrom} {
		if strings.HasPrefix(v, "WHISK_") { // these win over any file
			remedy = "for this server, unset WHISK_AUTH and WHISK_APIHOST, and:"
		}
	}
	ours, err := client.ReadProps(filepath.Join(r.Data, "wskprops"))
	switch {
	case !sameHost(at, r.URL):
		return fmt.Sprintf("millrace and wsk in other terminals call %s (from %s);\n%s", at.Host, at.HostFrom, remedy)
	case err == nil && ours["AUTH"] != "" && ours["AUTH"] != at.Auth:
		return fmt.Sprintf("millrace and wsk in other terminals use the key in %s, which is not that of this server's guest;\n%s", at.AuthFrom, remedy)
	case !usual:
		return plain
	}
	return ""
}

// sameHost reports whether an endpoint leads to this machine's server at url.
func sameHost(at client.Endpoint, url string) bool {
	one, err := at.URL()
	local := strings.NewReplacer("//127.0.0.1:", "//localhost:", "//[::1]:", "//localhost:")
	return err == nil && local.Replace(one) == local.Replace(url)
}

// shellQuote returns s as one word of a shell.
func shellQuote(s string) string {
	for _, c := range s {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '/' || c == '.' || c == '-' || c == '_') {
			return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
		}
	}
	return s
}
