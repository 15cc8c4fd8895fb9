package cli

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/client"
	"github.com/millrace/millrace/internal/whisk"
)

// Exit codes of what goes wrong before a call is made, as wsk has them.
const (
	exitGeneral    = 1
	exitUsage      = 2
	exitNotAllowed = 149
	// exitInterrupted is what shells say of a program that Ctrl-C ended.
	exitInterrupted = 130
)

// failure is how a command ends that did not succeed. With told, text may be
// empty: only the exit code counts then.
type failure struct {
	text string // the cause
	hint string // the remedy
	exit int
	told bool // the person has been told already
}

func (f *failure) Error() string { return f.text }

// failureOf makes a failure of any error.
func (a *app) failureOf(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	return &failure{text: err.Error(), hint: whisk.HintOf(err), exit: client.ExitCode(err)}
}

// usage is the failure of a command that was given wrongly.
func (a *app) usage(text string) error {
	return &failure{text: text, exit: exitGeneral, hint: usageOf(a.now)}
}

// misuse is usage with the exit code that wsk has for bad combinations.
func (a *app) misuse(exit int, text string) error {
	return &failure{text: text, exit: exit, hint: usageOf(a.now)}
}

// usageOf returns the remedy of a command that was given wrongly.
func usageOf(c *cobra.Command) string {
	if c == nil {
		return "run 'millrace --help' for usage"
	}
	return fmt.Sprintf("run '%s --help' for usage", c.CommandPath())
}

// because wraps what a call answered into the command's own words. The remedy
// is that of err or, where the answer alone does not tell one, follows from
// what was wanted.
func (a *app) because(err error, format string, args ...any) error {
	if err == nil || interrupted(err) {
		return err
	}
	var own *failure
	if errors.As(err, &own) {
		return own // it is in words already
	}
	f := &failure{
		text: fmt.Sprintf(format, args...) + ": " + err.Error(),
		hint: whisk.HintOf(err), exit: client.ExitCode(err),
	}
	if f.hint == "" {
		f.hint = a.remedy(err)
	}
	return f
}

// remedy returns what a person can do about an answer, by its status and by the
// command that asked.
func (a *app) remedy(err error) string {
	noun := "millrace"
	if a.now != nil && a.now.Parent() != nil {
		noun = a.now.Parent().CommandPath()
	}
	var f *client.Failure
	if !errors.As(err, &f) {
		return usageOf(a.now)
	}
	switch f.Status {
	case http.StatusNotFound:
		return fmt.Sprintf("'%s list' shows what there is", noun)
	case http.StatusConflict:
		if a.now != nil && a.now.Name() == "create" {
			return fmt.Sprintf("choose another name, or change what is there with '%s update'", noun)
		}
		return "'millrace list' shows what has this name, and what it holds"
	}
	if f.Application {
		return "'millrace activation logs --last' shows what it logged"
	}
	return usageOf(a.now)
}
