package invoker_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker"
	"github.com/millrace/millrace/invoker/invokertest"
)

// Containers that ended unnoticed are not mistaken for any answer, however many
// there are: the job goes to one that lives.
func TestContainersThatEndedUnnoticed(t *testing.T) {
	f := newFake()
	b := invokertest.Start(t, f, invokertest.FakeRuntimes(0), invoker.WithMemory(4<<30))
	r := action("a", "wait")
	var ends []<-chan invokertest.Result
	for range 3 {
		ends = append(ends, b.Go(r, `{}`))
	}
	for range ends { // each has a container
		<-f.entered
	}
	close(f.gate)
	for _, c := range ends {
		b.Wait(c)
	}
	f.Sever()
	a := b.Call(r, `{"alive":true}`)
	invokertest.Expect(t, a, whisk.Success, `{"alive":true}`)
	if note(a, "initTime") == "" {
		t.Error("it was answered by a container that had ended")
	}
	invokertest.Eventually(t, "those that ended are removed", func() bool { return f.Live() == 1 })
}

// Jobs that turn out to need another environment than their queue's keep their
// order.
func TestMovedJobsKeepTheirOrder(t *testing.T) {
	f := newFake()
	b := invokertest.Start(t, f, invokertest.FakeRuntimes(0), invoker.WithMemory(256<<20))
	r := action("a", "order")
	r.Params = whisk.Params{{Key: "secret", Value: json.RawMessage(`"s1"`), Init: true}}
	release := f.Hold()
	var ends []<-chan invokertest.Result
	for i := range 100 {
		ends = append(ends, b.Go(r, fmt.Sprintf(`{"secret":"s2","i":%d}`, i)))
	}
	release()
	for i, c := range ends {
		b.Wait(c)
		if got, want := <-f.entered, fmt.Sprintf(`{"i":%d}`, i); got != want {
			t.Fatalf("run %d got %s, want %s", i, got, want)
		}
	}
}

// A container that does not answer is not waited for once the invoker stops.
func TestStopDoesNotWaitForAStart(t *testing.T) {
	f := newFake()
	b := invokertest.Start(t, f, invokertest.FakeRuntimes(0), invoker.WithDrain(time.Millisecond))
	f.Mute()
	waiting := b.Go(action("a", "echo"), `{}`)
	invokertest.Eventually(t, "its container is made", func() bool { return f.Live() == 1 })
	quit := b.Quit()
	if r := <-waiting; !errors.Is(r.Err, whisk.Unavailable) {
		t.Errorf("what waited ended with %v, %v", r.Err, r.Activation)
	}
	ended := false
	invokertest.Eventually(t, "the invoker has stopped", func() bool {
		select {
		case <-quit:
			ended = true
		default:
		}
		return ended
	})
	if n := f.Live(); n != 0 {
		t.Errorf("%d containers are left", n)
	}
}

// A stem cell that ends by itself is replaced, but not for ever: the first job
// of the kind will tell what is wrong.
func TestStemCellsThatEnd(t *testing.T) {
	f := newFake()
	b := invokertest.Start(t, f, invokertest.FakeRuntimes(1), invoker.WithStemCells(1))
	for n := 1; n <= 3; n++ {
		invokertest.Eventually(t, "a stem cell is there", func() bool { return len(f.Created()) == n && f.Live() == 1 })
		f.End()
	}
	invokertest.Eventually(t, "the last one is removed", func() bool { return f.Live() == 0 })
	invokertest.Expect(t, b.Call(action("a", "count"), `{}`), whisk.Success, `{"n":1}`)
	invokertest.Expect(t, b.Call(action("b", "count"), `{}`), whisk.Success, `{"n":1}`)
	if n := len(f.Created()); n != 5 {
		t.Errorf("%d containers were made, want 3 stem cells and 2 of the jobs", n)
	}
}
