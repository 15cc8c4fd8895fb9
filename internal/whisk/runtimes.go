package whisk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Runtime is one kind of action that this installation may offer, as a
// runtimes.json describes it.
type Runtime struct {
	Kind        string     `json:"kind"` // family:version
	Image       Image      `json:"image"`
	Default     bool       `json:"default"`
	Deprecated  bool       `json:"deprecated"`
	RequireMain bool       `json:"requireMain"`
	Sentinelled *bool      `json:"sentinelledLogs,omitempty"` // false: the image prints no end marks
	StemCells   []StemCell `json:"stemCells,omitempty"`
	Attached    *struct {
		Name string `json:"attachmentName"`
		Type string `json:"attachmentType"`
	} `json:"attached,omitempty"`
	// Launcher names the program of ours that is mounted into the image
	// (python, node, native); empty for an image that speaks /init and /run
	// itself. Ours, not OpenWhisk's.
	Launcher string `json:"launcher,omitempty"`
}

// StemCell says how many containers of a kind are kept started without code.
type StemCell struct {
	Count  int    `json:"initialCount"`
	Memory string `json:"memory"` // as in "256 MB"
}

// Image is a container image's name in parts; as text it is
// [registry/][prefix/]name[:tag].
type Image struct {
	Registry string `json:"registry,omitempty"`
	Prefix   string `json:"prefix,omitempty"`
	Name     string `json:"name"`
	Tag      string `json:"tag,omitempty"`
}

func (i Image) String() string {
	s := i.Name
	if i.Prefix != "" {
		s = i.Prefix + "/" + s
	}
	if i.Registry != "" {
		s = i.Registry + "/" + s
	}
	if i.Tag != "" {
		s += ":" + i.Tag
	}
	return s
}

// Runtimes are the kinds of actions on offer, by family. The zero value offers
// none. It is read-only once made.
type Runtimes struct {
	families map[string][]Runtime
}

// ParseRuntimes reads a runtimes.json in OpenWhisk's format, with our optional
// launcher member. Members that nothing would act on are refused, as are a
// family without exactly one default and a kind given twice. Every fault is
// reported at once.
func ParseRuntimes(b []byte) (Runtimes, error) {
	var doc struct {
		Description json.RawMessage      `json:"description"`
		Runtimes    map[string][]Runtime `json:"runtimes"`
		Blackboxes  []Image              `json:"blackboxes"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil {
		return Runtimes{}, E(Invalid, "read runtimes", err)
	}
	var errs []error
	seen := map[string]bool{}
	for _, family := range slices.Sorted(maps.Keys(doc.Runtimes)) {
		list := doc.Runtimes[family]
		if len(list) == 1 {
			list[0].Default = true
		}
		defaults := 0
		for _, r := range list {
			if r.Default {
				defaults++
			}
			if !strings.HasPrefix(r.Kind, family+":") || seen[r.Kind] {
				errs = append(errs, fmt.Errorf("runtimes.%s: kind %q is not one new %s:version", family, r.Kind, family))
			}
			seen[r.Kind] = true
			if r.Image.Name == "" {
				errs = append(errs, fmt.Errorf("runtimes.%s: kind %q has no image name", family, r.Kind))
			}
		}
		if defaults != 1 {
			errs = append(errs, fmt.Errorf("runtimes.%s: %d kinds are the default; exactly one must be", family, defaults))
		}
	}
	if len(errs) > 0 {
		return Runtimes{}, E(Invalid, "read runtimes", errors.Join(errs...))
	}
	return Runtimes{doc.Runtimes}, nil
}

// Keep returns the kinds of r for which ok says yes. If it loses a family's
// default, the last kind that is left becomes it.
func (r Runtimes) Keep(ok func(Runtime) bool) Runtimes {
	out := map[string][]Runtime{}
	for family, list := range r.families {
		left := slices.DeleteFunc(slices.Clone(list), func(e Runtime) bool { return !ok(e) })
		if len(left) == 0 {
			continue
		}
		if !slices.ContainsFunc(left, func(e Runtime) bool { return e.Default }) {
			left[len(left)-1].Default = true
		}
		out[family] = left
	}
	return Runtimes{out}
}

// All returns every kind on offer, sorted by family, in the order of the file
// within it.
func (r Runtimes) All() []Runtime {
	var out []Runtime
	for _, f := range slices.Sorted(maps.Keys(r.families)) {
		out = append(out, r.families[f]...)
	}
	return out
}

// Families returns the kinds on offer by family. The caller must not change
// the answer.
func (r Runtimes) Families() map[string][]Runtime { return r.families }

// Find returns the runtime of a kind: family:version, or family:default. It
// returns Invalid with OpenWhisk's text, which names the kinds there are.
func (r Runtimes) Find(kind string) (Runtime, error) {
	kind = strings.ToLower(strings.TrimSpace(kind))
	family, version, _ := strings.Cut(kind, ":")
	for _, e := range r.families[family] {
		if e.Kind == kind || version == "default" && e.Default {
			return e, nil
		}
	}
	names := []string{"'" + KindBlackbox + "'"}
	for _, e := range r.All() {
		names = append(names, "'"+e.Kind+"'")
	}
	slices.Sort(names)
	return Runtime{}, E(Invalid, "find runtime", fmt.Errorf("The specified runtime '%s' is not supported by this platform. Valid values are: %s.", kind, strings.Join(names, ", "))) //nolint:staticcheck // upstream's wording
}
