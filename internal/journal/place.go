package journal

// place is where an entry lies: the stream, the message's sequence there and
// the entry's number in it, in an order that is that of the stream.
type place int64

// The streams whose entries can be looked up.
const (
	inJournal = iota
	inCalls
	inDead
	streams
)

const (
	numberBits = 10 // maxEntries fit
	seqBits    = 50
)

func at(stream int, seq uint64, number int) place {
	return place(stream)<<(seqBits+numberBits) | place(seq)<<numberBits | place(number)
}

func (p place) stream() int { return int(p >> (seqBits + numberBits)) }
func (p place) seq() uint64 { return uint64(p>>numberBits) & (1<<seqBits - 1) }
func (p place) number() int { return int(p & (1<<numberBits - 1)) }
