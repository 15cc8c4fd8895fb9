package journal

import "slices"

// ranges is a set of sequences, kept as closed ranges that neither touch nor
// overlap, in order. What is judged is nearly always one range.
type ranges [][2]uint64

// add puts from..to into the set; nothing when from > to.
func (r *ranges) add(from, to uint64) {
	if from > to {
		return
	}
	s := *r
	// The ranges i..j-1 touch the new one and become one with it.
	i := 0
	for i < len(s) && s[i][1] < from && s[i][1]+1 < from {
		i++
	}
	j := i
	for j < len(s) && (s[j][0] <= to || s[j][0] == to+1) {
		from, to = min(from, s[j][0]), max(to, s[j][1])
		j++
	}
	*r = slices.Replace(s, i, j, [2]uint64{from, to})
}

// cut removes everything above last.
func (r *ranges) cut(last uint64) {
	s := *r
	for len(s) > 0 && s[len(s)-1][0] > last {
		s = s[:len(s)-1]
	}
	if n := len(s); n > 0 && s[n-1][1] > last {
		s[n-1][1] = last
	}
	*r = s
}

// has looks from the end: what is asked for is mostly young.
func (r ranges) has(v uint64) bool {
	for i := len(r) - 1; i >= 0; i-- {
		if v >= r[i][0] {
			return v <= r[i][1]
		}
	}
	return false
}

// after returns v, or the first sequence above it that is not in the set.
func (r ranges) after(v uint64) uint64 {
	for _, e := range r {
		if v >= e[0] && v <= e[1] {
			return e[1] + 1
		}
	}
	return v
}

// gaps returns what is missing between first and last. They are closed ranges
// in order; what the set has beyond last is ignored.
func (r ranges) gaps(first, last uint64) [][2]uint64 {
	var out [][2]uint64
	for _, e := range r {
		if e[0] > first {
			out = append(out, [2]uint64{first, min(e[0]-1, last)})
		}
		first = max(first, e[1]+1)
		if first > last {
			break
		}
	}
	if first <= last {
		out = append(out, [2]uint64{first, last})
	}
	return slices.DeleteFunc(out, func(e [2]uint64) bool { return e[0] > e[1] })
}

// missing returns the parts of gaps that judged does not have.
func missing(judged, gaps ranges) ranges {
	var out ranges
	for _, g := range gaps {
		out = append(out, judged.gaps(g[0], g[1])...)
	}
	return out
}
