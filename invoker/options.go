package invoker

import (
	"context"
	"encoding/json"
	"runtime"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// Code finds the code of an action by its digest. Exec.Code names what it
// returns.
type Code func(ctx context.Context, digest string) (string, error)

// Builtin is an action in Go. It returns the result object; one with an error
// member is an application error. A returned error becomes that member, as
// whisk.Message words it.
type Builtin func(ctx context.Context, inv whisk.Invocation, args json.RawMessage) (json.RawMessage, error)

// Limits of ours that nobody sets.
const (
	startTimeout  = time.Minute            // until a new container answers, image pulls not counted
	removeTimeout = 30 * time.Second       // for one container to go
	patience      = 100 * time.Millisecond // how much older than its own next job a starving action's must be for a container to be given up
	endingWait    = 200 * time.Millisecond // for a driver to say how a container ended
	pauseTimeout  = 10 * time.Second
	logsQuiet     = 2 * time.Second  // without a line before end marks are given up
	logsLongest   = 10 * time.Second // the same, however many lines there are
)

type settings struct {
	memory   int64 // bytes
	idle     time.Duration
	grace    time.Duration
	drain    time.Duration
	cellMax  int
	starts   int
	cores    int
	builtins map[string]Builtin
	apiHost  string
	mint     func(inv *whisk.Invocation, until time.Time) string
}

func defaults() settings {
	cores := runtime.NumCPU()
	return settings{
		memory: 1 << 30, idle: 10 * time.Minute, grace: 10 * time.Second, drain: 30 * time.Second,
		cellMax: 2, cores: cores, starts: 2 * cores,
	}
}

// Option changes how an Invoker works.
type Option func(*settings)

// WithMemory sets how many bytes all containers may have together, by the
// limits of their actions. Default 1 GiB.
func WithMemory(bytes int64) Option { return func(s *settings) { s.memory = bytes } }

// WithIdle sets how long an unused warm container is kept. Default 10 minutes.
func WithIdle(d time.Duration) Option { return func(s *settings) { s.idle = d } }

// WithGrace sets how long an unused warm container keeps running before it is
// paused. Default 10 seconds.
func WithGrace(d time.Duration) Option { return func(s *settings) { s.grace = d } }

// WithDrain sets how long activations that run may go on after the invoker was
// told to stop. Default 30 seconds.
func WithDrain(d time.Duration) Option { return func(s *settings) { s.drain = d } }

// WithStemCells sets the most stem cells that are kept of one kind and memory,
// whatever the runtimes ask for; 0 for none. Default 2.
func WithStemCells(n int) Option { return func(s *settings) { s.cellMax = n } }

// WithStarts sets how many containers may be starting at once. Default twice
// the number of processors.
func WithStarts(n int) Option { return func(s *settings) { s.starts = n } }

// WithBuiltins sets the functions behind actions of kind builtin, by the
// action's name within its namespace, as in "alarms/alarm".
func WithBuiltins(fns map[string]Builtin) Option { return func(s *settings) { s.builtins = fns } }

// WithAPIHost sets what actions find in __OW_API_HOST.
func WithAPIHost(url string) Option { return func(s *settings) { s.apiHost = url } }

// WithKeys sets what makes a key for an activation of an action that asks for
// one (provide-api-key): a key with the rights of the owner of its namespace
// that is dead at until.
func WithKeys(mint func(inv *whisk.Invocation, until time.Time) string) Option {
	return func(s *settings) { s.mint = mint }
}
