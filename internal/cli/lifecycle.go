package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/millrace/millrace/internal/client"
	"github.com/millrace/millrace/internal/whisk"
)

// The events of a feed's life that the command line brings about.
const (
	feedCreate = "CREATE"
	feedRead   = "READ"
	feedUpdate = "UPDATE"
	feedDelete = "DELETE"
)

// tellFeed invokes the action of a feed about the trigger t, with OpenWhisk's
// three parameters besides those given, and waits for its answer.
func (a *app) tellFeed(ctx context.Context, t clientAndName, feed whisk.Name, event string, p whisk.Params) (client.Invoked, error) {
	args := p.
		Set("lifecycleEvent", string(quote(event))).
		Set("triggerName", string(quote(t.name.String()))).
		Set("authKey", string(quote(t.Endpoint().Auth)))
	// Blocking, as the outcome decides whether the trigger stays.
	return t.Invoke(ctx, feed, object(args), true, false)
}

// configureFeed is tellFeed for a trigger that is there: it prints what the
// feed answers.
func (a *app) configureFeed(ctx context.Context, t clientAndName, feed, event string, p whisk.Params) error {
	n, err := a.name(feed, t.Endpoint().Namespace)
	if err != nil {
		return err
	}
	got, err := a.tellFeed(ctx, t, n, event, p)
	var f *client.Failure
	switch {
	case err == nil && a.json():
		return nil // the command's own answer follows
	case err == nil:
		return a.printInvoked(a.sys.Out, n, got, shown{body: true})
	case errors.As(err, &f) && f.Application:
		_ = writeJSON(a.sys.Err, sorted(f.Body)) // the cause is told in any case
	}
	return a.because(err, "Unable to configure feed '%s'", feed)
}

// lower returns the key that --name-sort sorts by, nil if it was not given.
func lower[T any](byName bool, key func(T) string) func(T) string {
	if !byName {
		return nil
	}
	return func(e T) string { return strings.ToLower(key(e)) }
}
