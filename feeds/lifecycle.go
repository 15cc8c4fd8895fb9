package feeds

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// LifecycleEvent is what a client asks of a feed.
type LifecycleEvent string

// The lifecycle events of OpenWhisk's feed contract.
const (
	Create  LifecycleEvent = "CREATE"
	Read    LifecycleEvent = "READ"
	Update  LifecycleEvent = "UPDATE"
	Delete  LifecycleEvent = "DELETE"
	Pause   LifecycleEvent = "PAUSE"
	Unpause LifecycleEvent = "UNPAUSE"
)

// Texts of refused lifecycle events, as OpenWhisk's packages word them.
var (
	errEvent       = errors.New("unsupported lifecycleEvent")
	errNoTrigger   = errors.New("no trigger name parameter was provided")
	errCredentials = errors.New("Trigger authentication request failed.") //nolint:staticcheck // upstream's wording
)

// ParseLifecycleEvent reads a lifecycle event in any case. It returns Invalid.
func ParseLifecycleEvent(s string) (LifecycleEvent, error) {
	ev := LifecycleEvent(strings.ToUpper(strings.TrimSpace(s)))
	if slices.Contains([]LifecycleEvent{Create, Read, Update, Delete, Pause, Unpause}, ev) {
		return ev, nil
	}
	return "", invalid(errEvent)
}

// Request is a lifecycle event's parameters.
type Request struct {
	Feed        string // the Provider's name, as in "alarms/alarm"
	Namespace   string // whom the feed action runs for: what "_" in TriggerName stands for
	TriggerName string // /namespace/name, or a bare name in Namespace
	AuthKey     string // "uuid:key"; checked and never stored
	Params      whisk.Params
}

// State is what is stored of a feed. The position is not in it: that is the
// sink's, stored with the events that it belongs to.
type State struct {
	ID          string       `json:"id"`
	Feed        string       `json:"feed"`
	Trigger     whisk.Name   `json:"trigger"`
	Incarnation string       `json:"incarnation"` // of the trigger: the feed ends with it
	Subject     string       `json:"subject"`     // whose key made it
	Params      whisk.Params `json:"params"`      // the definition, without its secrets
	Sealed      []byte       `json:"sealed,omitempty"`
	Hidden      []string     `json:"hidden,omitempty"` // the keys of what is sealed
	Given       string       `json:"given,omitempty"`  // digest of what CREATE gave; in the box when there is one
	Since       time.Time    `json:"since"`
	Created     time.Time    `json:"created"`
	Changed     time.Time    `json:"changed"` // definition or status
	Paused      bool         `json:"paused,omitempty"`
	Ended       *Reason      `json:"ended,omitempty"`  // why it emits nothing more
	Retire      *Retirement  `json:"retire,omitempty"` // what is still to be deleted
}

// Retirement is a deletion of a trigger that waits for its last event's end.
type Retirement struct {
	Event string `json:"event"`
	Rules bool   `json:"rules,omitempty"`
}

// Handle carries out a lifecycle event and returns the feed action's result.
// It returns Invalid, Unauthorized or NotFound with the texts of OpenWhisk's
// packages. It returns once the change is durable and, when the Supervisor
// runs, in effect.
func (s *Supervisor) Handle(ctx context.Context, ev LifecycleEvent, req Request) (any, error) {
	p, ok := s.parts.Providers[req.Feed]
	if !ok {
		return nil, whisk.E(whisk.NotFound, "handle "+string(ev), fmt.Errorf("there is no feed %s", req.Feed))
	}
	if req.TriggerName == "" {
		return nil, invalid(errNoTrigger)
	}
	name, err := whisk.ParseRelative(req.TriggerName, req.Namespace)
	if err != nil {
		return nil, err
	}
	if name.Package != "" {
		return nil, invalid(fmt.Errorf("%s is not the name of a trigger", name))
	}
	// From the look at the state to its change nobody else may act on the same
	// trigger.
	unlock, err := s.locks.lock(ctx, name)
	if err != nil {
		return nil, whisk.E(whisk.Unavailable, "handle "+string(ev), err)
	}
	defer unlock()

	h := &handling{s: s, p: p, ev: ev, req: req, name: name, now: s.now().UTC()}
	if err := h.load(); err != nil {
		return nil, err
	}
	switch ev {
	case Create, Update:
		err = h.define(ctx)
	case Delete:
		err = h.remove(ctx)
	case Pause, Unpause:
		err = h.pause(ctx)
	case Read:
		err = h.found()
	default:
		return nil, invalid(errEvent)
	}
	if err != nil {
		return nil, err
	}
	return h.answer()
}

// handling is one lifecycle event under way; its trigger's lock is held.
type handling struct {
	s    *Supervisor
	p    Provider
	ev   LifecycleEvent
	req  Request
	name whisk.Name
	now  time.Time

	subject string
	trigger whisk.Trigger
	old     State
	rev     whisk.Revision // 0 when the trigger has no feed
	same    bool           // old is the feed that is meant
	secrets whisk.Params   // old's
	given   string         // digest of what old was made from
}

// load finds the feed as it is. A feed of another kind, or one of an earlier
// trigger of that name, counts as none, but a CREATE will replace it.
func (h *handling) load() error {
	st, rev, err := h.s.parts.States.Get(h.name)
	if errors.Is(err, whisk.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	h.old, h.rev = st, rev
	t, _, err := h.s.parts.Triggers.Get(h.name)
	// A trigger that cannot be read, or is gone before its feed's DELETE, does
	// not make it another feed.
	h.same = st.Feed == h.req.Feed && (err != nil || t.Incarnation == st.Incarnation)
	// A feed can be deleted although its secrets cannot be opened any more.
	if h.same && h.ev != Delete {
		h.secrets, h.given, err = h.s.unseal(st)
		return err
	}
	return nil
}

// authorize checks the key, and that its namespace has the trigger. A DELETE
// may come after the trigger's.
func (h *handling) authorize() error {
	// One text for every reason: whoever has no key learns nothing of what
	// there is.
	refused := whisk.E(whisk.Unauthorized, "authorize feed", errCredentials)
	ns, subject, err := h.s.parts.Keys.Owner(h.req.AuthKey)
	if err != nil || ns != h.name.Namespace {
		return refused
	}
	h.subject = subject
	h.trigger, _, err = h.s.parts.Triggers.Get(h.name)
	if err != nil && (h.ev != Delete || !errors.Is(err, whisk.NotFound)) {
		return refused
	}
	return nil
}

// found checks that the caller may act on the feed, and that there is one.
func (h *handling) found() error {
	if err := h.authorize(); err != nil {
		return err
	}
	if !h.same {
		return whisk.E(whisk.NotFound, "find feed", fmt.Errorf("could not find trigger %s in the database", h.name))
	}
	return nil
}

// define makes or changes the feed. What is the same as before changes
// nothing, so that a deployment that is run again keeps every feed's place.
func (h *handling) define(ctx context.Context) error {
	alive := h.same && h.old.Ended == nil
	// Before the digest: what a client has read and sends back unchanged is
	// the same.
	if err := h.unmask(); err != nil {
		return err
	}
	digest := digestOf(h.req.Params)
	if h.ev == Create && alive && digest == h.given {
		return h.authorize()
	}
	c := Change{Event: h.ev, Feed: h.req.Feed, Trigger: h.name, Given: h.req.Params, Now: h.now}
	if h.ev == Update {
		if err := h.found(); err != nil {
			return err
		}
		digest = "" // what was given at CREATE no longer describes it
	}
	if h.same {
		c.Old = h.secrets.Over(h.old.Params)
	}
	// Parameters before the key, as upstream's packages check them.
	def, err := h.provide(ctx, c)
	if err != nil {
		return err
	}
	if err := h.authorize(); err != nil {
		return err
	}
	return h.store(ctx, def, digest, alive)
}

// unmask puts the secrets back into parameters that came out of a READ: what
// is shown in their stead must never become one.
func (h *handling) unmask() error {
	k, ok := h.p.(Keeper)
	if !ok {
		return nil
	}
	for _, key := range k.Secrets(h.req.Feed) {
		if string(h.req.Params.Get(key)) != hidden {
			continue
		}
		old := h.secrets.Get(key)
		if old == nil {
			return Refuse(fmt.Sprintf("%s is %s, which stands for a secret that is not shown", key, hidden))
		}
		h.req.Params = h.req.Params.Set(key, string(old))
	}
	return nil
}

// provide asks the provider for the definition, and proves that it opens.
func (h *handling) provide(ctx context.Context, c Change) (Definition, error) {
	def := Definition{Params: c.Given, Anew: c.Old == nil}
	if c.Event == Update {
		def.Params = c.Given.Over(c.Old)
	}
	d, ok := h.p.(Definer)
	if ok {
		return d.Define(ctx, c)
	}
	f, err := h.p.Open(ctx, Spec{ID: h.old.ID, Feed: c.Feed, Trigger: c.Trigger, Params: def.Params, Since: c.Now})
	if err != nil {
		return Definition{}, err
	}
	letGo(f)
	return def, nil
}

// store writes the new definition and puts it into effect. A feed that was
// alive keeps its ID and place; any other starts anew.
func (h *handling) store(ctx context.Context, def Definition, digest string, keep bool) error {
	st := State{
		ID: whisk.NewID(h.now), Feed: h.req.Feed, Trigger: h.name, Incarnation: h.trigger.Incarnation,
		Subject: h.subject, Since: h.now, Created: h.now, Changed: h.now,
	}
	if keep {
		st.ID, st.Created, st.Paused = h.old.ID, h.old.Created, h.old.Paused
		if !def.Anew {
			st.Since = h.old.Since
		}
	}
	var secrets whisk.Params
	st.Params, secrets = h.split(def.Params)
	if err := h.s.seal(&st, secrets, digest); err != nil {
		return err
	}
	// The old feed ends first: two of them would emit beside each other.
	h.s.stop(ctx, h.name)
	if _, err := h.s.parts.States.Put(ctx, h.name, st, h.rev); err != nil {
		h.s.restore(ctx, h.name)
		return err
	}
	// Only when the new state is stored: until then the old feed may be
	// started again, and needs its position.
	if h.rev != 0 && st.ID != h.old.ID {
		h.s.forget(ctx, h.old.ID)
	}
	h.s.log.InfoContext(ctx, "feed defined", slog.String("feed", st.Feed), slog.String("trigger", h.name.String()))
	h.old = st
	h.s.start(ctx, st)
	return nil
}

func (h *handling) remove(ctx context.Context) error {
	if err := h.found(); err != nil {
		return err
	}
	return h.s.remove(ctx, h.name, h.old, h.rev)
}

// pause stops or resumes the feed where it stood. UNPAUSE with skipBacklog
// resumes at the present.
func (h *handling) pause(ctx context.Context) error {
	if err := h.found(); err != nil {
		return err
	}
	st := h.old
	paused := h.ev == Pause
	skip := !paused && h.req.Params.Truthy("skipBacklog") && h.req.Params.Text("skipBacklog") != "false"
	if st.Paused == paused && !skip {
		return nil
	}
	st.Paused, st.Changed = paused, h.now
	if skip {
		st.Since = h.now
	}
	h.s.stop(ctx, h.name)
	if _, err := h.s.parts.States.Put(ctx, h.name, st, h.rev); err != nil {
		h.s.restore(ctx, h.name)
		return err
	}
	h.s.log.InfoContext(ctx, "feed "+strings.ToLower(string(h.ev))+"d", slog.String("feed", st.Feed), slog.String("trigger", h.name.String()))
	h.old = st
	h.s.start(ctx, st)
	return nil
}

// answer is the result of what was carried out, in the provider's words if it
// has any.
func (h *handling) answer() (any, error) {
	a, custom := h.p.(Answerer)
	if h.ev != Read && !custom {
		return map[string]string{"status": "success"}, nil
	}
	var secrets whisk.Params
	if h.ev != Delete {
		var err error
		if secrets, _, err = h.s.unseal(h.old); err != nil {
			return nil, err
		}
	}
	spec := specOf(h.old, secrets)
	in := h.s.info(h.old)
	if !custom {
		return in, nil
	}
	return a.Answer(h.ev, spec, in), nil
}

// split divides ps into what may be shown and what may not.
func (h *handling) split(ps whisk.Params) (open, secret whisk.Params) {
	k, ok := h.p.(Keeper)
	if !ok {
		return ps, nil
	}
	keys := k.Secrets(h.req.Feed)
	for _, p := range ps {
		if slices.Contains(keys, p.Key) {
			secret = append(secret, p)
		} else {
			open = append(open, p)
		}
	}
	return open, secret
}

// specOf returns what st's feed is opened with, all but its position.
func specOf(st State, secrets whisk.Params) Spec {
	return Spec{ID: st.ID, Feed: st.Feed, Trigger: st.Trigger, Params: secrets.Over(st.Params), Since: st.Since}
}

// sealed is what a feed's box holds. The digest of what was given lies in it
// too: beside the box it would be a way to try guesses at a weak secret.
type sealed struct {
	Params whisk.Params `json:"params"`
	Given  string       `json:"given"`
}

// seal puts secrets into st, in a box that opens for this feed alone.
func (s *Supervisor) seal(st *State, secrets whisk.Params, given string) error {
	st.Sealed, st.Hidden, st.Given = nil, nil, given
	if len(secrets) == 0 {
		return nil
	}
	plain, err := json.Marshal(sealed{secrets, given})
	if err != nil {
		return whisk.E(whisk.Internal, "seal secrets", err)
	}
	st.Given = ""
	for _, p := range secrets {
		st.Hidden = append(st.Hidden, p.Key)
	}
	// Tied to the feed's ID: a box that is copied to another feed does not
	// open.
	st.Sealed, err = s.parts.Vault.Seal(plain, st.ID)
	return err
}

// unseal returns what seal hid: the secrets and the digest of what was given.
func (s *Supervisor) unseal(st State) (secrets whisk.Params, given string, err error) {
	if len(st.Sealed) == 0 {
		return nil, st.Given, nil
	}
	plain, err := s.parts.Vault.Open(st.Sealed, st.ID)
	if err != nil {
		return nil, "", err
	}
	var box sealed
	if err := json.Unmarshal(plain, &box); err != nil {
		return nil, "", whisk.E(whisk.Internal, "open secrets", err)
	}
	return box.Params, box.Given, nil
}

// digestOf returns a digest of ps that depends neither on their order nor on
// how their values are spelled.
func digestOf(ps whisk.Params) string {
	m := make(map[string]any, len(ps))
	for _, p := range ps {
		dec := json.NewDecoder(bytes.NewReader(p.Value))
		dec.UseNumber() // 1e400 and 1.0 stay what they are
		var v any
		if dec.Decode(&v) != nil {
			v = string(p.Value)
		}
		m[p.Key] = v
	}
	b, err := json.Marshal(m)
	if err != nil {
		return "" // cannot be: it came from JSON
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
