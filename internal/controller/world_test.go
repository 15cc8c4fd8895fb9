package controller_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/auth"
	"github.com/millrace/millrace/internal/controller"
	"github.com/millrace/millrace/internal/whisk"
)

const (
	guestKey  = "23bc46b1-71f6-4ed5-8c54-816aa4f8c502:123zO3xZCLrMN6v2BKK1dXYFpXlPkccOFqm12CdAsMgRU4VrNZ9lyGVCGuMDGIwP"
	friendKey = "00000000-71f6-4ed5-8c54-816aa4f8c502:123zO3xZCLrMN6v2BKK1dXYFpXlPkccOFqm12CdAsMgRU4VrNZ9lyGVCGuMDGIwP"
)

// shelf holds values of all kinds by name, as the store does: one space of
// names for entities, revisions, conflicts.
type shelf struct {
	mu   sync.Mutex
	rev  whisk.Revision
	rows map[whisk.Name]row
	// before, if set, is called before each write; an error is the answer.
	before func(n whisk.Name) error
	// coming, if set, is called before each write, while others may write too.
	coming func(n whisk.Name)
}

type row struct {
	data []byte
	of   any // the zero value of the type
	rev  whisk.Revision
}

var (
	errMissing = errors.New("The requested resource does not exist.")
	errOther   = errors.New("Resource by this name exists but is not in this collection.")
	errRace    = errors.New("Concurrent modification to resource detected.")
)

type table[T any] struct{ *shelf }

func (t table[T]) Get(n whisk.Name) (v T, _ whisk.Revision, _ error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.rows[n]
	if !ok {
		return v, 0, whisk.E(whisk.NotFound, "get", errMissing)
	}
	if _, same := r.of.(T); !same {
		return v, r.rev, whisk.E(whisk.Conflict, "get", errOther)
	}
	return v, r.rev, json.Unmarshal(r.data, &v)
}

func (t table[T]) Put(_ context.Context, n whisk.Name, v T, prev whisk.Revision) (whisk.Revision, error) {
	if t.coming != nil {
		t.coming(n)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.put(n, v, *new(T), prev)
}

func (s *shelf) put(n whisk.Name, v, zero any, prev whisk.Revision) (whisk.Revision, error) {
	if s.before != nil {
		if err := s.before(n); err != nil {
			return 0, err
		}
	}
	if s.rows[n].rev != prev {
		return 0, whisk.E(whisk.Conflict, "put", errRace)
	}
	data, err := json.Marshal(v)
	if err != nil {
		return 0, err
	}
	s.rev++
	s.rows[n] = row{data, zero, s.rev}
	return s.rev, nil
}

func (t table[T]) Delete(_ context.Context, n whisk.Name, prev whisk.Revision) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rows[n].rev != prev {
		return whisk.E(whisk.Conflict, "delete", errRace)
	}
	delete(t.rows, n)
	return nil
}

func (t table[T]) List(namespace string) []T {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []T
	for n, r := range t.rows {
		if _, same := r.of.(T); !same || n.Namespace != namespace {
			continue
		}
		var v T
		if json.Unmarshal(r.data, &v) == nil {
			out = append(out, v)
		}
	}
	return out
}

// world is everything that the API stands on, in memory. Actions are not run:
// it knows the few programs that tests store.
type world struct {
	*shelf
	actions  table[whisk.Action]
	triggers table[whisk.Trigger]
	rules    table[whisk.Rule]
	packages table[whisk.Package]
	keys     *auth.Keys

	mu      sync.Mutex
	code    map[string]string
	records []whisk.Activation
	events  []whisk.Event
	invoked []whisk.Invocation
	refuse  error // of Call, Invoke and Accept
	slow    bool  // no call ends within its wait
}

const runtimes = `{"runtimes":{
 "python":[{"kind":"python:3","image":{"name":"python","tag":"3-slim"},"default":true},
           {"kind":"python:2","image":{"name":"python","tag":"2"},"deprecated":true}],
 "java":[{"kind":"java:8","image":{"name":"java"},"requireMain":true}],
 "nodejs":[{"kind":"nodejs:20","image":{"prefix":"openwhisk","name":"action-nodejs-v20"}}]}}`

func newWorld(t testing.TB) *world {
	s := &shelf{rows: map[whisk.Name]row{}}
	w := &world{
		shelf:   s,
		actions: table[whisk.Action]{s}, triggers: table[whisk.Trigger]{s}, rules: table[whisk.Rule]{s}, packages: table[whisk.Package]{s},
		keys: auth.NewKeys(table[auth.Record]{&shelf{rows: map[whisk.Name]row{}}}),
		code: map[string]string{},
	}
	for subject, key := range map[string]string{"guest": guestKey, "friend": friendKey} {
		if err := w.keys.Preset(t.Context(), subject, subject, key); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// deps returns what the API is made of in w.
func (w *world) deps(t testing.TB) controller.Deps {
	rt, err := whisk.ParseRuntimes([]byte(runtimes))
	if err != nil {
		t.Fatal(err)
	}
	return controller.Deps{
		Actions: w.actions, Triggers: w.triggers, Rules: w.rules, Packages: w.packages,
		Store: w, Keys: w.keys, Delivery: w, Events: w, Engine: w, Journal: w, Runtimes: rt,
		CheckRule: func(p whisk.Params) error {
			if p.Get("transform") != nil {
				return whisk.E(whisk.Invalid, "", errors.New("the annotation transform is not supported yet"))
			}
			return nil
		},
		Version: "1", Built: "2026-01-01T00:00:00Z",
	}
}

// handler returns the API over w.
func (w *world) handler(t testing.TB) http.Handler {
	h, err := controller.New(w.deps(t))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// serve returns the address of a server of it.
func (w *world) serve(t testing.TB) string {
	s := httptest.NewServer(w.handler(t))
	t.Cleanup(s.Close)
	return s.URL
}

func (w *world) Link(_ context.Context, r whisk.Rule, rrev whisk.Revision, t whisk.Trigger, trev whisk.Revision) error {
	w.shelf.mu.Lock()
	defer w.shelf.mu.Unlock()
	if w.rows[r.Name].rev != rrev || w.rows[t.Name].rev != trev {
		return whisk.E(whisk.Conflict, "link", errRace)
	}
	if _, err := w.put(t.Name, t, whisk.Trigger{}, trev); err != nil {
		return err
	}
	_, err := w.put(r.Name, r, whisk.Rule{}, rrev)
	return err
}

func (w *world) RemovePackage(_ context.Context, pkg controller.Removal, actions ...controller.Removal) error {
	w.shelf.mu.Lock()
	defer w.shelf.mu.Unlock()
	all := append(actions, pkg)
	for _, r := range all {
		if w.rows[r.Name].rev != r.Revision {
			return whisk.E(whisk.Conflict, "remove", errRace)
		}
	}
	for _, r := range all {
		delete(w.rows, r.Name)
	}
	return nil
}

func (w *world) PutCode(_ context.Context, code string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	sum := sha256.Sum256([]byte(code))
	digest := hex.EncodeToString(sum[:])
	w.code[digest] = code
	return digest, nil
}

func (w *world) Code(_ context.Context, digest string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	code, ok := w.code[digest]
	if !ok {
		return "", whisk.E(whisk.NotFound, "read code", errMissing)
	}
	return code, nil
}

func (w *world) Resolve(n whisk.Name) (run whisk.Runnable, err error) {
	at := n
	if n.Package != "" {
		pkg := whisk.Name{Namespace: n.Namespace, Entity: n.Package}
		p, _, err := w.packages.Get(pkg)
		if err != nil {
			return run, err
		}
		run.Params = p.Parameters
		if !p.Binding.IsZero() {
			provider, _, err := w.packages.Get(p.Binding)
			if err != nil {
				return run, err
			}
			run.Params, run.Binding = p.Parameters.Over(provider.Parameters), pkg
			at.Namespace, at.Package = p.Binding.Namespace, p.Binding.Entity
		}
	}
	if run.Action, run.Revision, err = w.actions.Get(at); err != nil {
		return whisk.Runnable{}, err
	}
	run.Params = run.Action.Parameters.Over(run.Params)
	return run, nil
}

func (w *world) Active(trigger whisk.Name) bool {
	t, _, err := w.triggers.Get(trigger)
	return err == nil && slices.ContainsFunc(w.rules.List(trigger.Namespace), func(r whisk.Rule) bool {
		return r.Trigger == trigger && r.Effective(&t) == whisk.Active
	})
}

func (w *world) Room() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refuse
}

func (w *world) Accept(_ context.Context, evs ...whisk.Event) ([]whisk.Place, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return nil, w.refuse
	}
	w.events = append(w.events, evs...)
	for _, ev := range evs {
		w.records = append(w.records, whisk.Activation{
			ID: ev.ID, Namespace: ev.Trigger.Namespace, Name: ev.Trigger.Entity, Version: "0.0.1", Subject: ev.Actor,
			Start: ev.Time, Result: ev.Payload, Size: -1,
		})
	}
	return make([]whisk.Place, len(evs)), nil
}

func (w *world) Invoke(_ context.Context, n whisk.Name, inv whisk.Invocation) error {
	run, err := w.Resolve(n)
	if err != nil {
		return err
	}
	_, _, err = w.Call(context.Background(), run, inv, time.Minute)
	return err
}

func (w *world) Call(_ context.Context, run whisk.Runnable, inv whisk.Invocation, _ time.Duration) (whisk.Activation, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.invoked = append(w.invoked, inv)
	if w.refuse != nil {
		return whisk.Activation{}, false, w.refuse
	}
	if w.slow {
		return whisk.Activation{}, false, nil
	}
	act := perform(w.code[run.Action.Exec.Digest], run, inv)
	w.records = append(w.records, act)
	return act, true, nil
}

// perform does what a known program would.
func perform(code string, run whisk.Runnable, inv whisk.Invocation) whisk.Activation {
	a := run.Action
	limits, _ := json.Marshal(a.Limits)
	act := whisk.Activation{
		ID: inv.ActivationID, Namespace: inv.Namespace, Name: a.Name.Entity, Version: a.Version, Subject: inv.Subject,
		Start: inv.Received, End: inv.Received.Add(time.Millisecond), Duration: time.Millisecond, Size: 2, Logs: []string{"a line"},
		Annotations: whisk.Params{}.Set("path", `"`+a.Name.Path()+`"`).Set("kind", `"`+a.Exec.Kind+`"`).
			Set("timeout", "false").Set("limits", string(limits)).Set("waitTime", "1"),
	}
	if !run.Binding.IsZero() {
		act.Annotations = act.Annotations.Set("binding", `"`+run.Binding.Path()+`"`)
	}
	payload, err := run.Params.Object(inv.Payload, true)
	var args map[string]json.RawMessage
	if err != nil || json.Unmarshal(payload, &args) != nil {
		act.Outcome = whisk.WhiskError
		return act
	}
	switch {
	case strings.Contains(code, "k.startswith('__ow')"):
		for k := range args {
			if strings.HasPrefix(k, "__ow") {
				delete(args, k)
			}
		}
		inner, _ := json.Marshal(args)
		act.Result = json.RawMessage(`{"args":` + string(inner) + `}`)
	case strings.Contains(code, "return args['answer']"):
		act.Result = args["answer"]
	case strings.Contains(code, "return args"):
		act.Result, _ = json.Marshal(args)
	default:
		act.Outcome, act.Result = whisk.DeveloperError, json.RawMessage(`{"error":"The action did not initialize and exited unexpectedly."}`)
	}
	var failed map[string]json.RawMessage
	if act.Outcome == whisk.Success && json.Unmarshal(act.Result, &failed) == nil && failed["error"] != nil {
		act.Outcome, act.Result = whisk.ApplicationError, json.RawMessage(`{"error":`+string(failed["error"])+`}`)
	}
	return act
}

func (w *world) Activation(_ context.Context, namespace, id string) (whisk.Activation, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.records {
		if a.Namespace == namespace && a.ID == id {
			return a, nil
		}
	}
	return whisk.Activation{}, whisk.E(whisk.NotFound, "read record", errMissing)
}

func (w *world) Activations(_ context.Context, q controller.Query) ([]whisk.Activation, error) {
	all := w.matching(q)
	all = all[min(q.Skip, len(all)):]
	return all[:min(q.Limit, len(all))], nil
}

func (w *world) CountActivations(_ context.Context, q controller.Query) (int, error) {
	return len(w.matching(q)), nil
}

func (w *world) matching(q controller.Query) []whisk.Activation {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []whisk.Activation
	for _, a := range slices.Backward(w.records) {
		start := a.Start.Truncate(time.Millisecond)
		if a.Namespace == q.Namespace && (q.Name == "" || q.Name == a.FilterName()) &&
			!start.Before(q.Since) && (q.Upto.IsZero() || !start.After(q.Upto)) {
			out = append(out, a)
		}
	}
	return out
}
