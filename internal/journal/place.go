package journal

// place is where an entry lies: the stream, the message's sequence there and
// the entry's number in it, in an order that is that of the stream.
//
// It is the key of the index: as one number it is stored, compared and removed
// by range. The zero place stands for none, since sequences begin at 1.
type place int64

// The streams whose entries can be looked up.
const (
	inJournal = iota
	inCalls
	inDead
	streams
)

// 50 bits of sequence are a million messages a second for 35 years.
const (
	numberBits = 10 // maxEntries fit
	seqBits    = 50
)

// at is the place of an entry. number is 0 for a dead letter, which has a
// message to itself.
func at(stream int, seq uint64, number int) place {
	return place(stream)<<(seqBits+numberBits) | place(seq)<<numberBits | place(number)
}

func (p place) stream() int { return int(p >> (seqBits + numberBits)) }
func (p place) seq() uint64 { return uint64(p>>numberBits) & (1<<seqBits - 1) }
func (p place) number() int { return int(p & (1<<numberBits - 1)) }
