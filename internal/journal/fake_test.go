package journal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/whisk"
)

// fakeBus is a bus in memory that knows what is flushed, so that tests can cut
// the power, tear holes and lose answers.
type fakeBus struct {
	mu      sync.Mutex
	streams map[string]*fakeStream
	objects map[string][]byte
	flushes int
	purged  []uint64

	// onPublish decides what happens to a publish: it may refuse the message
	// (before), or lose the answer (after).
	before, after func(m *bus.Message) error
	order         []string // what was put, published and flushed, for tests of order
}

type fakeStream struct {
	msgs    []bus.Message
	first   uint64
	last    uint64
	flushed uint64
	bytes   int64
	limit   int64
}

func newFakeBus(journalLimit int64) *fakeBus {
	b := &fakeBus{streams: map[string]*fakeStream{}, objects: map[string][]byte{}}
	for _, n := range []string{bus.StreamEvents, bus.StreamJournal, bus.StreamCalls, bus.StreamDead} {
		b.streams[n] = &fakeStream{first: 1, limit: journalLimit}
	}
	return b
}

func streamOf(subject string) string {
	switch strings.SplitN(subject, ".", 2)[0] {
	case bus.SubjectJournal:
		return bus.StreamJournal
	case bus.SubjectCalls:
		return bus.StreamCalls
	case bus.SubjectDead:
		return bus.StreamDead
	}
	return bus.StreamEvents
}

func (b *fakeBus) Publish(_ context.Context, m bus.Message, expect *uint64) (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.before != nil {
		if err := b.before(&m); err != nil {
			return 0, err
		}
	}
	name := streamOf(m.Subject)
	s := b.streams[name]
	if expect != nil && *expect != s.last {
		return 0, whisk.E(whisk.Conflict, "publish", errors.New("wrong last sequence"))
	}
	if size := int64(len(m.Data)) + messageOverhead; s.limit > 0 && s.bytes+size > s.limit {
		return 0, whisk.E(whisk.Unavailable, "publish", errors.New("maximum bytes exceeded"))
	}
	s.last++
	m.Seq, m.Time, m.Data = s.last, time.Now(), bytes.Clone(m.Data)
	s.msgs = append(s.msgs, m)
	s.bytes += int64(len(m.Data)) + messageOverhead
	b.order = append(b.order, "publish "+name)
	if b.after != nil {
		if err := b.after(&m); err != nil {
			return 0, err
		}
	}
	return m.Seq, nil
}

func (b *fakeBus) Flush(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flushes++
	b.order = append(b.order, "flush")
	for _, s := range b.streams {
		s.flushed = s.last
	}
	return nil
}

func (b *fakeBus) Read(_ context.Context, stream string, from uint64, most, maxBytes int) ([]bus.Message, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []bus.Message
	n := 0
	for _, m := range b.streams[stream].msgs {
		if m.Seq >= from && len(out) < most && (n == 0 || maxBytes <= 0 || n < maxBytes) {
			out = append(out, m)
			n += len(m.Data)
		}
	}
	return out, nil
}

func (b *fakeBus) Get(_ context.Context, stream string, seq uint64) (bus.Message, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.streams[stream].msgs {
		if m.Seq == seq {
			return m, nil
		}
	}
	return bus.Message{}, whisk.E(whisk.NotFound, "get", fmt.Errorf("no message %d", seq))
}

func (b *fakeBus) State(_ context.Context, stream string) (bus.State, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.streams[stream]
	st := bus.State{First: s.first, Last: s.last, Messages: uint64(len(s.msgs)), Bytes: s.bytes, Limit: s.limit}
	if len(s.msgs) > 0 {
		st.First = s.msgs[0].Seq
	}
	return st, nil
}

func (b *fakeBus) Purge(_ context.Context, stream string, before uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.streams[stream]
	b.purged = append(b.purged, before)
	for len(s.msgs) > 1 && s.msgs[0].Seq < before {
		s.bytes -= int64(len(s.msgs[0].Data)) + messageOverhead
		s.msgs = s.msgs[1:]
		s.first = s.msgs[0].Seq
	}
	return nil
}

func (b *fakeBus) PutObject(_ context.Context, data []byte) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	sum := sha256.Sum256(data)
	d := hex.EncodeToString(sum[:])
	b.objects[d] = bytes.Clone(data)
	b.order = append(b.order, "object")
	return d, nil
}

func (b *fakeBus) Object(_ context.Context, digest string) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if d, ok := b.objects[digest]; ok {
		return d, nil
	}
	return nil, whisk.E(whisk.NotFound, "object", errors.New("no such object"))
}

func (b *fakeBus) Event(ctx context.Context, seq uint64) (whisk.Event, error) {
	m, err := b.Get(ctx, bus.StreamEvents, seq)
	if err != nil {
		return whisk.Event{}, err
	}
	var ev whisk.Event
	if m.Subject == "cur.x" {
		return ev, whisk.E(whisk.NotFound, "event", errors.New("not an event"))
	}
	err = json.Unmarshal(m.Data, &ev)
	ev.Seq, ev.Accepted = seq, m.Time
	return ev, err
}

// kill returns what a process started after kill -9 finds: all that was
// written.
func (b *fakeBus) kill() *fakeBus {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := &fakeBus{streams: map[string]*fakeStream{}, objects: maps.Clone(b.objects)}
	for n, s := range b.streams {
		t := *s
		t.msgs = slices.Clone(s.msgs)
		t.flushed = t.last // the bus syncs before anything is read
		c.streams[n] = &t
	}
	return c
}

// cut returns what is found after the power was cut: what was flushed.
func (b *fakeBus) cut() *fakeBus {
	c := b.kill()
	b.mu.Lock()
	defer b.mu.Unlock()
	for n, s := range c.streams {
		s.truncate(b.streams[n].flushed)
	}
	return c
}

func (s *fakeStream) truncate(last uint64) {
	s.msgs = slices.DeleteFunc(s.msgs, func(m bus.Message) bool { return m.Seq > last })
	s.last, s.flushed = min(s.last, last), min(s.last, last)
	s.bytes = 0
	for _, m := range s.msgs {
		s.bytes += int64(len(m.Data)) + messageOverhead
	}
}

// tear removes one message in the middle, as a torn block does.
func (b *fakeBus) tear(stream string, seq uint64) {
	s := b.streams[stream]
	s.msgs = slices.DeleteFunc(s.msgs, func(m bus.Message) bool { return m.Seq == seq })
}

// accept puts events into the archive, flushed.
func (b *fakeBus) accept(t testing.TB, evs ...whisk.Event) []whisk.Event {
	t.Helper()
	for i := range evs {
		data, err := json.Marshal(evs[i])
		if err != nil {
			t.Fatal(err)
		}
		seq, err := b.Publish(t.Context(), bus.Message{Subject: "ev.guest.t", Data: data}, nil)
		if err != nil {
			t.Fatal(err)
		}
		evs[i].Seq = seq
	}
	b.Flush(t.Context()) //nolint:errcheck // the fake's never fails
	return evs
}

var (
	theTrigger = whisk.Name{Namespace: "guest", Entity: "t"}
	theRule    = whisk.Name{Namespace: "guest", Entity: "r"}
	theAction  = whisk.Name{Namespace: "guest", Package: "p", Entity: "a"}
	epoch      = time.UnixMilli(1_790_000_000_000).UTC()
)

func anEvent(n int) whisk.Event {
	when := epoch.Add(time.Duration(n) * time.Second)
	return whisk.Event{
		ID: whisk.DeriveID(when, "test", strconv.Itoa(n)), Trigger: theTrigger, Time: when,
		Payload: json.RawMessage(fmt.Sprintf(`{"n":%d}`, n)), Actor: "guest",
	}
}

func someEvents(from, to int) []whisk.Event {
	var out []whisk.Event
	for n := from; n < to; n++ {
		out = append(out, anEvent(n))
	}
	return out
}

func attemptID(ev *whisk.Event, rule whisk.Name, attempt int) string {
	return whisk.DeriveID(ev.Time, strconv.FormatUint(ev.Seq, 10), ev.ID, rule.String(), strconv.Itoa(attempt))
}

// judge is a verdict that matches the rules given, or none.
func judge(ev *whisk.Event, rules ...whisk.Name) whisk.Verdict {
	v := whisk.Verdict{
		Event: whisk.Place{Seq: ev.Seq, ID: ev.ID}, Trigger: ev.Trigger, Version: "0.0.1", Actor: ev.Actor,
		Time: ev.Time, At: ev.Time, Size: len(ev.Payload),
	}
	for _, r := range rules {
		v.Rules = append(v.Rules, whisk.RuleVerdict{
			Rule: r, Revision: 7, Action: theAction, Decision: whisk.Matched, ActivationID: attemptID(ev, r, 1),
		})
	}
	return v
}

func matchOf(ev *whisk.Event) whisk.Match { return whisk.Match{Event: ev.Seq, Rule: theRule} }

func startOf(ev *whisk.Event, attempt int) whisk.Entry {
	return whisk.Entry{
		Kind: whisk.EntryStart, Match: matchOf(ev), Attempt: attempt,
		ActivationID: attemptID(ev, theRule, attempt), At: ev.Time,
	}
}

func recordOf(ev *whisk.Event, attempt int, o whisk.Outcome) whisk.Entry {
	a := activation(attemptID(ev, theRule, attempt), ev.Time)
	a.Outcome = o
	if o != whisk.Success {
		a.Result = json.RawMessage(`{"error":"it broke"}`)
	}
	return whisk.Entry{
		Kind: whisk.EntryRecord, Match: matchOf(ev), Attempt: attempt, Record: &a, Final: o == whisk.Success,
	}
}

func activation(id string, start time.Time) whisk.Activation {
	return whisk.Activation{
		ID: id, Namespace: "guest", Name: "a", Version: "0.0.1", Subject: "guest",
		Start: start, End: start.Add(20 * time.Millisecond), Duration: 20 * time.Millisecond,
		Result: json.RawMessage(`{"ok":true}`), Size: 11, Logs: []string{"2026-11-24T00:00:00Z stdout: hello"},
		Annotations: whisk.Params{}.Set("path", `"guest/p/a"`).Set("kind", `"nodejs:20"`),
	}
}

func anInvoke(n int) (whisk.Match, whisk.Entry) {
	id := whisk.DeriveID(epoch.Add(time.Duration(n)*time.Second), "invoke", strconv.Itoa(n))
	m := whisk.Match{Invoke: id}
	return m, whisk.Entry{Kind: whisk.EntryInvoke, Match: m, Invoke: &whisk.Invoke{
		Action: theAction, Retry: true,
		Invocation: whisk.Invocation{ActivationID: id, Namespace: "guest", Subject: "guest", Payload: json.RawMessage(`{"x":1}`), Received: epoch},
	}}
}

var quickPace = pace{settle: 2 * time.Millisecond, keep: 5 * time.Millisecond, retry: 5 * time.Millisecond}

// running is a journal with its Run.
type running struct {
	*Journal
	t      testing.TB
	cancel context.CancelFunc
	ended  chan error
	once   sync.Once
	reg    *prometheus.Registry
}

// metric returns the value of one of the journal's metrics without labels.
func (r *running) metric(name string) float64 {
	r.t.Helper()
	all, err := r.reg.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == "millrace_journal_"+name {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	r.t.Fatalf("there is no metric %s", name)
	return 0
}

func testOptions(t testing.TB) Options {
	return Options{Index: filepath.Join(t.TempDir(), "index.db"), Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()}
}

// openOn opens a journal on b and runs it.
func openOn(t testing.TB, b streamBus, o Options) *running {
	t.Helper()
	r := opened(t, b, o)
	r.run()
	return r
}

// opened opens a journal on b: tests that look at a start alone do not run it.
func opened(t testing.TB, b streamBus, o Options) *running {
	t.Helper()
	reg := prometheus.NewRegistry()
	o.Metrics = reg
	j, err := open(t.Context(), b, o)
	if err != nil {
		t.Fatal(err)
	}
	j.pace = quickPace
	r := &running{Journal: j, t: t, ended: make(chan error, 1), reg: reg}
	t.Cleanup(r.stop)
	return r
}

func (r *running) run() {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() { r.ended <- r.Journal.Run(ctx) }()
}

// stop ends the journal as the server does.
func (r *running) stop() {
	r.once.Do(func() {
		if r.cancel != nil {
			r.cancel()
			if err := <-r.ended; err != nil {
				r.t.Errorf("Run: %v", err)
			}
		}
		if err := r.Close(); err != nil {
			r.t.Errorf("Close: %v", err)
		}
	})
}

func (r *running) append(es ...whisk.Entry) {
	r.t.Helper()
	if err := r.Append(r.t.Context(), es...); err != nil {
		r.t.Fatal(err)
	}
}

func (r *running) durable(es ...whisk.Entry) {
	r.t.Helper()
	if err := r.AppendDurable(r.t.Context(), es...); err != nil {
		r.t.Fatal(err)
	}
}

// judgeAll writes a verdict that matches theRule for each event, as one call.
func (r *running) judgeAll(evs ...whisk.Event) {
	r.t.Helper()
	var vs []whisk.Verdict
	for i := range evs {
		vs = append(vs, judge(&evs[i], theRule))
	}
	last := evs[len(evs)-1]
	if err := r.Verdicts(r.t.Context(), evs[0].Seq, whisk.Place{Seq: last.Seq, ID: last.ID}, vs); err != nil {
		r.t.Fatal(err)
	}
}

// eventually waits for cond.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline:
			t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

// copyIndex copies the index as kill -9 leaves it.
func copyIndex(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "index.db")
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(from + suffix)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to+suffix, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func matchesOf(ps []whisk.Pending) []whisk.Match {
	var out []whisk.Match
	for _, p := range ps {
		out = append(out, p.Match)
	}
	return out
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
