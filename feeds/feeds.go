// Package feeds turns happenings outside into events on triggers.
//
// A Provider makes feeds of one kind: a schedule, a webhook, a topic. A Feed
// emits events until it is told to stop. The Supervisor stands between them
// and everyone else: it answers the six lifecycle events of OpenWhisk's feed
// actions, keeps each feed's definition and position, runs the feeds and
// starts them again with back-off when they fail, and tells how they are.
//
// The package does not know where events go (a Sink), where definitions are
// kept (States) or who may do what (Keys). A feed never changes or deletes its
// own definition: only its owner does.
package feeds

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// Provider makes feeds of one kind. It starts nothing.
//
// Definer, Keeper, Answerer and Loader are abilities that a Provider may have
// besides.
type Provider interface {
	// Open returns a feed for a definition that was accepted before. It
	// returns Invalid, naming every bad parameter. It may be called for a feed
	// that is never run, to check a definition, and again after each failure.
	Open(ctx context.Context, spec Spec) (Feed, error)
}

// Feed emits until ctx ends (nil), its source fails (an error: the Supervisor
// opens and runs it again, with back-off) or it has nothing more to emit
// (*Completed). It must return within a second of the end of ctx. Run is
// called at most once.
//
// A Feed that implements io.Closer is closed when it is let go, run or not.
type Feed interface {
	Run(ctx context.Context, emit Emit) error
}

// Emit stores evs and, in the same atomic write, position: the place in the
// source after them. It returns once they are on stable storage, which is the
// back-pressure: while the bus is full, an Emit with a position waits.
//
// A source without a place of its own gives no position; then a full bus is
// Unavailable at once. With a position, evs may be empty. At most MaxBatch
// events. The Supervisor fills in Trigger, Source (unless the event names one)
// and Actor.
type Emit func(ctx context.Context, position string, evs ...whisk.Event) error

// MaxBatch is how many events one Emit takes.
const MaxBatch = 500

// Spec is what a feed is made from.
type Spec struct {
	ID       string       // random, new each time the feed is made anew; part of its events' IDs
	Feed     string       // the Provider's name, as in "alarms/alarm"
	Trigger  whisk.Name   // what it fires
	Params   whisk.Params // as Define returned them, secrets included
	Position string       // what was last emitted with, "" at first
	Since    time.Time    // look at nothing before: when the feed was made, or told to begin anew
}

// Completed is the error of a Feed that has nothing more to emit. The feed
// stays defined and says so.
type Completed struct {
	Reason string // for the feed's status
	// Retire asks that the trigger be deleted too, once Event, the last event
	// emitted, has been delivered; with Rules, its rules as well.
	Retire bool
	Rules  bool
	Event  string
}

func (c *Completed) Error() string { return c.Reason }

// Definer is a Provider with its own rules for what CREATE and UPDATE may say.
// Without one, any parameters are taken that Open takes.
type Definer interface {
	// Define returns the definition after a change. It returns Invalid, with
	// a *Refusal inside when more than one thing is wrong.
	Define(ctx context.Context, c Change) (Definition, error)
}

// Change is what a CREATE or UPDATE asks for.
type Change struct {
	Event   LifecycleEvent // Create or Update
	Feed    string         // the Provider's name
	Trigger whisk.Name
	Given   whisk.Params // without the parameters of the lifecycle itself
	Old     whisk.Params // the definition so far, secrets included; nil when there is none
	Now     time.Time
}

// Definition is an accepted set of parameters. Those whose names begin with
// "_" are the Provider's own: never given and never shown. Anew says that the source is to
// be read from now on: what happened before under the old definition is not
// looked at under the new one.
type Definition struct {
	Params whisk.Params
	Anew   bool
}

// Keeper is a Provider some of whose parameters are secrets. They are stored
// sealed and shown as "***".
type Keeper interface {
	Secrets(feed string) []string
}

// Answerer is a Provider whose feed actions answer in shapes of their own.
// Without one, changes answer {"status":"success"}, READ answers {config,
// status, stats}, and errors are {"error":text}.
type Answerer interface {
	// Answer returns the result of a lifecycle event that was carried out.
	Answer(ev LifecycleEvent, spec Spec, in Info) any
	// Refuse returns the result for an error: an object with "error".
	Refuse(err error) any
}

// Loader is a Provider that wants to know when every stored feed was opened
// after a start.
type Loader interface {
	Loaded()
}

// Reporter is a Feed that can tell how it stands. Report is called from other
// goroutines, also before Run.
type Reporter interface {
	Report() Report
}

// Report is how a feed stands.
type Report struct {
	NextFire []time.Time   // the next times it will fire, if it knows
	Fired    uint64        // events since the feed was made
	Missed   uint64        // happenings it gave up by policy since it was made
	Lag      time.Duration // age of the oldest happening not emitted yet
}

// Refusal is the cause of an Invalid error: everything that is wrong. Its text
// is the first fault, worded as OpenWhisk's package words it. See Refuse.
type Refusal struct {
	Text    string   // first fault
	Message string   // its cause in detail, if any
	Details []string // every fault, when there is more than one
}

func (r *Refusal) Error() string { return r.Text }

// MarshalJSON writes the shape that OpenWhisk's feed actions reject with.
func (r *Refusal) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Error   string   `json:"error"`
		Message string   `json:"message,omitempty"`
		Details []string `json:"details,omitempty"`
	}{r.Text, r.Message, r.Details})
}

// Unknown is the fault of a parameter that a feed does not have, with the one
// that was probably meant.
func Unknown(feed, key string, known ...string) string {
	s := fmt.Sprintf("the %s feed has no parameter '%s'", feed, key)
	if near := whisk.Nearest(key, known...); near != "" {
		s += fmt.Sprintf(" (did you mean '%s'?)", near)
	}
	return s
}

// Refuse returns an Invalid error for faults, nil when there are none.
func Refuse(faults ...string) error {
	switch len(faults) {
	case 0:
		return nil
	case 1:
		return invalid(&Refusal{Text: faults[0]})
	}
	return invalid(&Refusal{Text: faults[0], Details: faults})
}

func invalid(err error) error { return whisk.E(whisk.Invalid, "define feed", err) }

// Sink is where events go.
type Sink interface {
	// Accept stores evs durably. Unavailable when there is no room.
	Accept(ctx context.Context, evs ...whisk.Event) ([]whisk.Place, error)
	// AcceptBatch stores evs (there may be none) and the position after them,
	// all or nothing. Unavailable when there is no room. An error of another
	// kind leaves open whether they were stored: the newest position tells.
	AcceptBatch(ctx context.Context, c whisk.Cursor, evs ...whisk.Event) error
	// Cursor returns the newest position of a feed.
	Cursor(ctx context.Context, feed string) (whisk.Cursor, bool, error)
	// ForgetCursor lets go of a deleted feed's position.
	ForgetCursor(ctx context.Context, feed string) error
}

// States is where feeds are kept, by trigger. Writes are durable and carry the
// revision that they replace: 0 for none, Conflict when it is another.
type States interface {
	Get(n whisk.Name) (State, whisk.Revision, error) // NotFound
	Put(ctx context.Context, n whisk.Name, st State, prev whisk.Revision) (whisk.Revision, error)
	Delete(ctx context.Context, n whisk.Name, prev whisk.Revision) error
	List(namespace string) []State // "" for all
}

// Triggers knows the triggers that feeds fire.
type Triggers interface {
	Get(n whisk.Name) (whisk.Trigger, whisk.Revision, error) // NotFound
	// Retire deletes a trigger, and with rules its rules, once the event of
	// that ID has been judged and all that came of it has ended. It waits for
	// that. It returns Conflict when the event ended in dead letters: then
	// nothing is deleted. A trigger that is gone already is no error.
	Retire(ctx context.Context, n whisk.Name, event string, rules bool) error
}

// Keys knows whose key an authKey ("uuid:key") is.
type Keys interface {
	// Owner returns Unauthorized unless the key is alive.
	Owner(authKey string) (namespace, subject string, err error)
}

// Vault seals secrets, so that what is stored cannot be read. Context ties the
// box to its place: a box opens only with the context it was sealed with.
type Vault interface {
	Seal(plain []byte, context string) ([]byte, error)
	Open(box []byte, context string) ([]byte, error)
}
