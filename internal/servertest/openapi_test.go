package servertest_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/servertest"
)

// document is as much of an OpenAPI document as ours uses.
type document struct {
	Paths      map[string]map[string]*operation `json:"paths"`
	Components struct {
		Schemas   map[string]*schema   `json:"schemas"`
		Responses map[string]*response `json:"responses"`
	} `json:"components"`
}

type operation struct {
	Parameters []struct {
		Name, In string
		Schema   *schema
	} `json:"parameters"`
	Responses map[string]*response `json:"responses"`
}

type response struct {
	Ref     string `json:"$ref"`
	Content map[string]struct {
		Schema *schema `json:"schema"`
	} `json:"content"`
}

// schema is as much of JSON Schema as ours uses. A member that it does not
// have would be passed over: reading is strict.
type schema struct {
	Ref         string             `json:"$ref"`
	Type        any                `json:"type"` // a text, or a list of them
	Description string             `json:"description"`
	Format      string             `json:"format"`
	Pattern     string             `json:"pattern"`
	Minimum     *float64           `json:"minimum"`
	Maximum     *float64           `json:"maximum"`
	Default     any                `json:"default"`
	Enum        []any              `json:"enum"`
	Properties  map[string]*schema `json:"properties"`
	Required    []string           `json:"required"`
	Items       *schema            `json:"items"`
	AllOf       []*schema          `json:"allOf"`
}

func (s *schema) UnmarshalJSON(b []byte) error {
	type plain schema
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	return d.Decode((*plain)(s))
}

// get asks for a path and holds the answer against what the document says of
// it. Statuses without a response of their own have the default one.
func (d *document) get(t *testing.T, p *servertest.Process, path string, op *operation, status int) {
	t.Helper()
	a := p.Must(t, status, "GET", "/hub/v1"+path, nil, nil)
	r := op.Responses[strconv.Itoa(status)]
	if r == nil {
		r = op.Responses["default"]
	}
	if name, ok := strings.CutPrefix(r.Ref, "#/components/responses/"); ok {
		r = d.Components.Responses[name]
	}
	content, ok := r.Content[a.Header.Get("Content-Type")]
	if !ok {
		t.Fatalf("GET %s answers in %s, of which the document has nothing", path, a.Header.Get("Content-Type"))
	}
	for _, fault := range d.faults(content.Schema, decode(t, string(a.Body)), "") {
		t.Errorf("GET %s = %d %s\n%s", path, status, a.Body, fault)
	}
}

// tryParameters sends each query parameter with what its schema allows, and
// with what it does not.
func (d *document) tryParameters(t *testing.T, p *servertest.Process, path string, op *operation) {
	t.Helper()
	for _, q := range op.Parameters {
		if q.In == "path" {
			if !strings.Contains(path, "{"+q.Name+"}") {
				t.Errorf("%s has no parameter %s", path, q.Name)
			}
			continue
		}
		good, bad := map[string][]string{
			"trigger": {"much", "/_/much"}, "since": {"0", time.Now().Add(-time.Hour).Format(time.RFC3339)},
		}[q.Name], map[string][]string{"trigger": {"$"}, "since": {"yesterday"}}[q.Name]
		if q.Schema.Type == "integer" {
			good, bad = []string{fmt.Sprint(*q.Schema.Minimum)}, []string{"x", fmt.Sprint(*q.Schema.Minimum - 1)}
			if most := q.Schema.Maximum; most != nil {
				good, bad = append(good, fmt.Sprint(*most)), append(bad, fmt.Sprint(*most+1))
			}
		}
		if len(good) == 0 {
			t.Errorf("%s is not tried with the parameter %s", path, q.Name)
		}
		for _, v := range good {
			d.get(t, p, path+"?"+q.Name+"="+url.QueryEscape(v), op, http.StatusOK)
		}
		for _, v := range bad {
			d.get(t, p, path+"?"+q.Name+"="+url.QueryEscape(v), op, http.StatusBadRequest)
		}
	}
}

func decode(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// faults tells in what a value is not as s says. A member that s does not name
// is one: who reads the document would not know of it.
func (d *document) faults(s *schema, v any, at string) []string {
	var faults []string
	bad := func(format string, args ...any) { faults = append(faults, at+": "+fmt.Sprintf(format, args...)) }
	members := d.flat(s)
	if len(members.types) > 0 && !slices.ContainsFunc(members.types, func(t string) bool { return isOf(t, v) }) {
		bad("is %v, want %v", v, members.types)
		return faults
	}
	if len(members.enum) > 0 && !slices.Contains(members.enum, v) {
		bad("is %v, want one of %v", v, members.enum)
	}
	switch v := v.(type) {
	case string:
		if _, err := time.Parse(time.RFC3339, v); members.format == "date-time" && err != nil {
			bad("is %q, no date-time", v)
		}
		if members.pattern != "" && !regexp.MustCompile(members.pattern).MatchString(v) {
			bad("is %q, want it to match %s", v, members.pattern)
		}
	case []any:
		if members.items == nil {
			bad("the document does not say what it holds")
			break
		}
		for i, item := range v {
			faults = append(faults, d.faults(members.items, item, fmt.Sprintf("%s[%d]", at, i))...)
		}
	case map[string]any:
		for _, name := range members.required {
			if _, ok := v[name]; !ok {
				bad("%s is required and missing", name)
			}
		}
		if len(members.properties) == 0 {
			break // any object
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			of := members.properties[name]
			if of == nil {
				bad("%s is not in the document", name)
				continue
			}
			faults = append(faults, d.faults(of, v[name], at+"."+name)...)
		}
	}
	return faults
}

// flat is a schema with its references followed and its parts put together.
type flat struct {
	types           []string
	enum            []any
	format, pattern string
	properties      map[string]*schema
	required        []string
	items           *schema
}

func (d *document) flat(s *schema) flat {
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		return d.flat(d.Components.Schemas[name])
	}
	f := flat{enum: s.Enum, format: s.Format, pattern: s.Pattern, properties: maps.Clone(s.Properties), required: s.Required, items: s.Items}
	switch t := s.Type.(type) {
	case string:
		f.types = []string{t}
	case []any:
		for _, one := range t {
			f.types = append(f.types, fmt.Sprint(one))
		}
	}
	for _, part := range s.AllOf {
		g := d.flat(part)
		if f.properties == nil {
			f.properties = map[string]*schema{}
		}
		maps.Copy(f.properties, g.properties)
		f.required = append(slices.Clone(f.required), g.required...)
		f.types = append(f.types, g.types...)
	}
	return f
}

// isOf reports whether a value is of a type of JSON Schema.
func isOf(name string, v any) bool {
	switch v := v.(type) {
	case nil:
		return name == "null"
	case bool:
		return name == "boolean"
	case string:
		return name == "string"
	case float64:
		return name == "number" || name == "integer" && v == math.Trunc(v)
	case []any:
		return name == "array"
	}
	return name == "object"
}
