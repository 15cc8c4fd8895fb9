package catalog

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/millrace/millrace/internal/whisk"
)

// maxManifest bounds a manifest, in bytes.
const maxManifest = 1 << 20

// reader reads one manifest and gathers what is wrong with it. It goes on after
// a fault, so that an author is told of all of them at once. What is returned
// is only of use when there are none.
type reader struct {
	file   string
	faults []error
}

// bad notes what is wrong with the node n.
func (r *reader) bad(n *yaml.Node, format string, args ...any) {
	r.faults = append(r.faults, fmt.Errorf("%s:%d: %s", r.file, n.Line, fmt.Sprintf(format, args...)))
}

// manifest reads the packages of a manifest, under either root they may have.
func (r *reader) manifest(data []byte) []Package {
	top := &yaml.Node{Line: 1}
	if len(data) > maxManifest {
		r.bad(top, "the manifest is larger than %d bytes", maxManifest)
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		r.faults = append(r.faults, fmt.Errorf("%s: %w", r.file, err))
		return nil
	}
	// The rest would be ignored otherwise.
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		r.bad(top, "the manifest has more than one document")
		return nil
	}
	var pkgs []Package
	read := func(_, v *yaml.Node) {
		r.each(v, "package", func(k, v *yaml.Node) { pkgs = append(pkgs, r.pkg(k, v)) })
	}
	// With wskdeploy the packages may stand under a project, whose name and
	// version mean nothing here.
	project := func(_, v *yaml.Node) {
		r.members(v, map[string]func(k, v *yaml.Node){
			"name":     func(_, v *yaml.Node) { r.text(v) },
			"version":  func(_, v *yaml.Node) { r.text(v) },
			"packages": read,
		})
	}
	r.members(doc.Content[0], map[string]func(k, v *yaml.Node){"packages": read, "project": project})
	if len(pkgs) == 0 && len(r.faults) == 0 {
		r.bad(top, "the manifest has no packages")
	}
	return pkgs
}

// versionForm is a semantic version.
var versionForm = regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)

// pkg reads one package. The name has been checked.
func (r *reader) pkg(name, body *yaml.Node) Package {
	p := Package{Name: name.Value, Version: "0.0.1", License: "unlicensed"}
	if strings.EqualFold(p.Name, whisk.DefaultPackage) {
		r.bad(name, "%s stands for no package, which is not supported", p.Name)
	}
	r.members(body, map[string]func(k, v *yaml.Node){
		"version": func(_, v *yaml.Node) {
			if p.Version = r.text(v); !versionForm.MatchString(p.Version) {
				r.bad(v, "version %q is not of the form 1.2.3", p.Version)
			}
		},
		"license":     func(_, v *yaml.Node) { p.License = r.text(v) },
		"public":      func(_, v *yaml.Node) { p.Public = r.boolean(v) },
		"description": func(_, v *yaml.Node) { p.Annotations = r.described(p.Annotations, v) },
		"annotations": func(_, v *yaml.Node) { p.Annotations = r.annotations(v).Over(p.Annotations) },
		"inputs":      func(_, v *yaml.Node) { p.Parameters = r.inputs(v) },
		"actions": func(_, v *yaml.Node) {
			r.each(v, "action", func(k, v *yaml.Node) { p.Actions = append(p.Actions, r.action(k, v)) })
		},
	})
	slices.SortFunc(p.Actions, func(a, b Action) int { return cmp.Compare(a.Name, b.Name) })
	return p
}

// functionForm is a feed's or action's name within the binary's table of
// builtin functions.
var functionForm = regexp.MustCompile(`^[a-z][a-zA-Z0-9-]*/[a-z][a-zA-Z0-9-]*$`)

// action reads one action, which must name its function and runtime.
func (r *reader) action(name, body *yaml.Node) Action {
	a := Action{Name: name.Value, Limits: whisk.StdLimits()}
	var runtime string
	r.members(body, map[string]func(k, v *yaml.Node){
		"function": func(_, v *yaml.Node) {
			if a.Function = r.text(v); !functionForm.MatchString(a.Function) {
				r.bad(v, "function %q is not of the form package/action", a.Function)
			}
		},
		"runtime": func(_, v *yaml.Node) {
			if runtime = r.text(v); runtime != whisk.KindBuiltin {
				r.bad(v, "runtime %q is not supported, only %s is", runtime, whisk.KindBuiltin)
			}
		},
		"description": func(_, v *yaml.Node) { a.Annotations = r.described(a.Annotations, v) },
		"annotations": func(_, v *yaml.Node) { a.Annotations = r.annotations(v).Over(a.Annotations) },
		"inputs":      func(_, v *yaml.Node) { a.Parameters = r.inputs(v) },
		"limits":      func(_, v *yaml.Node) { r.limits(v, &a.Limits) },
	})
	if a.Function == "" {
		r.bad(name, "action %s has no function", a.Name)
	}
	if runtime == "" {
		r.bad(name, "action %s has no runtime", a.Name)
	}
	a.Annotations = annotations(a.Annotations)
	return a
}

// limits reads those limits that are named, in wskdeploy's words and units,
// into l.
func (r *reader) limits(n *yaml.Node, l *whisk.Limits) {
	within := func(into *int, b whisk.Range) func(k, v *yaml.Node) {
		return func(k, v *yaml.Node) {
			if err := v.Decode(into); err != nil || *into < b.Min || *into > b.Max {
				r.bad(v, "%s is not an integer between %d and %d", k.Value, b.Min, b.Max)
			}
		}
	}
	r.members(n, map[string]func(k, v *yaml.Node){
		"timeout":    within(&l.Timeout, whisk.TimeoutRange),
		"memorySize": within(&l.Memory, whisk.MemoryRange),
		"logSize":    within(&l.Logs, whisk.LogsRange),
	})
}

// described adds the annotation that a description stands for.
func (r *reader) described(ps whisk.Params, n *yaml.Node) whisk.Params {
	b, err := json.Marshal(r.text(n))
	if err != nil {
		r.bad(n, "%s", err)
		return ps
	}
	return ps.With(whisk.Param{Key: "description", Value: b})
}

// annotations reads a mapping of any values, in its order.
func (r *reader) annotations(n *yaml.Node) whisk.Params {
	var ps whisk.Params
	r.each(n, "", func(k, v *yaml.Node) {
		ps = append(ps, whisk.Param{Key: k.Value, Value: r.json(v)})
	})
	return ps
}

// inputs reads parameters: a value as it is, or the long form with type,
// value and default.
func (r *reader) inputs(n *yaml.Node) whisk.Params {
	var ps whisk.Params
	r.each(n, "", func(k, v *yaml.Node) {
		if value := r.input(k, v); value != nil {
			ps = append(ps, whisk.Param{Key: k.Value, Value: value})
		}
	})
	return ps
}

// zeros are the values of typed parameters without one.
func zeros() map[string]string {
	return map[string]string{"string": `""`, "integer": "0", "float": "0.0", "boolean": "false", "json": "{}", "slice": "[]"}
}

// input reads one parameter; nil after a fault.
func (r *reader) input(k, v *yaml.Node) json.RawMessage {
	if v.Kind != yaml.MappingNode {
		value := r.json(v)
		if v.Kind == yaml.ScalarNode && v.Tag == "!!str" {
			// In the short form the name of a type stands for a value of it,
			// as wskdeploy reads it.
			if zero, ok := zeros()[v.Value]; ok {
				return json.RawMessage(zero)
			}
			r.plain(v)
		}
		return value
	}
	var typ string
	var value, std json.RawMessage
	required := false
	r.members(v, map[string]func(k, v *yaml.Node){
		"type": func(_, v *yaml.Node) {
			if typ = r.text(v); zeros()[typ] == "" {
				r.bad(v, "type %q is none of string, integer, float, boolean, json, slice", typ)
			}
		},
		"description": func(_, v *yaml.Node) { r.text(v) },
		"required":    func(_, v *yaml.Node) { required = r.boolean(v) },
		"value":       func(_, v *yaml.Node) { value = r.json(v); r.plain(v) },
		"default":     func(_, v *yaml.Node) { std = r.json(v); r.plain(v) },
	})
	// A required input must have a value in the manifest itself: nobody is
	// asked for one at an installation.
	switch {
	case value != nil:
		return value
	case std != nil:
		return std
	case required:
		r.bad(k, "the required input %s has no value", k.Value)
	case typ == "":
		r.bad(k, "input %s has neither a value nor a type", k.Value)
	default:
		return json.RawMessage(zeros()[typ])
	}
	return nil
}

// plain refuses a value that names a variable: none is filled in here.
func (r *reader) plain(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && strings.Contains(n.Value, "$") {
		r.bad(n, "%q: variables are not filled in", n.Value)
	}
}

// members calls the reader of each member of a mapping, and refuses members
// without one.
func (r *reader) members(n *yaml.Node, known map[string]func(k, v *yaml.Node)) {
	r.each(n, "", func(k, v *yaml.Node) {
		read, ok := known[k.Value]
		if !ok {
			names := make([]string, 0, len(known))
			for name := range known {
				names = append(names, name)
			}
			slices.Sort(names)
			r.bad(k, "unknown key %q; known here: %s", k.Value, strings.Join(names, ", "))
			return
		}
		read(k, v)
	})
}

// each goes through a mapping with keys that are texts, none of them twice.
// What names a kind of entity must be a name for one.
func (r *reader) each(n *yaml.Node, kind string, do func(k, v *yaml.Node)) {
	n = resolved(n)
	// A member without a value is an empty mapping.
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.bad(n, "this is not a mapping")
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], resolved(n.Content[i+1])
		// A merge key would bring in members that are not checked here.
		if k.Kind != yaml.ScalarNode || k.Tag == "!!merge" {
			r.bad(k, "keys must be texts")
			continue
		}
		if seen[k.Value] {
			r.bad(k, "%q is given twice", k.Value)
			continue
		}
		seen[k.Value] = true
		if kind != "" && whisk.CheckSegment(k.Value) != nil {
			r.bad(k, "%q is not a name for a %s", k.Value, kind)
			continue
		}
		do(k, v)
	}
}

// resolved follows an alias to what it stands for.
func resolved(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// text reads a scalar as it is written: 1.10 is a version and no number.
func (r *reader) text(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		r.bad(n, "this is not a text")
		return ""
	}
	return n.Value
}

func (r *reader) boolean(n *yaml.Node) bool {
	var b bool
	if n.Tag != "!!bool" || n.Decode(&b) != nil {
		r.bad(n, "%q is neither true nor false", n.Value)
	}
	return b
}

// json returns a value as JSON.
func (r *reader) json(n *yaml.Node) json.RawMessage {
	var v any
	if err := n.Decode(&v); err != nil {
		r.bad(n, "%s", strings.TrimPrefix(err.Error(), "yaml: "))
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		r.bad(n, "the value cannot be written as JSON")
		return nil
	}
	return b
}
