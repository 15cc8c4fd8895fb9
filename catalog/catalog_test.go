package catalog

import (
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/packages"
)

func TestBuiltInPackages(t *testing.T) {
	c, err := Load(packages.FS())
	if err != nil {
		t.Fatal(err)
	}
	descriptions := map[string]string{
		"/whisk.system/alarms": "Alarms and periodic utility", "/whisk.system/alarms/alarm": "Fire trigger when alarm occurs",
		"/whisk.system/alarms/interval": "Fire trigger at specified interval", "/whisk.system/alarms/once": "Fire trigger once when alarm occurs",
		"/whisk.system/webhook":         "Events from HTTP requests, signed or not",
		"/whisk.system/webhook/receive": "Fire trigger when a request comes to an address of its own",
	}
	bound := map[string]string{
		"/whisk.system/alarms": `[{"key":"trigger_payload","value":""}]`, "/whisk.system/alarms/interval": `[{"key":"isInterval","value":true}]`,
		"/whisk.system/alarms/once": `[{"key":"fireOnce","value":true}]`,
	}
	check := func(m whisk.Meta, params whisk.Params) {
		t.Helper()
		name := m.Name.String()
		if got := m.Annotations.Text("description"); got != descriptions[name] || got == "" {
			t.Errorf("%s: description = %q, want %q", name, got, descriptions[name])
		}
		delete(descriptions, name)
		ps, err := json.Marshal(params)
		if want := bound[name]; err != nil || string(ps) != want && (want != "" || string(ps) != "[]") {
			t.Errorf("%s: parameters = %s, want %s", name, ps, want)
		}
		if !m.Publish || m.Version != "0.0.1" {
			t.Errorf("%s: publish %v, version %s", name, m.Publish, m.Version)
		}
	}
	for _, p := range c.Packages {
		if p.Readme == "" || p.License != "Apache-2.0" || p.Version != "1.0.0" {
			t.Errorf("package %s = %+v", p.Name, p)
		}
		pkg, actions := p.Entities(whisk.SystemNamespace)
		check(pkg.Meta, pkg.Parameters)
		for _, a := range actions {
			check(a.Meta, a.Parameters)
			if a.Exec != (whisk.Exec{Kind: "builtin", Code: a.Name.Local()}) || a.Limits != whisk.StdLimits() {
				t.Errorf("%s: exec %+v, limits %+v", a.Name, a.Exec, a.Limits)
			}
			if string(a.Annotations.Get("feed")) != "true" || string(a.Annotations.Get("exec")) != `"builtin"` || string(a.Annotations.Get("provide-api-key")) != "false" {
				t.Errorf("%s: annotations = %v", a.Name, a.Annotations)
			}
			var fields []struct {
				Name     string
				Required bool
			}
			if err := json.Unmarshal(a.Annotations.Get("parameters"), &fields); err != nil || len(fields) == 0 || fields[0].Name == "" {
				t.Errorf("%s: parameters = %s", a.Name, a.Annotations.Get("parameters"))
			}
		}
	}
	if len(descriptions) != 0 {
		t.Errorf("missing: %v", descriptions)
	}
	samples, err := fs.Glob(packages.FS(), "*/samples/*.json")
	if err != nil || len(samples) < 2 {
		t.Errorf("samples = %v, %v", samples, err)
	}
	for _, s := range samples {
		b, err := fs.ReadFile(packages.FS(), s)
		if err != nil || !json.Valid(b) {
			t.Errorf("sample %s: %v", s, err)
		}
	}
}

const good = `
project:
  name: x
  packages:
    p:
      public: true
      annotations: &a {note: [1, {b: null}]}
      inputs:
        empty: string
        none: {type: slice}
        some: {type: integer, description: how many, default: 3}
        list: [1, two]
        one: {value: {deep: true}}
      actions:
        act: {function: p/act, runtime: builtin, annotations: *a, limits: {timeout: 1000, memorySize: 128, logSize: 0}}
`

func TestManifest(t *testing.T) {
	c, err := Load(fstest.MapFS{"p/manifest.yaml": {Data: []byte(good)}, "q/other": {}})
	if err != nil || len(c.Packages) != 1 {
		t.Fatalf("Load = %+v, %v", c, err)
	}
	p := c.Packages[0]
	ps, err := json.Marshal(p.Parameters)
	want := `[{"key":"empty","value":""},{"key":"none","value":[]},{"key":"some","value":3},{"key":"list","value":[1,"two"]},{"key":"one","value":{"deep":true}}]`
	if err != nil || string(ps) != want {
		t.Errorf("parameters = %s, want %s", ps, want)
	}
	a := p.Actions[0]
	if string(a.Annotations.Get("note")) != `[1,{"b":null}]` || a.Limits.Timeout != 1000 || a.Limits.Memory != 128 || a.Limits.Logs != 0 || a.Limits.Concurrency != 1 {
		t.Errorf("action = %+v", a)
	}
}

func TestFaults(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"unknown root", "pakages: {}", `m/manifest.yaml:1: unknown key "pakages"; known here: packages, project`},
		{"unknown key", "packages:\n  p:\n    sequences: {}", `m/manifest.yaml:3: unknown key "sequences"`},
		{"unknown key of action", "packages: {p: {actions: {a: {function: p/a, runtime: builtin, web: true}}}}", `unknown key "web"`},
		{"no function", "packages: {p: {actions: {a: {runtime: builtin}}}}", "action a has no function"},
		{"no runtime", "packages: {p: {actions: {a: {function: p/a}}}}", "action a has no runtime"},
		{"other runtime", "packages: {p: {actions: {a: {function: p/a, runtime: \"nodejs:20\"}}}}", `runtime "nodejs:20" is not supported`},
		{"file as function", "packages: {p: {actions: {a: {function: ../a.js, runtime: builtin}}}}", `function "../a.js" is not of the form`},
		{"bad name", "packages: {\" p\": {}}", `" p" is not a name for a package`},
		{"no package", "packages: {Default: {}}", "Default stands for no package"},
		{"bad action name", "packages: {p: {actions: {\"a/b\": {}}}}", `"a/b" is not a name for a action`},
		{"bad version", "packages: {p: {version: 1.0}}", `version "1.0" is not of the form 1.2.3`},
		{"bad public", "packages: {p: {public: maybe}}", `"maybe" is neither true nor false`},
		{"bad limit", "packages: {p: {actions: {a: {function: p/a, runtime: builtin, limits: {timeout: 5}}}}}", "timeout is not an integer between 100 and 300000"},
		{"twice", "packages: {p: {license: a, license: b}}", `"license" is given twice`},
		{"variable", "packages: {p: {inputs: {a: \"${HOME}\"}}}", "variables are not filled in"},
		{"required without value", "packages: {p: {inputs: {a: {type: string, required: true}}}}", "the required input a has no value"},
		{"input without anything", "packages: {p: {inputs: {a: {description: x}}}}", "input a has neither a value nor a type"},
		{"bad type", "packages: {p: {inputs: {a: {type: timestamp}}}}", `type "timestamp" is none of`},
		{"merge key", "packages: {p: &p {license: x}, q: {<<: *p}}", "keys must be texts"},
		{"list", "packages: [p]", "this is not a mapping"},
		{"text", "hello", "this is not a mapping"},
		{"empty", "", "EOF"},
		{"no packages", "packages: {}", "the manifest has no packages"},
		{"two documents", "packages: {p: {}}\n---\npackages: {q: {}}", "more than one document"},
		{"not YAML", "a: [", "did not find"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load(fstest.MapFS{"m/manifest.yaml": {Data: []byte(tt.text)}})
			if !errors.Is(err, whisk.Invalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Load = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestEveryFaultAtOnce(t *testing.T) {
	_, err := Load(fstest.MapFS{
		"a/manifest.yaml": {Data: []byte("packages:\n  p:\n    version: x\n    license: []\n    nope: 1\n")},
		"b/manifest.yaml": {Data: []byte("packages: {p: {}, q: {oops: 1}}")},
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"a/manifest.yaml:3:", "a/manifest.yaml:4:", "a/manifest.yaml:5:", "b/manifest.yaml:1: unknown key", "package p is in a/manifest.yaml already"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("packages: {p: {inputs: {a: *a}}}"))
	f.Add([]byte("packages: &a {p: *a}"))
	f.Add([]byte("{[: 1}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Load(fstest.MapFS{"m/manifest.yaml": {Data: data}})
		if err != nil {
			if !errors.Is(err, whisk.Invalid) {
				t.Fatalf("error = %v", err)
			}
			return
		}
		for _, p := range c.Packages {
			pkg, actions := p.Entities("ns")
			if _, err := json.Marshal(pkg); err != nil {
				t.Fatal(err)
			}
			if _, err := json.Marshal(actions); err != nil {
				t.Fatal(err)
			}
		}
	})
}
