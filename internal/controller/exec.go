package controller

import (
	"encoding/json"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/whisk"
)

// readExec reads the exec of a PUT: nil when the body has none. The code is in
// Exec.Code.
func (a *api) readExec(m members) (*whisk.Exec, error) {
	if !m.has("exec") {
		return nil, nil
	}
	var in members
	if err := m.read("exec", &in); err != nil {
		return nil, err
	}
	kind, ok := in.text("kind")
	if !ok {
		return nil, malformed("'kind' must be a string defined in 'exec'")
	}
	kind = strings.ToLower(strings.TrimSpace(kind))
	var e *whisk.Exec
	var err error
	switch kind {
	// Refused with a reason: what is accepted must also run.
	case whisk.KindSequence:
		return nil, refuse(whisk.Invalid, "Actions of kind 'sequence' are not supported yet.")
	case whisk.KindBlackbox:
		e, err = readBlackbox(in)
	default:
		e, err = a.readCode(in, kind)
	}
	if err != nil {
		return nil, err
	}
	if n := len(e.Code) + len(e.Image); n > whisk.MaxCode {
		return nil, tooLarge("exec", int64(n), whisk.MaxCode)
	}
	e.Binary = isBase64(e.Code)
	return e, nil
}

// readCode reads an exec of a runtime's kind.
func (a *api) readCode(in members, kind string) (*whisk.Exec, error) {
	rt, err := a.Runtimes.Find(kind)
	if err != nil {
		return nil, malformed(whisk.Message(err))
	}
	if rt.Deprecated {
		return nil, errDeprecated(rt.Kind)
	}
	// The kind that was found, not the one asked for: "nodejs:default" becomes
	// a version and stays at it.
	e := &whisk.Exec{Kind: rt.Kind}
	var ok bool
	if e.Code, ok = in.text("code"); !ok {
		family, _, _ := strings.Cut(rt.Kind, ":")
		// OpenWhisk takes Java archives under this name too.
		if e.Code, ok = in.text("jar"); !ok || family != "java" {
			return nil, malformed("'code' must be a string or attachment object defined in 'exec' for '" + rt.Kind + "' actions")
		}
	}
	if e.Main, ok = in.text("main"); !ok {
		if rt.RequireMain {
			return nil, malformed("'main' must be a string defined in 'exec' for '" + rt.Kind + "' actions")
		}
		if in.has("main") {
			return nil, errMain(rt.Kind)
		}
	}
	return e, nil
}

// readBlackbox reads an exec that names an image. Whether there is such an image
// shows when it is run.
func readBlackbox(in members) (*whisk.Exec, error) {
	e := &whisk.Exec{Kind: whisk.KindBlackbox}
	var ok bool
	if e.Image, ok = in.text("image"); !ok {
		return nil, malformed("'image' must be a string defined in 'exec' for 'blackbox' actions")
	}
	if e.Image = strings.TrimSpace(e.Image); len(e.Image) > maxImage || !image.MatchString(e.Image) {
		return nil, malformed("could not parse image name")
	}
	if e.Code, ok = in.text("code"); !ok && in.has("code") {
		return nil, malformed("if defined, 'code' must a string defined in 'exec' for 'blackbox' actions")
	}
	if e.Main, ok = in.text("main"); !ok && in.has("main") {
		return nil, errMain(whisk.KindBlackbox)
	}
	return e, nil
}

// errMain and errDeprecated have OpenWhisk's words, grammar included.
func errMain(kind string) error {
	return malformed("if defined, 'main' be a string in 'exec' for '" + kind + "' actions")
}

func errDeprecated(kind string) error {
	return refuse(whisk.Invalid, "The '%s' runtime is no longer supported. You may read and delete but not update or invoke this action.", kind)
}

const maxImage = 512 // characters of an image's name

// image is [host[:port]/]path[:tag][@digest], as registries have it.
var image = regexp.MustCompile(`^(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::\d+)?/)?` +
	`[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*` +
	`(?::\w[\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?$`)

// isBase64 reports whether code is base64 of something, which is how OpenWhisk
// tells archives from text. It goes by the characters and decodes nothing: code
// may have many MiB.
func isBase64(code string) bool {
	code = strings.TrimSpace(code)
	if code == "" || len(code)%4 != 0 {
		return false
	}
	for _, pad := range []string{"==", "="} {
		if rest, ok := strings.CutSuffix(code, pad); ok {
			code = rest
			break
		}
	}
	for i := range len(code) {
		c := code[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '+' && c != '/' {
			return false
		}
	}
	return true
}

// userConcurrency is how many activations of a namespace may run at once.
const userConcurrency = 1000

// limitRule is one limit of an action: where it is put, its bounds and what its
// refusals say. A table, since OpenWhisk words the refusals of each limit in
// its own way.
type limitRule struct {
	member      string
	into        func(*whisk.Limits) *int
	bounds      whisk.Range
	what, whole string // its name when it is no number, when it is a fraction
	value       string // how a value that is out of bounds is told, "N" for the number
	bound       string // the same of the bound
}

// limitRules are the limits of an action, in the order in which they are checked.
func limitRules() []limitRule {
	return []limitRule{
		{"timeout", func(l *whisk.Limits) *int { return &l.Timeout }, whisk.TimeoutRange, "time limit", "time limit", "duration N milliseconds", "N milliseconds"},
		{"memory", func(l *whisk.Limits) *int { return &l.Memory }, whisk.MemoryRange, "memory limit", "memory limit", "memory size N MB", "N MB"},
		{"logs", func(l *whisk.Limits) *int { return &l.Logs }, whisk.LogsRange, "log limit", "log limit", "log size N MB", "N MB"},
		{"concurrency", func(l *whisk.Limits) *int { return &l.Concurrency }, whisk.ConcurrencyRange, "concurrency limit", "intra concurrency limit", "concurrency N", "N"},
	}
}

// readLimits lays the limits of a PUT over old ones. Only those that the body
// names are checked.
func readLimits(m members, old whisk.Limits) (whisk.Limits, error) {
	var in members
	if err := m.read("limits", &in); err != nil {
		return old, malformed("limits malformed")
	}
	for _, r := range limitRules() {
		n, ok, err := in.whole(r.member, r.what, r.whole)
		if err != nil {
			return old, err
		}
		if !ok {
			continue
		}
		with := func(text string, n int) string { return strings.Replace(text, "N", strconv.Itoa(n), 1) }
		switch {
		case n < r.bounds.Min:
			return old, reject(whisk.Invalid, "requirement failed: "+with(r.value, n)+" below allowed threshold of "+with(r.bound, r.bounds.Min))
		case n > r.bounds.Max:
			return old, reject(whisk.Invalid, "requirement failed: "+with(r.value, n)+" exceeds allowed threshold of "+with(r.bound, r.bounds.Max))
		}
		*r.into(&old) = n
	}
	n, ok, err := in.whole("instances", "instance concurrency limit", "instance concurrency limit")
	switch {
	case err != nil || !ok:
		return old, err
	case n < 1:
		return old, malformed("requirement failed: Action container concurrency must be greater than or equal to 1.")
	case n > userConcurrency:
		return old, refuse(whisk.Invalid, "Max action instance concurrency must not exceed your namespace concurrency of %d.", userConcurrency)
	}
	old.Instances = n
	return old, nil
}

// whole reads a member that must be a whole number; false when it is absent.
// Through a float: 256.0 is whole in JSON, and a number too large for an int
// must come out as out of bounds, not as malformed.
func (m members) whole(name, what, whole string) (int, bool, error) {
	if !m.has(name) {
		return 0, false, nil
	}
	var n float64
	if json.Unmarshal(m[name], &n) != nil {
		return 0, false, malformed(what + " malformed")
	}
	if n != math.Trunc(n) {
		return 0, false, malformed("requirement failed: " + whole + " must be whole number")
	}
	return int(max(min(n, maxInt), -maxInt)), true, nil
}
