package bus_test

import (
	"testing"

	"github.com/millrace/millrace/internal/bus"
)

// TestGetIsCheap holds a read of one message from the store to what the message
// costs: a queue made for each of them was half a megabyte.
func TestGetIsCheap(t *testing.T) {
	bb := open(t, options(t.TempDir()))
	if _, err := bb.Accept(t.Context(), events(0, 10)...); err != nil {
		t.Fatal(err)
	}
	result := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			if _, err := bb.Get(t.Context(), bus.StreamEvents, 3); err != nil {
				b.Fatal(err)
			}
		}
	})
	if got := result.AllocedBytesPerOp(); got > 64<<10 {
		t.Errorf("reading one small message allocates %d bytes, want at most 64 KiB", got)
	}
}
