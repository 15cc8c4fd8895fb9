package cron

import (
	"sync"
	"time"
)

// How often the clock is looked at, and by how much it must have jumped.
const (
	lookEvery = time.Second
	jump      = time.Second
)

// clock is the wall clock with someone watching it: timers run on the
// machine's other clock and notice neither that it was set nor that the
// machine slept. The zero value needs wall set.
type clock struct {
	wall func() time.Time // without a monotonic reading

	mu     sync.Mutex
	users  int
	jumped chan struct{} // closed at the next jump
	quit   chan struct{}
	ended  chan struct{}
}

// watch begins to look, until as many unwatch calls.
func (c *clock) watch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users++; c.users == 1 {
		c.jumped, c.quit, c.ended = make(chan struct{}), make(chan struct{}), make(chan struct{})
		go c.look(c.quit, c.ended)
	}
}

// unwatch ends one watch. The last one waits for the goroutine, outside the
// lock, which that may be waiting for.
func (c *clock) unwatch() {
	c.mu.Lock()
	c.users--
	var ended chan struct{}
	if c.users == 0 {
		close(c.quit)
		ended = c.ended
	}
	c.mu.Unlock()
	if ended != nil {
		<-ended
	}
}

// jumps returns what is closed when the clock jumps next.
func (c *clock) jumps() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.jumped
}

func (c *clock) look(quit, ended chan struct{}) {
	defer close(ended)
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	// What passed on the two clocks between two looks must agree. A machine
	// that slept shows like one whose clock was set: its other clock stood
	// still.
	wall, mono := c.wall(), time.Now()
	for {
		select {
		case <-quit:
			return
		case <-t.C:
		}
		w, m := c.wall(), time.Now()
		if d := w.Sub(wall) - m.Sub(mono); d > jump || d < -jump {
			c.mu.Lock()
			// Closing wakes all feeds at once; each then takes the next
			// channel.
			close(c.jumped)
			c.jumped = make(chan struct{})
			c.mu.Unlock()
		}
		wall, mono = w, m
	}
}
