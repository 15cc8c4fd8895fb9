package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/whisk"
)

// Bounds of one pattern.
const (
	maxPattern = 64 << 10 // bytes
	maxPaths   = 64       // paths; a match is computed on sets of them that fit a word
	maxFaults  = 10       // faults told at once
)

// Pattern is a filter that was read and checked: what an event must hold at
// each of some paths. It never changes.
//
// The language is the exact-match part of EventBridge patterns. A pattern is an
// object; its leaves are arrays of strings, numbers, true, false and null. An
// event matches when for every path one of its values there is one of those
// listed, and the chosen values lie in the same elements of the arrays that
// they share. Numbers are compared by their exact decimal value, strings that
// are IP addresses as addresses.
type Pattern struct {
	fields []field
}

// field is one path of a pattern with the values that it lists.
type field struct {
	path   string // keys joined with points; a key's own points count the same
	keys   []string
	values []string // their keys
	want   string   // the values as a person is told them
}

// ParsePattern reads a pattern. The error is Invalid and tells every fault with
// its path, what was found, what was expected, and the line and column. Nothing
// is ignored: an operator that is not understood is a fault, since a filter
// that lets too much pass would run actions.
func ParsePattern(text []byte) (*Pattern, error) {
	p := &parser{scanner: scanner{data: text}, pattern: &Pattern{}, given: map[string]bool{}}
	if len(text) > maxPattern {
		p.faults = append(p.faults, fmt.Errorf("a pattern of %d bytes, expected at most %d", len(text), maxPattern))
	} else if err := p.checkText(); err != nil {
		p.faults = append(p.faults, err)
	} else if p.next() != '{' {
		p.fault(p.pos, "", "found %s, expected an object", p.kind())
	} else if err := p.object(""); err != nil {
		p.faults = append(p.faults, err)
	}
	if n := len(p.pattern.fields); n > maxPaths {
		p.faults = append(p.faults, fmt.Errorf("%d paths, expected at most %d", n, maxPaths))
	}
	if len(p.faults) > 0 {
		return nil, whisk.E(whisk.Invalid, "parse pattern", joined(p.faults))
	}
	return p.pattern, nil
}

// joined makes one line of several faults.
func joined(faults []error) error {
	var texts []string
	for i, f := range faults {
		if i == maxFaults {
			texts = append(texts, fmt.Sprintf("and %d more", len(faults)-i))
			break
		}
		texts = append(texts, f.Error())
	}
	return errors.New(strings.Join(texts, "; "))
}

// parser reads one pattern and collects its faults. An error of a method means
// that the text can't be read on; what is wrong with the pattern goes to
// faults.
type parser struct {
	scanner
	pattern *Pattern
	given   map[string]bool // paths that have their values
	faults  []error
}

// checkText returns why the text is not JSON, or nil. The rest of the parser
// relies on it.
func (p *parser) checkText() error {
	err := json.Unmarshal(p.data, new(json.RawMessage))
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("not JSON: %w (%s)", err, p.place(int(syntax.Offset)-1))
	}
	return err
}

// place tells where pos is, as people count.
func (p *parser) place(pos int) string {
	before := p.data[:min(max(pos, 0), len(p.data))]
	line := bytes.Count(before, []byte{'\n'}) + 1
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
	return fmt.Sprintf("line %d, column %d", line, column)
}

// fault notes a fault and lets the reading go on: a person wants to see all.
func (p *parser) fault(pos int, path, format string, args ...any) {
	text := fmt.Sprintf(format, args...) + " (" + p.place(pos) + ")"
	if path != "" {
		text = path + ": " + text
	}
	p.faults = append(p.faults, errors.New(text))
}

// kind names the value that comes next.
func (p *parser) kind() string {
	switch p.next() {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f', 'n':
		// A scanner of its own: naming what comes next does not take it.
		text, _ := (&scanner{data: p.data, pos: p.pos}).literal()
		return string(text)
	}
	return "a number"
}

// object reads an object whose members' paths begin with prefix: empty at the
// top, else a path and a point.
func (p *parser) object(prefix string) error {
	// encoding/json would take the last of two equal members, and what the
	// first one asked for would be lost without a word.
	keys := map[string]bool{}
	open := p.pos
	p.pos++
	for first := true; ; first = false {
		more, err := p.more('}', first)
		if err != nil {
			return err
		}
		if !more {
			if first {
				p.fault(open, strings.TrimSuffix(prefix, "."), "found an empty object, expected at least one member")
			}
			return nil
		}
		p.next()
		start := p.pos
		key, err := p.decoded()
		if err != nil {
			return err
		}
		if err := p.take(':'); err != nil {
			return err
		}
		path := prefix + string(key)
		switch {
		case string(key) == "$or":
			p.fault(start, path, `found "$or", expected a field: operators are not supported yet`)
			err = p.skip()
		case keys[string(key)]:
			p.fault(start, path, "found twice in one object, expected once: list all its values in one array")
			err = p.skip()
		default:
			err = p.member(path, start)
		}
		if err != nil {
			return err
		}
		keys[string(key)] = true
	}
}

// member reads what the key at start holds.
func (p *parser) member(path string, start int) error {
	switch p.next() {
	case '{':
		return p.object(path + ".")
	case '[':
		// "a.b" and {"a":{"b"}} are one path.
		if p.given[path] {
			p.fault(start, path, "found twice, expected once: list all its values in one array")
			return p.skip()
		}
		p.given[path] = true
		return p.values(path)
	}
	p.fault(p.pos, path, "found %s, expected an object or an array of values", p.kind())
	return p.skip()
}

// values reads the array that lists what a path may hold.
func (p *parser) values(path string) error {
	f := field{path: path, keys: strings.Split(path, ".")}
	var texts []string
	open := p.pos
	p.pos++
	for first := true; ; first = false {
		more, err := p.more(']', first)
		if err != nil {
			return err
		}
		if !more {
			if first {
				p.fault(open, path, "found an empty array, expected at least one value")
			}
			break
		}
		key, text, err := p.value(path)
		if err != nil {
			return err
		}
		f.values = append(f.values, key)
		texts = append(texts, text)
	}
	f.want = alternatives(texts)
	p.pattern.fields = append(p.pattern.fields, f)
	return nil
}

// value reads one listed value and returns its key and its spelling.
func (p *parser) value(path string) (key, text string, err error) {
	const expected = "expected a string, a number, true, false or null"
	kind := p.kind()
	start := p.pos
	switch p.next() {
	case '{':
		p.fault(start, path, "found %s, %s: operators are not supported yet", p.operator(), expected)
		return "", "", p.skip()
	case '[':
		p.fault(start, path, "found an array in an array, %s", expected)
		return "", "", p.skip()
	case '"':
		decoded, err := p.decoded()
		return string(appendString(nil, decoded)), clip(p.data[start:p.pos]), err
	}
	literal, err := p.literal()
	if err != nil {
		return "", "", err
	}
	if kind == "a number" {
		n, ok := parseDecimal(literal)
		// Zero has no magnitude.
		if m := n.magnitude(); !ok || n.digits != nil && (m > maxExponent || m < -maxExponent) {
			p.fault(start, path, "found %s, expected a number between 1e-%d and 1e%d", clip(literal), maxExponent, maxExponent)
		}
	}
	// A number without a key has been told as a fault above.
	k, _ := appendLiteral(nil, literal)
	return string(k), clip(literal), nil
}

// operator names the operator object that comes next by its first key.
func (p *parser) operator() string {
	look := scanner{data: p.data, pos: p.pos + 1}
	if look.next() != '"' {
		return "an empty object"
	}
	name, err := look.decoded()
	if err != nil {
		return "an object"
	}
	return fmt.Sprintf("the operator %q", clip(name))
}
