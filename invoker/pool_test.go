package invoker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker"
	"github.com/millrace/millrace/invoker/invokertest"
)

// fake has actions that tests steer from outside.
type fake struct {
	*invokertest.Fake
	gate    chan struct{} // "wait" waits for one value
	entered chan string   // "wait" and "order" tell their arguments
	inside  atomic.Int32
	most    atomic.Int32
}

func newFake() *fake {
	f := &fake{gate: make(chan struct{}), entered: make(chan string, 10000)}
	f.Fake = invokertest.NewFake(map[string]invokertest.Action{
		"echo": func(c *invokertest.Call) json.RawMessage { return c.Args },
		"count": func(c *invokertest.Call) json.RawMessage {
			if c.Init {
				return nil
			}
			c.State["n"]++
			return fmt.Appendf(nil, `{"n":%d}`, c.State["n"])
		},
		"wait": func(c *invokertest.Call) json.RawMessage {
			if c.Init {
				return nil
			}
			f.most.Store(max(f.most.Load(), f.inside.Add(1)))
			defer f.inside.Add(-1)
			f.entered <- string(c.Args)
			select {
			case <-f.gate:
			case <-c.Done():
			}
			return c.Args
		},
		"order": func(c *invokertest.Call) json.RawMessage {
			if !c.Init {
				f.entered <- string(c.Args)
			}
			return json.RawMessage(`{}`)
		},
		"env": func(c *invokertest.Call) json.RawMessage {
			if c.Init {
				for k := range c.Env {
					if k == "secret" {
						c.State[c.Env[k]] = 1
					}
				}
				return nil
			}
			for k := range c.State {
				return fmt.Appendf(nil, `{"secret":%q,"args":%s}`, k, c.Args)
			}
			return json.RawMessage(`{}`)
		},
		"crash": func(c *invokertest.Call) json.RawMessage {
			if !c.Init {
				c.End(invoker.Ending{ExitCode: 1})
			}
			return nil
		},
		"starve": func(c *invokertest.Call) json.RawMessage {
			if !c.Init {
				c.End(invoker.Ending{ExitCode: 137, OutOfMemory: true})
			}
			return nil
		},
	})
	return f
}

func action(name, code string) whisk.Runnable { return invokertest.Runnable(name, "fake:1", code) }

func note(a whisk.Activation, key string) string { return string(a.Annotations.Get(key)) }

func TestRecordColdAndWarm(t *testing.T) {
	f := newFake()
	b := invokertest.Start(t, f, invokertest.FakeRuntimes(0))
	r := action("hello", "count")
	r.Action.Name.Package = "pkg"
	r.Binding = whisk.Name{Namespace: "guest", Entity: "bound"}
	cold := b.Call(r, `{}`)
	invokertest.Expect(t, cold, whisk.Success, `{"n":1}`)
	if got := note(cold, "initTime"); got == "" {
		t.Error("a cold start has no initTime")
	}
	warm := b.Call(r, `{}`)
	invokertest.Expect(t, warm, whisk.Success, `{"n":2}`)
	if got := note(warm, "initTime"); got != "" {
		t.Errorf("a warm start has initTime %s", got)
	}
	for key, want := range map[string]string{
		"path": `"guest/pkg/hello"`, "kind": `"fake:1"`, "timeout": "false", "binding": `"guest/bound"`,
		"limits": `{"concurrency":1,"logs":10,"memory":256,"timeout":60000}`,
	} {
		if got := note(warm, key); got != want {
			t.Errorf("annotation %s = %s, want %s", key, got, want)
		}
	}
	if warm.Name != "hello" || warm.Namespace != "guest" || warm.Subject != "guest-subject" || warm.Version != "0.0.1" || warm.Size != 7 {
		t.Errorf("record = %+v", warm)
	}
	if got := warm.End.Sub(warm.Start); got != warm.Duration {
		t.Errorf("duration = %v, end - start = %v", warm.Duration, got)
	}
	if n := len(f.Created()); n != 1 {
		t.Errorf("%d containers were made, want 1", n)
	}
}

func TestFirstComeFirstServed(t *testing.T) {
	f := newFake()
	b := invokertest.Start(t, f, invokertest.FakeRuntimes(0), invoker.WithMemory(256<<20))
	release := f.Hold()
	var ends []<-chan invokertest.Result
	for i := range 500 {
		ends = append(ends, b.Go(action("a", "order"), fmt.Sprint(`{"i":`, i, `}`)))
	}
	release()
	for i, c := range ends {
		b.Wait(c)
		if got, want := <-f.entered, fmt.Sprintf(`{"i":%d}`, i); got != want {
			t.Fatalf("run %d got %s, want %s", i, got, want)
		}
	}
}

func TestOneRunAtATimeInAContainer(t *testing.T) {
	f := newFake()
	b := invokertest.Start(t, f, invokertest.FakeRuntimes(0), invoker.WithMemory(256<<20))
	var ends []<-chan invokertest.Result
	for range 50 {
		ends = append(ends, b.Go(action("a", "wait"), `{}`))
	}
	for _, c := range ends {
		f.gate <- struct{}{}
		b.Wait(c)
	}
	if n := f.most.Load(); n != 1 {
		t.Errorf("%d runs at once in one container", n)
	}
}

func TestShortJobsShareFewContainers(t *testing.T) {
	f := newFake()
	b := invokertest.Start(t, f, invokertest.FakeRuntimes(0), invoker.WithMemory(64<<30))
	r := action("a", "count")
	b.Call(r, `{}`)
	b.Call(r, `{}`)
	var ends []<-chan invokertest.Result
	for range 5000 {
		ends = append(ends, b.Go(r, `{}`))
	}
	for _, c := range ends {
		b.Wait(c)
	}
	if n := len(f.Created()); n > 16 {
		t.Errorf("%d containers for short jobs", n)
	}
}

func TestLongJobsGetAContainerEach(t *testing.T) {
	f := newFake()
	b := invokertest.Start(t, f, invokertest.FakeRuntimes(0), invoker.WithMemory(64<<30))
	var ends []<-chan invokertest.Result
	for range 20 {
		ends = append(ends, b.Go(action("a", "wait"), `{}`))
	}
	for range ends { // all have begun before the first may end
		<-f.entered
	}
	close(f.gate)
	for _, c := range ends {
		b.Wait(c)
	}
}

func TestMemoryBudget(t *testing.T) {
	f := newFake()
	b := invokertest.Start(t, f, invokertest.FakeRuntimes(0), invoker.WithMemory(1<<30))
	var ends []<-chan invokertest.Result
	for round := range 5 {
		for i := range 20 {
			r := action(fmt.Sprint("a", i), "echo")
			r.Action.Limits.Memory = []int{128, 256, 512}[(i+round)%3]
			r.Revision = whisk.Revision(1 + (i+round)%3)
			ends = append(ends, b.Go(r, `{}`))
		}
	}
	for _, c := range ends {
		invokertest.Expect(t, b.Wait(c), whisk.Success, `{}`)
	}
	if m := f.Most(); m > 1024 {
		t.Errorf("containers had %d MiB at once, want at most 1024", m)
	}
	big := action("big", "echo")
	big.Action.Limits.Memory = 2048
	a := b.Call(big, `{}`)
	invokertest.Expect(t, a, whisk.WhiskError, `{"error":"Failed to provision resources to run the action."}`)
}

// A job that needs the memory of several containers gets it although jobs for
// those containers keep coming, and jobs whose container is free do not wait
// behind it.
func TestBigJobIsNotStarved(t *testing.T) {
	f := newFake()
	b := invokertest.Start(t, f, invokertest.FakeRuntimes(0), invoker.WithMemory(512<<20))
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range 4 {
		r := action(fmt.Sprint("small", i), "echo")
		r.Action.Limits.Memory = 128
		b.Call(r, `{}`)
		for range 2 {
			wg.Go(func() {
				for ctx.Err() == nil {
					b.Call(r, `{}`)
				}
			})
		}
	}
	big := action("big", "echo")
	big.Action.Limits.Memory = 512
	for range 3 {
		invokertest.Expect(t, b.Call(big, `{}`), whisk.Success, `{}`)
	}
	stop()
	wg.Wait()
}

func TestFreeContainerDoesNotWaitBehindOthers(t *testing.T) {
	f := newFake()
	b := invokertest.Start(t, f, invokertest.FakeRuntimes(0), invoker.WithMemory(512<<20))
	quick := action("quick", "echo")
	b.Call(quick, `{}`)
	var ends []<-chan invokertest.Result
	for i := range 30 { // they fill the memory and their queues
		ends = append(ends, b.Go(action(fmt.Sprint("slow", i%3), "wait"), `{}`))
	}
	<-f.entered
	// The container of quick may be taken for memory: then a third one is made,
	// and quick waits for its turn. If it is not, quick waits for nobody.
	again, ended := b.Go(quick, `{}`), false
	invokertest.Eventually(t, "quick has ended, or lost its container", func() bool {
		select {
		case <-again:
			ended = true
		default:
		}
		return ended || len(f.Created()) > 2
	})
	close(f.gate)
	if !ended {
		b.Wait(again)
	}
	for _, c := range ends {
		b.Wait(c)
	}
	b.Call(quick, `{}`)
}

func TestStemCell(t *testing.T) {
	f := newFake()
	b := invokertest.Start(t, f, invokertest.FakeRuntimes(2), invoker.WithStemCells(1))
	invokertest.Eventually(t, "a stem cell is there", func() bool { return f.Live() == 1 })
	if s := f.Created()[0]; s.Owner != "" || s.Memory != 256 {
		t.Errorf("stem cell = %+v", s)
	}
	release := f.Hold() // nothing but the cell can serve it
	a := b.Call(action("a", "count"), `{}`)
	invokertest.Expect(t, a, whisk.Success, `{"n":1}`)
	if note(a, "initTime") == "" {
		t.Error("a start from a stem cell has no initTime")
	}
	release()
	invokertest.Eventually(t, "the stem cell is replaced", func() bool { return f.Live() == 2 })
}

func TestNamespacesShareNoContainer(t *testing.T) {
	f := newFake()
	b := invokertest.Start(t, f, invokertest.FakeRuntimes(0))
	r := action("a", "count")
	for i, namespace := range []string{"one", "two", "one"} {
		for _, told := range []bool{true, false} { // by the job, or only by the invocation
			c := make(chan whisk.Activation, 1)
			j := b.Job(r, `{}`, func(a whisk.Activation, err error) {
				if err != nil {
					t.Error(err)
				}
				c <- a
			})
			if told {
				j.Namespace = namespace
			}
			begin := j.Begin
			j.Begin = func(ctx context.Context) (whisk.Invocation, error) {
				inv, err := begin(ctx)
				inv.Namespace = namespace
				return inv, err
			}
			if err := b.Submit(j); err != nil {
				t.Fatal(err)
			}
			want := []int{1, 1, 3}[i]
			if !told {
				want++
			}
			if a := <-c; string(a.Result) != fmt.Sprintf(`{"n":%d}`, want) || a.Namespace != namespace {
				t.Errorf("run %d of %s = %s in %s, want %d", i, namespace, a.Result, a.Namespace, want)
			}
		}
	}
}

func TestInitParameters(t *testing.T) {
	f := newFake()
	b := invokertest.Start(t, f, invokertest.FakeRuntimes(0))
	r := action("a", "env")
	r.Params = whisk.Params{{Key: "secret", Value: json.RawMessage(`"s1"`), Init: true}, {Key: "x", Value: json.RawMessage(`1`)}}
	invokertest.Expect(t, b.Call(r, `{"y":2}`), whisk.Success, `{"secret":"s1","args":{"x":1,"y":2}}`)
	invokertest.Expect(t, b.Call(r, `{"y":3}`), whisk.Success, `{"secret":"s1","args":{"x":1,"y":3}}`)
	if n := len(f.Created()); n != 1 {
		t.Errorf("%d containers for one environment", n)
	}
	invokertest.Expect(t, b.Call(r, `{"secret":"s2"}`), whisk.Success, `{"secret":"s2","args":{"x":1}}`)
	invokertest.Expect(t, b.Call(r, `{}`), whisk.Success, `{"secret":"s1","args":{"x":1}}`)
}

func TestRevisionGetsItsOwnContainer(t *testing.T) {
	b := invokertest.Start(t, newFake(), invokertest.FakeRuntimes(0))
	r := action("a", "count")
	b.Call(r, `{}`)
	r.Revision++
	invokertest.Expect(t, b.Call(r, `{}`), whisk.Success, `{"n":1}`)
}

func TestFailedStarts(t *testing.T) {
	f := newFake()
	b := invokertest.Start(t, f, invokertest.FakeRuntimes(0))
	f.Fail(errors.New("no such daemon"))
	invokertest.Expect(t, b.Call(action("a", "echo"), `{}`), whisk.WhiskError, `{"error":"Failed to provision resources to run the action."}`)
	f.Fail(whisk.E(whisk.Invalid, "pull", errors.New("Failed to pull container image 'x'."))) //nolint:staticcheck // upstream's wording
	a := b.Call(action("a", "echo"), `{}`)
	invokertest.Expect(t, a, whisk.DeveloperError, `{"error":"Failed to pull container image 'x'."}`)
	if a.Duration != 0 || note(a, "limits") == "" || a.Size != -1 {
		t.Errorf("record = %+v", a)
	}
	f.Fail(nil)
	invokertest.Expect(t, b.Call(action("a", "echo"), `{}`), whisk.Success, `{}`)
	invokertest.Expect(t, b.Call(invokertest.Runnable("k", "cobol:85", ""), `{}`), whisk.WhiskError, `{"error":"The runtime of kind 'cobol:85' is not offered here."}`)
	invokertest.Expect(t, b.Call(invokertest.Runnable("k", whisk.KindBlackbox, ""), `{}`), whisk.DeveloperError, `{"error":"The runtime of kind 'blackbox' is not offered here."}`)
}

func TestCrashedContainerIsReplaced(t *testing.T) {
	f := newFake()
	b := invokertest.Start(t, f, invokertest.FakeRuntimes(0))
	a := b.Call(action("a", "crash"), `{}`)
	invokertest.Expect(t, a, whisk.DeveloperError, `{"error":"The action did not produce a valid response and exited unexpectedly."}`)
	if !invokertest.HasLine(a, "stderr: The action did not initialize or run as expected. Log data might be missing.") {
		t.Errorf("logs = %q", a.Logs)
	}
	invokertest.Expect(t, b.Call(action("b", "starve"), `{}`), whisk.DeveloperError, `{"error":"The action exhausted its memory and was aborted."}`)
	invokertest.Eventually(t, "both are removed", func() bool { return f.Live() == 0 })
}

func TestRefusedBeginKeepsTheContainer(t *testing.T) {
	f := newFake()
	b := invokertest.Start(t, f, invokertest.FakeRuntimes(0))
	gone := errors.New("deleted")
	c := make(chan error, 1)
	j := b.Job(action("a", "count"), `{}`, func(_ whisk.Activation, err error) { c <- err })
	j.Begin = func(context.Context) (whisk.Invocation, error) { return whisk.Invocation{}, gone }
	if err := b.Submit(j); err != nil {
		t.Fatal(err)
	}
	if err := <-c; !errors.Is(err, gone) {
		t.Errorf("the job ended with %v, want %v", err, gone)
	}
	b.Call(action("a", "count"), `{}`)
	if n := len(f.Created()); n != 1 {
		t.Errorf("%d containers, want 1", n)
	}
}

func TestIdleContainersArePausedAndRemoved(t *testing.T) {
	f := newFake()
	b := invokertest.Start(t, f, invokertest.FakeRuntimes(0), invoker.WithGrace(time.Millisecond), invoker.WithIdle(300*time.Millisecond))
	r := action("a", "count")
	for i := range 20 { // it is paused and resumed as it comes
		invokertest.Expect(t, b.Call(r, `{}`), whisk.Success, fmt.Sprintf(`{"n":%d}`, i+1))
		if i%5 == 0 {
			tick := time.NewTicker(3 * time.Millisecond)
			<-tick.C
			tick.Stop()
		}
	}
	invokertest.Eventually(t, "it is removed", func() bool { return f.Live() == 0 })
	invokertest.Expect(t, b.Call(r, `{}`), whisk.Success, `{"n":1}`)
}

func TestStopFinishesWhatRuns(t *testing.T) {
	f := newFake()
	b := invokertest.Start(t, f, invokertest.FakeRuntimes(0), invoker.WithMemory(256<<20))
	running := b.Go(action("a", "wait"), `{"i":1}`)
	<-f.entered
	waiting := b.Go(action("a", "wait"), `{"i":2}`)
	quit := b.Quit()
	if r := <-waiting; !errors.Is(r.Err, whisk.Unavailable) {
		t.Errorf("what waited ended with %v, want Unavailable", r.Err)
	}
	if err := b.Submit(b.Job(action("a", "echo"), `{}`, nil)); !errors.Is(err, whisk.Unavailable) {
		t.Errorf("Submit after the end = %v, want Unavailable", err)
	}
	f.gate <- struct{}{}
	invokertest.Expect(t, b.Wait(running), whisk.Success, `{"i":1}`)
	<-quit
	if n := f.Live(); n != 0 {
		t.Errorf("%d containers are left", n)
	}
}

func TestStopCutsOffWhatTakesTooLong(t *testing.T) {
	f := newFake()
	b := invokertest.Start(t, f, invokertest.FakeRuntimes(0), invoker.WithDrain(10*time.Millisecond))
	running := b.Go(action("a", "wait"), `{}`)
	<-f.entered
	b.Stop()
	if r := <-running; !errors.Is(r.Err, whisk.Unavailable) {
		t.Errorf("it ended with %v, %v, want Unavailable", r.Err, r.Activation)
	}
}

func TestManyActionsInLittleMemory(t *testing.T) {
	f := newFake()
	b := invokertest.Start(t, f, invokertest.FakeRuntimes(0), invoker.WithMemory(1<<30))
	var ends []<-chan invokertest.Result
	for i := range 400 {
		ends = append(ends, b.Go(action(fmt.Sprint("a", i%20), "count"), `{}`))
	}
	for _, c := range ends {
		if a := b.Wait(c); a.Outcome != whisk.Success {
			t.Errorf("outcome = %v, %s", a.Outcome, a.Result)
		}
	}
	if n := len(f.Created()); n > 100 {
		t.Errorf("%d containers were made for 400 runs of 20 actions", n)
	}
}

func TestBuiltin(t *testing.T) {
	fns := map[string]invoker.Builtin{
		"alarms/echo": func(_ context.Context, inv whisk.Invocation, args json.RawMessage) (json.RawMessage, error) {
			return fmt.Appendf(nil, `{"who":%q,"args":%s}`, inv.Subject, args), nil
		},
		"alarms/fail": func(context.Context, whisk.Invocation, json.RawMessage) (json.RawMessage, error) {
			return nil, whisk.E(whisk.Invalid, "x", errors.New("bad cron"))
		},
		"alarms/error": func(context.Context, whisk.Invocation, json.RawMessage) (json.RawMessage, error) {
			return []byte(`{"error":{"code":1},"x":2}`), nil
		},
		"alarms/panic": func(context.Context, whisk.Invocation, json.RawMessage) (json.RawMessage, error) { panic("oh") },
		"alarms/hang": func(ctx context.Context, _ whisk.Invocation, _ json.RawMessage) (json.RawMessage, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	}
	b := invokertest.Start(t, newFake(), invokertest.FakeRuntimes(0), invoker.WithBuiltins(fns))
	call := func(name string) whisk.Activation {
		r := invokertest.Runnable(name, whisk.KindBuiltin, "")
		r.Action.Name = whisk.Name{Namespace: whisk.SystemNamespace, Package: "alarms", Entity: name}
		r.Action.Limits.Timeout = 100
		r.Params = whisk.Params{}.Set("p", "1")
		return b.Call(r, `{"q":2}`)
	}
	a := call("echo")
	invokertest.Expect(t, a, whisk.Success, `{"who":"guest-subject","args":{"p":1,"q":2}}`)
	if note(a, "path") != `"whisk.system/alarms/echo"` || note(a, "kind") != `"builtin"` || note(a, "initTime") != "" {
		t.Errorf("annotations = %v", a.Annotations)
	}
	invokertest.Expect(t, call("fail"), whisk.ApplicationError, `{"error":"bad cron"}`)
	invokertest.Expect(t, call("error"), whisk.ApplicationError, `{"error":{"code":1}}`)
	invokertest.Expect(t, call("panic"), whisk.WhiskError, `{"error":"There was an internal server error."}`)
	invokertest.Expect(t, call("none"), whisk.WhiskError, `{"error":"Action could not be fetched."}`)
	a = call("hang")
	invokertest.Expect(t, a, whisk.DeveloperError, `{"error":"The action exceeded its time limits of 100 milliseconds."}`)
	if note(a, "timeout") != "true" {
		t.Errorf("annotations = %v", a.Annotations)
	}
}

func TestAPIKeys(t *testing.T) {
	var minted atomic.Int32
	mint := func(inv *whisk.Invocation, until time.Time) string {
		minted.Add(1)
		if d := time.Until(until); inv.Namespace != "guest" || d < time.Minute-time.Second || d > 2*time.Minute {
			t.Errorf("mint(%q, in %v)", inv.Namespace, d)
		}
		return "u:k"
	}
	b := invokertest.Start(t, newFake(), invokertest.FakeRuntimes(0), invoker.WithKeys(mint))
	r := action("a", "echo")
	b.Call(r, `{}`)
	if n := minted.Load(); n != 0 {
		t.Errorf("%d keys for an action that asks for none", n)
	}
	r.Action.Annotations = whisk.Params{}.Set("provide-api-key", "true")
	r.Revision++
	b.Call(r, `{}`)
	b.Call(r, `{}`)
	if n := minted.Load(); n != 2 {
		t.Errorf("%d keys for two runs, want 2", n)
	}
}

func TestDefaultRuntimes(t *testing.T) {
	var kinds []string
	for _, r := range invoker.DefaultRuntimes().All() {
		kinds = append(kinds, r.Kind)
	}
	if want := []string{"native:1", "nodejs:20", "python:3"}; !slices.Equal(kinds, want) {
		t.Errorf("kinds = %v, want %v", kinds, want)
	}
}
