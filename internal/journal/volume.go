package journal

import "sort"

// volume counts the bytes of the stream and tells how many of them lie at or
// above a message. It remembers a mark per grain of bytes, so its answer is up
// to a grain too high.
//
// Exact counts would take a number per message, and there may be millions. Too
// high is the safe side: what goes by it stops or carries early.
type volume struct {
	grain int64
	total int64
	last  uint64 // the newest message
	marks []mark
}

type mark struct {
	seq    uint64
	before int64 // bytes below message seq
}

// messageOverhead is what the store adds to a message: its own header, the
// subject, the checksum and our headers, about.
const messageOverhead = 200

// add counts a message of so many bytes of data.
func (v *volume) add(seq uint64, bytes int) {
	if n := len(v.marks); n == 0 || v.total-v.marks[n-1].before >= v.grain {
		v.marks = append(v.marks, mark{seq, v.total})
	}
	v.total += int64(bytes) + messageOverhead
	v.last = seq
}

// since returns about how many bytes lie at or above message seq.
func (v *volume) since(seq uint64) int64 {
	if seq > v.last || len(v.marks) == 0 {
		return 0
	}
	// The mark at or below seq: the bytes between the two count as well.
	i := sort.Search(len(v.marks), func(i int) bool { return v.marks[i].seq > seq })
	return v.total - v.marks[max(i-1, 0)].before
}

// forget drops the marks that only tell of messages below low.
func (v *volume) forget(low uint64) {
	i := sort.Search(len(v.marks), func(i int) bool { return v.marks[i].seq > low })
	// Not at every flush: the copy is spread over many marks.
	if i > 64 {
		v.marks = append(v.marks[:0], v.marks[i-1:]...)
	}
}

// above returns the lowest message that has at most this many bytes at or
// above it, as far as the marks tell.
func (v *volume) above(bytes int64) uint64 {
	i := sort.Search(len(v.marks), func(i int) bool { return v.total-v.marks[i].before <= bytes })
	if i == len(v.marks) {
		return 0
	}
	return v.marks[i].seq
}
