package cli

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

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
	case http.StatusBadRequest:
		return a.remedyOfContent(f.Message)
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

// remedyOfContent follows from the text about what is wrong with a request.
func (a *app) remedyOfContent(text string) string {
	first, _, _ := strings.Cut(text, " ")
	switch {
	case strings.HasSuffix(text, " does not exist") && (first == "action" || first == "trigger"):
		return fmt.Sprintf("'millrace %s list' shows what there is", first)
	case strings.HasPrefix(text, "Binding references a package"):
		return "'millrace package list /NAMESPACE' shows what there is"
	case slices.ContainsFunc(ruleOptions[:], func(o string) bool { return strings.HasPrefix(text, o) }) && a.now != nil:
		return fmt.Sprintf("'%s --help' has examples", a.now.CommandPath())
	case strings.Contains(strings.ToLower(text), "activation id"):
		return "'millrace activation list' shows the IDs"
	case strings.Contains(text, "allowed threshold"):
		return "keep within that limit" + flagOfLimit(text)
	case strings.Contains(text, "Valid values are: "):
		return "choose one of these with --kind; the server's start tells why others are missing"
	case strings.Contains(text, "illegal characters"):
		return "names are of letters, digits and _, with @ . - and spaces between"
	}
	return usageOf(a.now)
}

// flagOfLimit names the flag of the limit that a text is about.
func flagOfLimit(text string) string {
	for _, l := range []struct{ word, flag string }{
		{"memory", "--memory"}, {"timeout", "--timeout"}, {"duration", "--timeout"}, {"log", "--logsize"}, {"concurrency", "--concurrency"},
	} {
		if strings.Contains(text, l.word) {
			return ", with " + l.flag
		}
	}
	return ""
}

// badValue is what the flags' library says of a value that is none.
var badValue = regexp.MustCompile(`^invalid argument (".*") for "(?:-., )?--([a-z-]+)" flag: strconv\.`)

// badFlag tells of a flag that was given wrongly.
func badFlag(c *cobra.Command, err error) error {
	f := &failure{text: err.Error(), exit: exitGeneral, hint: usageOf(c)}
	m := badValue.FindStringSubmatch(f.text)
	if m == nil {
		return f
	}
	value, uerr := strconv.Unquote(m[1])
	flag := c.Flags().Lookup(m[2])
	if uerr != nil || flag == nil {
		return f
	}
	want, like := "a whole number", "1"
	switch {
	case flag.Value.Type() == "bool":
		want, like = "true or false", ""
	case strings.Contains(f.text, "out of range"):
		want = "a number that this can be"
	case m[2] == "memory" || m[2] == "logsize" || m[2] == "logs":
		want, like = "a whole number of MB", flag.DefValue
	case m[2] == "timeout":
		want, like = "a whole number of milliseconds", flag.DefValue
	}
	f.text = fmt.Sprintf("--%s: '%s' is not %s", m[2], value, want)
	if like != "" {
		f.hint = fmt.Sprintf("give the number alone, as in --%s %s", m[2], like)
	}
	return f
}

// checkID refuses what can't be the ID of an event or a dead letter. what says
// with its article which; list is the command that shows those there are.
func (a *app) checkID(id, what, list string) error {
	if whisk.CheckID(id) == nil {
		return nil
	}
	return &failure{
		text: fmt.Sprintf("'%s' is not %s ID", id, what), exit: exitGeneral,
		hint: fmt.Sprintf("it has 32 of the characters 0-9 and a-f: '%s' shows those there are", list),
	}
}

// warnOfNone tells why a list of what happened to something is empty, when it
// is because there is no such thing. look asks for it in each way it may be there.
func (a *app) warnOfNone(what string, n whisk.Name, look ...func() error) error {
	for _, l := range look {
		switch err := l(); {
		case interrupted(err):
			return err
		case !errors.Is(err, whisk.NotFound):
			return nil // it is there, or nobody knows
		}
	}
	a.warn("there is no %s '%s'", what, n.Local())
	return nil
}
