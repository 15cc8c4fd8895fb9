// Package cli is the command line: wsk's nouns, verbs, flags, messages and
// exit codes, and our own commands beside them.
//
// Main reads the arguments and runs one command. There is a file per noun; a
// command makes calls through package client and prints what came. What differs
// is dev, serve and try: they read a config.Config and call the StartServer
// that Main was given, so that nothing here knows how a server is put together.
// A command that fails tells two lines on standard error, the cause and the
// remedy.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/client"
	"github.com/millrace/millrace/internal/config"
)

// System is what a command touches outside itself. OS returns the real one. All
// of a command's input and output but the files that it is told, so that a test
// runs whole conversations in one process.
type System struct {
	Out, Err io.Writer
	Color    bool // Out is a terminal that shows colours
	ErrColor bool // Err is one
	Environ  []string
	Home     string // the user's home folder
	Version  string // of this binary
	Program  string // as it was called; empty for millrace
}

// Ready is what a started server tells about itself.
type Ready struct {
	URL       string // of the API, as in http://localhost:3233
	Data      string // the data folder
	Driver    string // what actions run in, and why where it was chosen
	Isolation string // what keeps actions apart from the machine
	Notes     []string
}

// StartServer runs a server until ctx ends (nil) or it fails. It calls ready
// once, when the API answers.
type StartServer func(ctx context.Context, c config.Config, ready func(Ready)) error

// OS returns the System of this process.
func OS(version string) System {
	home, err := os.UserHomeDir()
	if err != nil {
		home = "."
	}
	s := System{Out: os.Stdout, Err: os.Stderr, Environ: os.Environ(), Home: home, Version: version, Program: os.Args[0]}
	// NO_COLOR is what people set who want no colours from any program.
	if s.getenv("NO_COLOR") == "" && s.getenv("TERM") != "dumb" {
		s.Color, s.ErrColor = isTerminal(os.Stdout), isTerminal(os.Stderr)
	}
	return s
}

// getenv returns the last value of name in Environ, or "".
func (s System) getenv(name string) string {
	// From the end: of a name that is there twice, the later one counts.
	for i := len(s.Environ) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(s.Environ[i], name+"="); ok {
			return v
		}
	}
	return ""
}

// app is one run of the command line. It is made anew for each, so flags and
// settings of one never reach another.
type app struct {
	sys   System
	start StartServer
	root  *cobra.Command

	given   given // the KEY VALUE flags, which cobra can't read
	set     client.Settings
	verbose bool
	debug   bool
	format  string         // of -o
	now     *cobra.Command // the command that runs
}

// Main runs the command that args name, without the program's name, and
// returns the exit code. It returns when the command is done or ctx ends.
func Main(ctx context.Context, sys System, args []string, start StartServer) int {
	a := &app{sys: sys, start: start}
	a.root = a.commands()
	// Before cobra sees them: see pairs.
	rest, given, err := takePairs(args)
	if err == nil {
		a.given = given
		if rest == nil {
			rest = []string{} // for nil cobra would take the program's own
		}
		a.root.SetArgs(rest)
		_, err = a.root.ExecuteContextC(ctx)
	}
	return a.exit(err)
}

// exit tells err, unless the command did, and returns the code for it.
func (a *app) exit(err error) int {
	if err == nil {
		return 0
	}
	if interrupted(err) {
		return exitInterrupted // who pressed Ctrl-C knows
	}
	f := a.failureOf(err)
	if !f.told {
		fmt.Fprintf(a.sys.Err, "%s%s\n", a.paintOn(a.sys.Err, red, "error: "), f.text)
		if f.hint != "" {
			fmt.Fprintf(a.sys.Err, "hint: %s\n", f.hint)
		}
	}
	return f.exit
}

const about = `Millrace runs your code when something happens.

Feeds emit events onto triggers, rules decide which actions an event runs, and
every run leaves an activation record. Entities and commands are those of
Apache OpenWhisk: what you know of wsk works here.

Start everything on this machine, with a demonstration:

  millrace dev --try`

// commands builds the tree of all commands, with the flags that each of them
// takes: wsk's, under wsk's names.
func (a *app) commands() *cobra.Command {
	// Errors and usage are silenced, as exit tells the cause and the remedy of
	// every failure in one form.
	root := &cobra.Command{
		Use: "millrace", Short: "Events in, actions run, nothing lost", Long: about,
		SilenceErrors: true, SilenceUsage: true, Version: a.sys.Version,
		Args: a.noSuchCommand, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRun: func(c *cobra.Command, _ []string) { a.now = c },
		CompletionOptions: cobra.CompletionOptions{
			DisableDescriptions: false,
		},
	}
	root.SetOut(a.sys.Out)
	root.SetErr(a.sys.Err)
	root.SetVersionTemplate("millrace {{.Version}}\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return badFlag(c, err)
	})
	f := root.PersistentFlags()
	f.BoolVarP(&a.verbose, "verbose", "v", false, "verbose output")
	f.BoolVarP(&a.debug, "debug", "d", false, "debug level output")
	f.StringVar(&a.set.Cert, "cert", "", "client cert")
	f.StringVar(&a.set.CertKey, "key", "", "client key")
	f.StringVarP(&a.set.Auth, "auth", "u", "", "authorization `KEY`")
	f.StringVar(&a.set.Host, "apihost", "", "whisk API `HOST`")
	f.StringVar(&a.set.APIVersion, "apiversion", "", "whisk API `VERSION`")
	f.BoolVarP(&a.set.Insecure, "insecure", "i", false, "bypass certificate checking")
	root.AddCommand(
		a.devCommand(), a.serveCommand(), a.tryCommand(), a.tailCommand(), a.doctorCommand(),
		a.actionCommand(), a.triggerCommand(), a.ruleCommand(), a.packageCommand(), a.activationCommand(),
		a.eventCommand(), a.feedCommand(), a.deadLetterCommand(),
		a.namespaceCommand(), a.listCommand(), a.propertyCommand(), a.apiCommand(),
	)
	return root
}

// noSuchCommand refuses what is not a command, with the nearest one that is.
func (a *app) noSuchCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := usageOf(c)
	// The nearest distance first: of two letters' difference there may be
	// many.
	for c.SuggestionsMinimumDistance = 1; c.SuggestionsMinimumDistance <= 2; c.SuggestionsMinimumDistance++ {
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			hint = fmt.Sprintf("did you mean '%s %s'?", c.CommandPath(), near[0])
			break
		}
	}
	return &failure{
		text: fmt.Sprintf("unknown command %q for %q", args[0], c.CommandPath()),
		exit: exitGeneral, hint: hint,
	}
}

// apiCommand refuses wsk's commands of the API gateway, whatever their flags.
func (a *app) apiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "api", Short: "work with APIs", Hidden: true, DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return &failure{
				text: "'millrace api' is not supported yet", exit: exitGeneral,
				hint: "a web action has an address too: 'millrace action create NAME FILE --web true', then 'millrace action get NAME --url'",
			}
		},
	}
}

// noun returns a command that only holds others.
func (a *app) noun(use, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Args: a.noSuchCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(verbs...)
	return c
}

// verb is a command to be made: what it takes and what it does.
type verb struct {
	use, short string
	long       string // what the help says besides, if anything
	min, max   int    // arguments
	need       string // what they are, in wsk's words
	pairs      pairs  // which KEY VALUE flags it takes
	noOutput   bool   // it has an -o of its own, or nothing to show
	flags      func(*cobra.Command)
	run        func(ctx context.Context, args []string) error
}

// verb makes the command of v, with what all verbs have: -o, and the checks of
// its KEY VALUE flags and its number of arguments, before anything is called.
func (a *app) verb(v verb) *cobra.Command {
	c := &cobra.Command{Use: v.use, Short: v.short, Args: cobra.ArbitraryArgs}
	if v.long != "" {
		c.Long = strings.ToUpper(v.short[:1]) + v.short[1:] + ".\n\n" + v.long
	}
	v.pairs.declare(c)
	if v.flags != nil {
		v.flags(c)
	}
	if !v.noOutput {
		// With wsk, -o of some verbs is something else: then only --output is
		// ours.
		if c.Flags().ShorthandLookup("o") == nil {
			c.Flags().StringVarP(&a.format, "output", "o", "", "output `FORMAT`: json, or empty for people")
		} else {
			c.Flags().StringVar(&a.format, "output", "", "output `FORMAT`: json, or empty for people")
		}
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if !v.noOutput && a.format != "" && a.format != "json" {
			return a.usage(fmt.Sprintf("Invalid argument '%s' for --output flag. Valid input is 'json'.", a.format))
		}
		if err := a.given.only(v.pairs); err != nil {
			return err
		}
		if err := a.count(args, v.min, v.max, v.need); err != nil {
			if f := (*failure)(nil); v.pairs.params && v.max == 1 && len(args) > 1 && errors.As(err, &f) {
				f.hint = "values go with -p KEY VALUE, or as a JSON object in a file with -P FILE"
			}
			return err
		}
		return v.run(c.Context(), args)
	}
	return c
}

// count checks the number of arguments, with wsk's texts.
func (a *app) count(args []string, least, most int, need string) error {
	switch {
	case len(args) < least:
		return a.usage("Invalid argument(s). " + need)
	case len(args) > most:
		return a.usage(fmt.Sprintf("Invalid argument(s): %s. %s", strings.Join(args[most:], ", "), need))
	}
	return nil
}

// json reports whether the answer is wanted as JSON.
func (a *app) json() bool { return a.format == "json" }

// endpoint finds server and key.
func (a *app) endpoint() (client.Endpoint, error) {
	return client.Discover(a.set, a.sys.getenv, a.sys.Home, a.defaultData())
}

// defaultData is the data folder in the home of this System.
func (a *app) defaultData() string { return filepath.Join(a.sys.Home, ".millrace") }

// client returns a client for the server that was found.
func (a *app) client() (*client.Client, error) {
	at, err := a.endpoint()
	if err != nil {
		return nil, err
	}
	return a.clientFor(at)
}

// clientFor returns a client for at, which tells its exchanges if -v or -d was
// given.
func (a *app) clientFor(at client.Endpoint) (*client.Client, error) {
	opts := []client.Option{client.WithAgent(fmt.Sprintf("millrace/%s (%s %s)", a.sys.Version, runtime.GOOS, runtime.GOARCH))}
	if a.verbose || a.debug {
		opts = append(opts, client.WithTrace(a.trace))
	}
	return client.New(at, opts...)
}

// told marks a failure whose message has been shown already.
func told(err error) error {
	if err == nil {
		return nil
	}
	return &failure{exit: client.ExitCode(err), told: true}
}

// interrupted reports whether err only says that the command was asked to end.
func interrupted(err error) bool { return errors.Is(err, context.Canceled) }
