package bus

import (
	"context"
	"log/slog"
)

// watchDead counts the dead letters that had to go before their time because
// the stream was full: nobody else notices. What goes by age goes as promised.
// Run alone calls it. The first call only notes where the stream begins.
func (b *Bus) watchDead(ctx context.Context) {
	st, err := b.State(ctx, StreamDead)
	if err != nil {
		return // it says so itself when it matters
	}
	// A full stream has no room for one more message; a tenth covers any.
	gone := st.First - b.deadFirst
	if b.deadFirst != 0 && st.First > b.deadFirst && st.Bytes > st.Limit-st.Limit/10 {
		b.met.deadLost.Add(float64(gone))
		b.o.Log.Warn("dead letters pushed out by newer ones", slog.Uint64("count", gone), slog.Int64("limit", st.Limit))
	}
	b.deadFirst = st.First
}
