package journal

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/whisk"
)

// Query says which of a namespace's records a list shows.
type Query struct {
	Namespace string
	Name      string    // as Activation.FilterName gives it; empty for all
	Since     time.Time // both inclusive; zero for no bound
	Upto      time.Time
	Skip      int
	Limit     int    // 0: whisk.MaxListLimit
	Trigger   string // Events only: a trigger's name; empty for all
}

// listing also sets the Limit that 0 stands for: its callers go by it.
func (q *Query) listing(name string, classes ...class) listing {
	if q.Limit <= 0 {
		q.Limit = whisk.MaxListLimit
	}
	since, upto := bounds(q.Since, q.Upto)
	return listing{
		space: q.Namespace, name: name, classes: classes,
		since: since, upto: upto, most: max(q.Skip, 0) + q.Limit,
	}
}

// Complete reports whether the index has everything. While it is made anew
// lists and counts show what it has so far.
func (j *Journal) Complete() bool {
	j.index.mu.Lock()
	defer j.index.mu.Unlock()
	return j.index.whole
}

// Activation returns the record of one run, of one blocking call, or of one
// event that an active rule of its trigger has seen. NotFound.
func (j *Journal) Activation(ctx context.Context, namespace, id string) (whisk.Activation, error) {
	var found whisk.Activation
	err := j.lookup(ctx, id, func(p place, e *stored) (bool, error) {
		a, ok, err := j.shown(ctx, p, e)
		// The namespace is checked on the record itself: an ID of another
		// namespace is not found, and does not tell that it exists.
		if err != nil || !ok || a.Namespace != namespace || a.ID != id {
			return false, err
		}
		found = a
		return true, nil
	})
	if err != nil {
		return whisk.Activation{}, err
	}
	return found, nil
}

// shown returns the activation that an entry shows, if it shows one.
func (j *Journal) shown(ctx context.Context, p place, e *stored) (whisk.Activation, bool, error) {
	switch {
	// Dead letters have readers of their own.
	case p.stream() == inDead:
	case e.Kind == whisk.EntryRecord && e.Record != nil:
		a, err := j.withLogs(ctx, e)
		return a, err == nil, err
	case e.Kind == whisk.EntryVerdict && anyActive(e.Verdict):
		return j.fired(ctx, e.Verdict), true, nil
	}
	return whisk.Activation{}, false, nil
}

// lookup calls fn for the entries with an ID, oldest first, until fn says that
// it has found what it wants. NotFound when it never does.
func (j *Journal) lookup(ctx context.Context, id string, fn func(place, *stored) (bool, error)) error {
	places, err := j.index.find(ctx, id)
	if err != nil {
		j.log.ErrorContext(ctx, "index can't be read", slog.Any("err", err))
	}
	for _, p := range places {
		if p.stream() == inDead {
			continue
		}
		e, err := j.recent.entry(ctx, p)
		if errors.Is(err, whisk.NotFound) {
			continue // trimmed since
		}
		if err != nil {
			return err
		}
		if ok, err := fn(p, &e); ok || err != nil {
			return err
		}
	}
	// Only a whole index can say that there is nothing.
	if err == nil && j.Complete() {
		return notFound("look up " + id)
	}
	return j.scan(ctx, id, fn)
}

const (
	// maxScan bounds what a scan reads of one stream, in bytes. A scan without
	// bound would let anybody who asks for an unknown ID read a whole stream
	// from the disk.
	maxScan = 256 << 20
	// scanSlack is how much earlier than the time in an ID its entry may have
	// been written: the source's clock may be ahead of ours.
	scanSlack = 10 * time.Minute
)

// scan looks for an ID in the streams themselves, from the ID's time on.
func (j *Journal) scan(ctx context.Context, id string, fn func(place, *stored) (bool, error)) error {
	from := whisk.IDTime(id).Add(-scanSlack)
	for _, i := range []int{inJournal, inCalls} {
		name := streamNames[i]
		st, err := j.bus.State(ctx, name)
		if err != nil {
			return err
		}
		next, err := firstAfter(ctx, j.bus, name, st.First, st.Last, from)
		if err != nil {
			return err
		}
		for read := 0; next <= st.Last && next > 0; {
			msgs, err := j.bus.Read(ctx, name, next, replayMessages, replayBytes)
			if err != nil {
				return err
			}
			if len(msgs) == 0 {
				break
			}
			for k := range msgs {
				if ok, err := scanMessage(i, &msgs[k], id, fn); ok || err != nil {
					return err
				}
				read += len(msgs[k].Data)
			}
			if read > maxScan {
				return whisk.E(whisk.Unavailable, "look up "+id, errors.New("the index is being made anew; try again later"))
			}
			next = msgs[len(msgs)-1].Seq + 1
		}
	}
	return notFound("look up " + id)
}

// scanMessage calls fn for the entries of one message that the index would list
// under id: both go by the same rows.
func scanMessage(stream int, m *bus.Message, id string, fn func(place, *stored) (bool, error)) (bool, error) {
	entries, err := decodeEntries(m.Data)
	if err != nil {
		return false, err
	}
	for n := range entries {
		p := at(stream, m.Seq, n)
		for _, r := range appendRows(nil, &entries[n], p) {
			if r.id != id {
				continue
			}
			if ok, err := fn(p, &entries[n]); ok || err != nil {
				return ok, err
			}
		}
	}
	return false, nil
}

// Activations returns the records of a namespace, newest first: of runs, of
// blocking calls and of events that an active rule has seen.
func (j *Journal) Activations(ctx context.Context, q Query) ([]whisk.Activation, error) {
	list, err := j.index.list(ctx, q.listing(q.Name, classRun, classFired))
	if err != nil {
		return nil, err
	}
	out := make([]whisk.Activation, 0, min(len(list), q.Limit))
	// Skipped rows are not read from their stream. An entry that was trimmed
	// since is left out, so a page may be shorter than its limit.
	for _, l := range list[min(max(q.Skip, 0), len(list)):] {
		e, err := j.recent.entry(ctx, l.place)
		if errors.Is(err, whisk.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		a, ok, err := j.shown(ctx, l.place, &e)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, a)
		}
	}
	return out, nil
}

// CountActivations returns how many records Activations would show without
// Limit.
func (j *Journal) CountActivations(ctx context.Context, q Query) (int, error) {
	n, err := j.index.number(ctx, q.listing(q.Name, classRun, classFired))
	return max(n-max(q.Skip, 0), 0), err
}

// Events returns the verdicts on a namespace's events, newest event first.
func (j *Journal) Events(ctx context.Context, q Query) ([]whisk.Verdict, error) {
	list, err := j.index.list(ctx, q.listing(q.Trigger, classFired, classUnseen))
	if err != nil {
		return nil, err
	}
	out := make([]whisk.Verdict, 0, min(len(list), q.Limit))
	for _, l := range list[min(max(q.Skip, 0), len(list)):] {
		e, err := j.recent.entry(ctx, l.place)
		if errors.Is(err, whisk.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if e.Verdict != nil {
			out = append(out, *e.Verdict)
		}
	}
	return out, nil
}

// Verdict returns what became of an event. NotFound.
func (j *Journal) Verdict(ctx context.Context, namespace, eventID string) (whisk.Verdict, error) {
	var found whisk.Verdict
	err := j.lookup(ctx, eventID, func(_ place, e *stored) (bool, error) {
		if v := e.Verdict; v != nil && v.Trigger.Namespace == namespace && v.Event.ID == eventID {
			found = *v
			return true, nil
		}
		return false, nil
	})
	return found, err
}

// Attempts returns the attempts of a match, and the ID of its dead letter if it
// came to that. NotFound when the journal does not know the match any more.
func (j *Journal) Attempts(ctx context.Context, m whisk.Match) ([]whisk.Attempt, string, error) {
	// The ledger has all attempts of what is undone, those of before a carry
	// too.
	if p, ok := j.undone(m); ok {
		return p.Attempts, "", nil
	}
	var out []whisk.Attempt
	dead := ""
	tries, err := j.index.tries(ctx, matchKey(m))
	if err != nil {
		return nil, "", err
	}
	for _, t := range tries {
		if t.attempt == deadAttempt {
			dead = t.dead
			continue
		}
		e, err := j.recent.entry(ctx, t.place)
		if err == nil && e.Record != nil && e.Match == m {
			out = append(out, e.Record.Attempt(e.Due))
		} else if err != nil && !errors.Is(err, whisk.NotFound) {
			return nil, "", err
		}
	}
	if len(out) > 0 || dead != "" {
		return out, dead, nil
	}
	// No rows of its own: it had one attempt, which ended it.
	first, err := j.onlyAttempt(ctx, m)
	if err != nil {
		return nil, "", err
	}
	e, err := j.record(ctx, first, m)
	if err != nil {
		return nil, "", err
	}
	return []whisk.Attempt{e.Record.Attempt(e.Due)}, "", nil
}

// onlyAttempt returns the ID of a match's first attempt.
func (j *Journal) onlyAttempt(ctx context.Context, m whisk.Match) (string, error) {
	if m.Invoke != "" {
		return m.Invoke, nil
	}
	p, err := j.index.verdictOf(ctx, m.Event)
	if err != nil {
		return "", err
	}
	if p != 0 {
		e, err := j.recent.entry(ctx, p)
		if err != nil {
			return "", err
		}
		if v := e.Verdict; v != nil && v.Event.Seq == m.Event {
			for i := range v.Rules {
				if v.Rules[i].Rule == m.Rule && v.Rules[i].ActivationID != "" {
					return v.Rules[i].ActivationID, nil
				}
			}
		}
	}
	return "", notFound("look up match")
}

// record returns the record with an ID that belongs to a match. An ID alone is
// not enough: the activation may be a blocking call's.
func (j *Journal) record(ctx context.Context, id string, m whisk.Match) (stored, error) {
	var found stored
	err := j.lookup(ctx, id, func(_ place, e *stored) (bool, error) {
		if e.Kind != whisk.EntryRecord || e.Match != m {
			return false, nil
		}
		found = *e
		return true, nil
	})
	return found, err
}

// undone returns a match that is not done, without body.
func (j *Journal) undone(m whisk.Match) (whisk.Pending, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := j.ledger.nodes[m]
	if n == nil || n.origin == 0 || n.phase == done {
		return whisk.Pending{}, false
	}
	return n.view(), true
}

// Pending returns a match that is not done, with its body: the event from the
// archive or from where it was carried to, or the invocation. NotFound when it
// is done, or when the archive has lost its event.
func (j *Journal) Pending(ctx context.Context, m whisk.Match) (whisk.Pending, error) {
	j.mu.Lock()
	n := j.ledger.nodes[m]
	if n == nil || n.origin == 0 || n.phase == done {
		j.mu.Unlock()
		return whisk.Pending{}, notFound("look up match")
	}
	// Taken together under the lock: a carry moves the body.
	p, body := n.view(), n.body
	j.mu.Unlock()
	// The archive keeps the event as long as nothing else has it.
	if body == 0 {
		ev, err := j.bus.Event(ctx, m.Event)
		// The sequence was given out again.
		if err == nil && ev.ID != p.EventID {
			err = notFound("look up event")
		}
		if err != nil {
			return whisk.Pending{}, err
		}
		p.Event = &ev
		return p, nil
	}
	e, err := j.recent.entry(ctx, body)
	if err != nil {
		return whisk.Pending{}, err
	}
	switch {
	case e.Invoke != nil:
		p.Invoke = e.Invoke
	case e.Carry != nil:
		p.Invoke, p.Event = e.Carry.Invoke, e.Carry.Event
		if p.Event == nil {
			break
		}
		if err := j.withBody(ctx, p.Event, e.body); err != nil {
			return whisk.Pending{}, err
		}
	}
	if p.Event == nil && p.Invoke == nil {
		return whisk.Pending{}, notFound("look up event")
	}
	return p, nil
}

// parseDead reads a stored dead letter. The sequence is not in an event's JSON:
// it is the match's.
func parseDead(data []byte) (deadLetter, error) {
	var d deadLetter
	if err := json.Unmarshal(data, &d); err != nil {
		return d, err
	}
	if d.Event != nil {
		d.Event.Seq = d.Match.Event
	}
	return d, nil
}

// DeadLetters returns the dead letters of a namespace, newest first, each once.
// A limit of 0 stands for whisk.MaxListLimit.
func (j *Journal) DeadLetters(ctx context.Context, namespace string, skip, limit int) ([]whisk.DeadLetter, error) {
	q := Query{Namespace: namespace, Skip: skip, Limit: limit}
	l := q.listing("", classDead)
	// A letter that was written twice is one: ask for as many more.
	l.most *= 2
	list, err := j.index.list(ctx, l)
	if err != nil {
		return nil, err
	}
	// Two letters of one match with the same last attempt are one, written
	// twice because a crash came in between. One that was driven again has a
	// new attempt.
	type key struct {
		match whisk.Match
		last  string
	}
	seen := map[key]bool{}
	var out []whisk.DeadLetter
	for _, e := range list {
		if len(out) == q.Limit {
			break
		}
		d, err := j.deadAt(ctx, e.place)
		if errors.Is(err, whisk.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		k := key{match: d.Match}
		if n := len(d.Attempts); n > 0 {
			k.last = d.Attempts[n-1].ActivationID
		}
		if seen[k] {
			continue
		}
		seen[k] = true
		if len(seen) > skip {
			out = append(out, d)
		}
	}
	return out, nil
}

// deadAt reads the dead letter at a place, with its event. NotFound when it has
// grown old.
func (j *Journal) deadAt(ctx context.Context, p place) (whisk.DeadLetter, error) {
	data, err := j.recent.message(ctx, p)
	if err != nil {
		return whisk.DeadLetter{}, err
	}
	d, err := parseDead(data)
	if err != nil {
		return whisk.DeadLetter{}, err
	}
	if d.Event != nil {
		if err := j.withBody(ctx, d.Event, d.Body); err != nil {
			return whisk.DeadLetter{}, err
		}
	}
	return d.DeadLetter, nil
}

// DeadLetter returns one dead letter. NotFound.
func (j *Journal) DeadLetter(ctx context.Context, namespace, id string) (whisk.DeadLetter, error) {
	places, err := j.index.find(ctx, id)
	if err != nil {
		return whisk.DeadLetter{}, err
	}
	for _, p := range places {
		if p.stream() != inDead {
			continue
		}
		d, err := j.deadAt(ctx, p)
		if errors.Is(err, whisk.NotFound) {
			continue
		}
		if err != nil || d.ID == id && deadNamespace(&d) == namespace {
			return d, err
		}
	}
	return whisk.DeadLetter{}, notFound("look up dead letter")
}
