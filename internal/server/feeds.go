package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"github.com/millrace/millrace/feeds"
	"github.com/millrace/millrace/feeds/cron"
	"github.com/millrace/millrace/internal/auth"
	"github.com/millrace/millrace/internal/whisk"
)

// makeFeeds makes the supervisor over every source.
func (s *Server) makeFeeds(_ context.Context, r *road) error {
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
		Vault: vault, Providers: s.providers(), Log: s.o.Log,
	})
	return nil
}

// providers are the sources of events, by the name of their feed action.
func (s *Server) providers() map[string]feeds.Provider {
	return cron.New().Providers()
}

// secretKey reads the key that feeds' secrets are sealed with, and makes it at
// the first start.
func (s *Server) secretKey() ([]byte, error) {
	key, err := os.ReadFile(s.home.path(secretFile))
	switch {
	case err == nil && len(key) == feeds.VaultKeySize:
		return key, nil
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

// feedKeys shows the keys to the feeds.
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
