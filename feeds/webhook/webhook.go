// Package webhook is the feed of HTTP requests: each feed has an address that
// cannot be guessed, and a request to it becomes an event.
//
// A request is checked in this order: address, method, size, signature (over
// the raw bytes), handshake, body, delivery ID. It is answered 202 only once
// its event is on stable storage. A delivery that came before is answered 200
// and told so. The order of writes makes that hold when the process dies in
// between: first a record of the delivery with the ID that its event will
// have, then the event, then that it is done. Of a record that is not done the
// archive of events knows whether its event was stored.
package webhook

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/feeds"
	"github.com/millrace/millrace/internal/whisk"
)

// Name is the feed's name.
const Name = "webhook/receive"

const (
	tokenKey = "_token" // the secret part of a feed's address
	// maxHeld bounds the bodies held at once, in bytes. Beyond it senders
	// are asked to come back.
	maxHeld = 256 << 20
	// sweepEvery is how often forgotten deliveries are deleted.
	sweepEvery = 10 * time.Minute
)

// Delivery is what is remembered of a delivery ID.
type Delivery struct {
	Name    whisk.Name `json:"name"`  // namespace, feed and a digest of the ID
	Event   string     `json:"event"` // the ID of its event
	Done    bool       `json:"done"`  // the event is stored; else perhaps
	Expires time.Time  `json:"expires"`
}

// Deliveries is where delivery IDs are remembered. Writes are durable and
// carry the revision that they replace.
type Deliveries interface {
	Get(n whisk.Name) (Delivery, whisk.Revision, error) // NotFound
	Put(ctx context.Context, n whisk.Name, d Delivery, prev whisk.Revision) (whisk.Revision, error)
	Delete(ctx context.Context, n whisk.Name, prev whisk.Revision) error
	List(namespace string) []Delivery // "" for all
}

// Archive knows which events were accepted.
type Archive interface {
	// Has reports whether an event of that ID was accepted, judged or not.
	Has(ctx context.Context, namespace, id string) (bool, error)
}

// Provider makes webhook feeds and, as an http.Handler for /hooks/, takes
// their requests.
type Provider struct {
	base       func() string // of addresses, as in http://localhost:3233
	deliveries Deliveries
	archive    Archive
	log        *slog.Logger
	now        func() time.Time
	held       *semaphore.Weighted
	flights    flights

	mu     sync.Mutex
	routes map[[sha256.Size]byte]*feed // by digest, so that a look-up tells nothing of a token
	loaded bool
}

// New returns a provider whose addresses begin with base().
func New(base func() string, d Deliveries, a Archive, log *slog.Logger) *Provider {
	return &Provider{
		base: base, deliveries: d, archive: a, log: log, now: time.Now,
		held: semaphore.NewWeighted(maxHeld), routes: map[[sha256.Size]byte]*feed{},
	}
}

// Loaded says that every stored feed is known: another address is wrong, and
// not just early.
func (p *Provider) Loaded() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loaded = true
}

// Secrets are the parameters that are never shown.
func (p *Provider) Secrets(string) []string { return []string{"secret", tokenKey} }

// Define checks a CREATE or UPDATE. An UPDATE changes what it names; null
// takes a parameter back. The address stays for the feed's life.
func (p *Provider) Define(_ context.Context, c feeds.Change) (feeds.Definition, error) {
	var ps whisk.Params
	if c.Event == feeds.Update {
		ps = c.Old
		if len(c.Given) == 0 {
			return feeds.Definition{}, feeds.Refuse("no updatable parameters were specified")
		}
	}
	for _, e := range c.Given {
		switch {
		// Ours: nobody chooses an address.
		case strings.HasPrefix(e.Key, "_"):
		case string(e.Value) == "null":
			ps = ps.Without(e.Key)
		default:
			ps = ps.With(e)
		}
	}
	if _, err := parseConfig(ps.Without(tokenKey)); err != nil {
		return feeds.Definition{}, err
	}
	// An address that senders were told must outlive every change of the feed.
	token := c.Old.Text(tokenKey)
	if token == "" {
		token = rand.Text() // 130 bits
	}
	return feeds.Definition{Params: ps.Set(tokenKey, `"`+token+`"`), Anew: c.Old == nil}, nil
}

// Open returns the feed and makes its address known. Until it runs, requests
// are asked to come back.
func (p *Provider) Open(_ context.Context, spec feeds.Spec) (feeds.Feed, error) {
	cfg, err := parseConfig(spec.Params.Without(tokenKey))
	if err != nil {
		return nil, err
	}
	f := &feed{p: p, spec: spec, cfg: cfg, token: spec.Params.Text(tokenKey), started: make(chan struct{})}
	// Without a token the feed is only checked: nothing can reach it.
	if f.token != "" {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.routes[sha256.Sum256([]byte(f.token))] = f
	}
	return f, nil
}

// Answer gives the address on CREATE, UPDATE and READ.
func (p *Provider) Answer(ev feeds.LifecycleEvent, spec feeds.Spec, in feeds.Info) any {
	url := p.base() + "/hooks/" + spec.Params.Text(tokenKey)
	switch ev {
	case feeds.Create, feeds.Update:
		return map[string]string{"url": url}
	case feeds.Read:
		return struct {
			URL string `json:"url"`
			feeds.Info
		}{url, in}
	}
	return map[string]string{"status": "success"}
}

// Refuse gives errors as {"error":text}, all of them.
func (p *Provider) Refuse(err error) any { return feeds.PlainRefusal(err) }

// route returns the feed of a token, and whether all feeds are known.
func (p *Provider) route(token string) (f *feed, loaded bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.routes[sha256.Sum256([]byte(token))], p.loaded
}

// feed is one address.
type feed struct {
	p       *Provider
	spec    feeds.Spec
	cfg     config
	token   string
	started chan struct{} // closed when it runs

	gate sync.RWMutex // read-held by requests being stored
	life context.Context
	emit feeds.Emit // nil unless it runs
}

// Run takes requests until ctx ends.
func (f *feed) Run(ctx context.Context, emit feeds.Emit) error {
	// Emit is set before started is closed: whoever waited for that finds it.
	f.gate.Lock()
	f.life, f.emit = ctx, emit
	f.gate.Unlock()
	close(f.started)
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			f.gate.Lock() // waits for requests under way; their context ended too
			f.emit = nil
			f.gate.Unlock()
			return nil
		case <-t.C:
			// Of all feeds' deliveries: those of a feed that was deleted have
			// nobody else.
			f.p.sweep(ctx)
		}
	}
}

// Close forgets the address, unless a newer feed has it.
func (f *feed) Close() error {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	key := sha256.Sum256([]byte(f.token))
	// A feed that is opened again has this address before the old one is
	// closed.
	if f.p.routes[key] == f {
		delete(f.p.routes, key)
	}
	return nil
}

// meta is what an event tells of its request in __ow_event, besides the body
// and the headers.
func (f *feed) meta(method, query, delivery string) json.RawMessage {
	m, err := json.Marshal(struct {
		Method   string `json:"method"`
		Query    string `json:"query,omitempty"`
		Delivery string `json:"delivery,omitempty"`
	}{method, query, delivery})
	if err != nil {
		return nil // cannot be: strings
	}
	return m
}
