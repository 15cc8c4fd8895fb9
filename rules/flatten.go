package rules

import (
	"strings"

	"github.com/millrace/millrace/internal/whisk"
)

// index is what the filters of one trigger ask for, laid out so that an event
// is walked once for all of them: a tree of the paths that any of them names,
// and a number for each value that any of them lists. It is made with its table
// and then only read.
type index struct {
	root   *node
	paths  int
	values map[string]int32 // by key
}

// node is a key on the way to a path. The empty path is the root's child "". A
// node may both end a path and lead on: one rule may ask for a, another for
// a.b.
type node struct {
	children map[string]*node
	path     int32 // the path that ends here, counted from 0; -1 if none
}

func newIndex() *index {
	return &index{root: &node{path: -1}, values: map[string]int32{}}
}

// add returns the number of the path with these keys.
func (ix *index) add(keys []string) int32 {
	n := ix.root
	for _, k := range keys {
		next := n.children[k]
		if next == nil {
			next = &node{path: -1}
			if n.children == nil {
				n.children = map[string]*node{}
			}
			n.children[k] = next
		}
		n = next
	}
	if n.path < 0 {
		n.path = int32(ix.paths)
		ix.paths++
	}
	return n.path
}

// value returns the number of the value with this key.
func (ix *index) value(key string) int32 {
	id, ok := ix.values[key]
	if !ok {
		id = int32(len(ix.values))
		ix.values[key] = id
	}
	return id
}

// under returns the node that key leads to; nil if no path goes there. A key
// with points leads as deep as nested keys do. Events and patterns then agree
// on a path however its points are spelled.
func (n *node) under(key []byte) *node {
	rest := key
	for n != nil {
		i := indexPoint(rest)
		if i < 0 {
			return n.children[string(rest)]
		}
		n = n.children[string(rest[:i])]
		rest = rest[i+1:]
	}
	return nil
}

func indexPoint(key []byte) int {
	for i, c := range key {
		if c == '.' {
			return i
		}
	}
	return -1
}

// What a leaf holds besides a listed value.
const (
	otherValue = -1 // a value that no filter lists
	noValue    = -2 // an object or an empty array: no value, told in reasons only
	dropped    = -3 // its object was replaced by a later one under the same key
)

// step says which element of which array was entered.
type step struct{ array, element int32 }

// leaf is a value of the event at a path that some filter names. text is a part
// of the event, so a flat must not outlive it.
type leaf struct {
	path  int32
	value int32 // by index.value, or one of the above
	next  int32 // the next leaf of the path; -1 at the end
	steps []step
	text  []byte // as it is spelled
}

// flat is an event flattened for the filters of one trigger. It can be used for
// one event after the other. Its slices are used again and again: judging an
// event allocates next to nothing.
type flat struct {
	index  *index
	leaves []leaf
	heads  []int32  // the first leaf of each path, -1 if none
	found  []string // what a person is told was found at a path; filled when asked for

	arrays  int32
	steps   []step
	arena   []step // the steps of all leaves, end to end
	members []member
	key     []byte
}

// member is a used key of an object that is being walked, with its leaves.
type member struct {
	node     *node
	from, to int
}

// reset empties f for an event of the index's trigger.
func (f *flat) reset(ix *index) {
	f.index = ix
	f.leaves, f.steps, f.arena, f.members = f.leaves[:0], f.steps[:0], f.arena[:0], f.members[:0]
	f.arrays = 0
	f.heads, f.found = f.heads[:0], f.found[:0]
	for range ix.paths {
		f.heads = append(f.heads, -1)
		f.found = append(f.found, "")
	}
}

// ownMember is the member that we add to what a filter sees. A payload cannot
// pretend to be it, by points in its keys neither.
const ownMember = "__ow_event"

// isOwn reports whether a key of the event would lead to the member that we
// add.
func isOwn(key []byte) bool {
	rest, ok := strings.CutPrefix(string(key), ownMember)
	return ok && (rest == "" || rest[0] == '.')
}

// fill flattens the payload laid over params, and own as the member __ow_event.
// own may be nil.
func (f *flat) fill(params whisk.Params, payload, own []byte) error {
	// Parameters first: the payload is laid over them, as for the action.
	for _, p := range params {
		if key := []byte(p.Key); !isOwn(key) {
			if err := f.set(key, p.Value); err != nil {
				return err
			}
		}
	}
	s := scanner{data: payload}
	if err := f.object(&s, f.index.root, 0, 0); err != nil {
		return err
	}
	// What follows the object would have been missed by everyone.
	if s.next(); s.pos != len(payload) {
		return errText
	}
	if own != nil {
		if err := f.set([]byte(ownMember), own); err != nil {
			return err
		}
	}
	// Linked backwards at the end, when it is known what was replaced: each
	// path's chain is in the order of the event.
	for i := len(f.leaves) - 1; i >= 0; i-- {
		if l := &f.leaves[i]; l.value != dropped {
			l.next = f.heads[l.path]
			f.heads[l.path] = int32(i)
		}
	}
	return nil
}

// set flattens a member of the event that is not in its payload.
func (f *flat) set(key, value []byte) error {
	n := f.index.root.under(key)
	if n == nil {
		return nil
	}
	return f.member(&scanner{data: value}, n, 0, 1)
}

// object walks the object that comes next. Its used members are kept from base
// on: at the top the trigger's parameters are there already.
func (f *flat) object(s *scanner, n *node, base, depth int) error {
	if depth > maxDepth {
		return errDepth
	}
	if err := s.take('{'); err != nil {
		return err
	}
	for first := true; ; first = false {
		more, err := s.more('}', first)
		if err != nil || !more {
			if depth > 0 {
				// The members of an inner object are forgotten when it ends;
				// those at the top stay for what is set after it.
				f.members = f.members[:base]
			}
			return err
		}
		s.next()
		key, err := s.decoded()
		if err != nil {
			return err
		}
		if err := s.take(':'); err != nil {
			return err
		}
		child := n.under(key)
		// Most keys: no filter looks there, so the value is stepped over
		// unread.
		if child == nil || depth == 0 && isOwn(key) {
			err = s.skip()
		} else {
			err = f.member(s, child, base, depth+1)
		}
		if err != nil {
			return err
		}
	}
}

// member walks the value of a used key. Of a key given twice the last counts:
// the leaves of the earlier one are dropped.
func (f *flat) member(s *scanner, n *node, base, depth int) error {
	at := -1
	// Few: only keys that a filter names are in it.
	for i := base; i < len(f.members); i++ {
		if m := f.members[i]; m.node == n {
			for j := m.from; j < m.to; j++ {
				f.leaves[j].value = dropped
			}
			at = i
			break
		}
	}
	from := len(f.leaves)
	if err := f.value(s, n, depth); err != nil {
		return err
	}
	m := member{node: n, from: from, to: len(f.leaves)}
	if at < 0 {
		f.members = append(f.members, m)
	} else {
		f.members[at] = m
	}
	return nil
}

// value walks the value of a path or of a part of one.
func (f *flat) value(s *scanner, n *node, depth int) error {
	switch s.next() {
	case '{':
		if n.path >= 0 {
			f.leaf(n, noValue, []byte("an object"), 0)
		}
		// That it is an object is all that anybody asks.
		if len(n.children) == 0 {
			return s.skip()
		}
		return f.object(s, n, len(f.members), depth)
	case '[':
		return f.array(s, n, depth)
	}
	return f.scalar(s, n, len(f.steps))
}

func (f *flat) array(s *scanner, n *node, depth int) error {
	if depth > maxDepth {
		return errDepth
	}
	s.pos++
	f.steps = append(f.steps, step{array: f.arrays})
	f.arrays++
	top := len(f.steps) - 1
	for first := true; ; first = false {
		more, err := s.more(']', first)
		if err != nil {
			return err
		}
		if !more {
			if first && n.path >= 0 {
				// So that a reason can say what was found.
				f.leaf(n, noValue, []byte("an empty array"), 0)
			}
			f.steps = f.steps[:top]
			return nil
		}
		switch s.next() {
		case '{', '[':
			err = f.value(s, n, depth+1)
		default:
			// A value right in an array goes with any other: {"a":["x"],"b":["y"]}
			// asks nothing about places.
			err = f.scalar(s, n, top)
		}
		if err != nil {
			return err
		}
		f.steps[top].element++
	}
}

// scalar takes a string, number or literal, as a member of the first so many
// arrays that were entered.
func (f *flat) scalar(s *scanner, n *node, arrays int) error {
	if n.path < 0 {
		return s.skip()
	}
	f.key = f.key[:0]
	known := true
	start := s.pos
	if s.next() == '"' {
		text, err := s.decoded()
		if err != nil {
			return err
		}
		f.key = appendString(f.key, text)
	} else {
		text, err := s.literal()
		if err != nil {
			return err
		}
		f.key, known = appendLiteral(f.key, text)
	}
	// A value that no filter lists needs no key of its own.
	id, ok := f.index.values[string(f.key)]
	if !known || !ok {
		id = otherValue
	}
	f.leaf(n, id, s.data[start:s.pos], arrays)
	return nil
}

// leaf adds a leaf. Steps are copied into the arena, since f.steps goes on
// changing; when that grows, older leaves keep the array that they point to.
func (f *flat) leaf(n *node, value int32, text []byte, arrays int) {
	from := len(f.arena)
	f.arena = append(f.arena, f.steps[:arrays]...)
	f.leaves = append(f.leaves, leaf{
		path: n.path, value: value, next: -1, steps: f.arena[from:len(f.arena):len(f.arena)], text: text,
	})
}
