package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/millrace/millrace/internal/whisk"
)

const (
	envPrefix = "MILLRACE_"
	// EnvConfig names the YAML file when the --config flag does not.
	EnvConfig = envPrefix + "CONFIG"
)

// Sources are what Load reads besides the defaults.
type Sources struct {
	Flags   map[string]string // by setting name, only those given
	Environ []string          // as os.Environ gives it
	File    string            // YAML file; empty: what EnvConfig names, if anything
}

// Load lays file, environment and flags over base, the later over the earlier,
// and validates the outcome. It returns Invalid with every unknown name and
// every bad value of all sources.
func Load(base Config, from Sources) (Config, error) {
	byName := map[string]Field{}
	byEnv := map[string]Field{}
	for _, f := range Fields() {
		byName[f.Name], byEnv[f.Env()] = f, f
	}
	env, errs := environ(from.Environ, byEnv)
	file := from.File
	if file == "" {
		file = env[EnvConfig]
	}
	c := base
	// Whatever fails is noted with the place it came from, and the rest is
	// read on: a person mends all of it at once.
	set := func(where string, f Field, value string) {
		if err := f.Set(&c, value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", where, err))
		}
	}
	if file != "" {
		errs = append(errs, readFile(file, byName, set)...)
	}
	// By the list of fields and not by the map, so that errors come in one
	// order.
	for _, f := range Fields() {
		if v, ok := env[f.Env()]; ok {
			set(f.Env(), f, v)
		}
	}
	for _, f := range Fields() {
		if v, ok := from.Flags[f.Name]; ok {
			set("--"+f.Name, f, v)
		}
	}
	// Also when a source had errors: what it could set is checked all the
	// same.
	if err := c.Validate(); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return Config{}, whisk.E(whisk.Invalid, "", errors.Join(errs...))
	}
	return c, nil
}

// environ picks our variables. One with our prefix that is no setting is
// refused: it is a misspelt one. Kubernetes and Docker give every container
// addresses of a service named millrace, which are not ours.
func environ(list []string, known map[string]Field) (map[string]string, []error) {
	out := map[string]string{}
	var errs []error
	for _, kv := range list {
		name, value, _ := strings.Cut(kv, "=")
		rest, ours := strings.CutPrefix(name, envPrefix)
		if !ours || rest == "PORT" || strings.HasPrefix(rest, "PORT_") || strings.HasPrefix(rest, "SERVICE_") {
			continue
		}
		if _, ok := known[name]; !ok && name != EnvConfig {
			errs = append(errs, fmt.Errorf("%s: there is no such setting", name))
			continue
		}
		if value != "" { // empty is how compose files and shells say "not set"
			out[name] = value
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return out, errs
}

// readFile hands every setting of a YAML file to set, and returns what is
// wrong with the others.
func readFile(name string, known map[string]Field, set func(where string, f Field, value string)) []error {
	f, err := os.Open(name)
	if err != nil {
		return []error{err}
	}
	defer f.Close()
	return readYAML(name, f, known, set)
}

// readYAML reads the nodes of the document instead of decoding it: so that
// every fault has its line, and values come as they are written, for the same
// Set that reads flags.
func readYAML(name string, r io.Reader, known map[string]Field, set func(where string, f Field, value string)) []error {
	var doc yaml.Node
	dec := yaml.NewDecoder(r)
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil // an empty file sets nothing
	} else if err != nil {
		return []error{fmt.Errorf("%s: %w", name, err)}
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return []error{fmt.Errorf("%s: more than one document", name)}
	}
	if len(doc.Content) == 0 {
		return nil
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil // nothing but comments
	}
	if root.Kind != yaml.MappingNode {
		return []error{fmt.Errorf("%s:%d: settings are lines of name: value", name, root.Line)}
	}
	var errs []error
	seen := map[string]bool{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		where := fmt.Sprintf("%s:%d: %s", name, key.Line, key.Value)
		f, ok := known[key.Value]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("%s: there is no such setting", where))
		case seen[key.Value]:
			errs = append(errs, fmt.Errorf("%s: given twice", where))
		case value.Kind != yaml.ScalarNode || value.Tag == "!!null":
			errs = append(errs, fmt.Errorf("%s: one value is needed", where))
		default:
			set(where, f, value.Value)
		}
		seen[key.Value] = true
	}
	return errs
}
