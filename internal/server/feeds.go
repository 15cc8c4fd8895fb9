package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"

	"github.com/millrace/millrace/feeds"
	"github.com/millrace/millrace/feeds/cron"
	"github.com/millrace/millrace/feeds/webhook"
	"github.com/millrace/millrace/internal/auth"
	"github.com/millrace/millrace/internal/store"
	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker"
)

// makeFeeds makes the supervisor over every source.
func (s *Server) makeFeeds(ctx context.Context, r *road) error {
	deliveries, err := store.NewTable[webhook.Delivery](ctx, r.store, "deliveries")
	if err != nil {
		return err
	}
	hooks := webhook.New(s.publicURL, deliveries, &hookArchive{r}, s.o.Log)
	providers := cron.New().Providers()
	providers[webhook.Name] = hooks
	r.hooks = hooks
	key, err := s.secretKey()
	if err != nil {
		return err
	}
	vault, err := feeds.NewVault(key)
	if err != nil {
		return err
	}
	r.feeds = feeds.NewSupervisor(feeds.Parts{
		States: r.states, Sink: r.bus, Triggers: &feedTriggers{r.store, r.journal}, Keys: feedKeys{r.keys},
		Vault: vault, Providers: providers, Log: s.o.Log,
	})
	// Into the map that the invoker has: it was made before there were feeds.
	maps.Copy(r.builtins, builtins(r.feeds))
	return nil
}

// builtins are the functions behind the feed actions.
func builtins(f *feeds.Supervisor) map[string]invoker.Builtin {
	out := map[string]invoker.Builtin{}
	for name, act := range f.Actions() {
		out[name] = act
	}
	return out
}

// hookArchive tells webhooks whether an event was stored. A delivery that comes
// again asks: its first copy may have been stored just before a crash.
type hookArchive struct{ r *road }

// Has looks among the judged events, then among those that are not judged yet.
func (a *hookArchive) Has(ctx context.Context, namespace, id string) (bool, error) {
	// Asked before the verdict: one that is judged meanwhile is found.
	unjudged := a.r.journal.Judged().Seq + 1
	_, err := a.r.journal.Verdict(ctx, namespace, id)
	if !errors.Is(err, whisk.NotFound) {
		return err == nil, err
	}
	_, err = a.r.bus.FindEvent(ctx, unjudged, id)
	if errors.Is(err, whisk.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// secretKey reads the key that feeds' secrets are sealed with, and makes it at
// the first start.
func (s *Server) secretKey() ([]byte, error) {
	key, err := os.ReadFile(s.home.path(secretFile))
	switch {
	case err == nil && len(key) == feeds.VaultKeySize:
		return key, nil
	// Never replaced: with a new key all that was sealed would be lost.
	case err == nil:
		return nil, whisk.WithHint(whisk.E(whisk.Invalid, "", fmt.Errorf("%s is not a key: it has %d bytes, not %d", s.home.path(secretFile), len(key), feeds.VaultKeySize)),
			"restore it from a backup; without it the secrets of feeds must be given again")
	case !errors.Is(err, os.ErrNotExist):
		return nil, unwritable(s.home.dir, err)
	}
	key = make([]byte, feeds.VaultKeySize)
	rand.Read(key) //nolint:errcheck // never fails
	return key, s.home.writePrivate(secretFile, key)
}

// feedKeys shows the keys to the feeds. A feed is made with the caller's key,
// as OpenWhisk's clients send it.
type feedKeys struct{ keys *auth.Keys }

// Owner returns whose key it is, if it may fire triggers.
func (k feedKeys) Owner(authKey string) (namespace, subject string, err error) {
	uuid, key, err := auth.ParseKey(authKey)
	if err != nil {
		return "", "", err
	}
	id, err := k.keys.Authenticate(uuid, key)
	return id.Namespace, id.Subject, err
}
