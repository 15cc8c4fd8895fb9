package invoker

import "sync/atomic"

// crewKept is how many goroutines of a crew may wait for work.
const crewKept = 64

// crew does short pieces of work side by side, on goroutines that are kept: a
// new one for each would grow its stack each time, which costs more than most
// of the work. The zero value has no work channel and is not usable.
type crew struct {
	work chan func()
	idle atomic.Int32
	quit <-chan struct{} // those that wait leave when it is closed
}

// do has f done soon, by one who waits or by a new goroutine, which start must
// begin.
func (c *crew) do(f func(), start func(func())) {
	select {
	case c.work <- f:
		return
	default:
	}
	start(func() {
		for f != nil {
			f()
			f = c.next()
		}
	})
}

// next waits for more work; nil when there are enough who wait, or at the end.
func (c *crew) next() func() {
	defer c.idle.Add(-1)
	if c.idle.Add(1) > crewKept {
		return nil
	}
	select {
	case f := <-c.work:
		return f
	case <-c.quit:
		return nil
	}
}
