// Package whisk is the vocabulary of Millrace: names, entities, events,
// verdicts, activations, limits and error kinds.
//
// Every other package speaks in these words, so the package knows nothing of
// them: it uses the standard library only and does no input or output. The
// words are those of Apache OpenWhisk where it has one. A trigger is a named
// class of events; a rule binds a trigger to an action; an activation is the
// record of one run. What Millrace adds are the words of its road: an Event is
// one occurrence, a Verdict what every rule made of it, an Entry what the
// journal remembers, a Job an invocation that waits for its turn.
package whisk

import "time"

// Sizes and counts that hold for every namespace. They are OpenWhisk's
// defaults (its reference.conf), in bytes unless said otherwise.
const (
	MaxPayload   = 1 << 20  // an invocation's or event's payload, and an action's result
	MaxCode      = 48 << 20 // the exec of an action
	MaxBody      = 50 << 20 // any request body
	MaxParams    = 1 << 20  // the parameters, and the annotations, of one entity
	MaxName      = 256      // characters of one name segment
	MaxListLimit = 200      // items of one list answer
	MaxHops      = 16       // an event that caused an event that caused … before it is dead
)

// MaxWait is how long a blocking invocation waits before it is answered with
// its activation ID alone.
const MaxWait = 60 * time.Second

// Range is a limit's bounds and default, all inclusive.
type Range struct{ Min, Std, Max int }

// The ranges of the limits of an action.
var (
	TimeoutRange     = Range{100, 60_000, 300_000} // milliseconds
	MemoryRange      = Range{128, 256, 512}        // MiB
	LogsRange        = Range{0, 10, 10}            // MiB
	ConcurrencyRange = Range{1, 1, 1}              // activations at once in one container
)

// Names that mean something everywhere.
const (
	SystemNamespace = "whisk.system" // holds the built-in packages
	DefaultPackage  = "default"      // how a web action's address spells "no package"
	Own             = "_"            // the caller's own namespace
)
