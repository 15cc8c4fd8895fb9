package rules

import (
	"bytes"
	"encoding/json"
	"maps"
	"math/big"
	"net/netip"
)

// slowField is a field of an event as the definition has it: in says which
// element of each array it is a member of.
type slowField struct {
	path  string
	value any
	in    map[int]int
}

// slow is a second matcher, written from the definition alone: decode, list all
// fields, try all choices.
func slow(pattern, event []byte) (bool, error) {
	e, err := decodeObject(event)
	if err != nil {
		return false, err
	}
	p, err := decodeObject(pattern)
	if err != nil {
		return false, err
	}
	var fields []slowField
	arrays := 0
	listFields(&fields, &arrays, "", e, nil)
	wants := map[string][]any{}
	listWants(wants, "", p)
	var paths []string
	for path := range wants {
		paths = append(paths, path)
	}
	return choose(paths, wants, fields, nil), nil
}

func decodeObject(text []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var m map[string]any
	err := d.Decode(&m)
	if err == nil && m == nil {
		err = errText
	}
	return m, err
}

func listFields(fields *[]slowField, arrays *int, path string, v any, in map[int]int) {
	switch v := v.(type) {
	case map[string]any:
		for k, m := range v {
			listFields(fields, arrays, path+"."+k, m, in)
		}
	case []any:
		a := *arrays
		*arrays++
		for i, m := range v {
			inside := in
			switch m.(type) {
			case map[string]any, []any:
				inside = maps.Clone(in)
				if inside == nil {
					inside = map[int]int{}
				}
				inside[a] = i
			}
			listFields(fields, arrays, path, m, inside)
		}
	default:
		*fields = append(*fields, slowField{path, v, in})
	}
}

func listWants(wants map[string][]any, path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, m := range v {
			listWants(wants, path+"."+k, m)
		}
	case []any:
		wants[path] = v
	}
}

// choose tries all choices of a field for each of the paths.
func choose(paths []string, wants map[string][]any, fields, chosen []slowField) bool {
	if len(paths) == 0 {
		return true
	}
	for _, f := range fields {
		if f.path != paths[0] || !consistent(f, chosen) {
			continue
		}
		for _, w := range wants[paths[0]] {
			if same(w, f.value) && choose(paths[1:], wants, fields, append(chosen[:len(chosen):len(chosen)], f)) {
				return true
			}
		}
	}
	return false
}

func consistent(f slowField, chosen []slowField) bool {
	for _, c := range chosen {
		for a, el := range f.in {
			if other, ok := c.in[a]; ok && other != el {
				return false
			}
		}
	}
	return true
}

func same(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		if !ok {
			return false
		}
		x, ok1 := new(big.Rat).SetString(string(a))
		y, ok2 := new(big.Rat).SetString(string(b))
		return ok1 && ok2 && x.Cmp(y) == 0
	case string:
		b, ok := b.(string)
		if !ok {
			return false
		}
		x, err1 := netip.ParseAddr(a)
		y, err2 := netip.ParseAddr(b)
		return a == b || err1 == nil && err2 == nil && x.Zone() == "" && x == y
	}
	return a == b
}
