package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/millrace/millrace/feeds"
	"github.com/millrace/millrace/internal/auth"
	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/delivery"
	"github.com/millrace/millrace/internal/journal"
	"github.com/millrace/millrace/internal/store"
	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker"
	"github.com/millrace/millrace/rules"
)

// road is everything that an event passes, built and not yet running. closers
// are in the order of opening. A part that only runs has none: it ends with its
// stage.
type road struct {
	bus      *bus.Bus
	store    *store.Store
	keys     *auth.Keys
	states   *store.Table[feeds.State]
	journal  *journal.Journal
	driver   *driver
	invoker  *invoker.Invoker
	delivery *delivery.Delivery
	engine   *rules.Engine
	builtins map[string]invoker.Builtin
	feeds    *feeds.Supervisor
	hooks    http.Handler // of webhooks
	notes    []string

	closers []func() error
}

// close ends what build opened, in reverse.
func (r *road) close() error {
	var errs []error
	for i := len(r.closers) - 1; i >= 0; i-- {
		errs = append(errs, r.closers[i]())
	}
	r.closers = nil
	return errors.Join(errs...)
}

// build makes every part, each on those before it.
func (s *Server) build(ctx context.Context) (_ *road, err error) {
	r := &road{}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	// The order is that of need: keys are in tables of the store, the journal's
	// floor is the bus's, and the packages name actions whose functions the
	// feeds bring.
	for _, step := range []func(context.Context, *road) error{
		s.openStore, s.openKeys, s.openJournal, s.makeInvoker, s.makeDelivery, s.makeFeeds, s.installPackages,
	} {
		if err := step(ctx, r); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// openStore starts the bus and reads the tables.
func (s *Server) openStore(ctx context.Context, r *road) error {
	durability := bus.Disk
	if s.o.Config.Durability == config.ProcessOnly {
		durability = bus.Process
		r.notes = append(r.notes, "durability is process: what is accepted survives kill -9, not the loss of power")
	}
	limit := s.o.StreamLimit
	b, err := bus.Open(ctx, bus.Options{
		Dir: s.home.dir, Durability: durability, Log: s.o.Log, Metrics: s.metrics,
		EventsLimit: limit, JournalLimit: limit, CallsLimit: limit, DeadLimit: limit,
	})
	if err != nil {
		return storeFailure(s.home.dir, err)
	}
	if free, ok := freeSpace(s.home.dir); ok && free < bus.MinFree {
		r.notes = append(r.notes, fmt.Sprintf("the disk of the data folder is nearly full: nothing is accepted until %d MiB are free, and there are %d", int64(bus.MinFree)>>20, free>>20))
	}
	r.bus = b
	// At once, so that what follows may fail.
	r.closers = append(r.closers, b.Close)
	if r.store, err = store.Open(ctx, b, s.o.Log); err != nil {
		return storeFailure(s.home.dir, err)
	}
	r.states, err = store.NewTable[feeds.State](ctx, r.store, "feeds")
	return err
}

// storeFailure is an error of what lies in the data folder, with where to look.
func storeFailure(dir string, err error) error {
	return whisk.WithHint(whisk.E(whisk.Unavailable, "", fmt.Errorf("the store in %s can't be opened: %w", dir, err)),
		"see that its disk has room and that the folder belongs to this user; 'millrace doctor' checks both")
}

// openKeys reads the keys and makes those of the first start.
func (s *Server) openKeys(ctx context.Context, r *road) error {
	table, err := store.NewTable[auth.Record](ctx, r.store, "identities")
	if err != nil {
		return err
	}
	r.keys = auth.NewKeys(table)
	// A preset key replaces what the file says.
	guest := s.o.Config.GuestKey
	if guest != "" {
		if err := r.keys.Preset(ctx, guestNamespace, guestNamespace, guest); err != nil {
			return err
		}
	} else if guest, err = s.ensureKey(ctx, r.keys, propsFile, guestNamespace, auth.Owner); err != nil {
		return err
	}
	// Also with a preset key: clients on this machine find the address here.
	props := fmt.Sprintf("AUTH=%s\nAPIHOST=%s\nNAMESPACE=_\n", guest, s.URL())
	if err := s.home.writePrivate(propsFile, []byte(props)); err != nil {
		return err
	}
	admin, err := s.ensureKey(ctx, r.keys, adminFile, whisk.SystemNamespace, auth.Admin)
	if err != nil {
		return err
	}
	return s.home.writePrivate(adminFile, []byte(admin+"\n"))
}

// guestNamespace is the namespace that everyone starts with.
const guestNamespace = "guest"

// ensureKey returns the key that a file of the data folder holds, if it is
// still good, else a new one for the subject and namespace of that name.
func (s *Server) ensureKey(ctx context.Context, keys *auth.Keys, file, name string, role auth.Role) (string, error) {
	// Only digests of keys are stored, so a lost file means a new key. The old
	// one stays good until somebody removes it.
	if old := s.home.authKey(file); old != "" {
		uuid, key, err := auth.ParseKey(old)
		if err == nil {
			if id, err := keys.Authenticate(uuid, key); err == nil && id.Namespace == name {
				return old, nil
			}
		}
	}
	uuid, key, err := keys.Create(ctx, name, name, role)
	return uuid + ":" + key, err
}

// openJournal reads what became of the events.
func (s *Server) openJournal(ctx context.Context, r *road) error {
	j, err := journal.Open(ctx, r.bus, journal.Options{Index: s.home.path(indexFile), Log: s.o.Log, Metrics: s.metrics})
	if err != nil {
		return storeFailure(s.home.dir, err)
	}
	r.journal = j
	r.closers = append(r.closers, j.Close)
	// Only from here on is the archive trimmed: before, nobody can say what is
	// still needed.
	r.bus.SetFloor(j.Floor)
	return nil
}

// makeInvoker chooses the driver and makes the invoker on it.
func (s *Server) makeInvoker(ctx context.Context, r *road) error {
	kinds, err := s.runtimes()
	if err != nil {
		return err
	}
	d, err := s.chooseDriver(ctx, kinds)
	if err != nil {
		return err
	}
	r.driver = d
	// Closed before the bus, which was opened earlier.
	r.closers = append(r.closers, d.close)
	if d.note != "" {
		r.notes = append(r.notes, d.note)
	}
	// Filled by the feeds, which stand further down the road; nothing runs before.
	r.builtins = map[string]invoker.Builtin{}
	r.invoker = invoker.New(ctx, d, kinds, r.store.Code, s.o.Log,
		invoker.WithMemory(s.o.Config.Memory),
		invoker.WithStemCells(s.o.Config.StemCells),
		invoker.WithAPIHost(s.actionsURL(ctx, r)),
		invoker.WithDrain(drain),
		invoker.WithBuiltins(r.builtins),
		invoker.WithKeys(func(inv *whisk.Invocation, until time.Time) string {
			owner, ok := r.keys.Owner(inv.Namespace)
			if !ok {
				return ""
			}
			owner.Origin = inv.Origin() // so that no circle of actions and triggers turns for ever
			return r.keys.Mint(owner, until)
		}),
	)
	for kind, why := range r.invoker.Missing() {
		r.notes = append(r.notes, fmt.Sprintf("%s is not offered: %v", kind, why))
	}
	return nil
}

// makeDelivery makes what judges events and what carries matches to their end.
func (s *Server) makeDelivery(_ context.Context, r *road) error {
	entities := &entities{r.store}
	opts := []delivery.Option{delivery.WithMetrics(s.metrics)}
	judge := []rules.Option{rules.WithMetrics(s.metrics)}
	if s.o.Fault != nil {
		opts = append(opts, delivery.WithFault(s.o.Fault))
		judge = append(judge, rules.WithFault(s.o.Fault))
	}
	// Delivery asks the engine how to retry, and the engine hands its matches
	// to delivery: one of them must come first. Nobody asks before both run.
	var retries lateRules
	r.delivery = delivery.New(delivery.Parts{
		Journal: r.journal, Events: r.bus, Invoker: r.invoker, Entities: entities, Rules: &retries,
		Owner: func(ns string) (string, bool) {
			id, ok := r.keys.Owner(ns)
			return id.Subject, ok
		},
	}, s.o.Log, opts...)
	r.engine = rules.NewEngine(r.bus, r.journal, r.delivery, entities, s.o.Log, judge...)
	retries.engine = r.engine
	return nil
}

// lateRules lets delivery ask the engine, which is made on top of it.
type lateRules struct{ engine *rules.Engine }

func (l *lateRules) Retry(rule whisk.Name) (whisk.Retry, bool) { return l.engine.Retry(rule) }

// run runs the road until ctx ends or a part fails, and stops it in order:
// first what brings events in, then, when serving is over, what runs actions,
// at last what keeps their records.
func (r *road) run(ctx context.Context, log *slog.Logger, serve func(ctx context.Context) error) error {
	// Stages from the bottom up: each part starts on what it stands on.
	sweeper := &sweeper{r.bus, r.store, r.journal, log}
	keepers := startStage(ctx, r.bus.Run, r.store.Run, r.journal.Run, sweeper.run)
	runners := startStage(ctx, r.invoker.Run, r.delivery.Run)
	sources := startStage(ctx, r.engine.Run, r.feeds.Run, r.watchTriggers)
	door := startStage(ctx, serve)
	select {
	case <-ctx.Done():
		log.Info("stopping")
	case <-keepers.done:
	case <-runners.done:
	case <-sources.done:
	case <-door.done:
	}
	// Before the door is waited for: no new events while the last calls end.
	sources.cancel()
	// In this order: records of what the runners finish still have a journal.
	err := errors.Join(door.stop(), sources.stop(), runners.stop(), keepers.stop())
	if cause := r.bus.Failure(); cause != nil {
		return cause // all others failed for want of the store
	}
	return err
}

// watchTriggers tells the feeds when a trigger goes, by whatever way.
func (r *road) watchTriggers(ctx context.Context) error {
	for c, err := range r.store.Entities().Triggers.Watch(ctx) {
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if c.Deleted {
			r.feeds.TriggerGone(c.Name)
		}
	}
	return nil
}
