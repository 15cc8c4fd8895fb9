package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/journal"
	"github.com/millrace/millrace/internal/store"
)

const (
	// sweepEvery is how often objects that nothing names are looked for.
	sweepEvery = time.Hour
	// unnamed is how long an object stays although nothing names it: what is to
	// name it waits at most for a flush, or for room in a full stream.
	unnamed = 24 * time.Hour
)

// sweeper removes code, payloads and log text that nothing names any more.
type sweeper struct {
	bus     *bus.Bus
	store   *store.Store
	journal *journal.Journal
	log     *slog.Logger
}

// run sweeps now and then until ctx ends. An error is told and ends nothing:
// what is not swept is only room.
func (w *sweeper) run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		n, err := w.sweep(ctx, unnamed)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			w.log.WarnContext(ctx, "objects not swept", slog.Any("err", err))
		case n > 0:
			w.log.InfoContext(ctx, "objects removed that nothing names", slog.Int("count", n))
		}
	}
}

// sweep removes what nothing names: no kept revision of an action, no event of
// the archive, and nothing of the journal. What was put less than unnamed ago
// stays. When one of those who name can't be asked, nothing is removed.
//
// Names are gathered first. What is named only afterwards was put, or put
// again, shortly before, and so stays; all but code that an action takes over
// from its own revision before, which is there to be read.
func (w *sweeper) sweep(ctx context.Context, unnamed time.Duration) (int, error) {
	code, err := w.store.NamedCode(ctx)
	if err != nil {
		return 0, err
	}
	payloads, err := w.bus.EventObjects(ctx)
	if err != nil {
		return 0, err
	}
	return w.bus.SweepObjects(ctx, unnamed, func(digest string) bool {
		return code[digest] || payloads[digest] || w.journal.ObjectInUse(digest)
	})
}
