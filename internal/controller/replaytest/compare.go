package replaytest

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// differences between what was expected and what came, a line each.
type differences []string

func (d *differences) add(where string, want, got any) {
	*d = append(*d, fmt.Sprintf("  %s: want %v, got %v", where, want, got))
}

// values compares JSON values. "~" stands for anything that is there.
func (d *differences) values(where string, want, got any) {
	switch want := want.(type) {
	case map[string]any:
		has, ok := got.(map[string]any)
		if !ok {
			d.add(where, want, got)
			return
		}
		for _, key := range keys(want, has) {
			w, inWant := want[key]
			g, inGot := has[key]
			if inWant != inGot {
				d.add(where+"."+key, present(inWant), present(inGot))
				continue
			}
			d.values(where+"."+key, w, g)
		}
	case []any:
		has, ok := got.([]any)
		want, has = inOrder(want), inOrder(has)
		if !ok || len(has) != len(want) {
			d.add(where, want, got)
			return
		}
		for i := range want {
			d.values(fmt.Sprintf("%s[%d]", where, i), want[i], has[i])
		}
	case string:
		if want == "~" {
			return
		}
		if has, ok := got.(string); !ok || !matches(want, has) {
			d.add(where, want, got)
		}
	default:
		if !reflect.DeepEqual(want, got) {
			d.add(where, want, got)
		}
	}
}

func present(is bool) string {
	if is {
		return "present"
	}
	return "absent"
}

// keys returns the members of both objects, sorted.
func keys(a, b map[string]any) []string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}

// inOrder sorts a list of parameters or annotations: their order is nobody's
// concern, that of other lists is. The annotation initTime is left out: it says
// that there was no warm container, which no conversation can know.
func inOrder(list []any) []any {
	key := func(v any) (string, bool) {
		obj, ok := v.(map[string]any)
		k, isText := obj["key"].(string)
		return k, ok && isText
	}
	for _, v := range list {
		if _, ok := key(v); !ok {
			return list
		}
	}
	out := slices.DeleteFunc(slices.Clone(list), func(v any) bool {
		k, _ := key(v)
		return k == "initTime"
	})
	slices.SortStableFunc(out, func(x, y any) int {
		a, _ := key(x)
		b, _ := key(y)
		return cmp.Compare(a, b)
	})
	return out
}

// parsed is how the texts begin that a JSON parser made: the line after it is
// that parser's own.
const parsed = "was malformed:\nUnexpected "

var placeholder = regexp.MustCompile(`<id>|<time>|<host>`)

// matches compares texts.
func matches(want, got string) bool {
	if want == got {
		return true
	}
	if i := strings.Index(want, parsed); i >= 0 {
		line := i + len("was malformed:\n")
		return len(got) > line && got[:line] == want[:line]
	}
	if !placeholder.MatchString(want) {
		return false
	}
	parts := placeholder.Split(want, -1)
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(`^` + strings.Join(parts, `\S+`) + `$`).MatchString(got)
}

// types compares an answer with one that was recorded as names of types. The
// families of runtimes differ from server to server.
func (d *differences) types(where string, want, got any) {
	switch want := want.(type) {
	case map[string]any:
		has, ok := got.(map[string]any)
		if !ok {
			d.add(where, want, got)
			return
		}
		if where == ".runtimes" {
			d.runtimes(want, has)
			return
		}
		for _, key := range keys(want, has) {
			if want[key] == nil || has[key] == nil {
				d.add(where+"."+key, present(want[key] != nil), present(has[key] != nil))
				continue
			}
			d.types(where+"."+key, want[key], has[key])
		}
	case []any:
		has, ok := got.([]any)
		if !ok || len(has) == 0 {
			d.add(where, want, got)
			return
		}
		for i, g := range has {
			d.types(fmt.Sprintf("%s[%d]", where, i), want[0], g)
		}
	case string:
		if name := typeName(got); name != want {
			d.add(where, want, name)
		}
	}
}

// runtimes compares every runtime with the first recorded one.
func (d *differences) runtimes(want, got map[string]any) {
	var like any
	for _, key := range slices.Sorted(maps.Keys(want)) {
		like = want[key]
		break
	}
	if len(got) == 0 {
		d.add(".runtimes", "some", "none")
	}
	for family, list := range got {
		d.types(".runtimes "+family, like, list)
	}
}

func typeName(v any) string {
	switch v.(type) {
	case string:
		return "str"
	case float64:
		return "number"
	case bool:
		return "bool"
	}
	return fmt.Sprintf("%T", v)
}
