package server

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/controller"
	"github.com/millrace/millrace/internal/hub"
	"github.com/millrace/millrace/internal/journal"
	"github.com/millrace/millrace/internal/store"
	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/rules"
)

// publicURL is how the outside reaches the server.
func (s *Server) publicURL() string {
	if s.o.Config.PublicURL != "" {
		return strings.TrimSuffix(s.o.Config.PublicURL, "/")
	}
	return s.URL()
}

// compose lays the APIs side by side. Streams end when stop is closed.
func (s *Server) compose(r *road, stop <-chan struct{}) (http.Handler, error) {
	// It takes whatever is left: it refuses unknown paths as OpenWhisk does.
	rest, err := s.rest(r)
	if err != nil {
		return nil, err
	}
	hubAPI := hub.New(hub.Deps{
		Journal: hubJournal{r.journal}, Archive: r.bus, Feeds: hubFeeds{r}, Keys: r.keys, Log: s.o.Log, Stop: stop,
	})
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch path := req.URL.Path; {
		// By hand, not by a mux: that would redirect paths that clients keep as
		// they are.
		case path == "/hub/v1" || strings.HasPrefix(path, "/hub/v1/"):
			hubAPI.ServeHTTP(w, req)
		case r.hooks != nil && strings.HasPrefix(path, "/hooks/"):
			r.hooks.ServeHTTP(w, req)
		default:
			rest.ServeHTTP(w, req)
		}
	}), nil
}

// info is what a person is told at start.
func (s *Server) info(r *road) Info {
	name, isolation := r.driver.Describe()
	kinds := []string{}
	for _, k := range r.invoker.Kinds().All() {
		kinds = append(kinds, k.Kind)
	}
	if len(kinds) > 0 {
		name += " (" + strings.Join(kinds, ", ") + ")"
	}
	// They come in the order of the parts, and some from a map.
	slices.Sort(r.notes)
	return Info{URL: s.URL(), Data: s.home.dir, Driver: name, Isolation: isolation, Notes: r.notes}
}

// hubJournal shows the journal to the hub. Rooms do not import each other, so
// each has a Query of its own.
type hubJournal struct{ *journal.Journal }

func (j hubJournal) Events(ctx context.Context, q hub.Query) ([]whisk.Verdict, error) {
	return j.Journal.Events(ctx, journal.Query{
		Namespace: q.Namespace, Trigger: q.Trigger, Since: q.Since, Skip: q.Skip, Limit: q.Limit,
	})
}

// Attempts knows no difference between a match without attempts and one that
// the journal has forgotten.
func (j hubJournal) Attempts(ctx context.Context, m whisk.Match) ([]whisk.Attempt, string, error) {
	list, dead, err := j.Journal.Attempts(ctx, m)
	if errors.Is(err, whisk.NotFound) {
		return nil, "", nil
	}
	return list, dead, err
}

// Follow begins again after entries were missed, and says so.
func (j hubJournal) Follow(ctx context.Context, fn func(e whisk.Entry, lost bool) error) error {
	// Reset only once an entry is handed over: the first after the loss says
	// so.
	lost := false
	for {
		err := j.Journal.Follow(ctx, func(e whisk.Entry) error {
			defer func() { lost = false }()
			return fn(e, lost)
		})
		if !errors.Is(err, journal.ErrLost) {
			return err
		}
		lost = true
	}
}

// hubFeeds shows the feeds to the hub.
type hubFeeds struct{ r *road }

func (f hubFeeds) List(namespace string) any { return f.r.feeds.List(namespace) }

func (f hubFeeds) Get(namespace, trigger string) (any, error) {
	return f.r.feeds.Get(namespace, trigger)
}

// rest is the OpenWhisk API.
func (s *Server) rest(r *road) (http.Handler, error) {
	table := r.store.Entities()
	return controller.New(controller.Deps{
		Actions: table.Actions, Triggers: table.Triggers, Rules: table.Rules, Packages: table.Packages,
		Store: restStore{r.store}, Keys: r.keys, Delivery: r.delivery, Events: r.bus, Engine: r.engine,
		Journal: restJournal{r.journal}, Runtimes: r.invoker.Kinds(),
		// The same reading as the engine's: what is stored can be judged.
		CheckRule: func(annotations whisk.Params) error {
			_, err := rules.ParseOptions(annotations)
			return err
		},
		Version: s.o.Version, Built: s.o.Built, Log: s.o.Log,
	})
}

// restStore shows the store to the OpenWhisk API.
type restStore struct{ *store.Store }

// Link stores a rule together with its trigger.
func (r restStore) Link(ctx context.Context, rule whisk.Rule, ruleRev whisk.Revision, trigger whisk.Trigger, triggerRev whisk.Revision) error {
	table := r.Entities()
	return r.Apply(ctx, table.Rules.PutOp(rule.Name, rule, ruleRev), table.Triggers.PutOp(trigger.Name, trigger, triggerRev))
}

// RemovePackage deletes a package last: when it holds more than one step can
// take, a crash in between leaves it with less in it.
func (r restStore) RemovePackage(ctx context.Context, pkg controller.Removal, actions ...controller.Removal) error {
	table := r.Entities()
	ops := make([]store.Op, 0, len(actions)+1)
	for _, a := range actions {
		ops = append(ops, table.Actions.DeleteOp(a.Name, a.Revision))
	}
	return applyAll(ctx, r.Store, append(ops, table.Packages.DeleteOp(pkg.Name, pkg.Revision)))
}

// applyAll does writes in order, in as few steps as possible: mostly one.
func applyAll(ctx context.Context, s *store.Store, ops []store.Op) error {
	for step := range slices.Chunk(ops, store.MaxBatch) {
		if err := s.Apply(ctx, step...); err != nil {
			return err
		}
	}
	return nil
}

// restJournal shows the journal to the OpenWhisk API.
type restJournal struct{ *journal.Journal }

func (j restJournal) Activations(ctx context.Context, q controller.Query) ([]whisk.Activation, error) {
	return j.Journal.Activations(ctx, asked(q))
}

func (j restJournal) CountActivations(ctx context.Context, q controller.Query) (int, error) {
	return j.Journal.CountActivations(ctx, asked(q))
}

// asked is the API's query in the journal's words.
func asked(q controller.Query) journal.Query {
	return journal.Query{Namespace: q.Namespace, Name: q.Name, Since: q.Since, Upto: q.Upto, Skip: q.Skip, Limit: q.Limit}
}
