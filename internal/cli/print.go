package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/client"
	"github.com/millrace/millrace/internal/whisk"
)

// Colours, as the terminal calls them.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

// clientAndName is a server to call and the entity to call it about.
type clientAndName struct {
	*client.Client
	name whisk.Name
}

// paint colours s for the standard output, where colours are seen there.
func (a *app) paint(colour, s string) string { return a.paintOn(a.sys.Out, colour, s) }

// paintOn is paint for one of the two outputs: one may be a terminal and the
// other a file.
func (a *app) paintOn(w io.Writer, colour, s string) string {
	seen := a.sys.ErrColor
	if w == a.sys.Out {
		seen = a.sys.Color
	}
	if !seen || s == "" {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}

func (a *app) bold(s string) string { return a.paint(bold, s) }

// print prints to the standard output. That it cannot be written is no failure
// of the command.
func (a *app) print(format string, args ...any) { fmt.Fprintf(a.sys.Out, format, args...) }

// ok tells that something was done, in wsk's form, or prints the answer where
// JSON is wanted.
func (a *app) ok(answer any, format string, args ...any) error {
	if a.json() {
		return a.printJSON(answer)
	}
	a.okLine(a.sys.Out, format, args...)
	return nil
}

// okLine prints a line of success in wsk's form.
func (a *app) okLine(w io.Writer, format string, args ...any) {
	fmt.Fprintf(w, "%s %s\n", a.paintOn(w, green, "ok:"), fmt.Sprintf(format, args...))
}

// warn tells on standard error what a person may not expect of a command that
// did what it was told.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.sys.Err, "%s%s\n", a.paintOn(a.sys.Err, yellow, "warning: "), fmt.Sprintf(format, args...))
}

// got prints an entity: the whole, or the member that field names.
func (a *app) got(v any, what, name, field string) error {
	shown := v
	if field != "" {
		f, ok := member(v, field)
		if !ok {
			return a.misuse(exitGeneral, fmt.Sprintf("Invalid field filter '%s'.", field))
		}
		shown = f
	}
	if !a.json() {
		line := fmt.Sprintf("got %s %s", what, a.bold(name))
		if field != "" {
			line += ", displaying field " + a.bold(field)
		}
		a.okLine(a.sys.Out, "%s", line)
	}
	return a.printJSON(shown)
}

// member returns the field of a struct that name names, whatever its case.
func member(v any, name string) (any, bool) {
	// By reflection, as every field of the wire types may be asked for by
	// name.
	rv := reflect.ValueOf(v)
	f := rv.FieldByNameFunc(func(s string) bool {
		// The wire's name of an activation's ID is the one that differs from
		// the field's.
		return strings.EqualFold(s, name) || s == "ID" && strings.EqualFold(name, "activationId")
	})
	if !f.IsValid() {
		return nil, false
	}
	return f.Interface(), true
}

func (a *app) printJSON(v any) error { return writeJSON(a.sys.Out, v) }

// writeJSON writes v with wsk's indentation, and nothing escaped for HTML.
func writeJSON(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	// The escapes are undone in what was written: no encoder can be told to
	// leave them out, see unescapeHTML.
	if err := json.Indent(&out, unescapeHTML(b), "", "    "); err != nil {
		return err
	}
	out.WriteByte('\n')
	_, err = w.Write(out.Bytes())
	return err
}

// sorted returns JSON with the members of objects sorted, as wsk shows what an
// action answered. What is not JSON comes back as it is, as a string.
func sorted(raw json.RawMessage) any {
	d := json.NewDecoder(bytes.NewReader(raw))
	// Numbers keep their digits: a float would lose those of large ones.
	d.UseNumber()
	var v any
	if len(raw) > 0 && d.Decode(&v) != nil {
		return string(raw)
	}
	return v
}

// unescapeHTML undoes the \u003c, \u003e and \u0026 of encoding/json, which
// its methods for our types write whatever the encoder was told.
func unescapeHTML(b []byte) []byte {
	if !bytes.Contains(b, []byte(`\u00`)) {
		return b
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' || i+1 >= len(b) {
			out = append(out, b[i])
			continue
		}
		if i+6 <= len(b) {
			switch string(b[i : i+6]) {
			case `\u003c`:
				out, i = append(out, '<'), i+5
				continue
			case `\u003e`:
				out, i = append(out, '>'), i+5
				continue
			case `\u0026`:
				out, i = append(out, '&'), i+5
				continue
			}
		}
		out = append(out, b[i], b[i+1]) // an escape of two bytes: \\ must not begin another
		i++
	}
	return out
}

// table prints a list under its header: rows by name if that is wanted.
func table[T any](a *app, header string, list []T, row func(T) string, byName func(T) string) error {
	if a.json() {
		// No entries are an empty list for a program, and not null.
		if list == nil {
			list = []T{}
		}
		return a.printJSON(list)
	}
	if byName != nil {
		list = slices.Clone(list)
		slices.SortStableFunc(list, func(x, y T) int { return cmp.Compare(byName(x), byName(y)) })
	}
	a.print("%s\n", a.bold(header))
	for _, e := range list {
		a.print("%s\n", row(e))
	}
	return nil
}

// visibility is the word that lists have for publish.
func visibility(publish *bool) string {
	if publish != nil && *publish {
		return "shared"
	}
	return "private"
}

// entityRow is a line of a list: the full name in a column of 70, then the rest.
func entityRow(namespace, name, rest string) string {
	return fmt.Sprintf("%-70s %s", "/"+namespace+"/"+name, rest)
}

// summary prints the two lines that --summary shows of an entity.
func (a *app) summary(kind, fullName string, annots, params whisk.Params) {
	names := paramNames(annots, params)
	list := strings.Join(names, ", ")
	about := annots.Text("description")
	if about == "" && len(names) > 0 {
		about = describe(names)
	}
	line := a.bold(kind) + " " + fullName
	if about != "" {
		line += ": " + about
	}
	if list == "" {
		list = "none defined"
	}
	a.print("%s\n   (%s: %s)\n", line, a.bold("parameters"), list)
}

// paramNames returns the parameters that an entity has bound, marked with a
// star (two when they are final), and those that it documents.
func paramNames(annots, params whisk.Params) []string {
	mark := "*"
	if string(annots.Get("final")) == "true" {
		mark = "**"
	}
	var docs []struct {
		Name string `json:"name"`
	}
	_ = json.Unmarshal(annots.Get("parameters"), &docs) // other people's notes may have any form
	// A parameter that is bound and documented is listed once, as bound.
	names := map[string]string{}
	for _, d := range docs {
		if d.Name != "" {
			names[d.Name] = d.Name
		}
	}
	for _, p := range params {
		names[p.Key] = mark + p.Key
	}
	keys := make([]string, 0, len(names))
	for k := range names {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for i, k := range keys {
		keys[i] = names[k]
	}
	return keys
}

// describe says what an action without a description does, as far as its
// parameters tell.
func describe(names []string) string {
	plain := make([]string, len(names))
	for i, n := range names {
		plain[i] = strings.TrimLeft(n, "*")
	}
	if len(plain) == 1 {
		return "Returns a result based on parameter " + plain[0]
	}
	last := len(plain) - 1
	return "Returns a result based on parameters " + strings.Join(plain[:last], ", ") + " and " + plain[last]
}

// maxTrace is how much of a body -v shows, in bytes; -d shows all.
const maxTrace = 1000

// trace shows one exchange with the server, on standard error so that what a
// command prints can still be piped.
func (a *app) trace(req *http.Request, body []byte, resp *http.Response, answer []byte) {
	show := func(b []byte) string {
		if len(b) > maxTrace && !a.debug {
			return string(b[:maxTrace]) + "..."
		}
		return string(b)
	}
	w := a.sys.Err
	fmt.Fprintf(w, "REQUEST:\n[%s]\t%s\nReq Headers\n", req.Method, req.URL)
	_ = writeJSON(w, req.Header) // a map of strings is always JSON
	if len(body) > 0 {
		fmt.Fprintf(w, "Req Body\n%s\n", show(body))
	}
	fmt.Fprintf(w, "RESPONSE:Got response with code %d\nResp Headers\n", resp.StatusCode)
	_ = writeJSON(w, resp.Header)
	fmt.Fprintf(w, "Response body size is %d bytes\nResponse body received:\n%s\n", len(answer), show(answer))
}
