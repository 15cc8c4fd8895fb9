// Package controller is the REST API of Apache OpenWhisk, /api/v1, over
// Millrace: its addresses, members, texts and statuses, so that its clients
// work unchanged.
//
// A request goes in this order. It gets its transaction ID; its path is
// cleaned of dot segments; the router finds the endpoint; the endpoint knows
// who asks (identify), what is addressed (names) and which right that takes,
// and only then does its handler read query and body. A handler answers, or
// returns an error, and one place makes every error an answer.
//
// There is a file per collection, and one for each thing that they share:
// answer.go, errors.go, body.go, query.go, entity.go. The package decides
// nothing about events and runs: it hands them on. Where OpenWhisk's behaviour
// and good sense disagree, OpenWhisk's it is.
package controller

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/internal/auth"
	"github.com/millrace/millrace/internal/whisk"
)

// Table holds the entities of one kind. What Get and List return may be
// changed. All four kinds share one space of names: Get and Put of a name that
// another kind holds are a Conflict.
type Table[T any] interface {
	Get(n whisk.Name) (T, whisk.Revision, error)                                             // from memory; NotFound, Conflict
	Put(ctx context.Context, n whisk.Name, v T, prev whisk.Revision) (whisk.Revision, error) // durable; Conflict
	Delete(ctx context.Context, n whisk.Name, prev whisk.Revision) error                     // durable; Conflict, NotFound
	List(namespace string) []T                                                               // entities in packages included, in any order
}

// Store keeps entities. Entities and code are stored apart: a PUT of many MiB
// writes the code once, and what is listed stays small.
type Store interface {
	// Resolve finds an action through packages and bindings: NotFound,
	// Conflict, Unprocessable.
	Resolve(n whisk.Name) (whisk.Runnable, error)
	// Link stores a rule and its trigger, both or neither, durably: Conflict
	// when one of them is not at the revision given.
	Link(ctx context.Context, rule whisk.Rule, ruleRev whisk.Revision, trigger whisk.Trigger, triggerRev whisk.Revision) error
	// RemovePackage deletes a package together with actions, durably and in one
	// step as far as they fit into one: Conflict or NotFound when something is
	// not at the revision given.
	RemovePackage(ctx context.Context, pkg Removal, actions ...Removal) error
	PutCode(ctx context.Context, code string) (digest string, err error) // durable once an entity that names it is
	Code(ctx context.Context, digest string) (string, error)
}

// Removal names what is to be deleted, at the revision that was seen.
type Removal struct {
	Name     whisk.Name
	Revision whisk.Revision
}

// Keys knows who calls.
type Keys interface {
	Authenticate(uuid, key string) (auth.Identity, error) // Unauthorized
	Owner(namespace string) (auth.Identity, bool)         // whom web actions run as
}

// Delivery runs actions. A call that ends in false has become an invocation
// that can't be lost.
type Delivery interface {
	// Call waits for the record, at most wait: false when it is not there yet.
	// The run goes on. Unavailable.
	Call(ctx context.Context, run whisk.Runnable, inv whisk.Invocation, wait time.Duration) (whisk.Activation, bool, error)
	// Invoke returns when the invocation can't be lost any more. Unavailable.
	Invoke(ctx context.Context, name whisk.Name, inv whisk.Invocation) error
}

// Events takes what is fired.
type Events interface {
	Accept(ctx context.Context, evs ...whisk.Event) ([]whisk.Place, error) // durable; Unavailable
	Room() error                                                           // Unavailable when entities and invocations are not to be taken in either
}

// Rules is what the API asks of the rules' room. It answers from memory: every
// fire asks.
type Rules interface {
	Active(trigger whisk.Name) bool // whether a rule is active for its events
}

// Query asks for activations, newest first.
type Query struct {
	Namespace string
	Name      string    // as whisk.Activation.FilterName; empty for all
	Since     time.Time // inclusive, as Upto; zero for no bound
	Upto      time.Time
	Skip      int
	Limit     int
}

// Journal holds the records of activations. What another namespace owns is
// NotFound, like what does not exist.
type Journal interface {
	Activation(ctx context.Context, namespace, id string) (whisk.Activation, error) // NotFound
	Activations(ctx context.Context, q Query) ([]whisk.Activation, error)
	CountActivations(ctx context.Context, q Query) (int, error) // of all: Skip and Limit are zero
}

// Deps are what the API is made of. All are required but Log.
type Deps struct {
	Actions  Table[whisk.Action]
	Triggers Table[whisk.Trigger]
	Rules    Table[whisk.Rule]
	Packages Table[whisk.Package]

	Store    Store
	Keys     Keys
	Delivery Delivery
	Events   Events
	Engine   Rules
	Journal  Journal
	Runtimes whisk.Runtimes // on offer
	// CheckRule says what is wrong with the annotations of a rule that are its
	// options: Invalid.
	CheckRule func(annotations whisk.Params) error

	Version string // of this build
	Built   string // when, RFC 3339
	Log     *slog.Logger
}

// everyone is all of api.inside: more than there can be requests at once.
const everyone = 1 << 30

type api struct {
	Deps
	router http.Handler
	info   []byte // the answers that never change, as JSON
	root   []byte
	limits []byte
	// inside is held by whoever writes an action that is in a package, and by
	// whoever deletes a package as a whole: nothing is put into a package that
	// is being deleted.
	inside *semaphore.Weighted
	bodies chan struct{} // holds something for each large body in memory
	codes  chan struct{} // the same for answers with large code
}

// maxBig is how many bodies of more than whisk.MaxPayload are read and worked
// on at once, and how many answers with so much code are written; the others
// wait. Each may take five times whisk.MaxBody.
const maxBig = 2

// New returns the handler of /api/v1, / and /ping, which refuses every other
// path as OpenWhisk does. Others are to be mounted before it.
func New(d Deps) (http.Handler, error) {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	a := &api{Deps: d, inside: semaphore.NewWeighted(everyone), bodies: make(chan struct{}, maxBig), codes: make(chan struct{}, maxBig)}
	for into, v := range map[*[]byte]any{&a.info: a.version(), &a.root: a.description(), &a.limits: userLimits()} {
		b, err := encode(v)
		if err != nil {
			return nil, err
		}
		*into = b
	}
	a.router = a.routes()
	return a, nil
}
