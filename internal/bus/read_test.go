package bus_test

import (
	"context"
	"testing"

	"github.com/millrace/millrace/internal/bus"
)

// TestReadsAreCheap holds reads from the store to what the messages cost: a
// queue of the library's own size, made for each read, was half a megabyte.
func TestReadsAreCheap(t *testing.T) {
	bb := open(t, options(t.TempDir()))
	if _, err := bb.Accept(t.Context(), events(0, 10)...); err != nil {
		t.Fatal(err)
	}
	for what, read := range map[string]func(context.Context) error{
		"one message": func(ctx context.Context) error {
			_, err := bb.Get(ctx, bus.StreamEvents, 3)
			return err
		},
		"ten messages": func(ctx context.Context) error {
			_, err := bb.Read(ctx, bus.StreamEvents, 1, 10, 0)
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			result := testing.Benchmark(func(b *testing.B) {
				for b.Loop() {
					if err := read(t.Context()); err != nil {
						b.Fatal(err)
					}
				}
			})
			if got := result.AllocedBytesPerOp(); got > 64<<10 {
				t.Errorf("the read allocates %d bytes, want at most 64 KiB", got)
			}
		})
	}
}
