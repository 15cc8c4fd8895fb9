package rules

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxCovers bounds the work for one filter and one event whose arrays are
// entangled on purpose; ordinary ones need one cover for each element.
const maxCovers = 1 << 20

// matcher is a pattern in the numbers of an index.
type matcher struct {
	conds []cond
}

// cond is one path of a pattern: any of its values will do.
type cond struct {
	path   int32
	values []int32
	name   string // of the path
	want   string
}

// compile turns paths and values into numbers, so that matching compares no
// text.
func (ix *index) compile(p *Pattern) *matcher {
	m := &matcher{}
	for _, f := range p.fields {
		c := cond{path: ix.add(f.keys), name: f.path, want: f.want}
		for _, v := range f.values {
			c.values = append(c.values, ix.value(v))
		}
		m.conds = append(m.conds, c)
	}
	return m
}

// candidate is a leaf that satisfies a condition, which is a bit. Conditions
// fit a word because a pattern has at most 64 paths.
type candidate struct {
	cond  int
	leaf  int32
	steps []step
}

// match returns "" when m matches, else why it does not.
func (m *matcher) match(f *flat) string {
	var inArrays []candidate
	var bound int
	for i := range m.conds {
		c := &m.conds[i]
		held, free := false, false
		from := len(inArrays)
		for at := f.heads[c.path]; at >= 0; at = f.leaves[at].next {
			l := &f.leaves[at]
			// A handful of numbers: looking through them is faster than a map.
			if l.value < 0 || !slices.Contains(c.values, l.value) {
				continue
			}
			held = true
			if len(l.steps) == 0 {
				free = true // in no array: it goes with every other choice
				break
			}
			inArrays = append(inArrays, candidate{cond: i, leaf: at, steps: l.steps})
		}
		// The first condition that fails is the reason: one is enough for a
		// person.
		if !held {
			return c.name + ": wanted " + c.want + ", found " + f.foundAt(c.path)
		}
		if free {
			// A value outside of arrays satisfies the condition wherever the
			// others lie.
			inArrays = inArrays[:from]
		} else {
			bound++
		}
	}
	// One condition alone can't contradict itself.
	if bound < 2 {
		return ""
	}
	return m.together(inArrays)
}

// together tells whether the conditions that only values in arrays satisfy can
// be satisfied by values of the same elements.
func (m *matcher) together(cs []candidate) string {
	// In the order of the event, in which the elements of an array lie
	// together.
	slices.SortFunc(cs, func(a, b candidate) int { return int(a.leaf) - int(b.leaf) })
	all := conds(cs)
	t := tangle{left: maxCovers}
	covers := t.covers(cs, 0, all)
	if len(covers) > 0 {
		return ""
	}
	var names []string
	for i := range m.conds {
		if all&(1<<i) != 0 {
			names = append(names, m.conds[i].name)
		}
	}
	if t.left < 0 {
		return fmt.Sprintf("%s: the arrays that hold them are too entangled to be compared", list(names, ", "))
	}
	return fmt.Sprintf("%s: each holds a wanted value, but not within one element of the arrays that they share", list(names, ", "))
}

// conds is the set of conditions that any of cs satisfies.
func conds(cs []candidate) uint64 {
	var set uint64
	for _, c := range cs {
		set |= 1 << c.cond
	}
	return set
}

// tangle computes which conditions can be satisfied together.
//
// Arrays make a tree: an element holds arrays, whose elements hold arrays. Of
// every array one element may be chosen. So what an element can cover is what
// lies in it directly, and for each array in it what one of its elements can
// cover.
//
// Sets of conditions are words, and of the sets that one place can cover only
// those are kept that no other contains. Still there are events for which they
// are many, so the work is bounded and the answer then is no.
type tangle struct{ left int }

// covers returns the largest sets of conditions that the candidates of one
// element, which is depth arrays down, can satisfy together and that contain
// must. They must be in the order of the event.
func (t *tangle) covers(cs []candidate, depth int, must uint64) []uint64 {
	var direct, seen, shared uint64
	var arrays [][]candidate
	var own []uint64
	// Values right in an array lie between its other elements without being
	// members of it: only without them do the rest of an array stand together.
	rest := make([]candidate, 0, len(cs))
	for _, c := range cs {
		if len(c.steps) == depth {
			direct |= 1 << c.cond
		} else {
			rest = append(rest, c)
		}
	}
	for cs = rest; len(cs) > 0; {
		array := cs[0].steps[depth].array
		n := 1
		for n < len(cs) && cs[n].steps[depth].array == array {
			n++
		}
		arrays = append(arrays, cs[:n])
		set := conds(cs[:n])
		own = append(own, set)
		shared |= seen & set
		seen |= set
		cs = cs[n:]
	}
	// What must be covered and is nowhere in here ends the search early.
	if t.left -= 1 + len(arrays); t.left < 0 || must&^(direct|seen) != 0 {
		return nil
	}
	result := []uint64{direct}
	for i, array := range arrays {
		// What no other place of this element offers, this array has to.
		of := t.ofArray(array, depth, own[i]&must&^direct&^shared)
		if len(of) == 0 {
			return nil
		}
		result = t.product(result, of)
	}
	return slices.DeleteFunc(result, func(set uint64) bool { return set&must != must })
}

// ofArray returns the largest sets that one element of an array can cover, or
// that none of it covers, and that contain must.
func (t *tangle) ofArray(cs []candidate, depth int, must uint64) []uint64 {
	var result []uint64
	if must == 0 {
		result = []uint64{0}
	}
	all := conds(cs)
	for len(cs) > 0 {
		element := cs[0].steps[depth].element
		n := 1
		for n < len(cs) && cs[n].steps[depth].element == element {
			n++
		}
		for _, set := range t.covers(cs[:n], depth+1, must) {
			// No other element can do better.
			if set == all {
				return []uint64{all}
			}
			result = t.add(result, set)
		}
		cs = cs[n:]
	}
	return result
}

// product combines what two arrays of one element can cover: both are chosen
// from.
func (t *tangle) product(a, b []uint64) []uint64 {
	var result []uint64
	for _, x := range a {
		for _, y := range b {
			result = t.add(result, x|y)
		}
	}
	return result
}

// add adds a set unless a larger one is there, and takes out smaller ones.
func (t *tangle) add(sets []uint64, set uint64) []uint64 {
	t.left -= 1 + len(sets)/8
	if t.left < 0 {
		return nil
	}
	for _, s := range sets {
		if s&set == set {
			return sets
		}
	}
	sets = slices.DeleteFunc(sets, func(s uint64) bool { return s&set == s })
	return append(sets, set)
}

// foundAt tells a person what the event holds at a path.
func (f *flat) foundAt(path int32) string {
	// Several rules may fail at the same path: the text is made once an event.
	if f.found[path] != "" {
		return f.found[path]
	}
	var texts []string
	n := 0
	for at := f.heads[path]; at >= 0; at = f.leaves[at].next {
		if n++; n <= maxTold {
			texts = append(texts, clip(f.leaves[at].text))
		}
	}
	text := "nothing"
	if n > 0 {
		text = counted(texts, n, ", ")
	}
	f.found[path] = text
	return text
}

// Bounds of what a reason quotes.
const (
	maxTold = 5  // values, or paths
	maxText = 64 // bytes of one value
)

// alternatives is what a pattern wants at a path.
func alternatives(texts []string) string { return list(texts, " or ") }

// list joins texts, at most maxTold of them.
func list(texts []string, sep string) string {
	return counted(texts[:min(len(texts), maxTold)], len(texts), sep)
}

// counted is a list of the first of n texts, and how many others there are.
func counted(texts []string, n int, sep string) string {
	s := strings.Join(texts, sep)
	switch more := n - len(texts); {
	case more == 1:
		s += sep + "1 other"
	case more > 1:
		s += sep + strconv.Itoa(more) + " others"
	}
	return s
}

// clip returns a text short enough to be quoted, with its true length when it
// is cut.
func clip(text []byte) string {
	if len(text) <= maxText {
		return string(text)
	}
	return strings.ToValidUTF8(string(text[:maxText]), "") + "… (" + strconv.Itoa(len(text)) + " bytes)"
}
