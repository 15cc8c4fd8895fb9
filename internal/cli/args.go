package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/whisk"
)

// pairs says which of the flags that take a KEY and a VALUE a command has.
type pairs struct{ params, annots, feed bool }

// given are the values of those flags, in their order; later ones win.
type given struct {
	params, annots, feed, trigger whisk.Params
	flags                         []string // as they were written
}

// declare makes the flags show in help. Their values never reach cobra: it
// knows no flag with two values, so takePairs has taken them out before.
func (p pairs) declare(c *cobra.Command) {
	if p.params {
		c.Flags().StringArrayP("param", "p", nil, "parameter values in `KEY VALUE` format")
		c.Flags().StringP("param-file", "P", "", "`FILE` containing parameter values in JSON format")
	}
	if p.annots {
		c.Flags().StringArrayP("annotation", "a", nil, "annotation values in `KEY VALUE` format")
		c.Flags().StringP("annotation-file", "A", "", "`FILE` containing annotation values in JSON format")
	}
	if p.feed {
		c.Flags().StringArrayP("feed-param", "F", nil, "feed parameter values in `KEY VALUE` format")
		c.Flags().StringArrayP("trigger-param", "T", nil, "trigger parameter values in `KEY VALUE` format")
	}
}

// only refuses flags that the command does not have. It goes by the flags as
// they were written, so the message has the person's own spelling.
func (g given) only(p pairs) error {
	for _, f := range g.flags {
		ok := false
		switch f {
		case "-p", "--param", "-P", "--param-file":
			ok = p.params
		case "-a", "--annotation", "-A", "--annotation-file":
			ok = p.annots
		default:
			ok = p.feed
		}
		if !ok {
			return &failure{text: fmt.Sprintf("unknown flag: %s", f), exit: exitGeneral, hint: usageOf(nil)}
		}
	}
	return nil
}

// takePairs takes the KEY VALUE flags, and the files of such, out of args.
func takePairs(args []string) (rest []string, g given, err error) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		var to *whisk.Params
		file := false
		switch arg {
		// What follows are arguments, whatever they look like.
		case "--":
			return append(rest, args[i:]...), g, nil
		case "-p", "--param":
			to = &g.params
		case "-P", "--param-file":
			to, file = &g.params, true
		case "-a", "--annotation":
			to = &g.annots
		case "-A", "--annotation-file":
			to, file = &g.annots, true
		case "-F", "--feed-param":
			to = &g.feed
		case "-T", "--trigger-param":
			to = &g.trigger
		default:
			rest = append(rest, arg)
			continue
		}
		g.flags = append(g.flags, arg)
		left := args[i+1:]
		switch {
		case file && len(left) < 1:
			return nil, g, pairFailure(arg, fmt.Errorf("An argument must be provided for '%s'", arg), fmt.Sprintf("as in %s values.json", arg))
		case file:
			*to, err = fromFile(*to, left[0])
			i++
		case len(left) < 2:
			return nil, g, pairFailure(arg, fmt.Errorf("Arguments for '%s' must be a key/value pair", arg), fmt.Sprintf("as in %s name World", arg))
		default:
			// Both are taken as they are, even if they begin with a dash:
			// values may.
			*to = to.Set(left[0], string(valueOf(left[1])))
			i += 2
		}
		if err != nil {
			return nil, g, pairFailure(arg, err, `the file must hold an object, as in {"name": "World"}`)
		}
	}
	return rest, g, nil
}

// pairFailure puts wsk's words before what is wrong with a flag, unless that is
// in words already.
func pairFailure(flag string, err error, hint string) error {
	var own *failure
	if errors.As(err, &own) {
		return own
	}
	what := "parameter"
	if strings.HasPrefix(flag, "-a") || strings.HasPrefix(flag, "-A") || strings.HasPrefix(flag, "--a") {
		what = "annotation"
	}
	return &failure{
		text: fmt.Sprintf("Failed to parse arguments: The %s arguments are invalid: %v", what, err),
		exit: exitGeneral, hint: hint,
	}
}

// valueOf reads a value as JSON or, if it is none, takes it as a string. So 1,
// true and {} are what they look like; who means the text "1" quotes it twice,
// as with wsk.
func valueOf(s string) json.RawMessage {
	if json.Valid([]byte(s)) {
		return json.RawMessage(s)
	}
	return quote(s)
}

// quote returns s as a JSON string.
func quote(s string) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string is always JSON
	return bytes.TrimSpace(b.Bytes())
}

// fromFile lays the members of a file's JSON object over p. Later flags win
// over earlier ones, a file like any other.
func fromFile(p whisk.Params, name string) (whisk.Params, error) {
	b, err := readFile(name)
	if f := (*failure)(nil); errors.As(err, &f) {
		f.text = "Failed to parse arguments: " + f.text
	}
	if err != nil {
		return nil, err
	}
	if fault := whisk.JSONFault(b); fault != "" {
		return nil, fmt.Errorf("'%s' does not hold a JSON object: %s", name, fault)
	}
	members, err := membersOf(b)
	if err != nil {
		return nil, fmt.Errorf("'%s' does not hold a JSON object: %w", name, err)
	}
	return members.Over(p), nil
}

// membersOf returns the members of a JSON object in their order.
func membersOf(b []byte) (whisk.Params, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil {
		return nil, err
	} else if t != json.Delim('{') {
		return nil, fmt.Errorf("it begins with %v", t)
	}
	var out whisk.Params
	// Token by token, as decoding into a map would lose the order.
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, err
		}
		out = out.Set(key.(string), string(v)) // keys are strings: the decoder saw to it
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) { // More says no before a stray brace
		return nil, errors.New("there is more after the object")
	}
	return out, nil
}

// object returns parameters as the JSON object that an invocation carries.
func object(p whisk.Params) map[string]json.RawMessage {
	out := make(map[string]json.RawMessage, len(p))
	for _, e := range p {
		out[e.Key] = e.Value
	}
	return out
}

// readFile reads a file that the command line names, with wsk's texts.
func readFile(name string) ([]byte, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &failure{
			text: fmt.Sprintf("File '%s' is not a valid file or it does not exist", name),
			exit: exitUsage, hint: "check the path: it is taken from the folder you are in",
		}
	}
	if err != nil {
		return nil, &failure{text: fmt.Sprintf("Unable to read the file '%s': %v", name, err), exit: exitGeneral, hint: "make it readable for this user"}
	}
	return b, nil
}

// name reads an entity's name as a person types it: name, package/name,
// /namespace/name, or any of them with the namespace alone, as lists have it
// (Entity is empty then).
func (a *app) name(s, own string) (whisk.Name, error) {
	refuse := func() (whisk.Name, error) {
		return whisk.Name{}, a.usage(fmt.Sprintf("'%s' is not a valid qualified name: A valid qualified name must be specified.", s))
	}
	full := s
	// namespace/package/name, without the slash that should be before it.
	if strings.Count(s, "/") == 2 && !strings.HasPrefix(s, "/") {
		full = "/" + s
	}
	if !strings.HasPrefix(full, "/") {
		full = "/" + own + "/" + full
	}
	parts := strings.Split(full, "/")[1:]
	if len(parts) > 3 {
		return refuse()
	}
	for _, p := range parts {
		// Such a segment would lead elsewhere in the address of the call.
		if p == "" || p == "." || p == ".." {
			return refuse()
		}
	}
	switch len(parts) {
	case 1:
		return whisk.Name{Namespace: parts[0]}, nil
	case 2:
		return whisk.Name{Namespace: parts[0], Entity: parts[1]}, nil
	}
	return whisk.Name{Namespace: parts[0], Package: parts[1], Entity: parts[2]}, nil
}

// target returns a client, and the name that the first argument says. Without
// arguments it is the key's own namespace.
func (a *app) target(args []string) (clientAndName, error) {
	c, err := a.client()
	if err != nil {
		return clientAndName{}, err
	}
	own := c.Endpoint().Namespace
	if len(args) == 0 {
		return clientAndName{c, whisk.Name{Namespace: own}}, nil
	}
	n, err := a.name(args[0], own)
	return clientAndName{c, n}, err
}

// flatTarget is target for entities that are in no package.
func (a *app) flatTarget(args []string) (clientAndName, error) {
	t, err := a.target(args)
	if err == nil && (t.name.Package != "" || t.name.Entity == "") {
		err = a.usage(fmt.Sprintf("'%s' is not a valid qualified name: A valid qualified name must be specified.", args[0]))
	}
	return t, err
}

// namespaceTarget is target for a list: a namespace is the only argument.
func (a *app) namespaceTarget(args []string) (clientAndName, error) {
	t, err := a.target(args)
	if err == nil && t.name.Entity != "" {
		err = a.usage(fmt.Sprintf("An entity name, '%s', was provided instead of a namespace. Valid namespaces are of the following format: /NAMESPACE.", t.name.Local()))
	}
	return t, err
}
