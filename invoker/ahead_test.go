package invoker_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker"
	"github.com/millrace/millrace/invoker/invokertest"
)

// aheadBench runs one container, for an action that ends at once unless its
// arguments hold "wait": then it waits for the gate, and ends its container if
// they hold "crash" besides.
func aheadBench(t *testing.T, opts ...invoker.Option) (f *fake, b *invokertest.Bench, r whisk.Runnable) {
	f = newFake()
	f.Fake = invokertest.NewFake(map[string]invokertest.Action{"some": func(c *invokertest.Call) json.RawMessage {
		if !c.Init && strings.Contains(string(c.Args), "wait") {
			f.entered <- string(c.Args)
			select {
			case <-f.gate:
			case <-c.Done():
			}
			if strings.Contains(string(c.Args), "crash") {
				c.End(invoker.Ending{ExitCode: 1})
			}
		}
		return json.RawMessage(`{}`)
	}})
	opts = append(opts, invoker.WithMemory(256<<20))
	b = invokertest.Start(t, f, invokertest.FakeRuntimes(0), opts...)
	return f, b, action("some", "some")
}

// submit submits a job and returns where its end will be and what is closed
// when it begins. Its beginning takes until hold is closed, if that is not nil.
func submit(b *invokertest.Bench, r whisk.Runnable, payload string, hold <-chan struct{}) (<-chan invokertest.Result, <-chan struct{}) {
	b.T.Helper()
	end, begun := make(chan invokertest.Result, 1), make(chan struct{})
	j := b.Job(r, payload, func(a whisk.Activation, err error) { end <- invokertest.Result{Activation: a, Err: err} })
	begin := j.Begin
	j.Begin = func(ctx context.Context) (whisk.Invocation, error) {
		close(begun)
		if hold != nil {
			<-hold
		}
		return begin(ctx)
	}
	if err := b.Submit(j); err != nil {
		b.T.Fatal(err)
	}
	return end, begun
}

// heldUp has one job run that waits for the gate, with the payload given, and
// returns the end of it and that of a job behind it that has begun meanwhile:
// jobs of the action are short, once enough of them were seen.
func heldUp(t *testing.T, f *fake, b *invokertest.Bench, r whisk.Runnable, payload string) (first, second <-chan invokertest.Result) {
	t.Helper()
	first, second, begin := heldUpBeginning(t, f, b, r, payload)
	begin()
	return first, second
}

// heldUpBeginning is heldUp while the second job is still beginning, until the
// function that it returns is called.
func heldUpBeginning(
	t *testing.T, f *fake, b *invokertest.Bench, r whisk.Runnable, payload string,
) (first, second <-chan invokertest.Result, begin func()) {
	t.Helper()
	for range 1000 {
		var quick []<-chan invokertest.Result
		for range 50 {
			quick = append(quick, b.Go(r, `{}`))
		}
		hold := make(chan struct{})
		first, _ := submit(b, r, payload, nil)
		second, begun := submit(b, r, `{}`, hold)
		for _, c := range quick {
			b.Wait(c)
		}
		<-f.entered
		select {
		case <-begun:
			return first, second, func() { close(hold) }
		case <-time.After(5 * time.Millisecond): // the machine is slow just now: try again
		}
		close(hold)
		f.gate <- struct{}{}
		b.Wait(first)
		b.Wait(second)
	}
	t.Fatal("no short job has ever begun while another ran")
	return nil, nil, nil
}

func TestShortJobsBeginWhileOthersRun(t *testing.T) {
	f, b, r := aheadBench(t)
	first, second := heldUp(t, f, b, r, `{"wait":1}`)
	select {
	case <-second:
		t.Error("the second job has run in a container that was not free")
	default:
	}
	f.gate <- struct{}{}
	b.Wait(first)
	invokertest.Expect(t, b.Wait(second), whisk.Success, `{}`)
	if n := len(f.Created()); n != 1 {
		t.Errorf("%d containers were made, want 1", n)
	}
}

func TestLongJobsDoNotBeginWhileOthersRun(t *testing.T) {
	f, b, r := aheadBench(t)
	var ends []<-chan invokertest.Result
	var begun []<-chan struct{}
	for range 4 {
		e, at := submit(b, r, `{"wait":1}`, nil)
		ends, begun = append(ends, e), append(begun, at)
	}
	for i := range ends {
		<-f.entered
		if i+1 < len(begun) {
			select {
			case <-begun[i+1]:
				t.Errorf("job %d began while job %d ran", i+1, i)
			case <-time.After(20 * time.Millisecond): // so long do these jobs take
			}
		}
		f.gate <- struct{}{}
		b.Wait(ends[i])
	}
}

// A stop hands back what has not begun, and finishes what has: the journal says
// that it runs.
func TestStopFinishesWhatHasBegun(t *testing.T) {
	f, b, r := aheadBench(t)
	first, begun := heldUp(t, f, b, r, `{"wait":1}`)
	fresh, _ := submit(b, r, `{"fresh":1}`, nil)
	stopped := b.Quit()
	if e := (<-fresh).Err; !errors.Is(e, whisk.Unavailable) {
		t.Errorf("the job that had not begun ended with %v, want Unavailable", e)
	}
	f.gate <- struct{}{}
	invokertest.Expect(t, b.Wait(first), whisk.Success, `{}`)
	invokertest.Expect(t, b.Wait(begun), whisk.Success, `{}`)
	<-stopped
}

// The same when the container ends with its job: there must be another.
func TestStopFinishesWhatHasBegunInAnotherContainer(t *testing.T) {
	f, b, r := aheadBench(t)
	first, begun := heldUp(t, f, b, r, `{"wait":1,"crash":1}`)
	made := len(f.Created())
	stopped := b.Quit()
	f.gate <- struct{}{}
	if a := b.Wait(first); a.Outcome != whisk.DeveloperError {
		t.Errorf("the job whose container ended has outcome %v, want %v", a.Outcome, whisk.DeveloperError)
	}
	invokertest.Expect(t, b.Wait(begun), whisk.Success, `{}`)
	<-stopped
	if n := len(f.Created()); n != made+1 {
		t.Errorf("%d containers were made for it, want 1", n-made)
	}
}

// A job may still be beginning when the drain time is over: its end is told
// after that, never while it writes that it starts.
func TestEndWaitsForABeginning(t *testing.T) {
	f, b, r := aheadBench(t, invoker.WithDrain(time.Millisecond))
	first, second, begin := heldUpBeginning(t, f, b, r, `{"wait":1}`)
	stopped := b.Quit()
	<-first // its container is gone: the drain is over
	select {
	case got := <-second:
		t.Errorf("the job that is beginning ended with %+v", got)
	case <-stopped:
		t.Error("the invoker stopped while a job was beginning")
	case <-time.After(10 * time.Millisecond): // a wrong end would have come by now
	}
	begin()
	if got := <-second; !errors.Is(got.Err, whisk.Unavailable) {
		t.Errorf("the job ended with %+v, want Unavailable", got)
	}
	<-stopped
}
