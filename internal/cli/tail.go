package cli

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/client"
)

// A burst of events may come while one is printed. What the backlog does not
// hold stays on the connection, and the server tells of what that loses.
const (
	// How long an event that is due may wait to be shown.
	tickEvery   = 250 * time.Millisecond
	tailBacklog = 256 // messages read and not shown yet
)

// tailCommand is the command that shows events until Ctrl-C.
func (a *app) tailCommand() *cobra.Command {
	return a.verb(verb{
		use: "tail [TRIGGER_NAME]", short: "show what becomes of events as they happen, a tree per event", max: 1, need: "An optional trigger name is the only valid argument.",
		run: func(ctx context.Context, args []string) error {
			t, err := a.target(nil)
			if len(args) == 1 && err == nil {
				t, err = a.flatTarget(args)
			}
			if err != nil {
				return err
			}
			if len(args) == 1 { // it may come yet
				if err := a.warnOfNoTrigger(ctx, t); err != nil {
					return err
				}
			}
			if a.json() {
				err = t.Follow(ctx, t.name.Entity, func() {}, func(told client.Told) error {
					var v any = told.Entry
					if told.Lost {
						v = map[string]bool{"lost": true}
					}
					return json.NewEncoder(a.sys.Out).Encode(v) // a line each, for programs
				})
			} else {
				err = a.follow(ctx, t.Client, t.name.Entity, func() {})
			}
			return a.because(ended(ctx, err), "Unable to follow events")
		},
	})
}

// ended makes an error of a stream that the server closed: nobody asked it to.
func ended(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return nil // Ctrl-C is how a tail ends
	case err == nil:
		return &failure{text: "the server closed the stream", exit: exitGeneral, hint: "it may have stopped: 'millrace doctor' looks"}
	}
	return err
}

// follow prints a tree per event of one trigger, or of all if it is empty,
// until ctx or the stream ends. It calls open when the server listens.
func (a *app) follow(ctx context.Context, c *client.Client, trigger string, open func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The stream is read in a goroutine of its own: the tree must also be
	// looked at when nothing comes, and is only for one goroutine.
	messages := make(chan client.Told, tailBacklog)
	done := make(chan error, 1)
	go func() {
		done <- c.Follow(ctx, trigger, open, func(t client.Told) error {
			select {
			case messages <- t:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	shown := newTree(a.sys.Out, a.paint)
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		select {
		case m := <-messages:
			shown.take(m, time.Now())
		case now := <-tick.C:
			shown.tick(now)
		case err := <-done:
			for len(messages) > 0 { // what came before the end
				shown.take(<-messages, time.Now())
			}
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}
	}
}
