package server

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// stage is a set of parts that run, and end, together.
type stage struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when all have returned; err is set by then
	err    error
}

// startStage runs parts until the stage is stopped or one of them fails. The
// end of ctx alone does not stop it: stages stop one after another.
func startStage(ctx context.Context, parts ...func(context.Context) error) *stage {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &stage{cancel: cancel, done: make(chan struct{})}
	g, gctx := errgroup.WithContext(ctx)
	for _, run := range parts {
		g.Go(func() error { return run(gctx) })
	}
	go func() {
		// A part that ends without an error does not end the others.
		s.err = g.Wait()
		close(s.done)
	}()
	return s
}

// stop ends the stage and waits until all its parts have returned.
func (s *stage) stop() error {
	s.cancel()
	<-s.done
	return s.err
}
