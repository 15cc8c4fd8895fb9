package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// ping is how often an idle stream says that it is alive, so that proxies do
// not cut it.
const ping = 15 * time.Second

// stream tells the caller's entries as they are written: verdicts, starts,
// records, dead letters. A caller too slow to keep up is told that it missed
// some.
func (h *hub) stream(w http.ResponseWriter, r *http.Request) {
	trigger, err := triggerOf(r)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-cache")
	// nginx would hold the stream back until its buffer is full.
	header.Set("X-Accel-Buffering", "no")
	out := &eventWriter{w: w, c: http.NewResponseController(w)}
	// Sent at once: a client sees that the stream is open although nothing
	// happens.
	if err := out.comment("millrace"); err != nil {
		return // the caller is gone
	}

	alive := time.NewTicker(ping)
	defer alive.Stop()
	// The handler must not return while one of these may still write: the
	// writer is the server's from then on.
	var wg sync.WaitGroup
	defer wg.Wait()
	done := make(chan struct{})
	defer close(done)
	wg.Go(func() {
		for {
			select {
			case <-alive.C:
				_ = out.comment("ping") // Follow learns of a caller that is gone from its context
			case <-done:
				return
			}
		}
	})

	pick := selection{namespace: namespaceOf(r), trigger: trigger, events: map[uint64]bool{}}
	// Ends when the caller goes or the server stops: either ends Follow.
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	wg.Go(func() {
		select {
		case <-h.Stop:
			cancel()
		case <-done:
		}
	})
	err = h.Journal.Follow(ctx, func(e whisk.Entry, lost bool) error {
		// Told before the entry, also when the entry is not the caller's: one
		// of his own may be among those that were missed.
		if lost {
			if err := out.event("lost", struct{}{}); err != nil {
				return err
			}
		}
		if !pick.wants(e) {
			return nil
		}
		return out.event(string(e.Kind), e)
	})
	if err != nil && ctx.Err() == nil {
		_ = out.event("end", map[string]string{"error": whisk.Message(err)}) // the caller may be gone
	}
}

// selection tells which entries belong to a caller, and to a trigger if it
// asked for one.
type selection struct {
	namespace, trigger string
	// events are those of the trigger whose story goes on, by sequence.
	events map[uint64]bool
}

// remembered bounds selection.events; the oldest stories are long over then.
const remembered = 10_000

func (s *selection) wants(e whisk.Entry) bool {
	if v := e.Verdict; v != nil {
		if v.Trigger.Namespace != s.namespace || s.trigger != "" && v.Trigger.Entity != s.trigger {
			return false
		}
		if s.trigger != "" {
			// All are forgotten, not the oldest: a map has no order. Entries of
			// stories that still go on are missed then.
			if len(s.events) >= remembered {
				clear(s.events)
			}
			s.events[v.Event.Seq] = true
		}
		return true
	}
	switch {
	case e.Kind == whisk.EntryCarry:
		return false
	// Without its verdict an entry does not tell its trigger: the sequence
	// links it.
	case e.Match.Event > 0:
		return e.Match.Rule.Namespace == s.namespace && (s.trigger == "" || s.events[e.Match.Event])
	case s.trigger != "":
		return false
	case e.Invoke != nil:
		return e.Invoke.Invocation.Namespace == s.namespace
	case e.Record != nil:
		return e.Record.Namespace == s.namespace
	}
	return false // a start of an invocation does not say whose it is; its record will
}

// eventWriter writes server-sent events, each flushed at once. Two goroutines
// write: the pings and the entries.
type eventWriter struct {
	mu sync.Mutex
	w  http.ResponseWriter
	c  *http.ResponseController
}

// comment writes what clients ignore.
func (o *eventWriter) comment(text string) error {
	return o.write(fmt.Appendf(nil, ": %s\n\n", text))
}

// event writes v under a name. JSON has no line breaks, so it is one line of
// data.
func (o *eventWriter) event(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return o.write(fmt.Appendf(nil, "event: %s\ndata: %s\n\n", name, b))
}

func (o *eventWriter) write(b []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, err := o.w.Write(b); err != nil {
		return err
	}
	return o.c.Flush()
}
