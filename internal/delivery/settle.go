package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// next is what comes after an attempt: nothing (final), another one when it is
// due, or a dead letter with a reason. What follows is written into the record
// itself: a start after a crash must not decide anew, when the rule may have
// changed and chance played again.
type next struct {
	final  bool
	due    time.Time
	reason string
}

// settle records an attempt that has ended and sees to what follows.
func (d *Delivery) settle(ctx context.Context, it *item, act whisk.Activation) {
	d.fault("delivery ran")
	it.note(&act)
	d.conclude(ctx, it, &act, d.follows(it, &act))
}

// note adds an attempt to the item's story.
func (it *item) note(act *whisk.Activation) {
	it.attempts = append(it.attempts, act.Attempt(time.Time{}))
}

// conclude writes the record of the item's last attempt, with what follows, and
// sees to that. The record is written, not flushed: a power cut that takes it
// leaves a start, and the attempt counts as cut off.
func (d *Delivery) conclude(ctx context.Context, it *item, act *whisk.Activation, n next) {
	it.attempts[len(it.attempts)-1].Due, it.due = n.due, n.due
	e := whisk.Entry{
		Kind: whisk.EntryRecord, Match: it.match, Attempt: len(it.attempts), ActivationID: act.ID, Record: act,
		Final: n.final, Due: n.due,
	}
	if err := d.Journal.Append(ctx, e); err != nil {
		d.leave(ctx, it, err)
		return
	}
	d.fault("delivery recorded")
	d.metrics.attempts.WithLabelValues(act.Outcome.String()).Inc()
	switch {
	case n.final:
		d.finish(it)
	case n.reason != "":
		d.bury(ctx, it, n.reason)
	default:
		d.metrics.retries.Inc()
		d.postpone(it)
	}
}

// follows tells what comes after the item's last attempt.
func (d *Delivery) follows(it *item, act *whisk.Activation) next {
	// The rule as it is, not as it was when it matched: whoever changes its
	// retry means what is waiting, too.
	policy, there := d.policy(it)
	if !there {
		policy = whisk.StdRetry()
	}
	n := len(it.attempts)
	switch tryAgain := retries(&policy, act); {
	case it.once, !tryAgain && !undelivered(it, act):
		return next{final: true}
	case !tryAgain:
		return next{reason: "its rule does not retry failures of the platform; " + it.story()}
	// What succeeded or was answered is final all the same; only another
	// attempt needs the rule.
	case !there:
		return next{reason: "its rule was deleted; " + it.story()}
	case n >= policy.Attempts:
		return next{reason: it.story()}
	}
	due := now().Add(backoff(&policy, n))
	if due.After(it.since.Add(policy.MaxAge)) {
		return next{reason: fmt.Sprintf("it is older than %s; %s", policy.MaxAge, it.story())}
	}
	return next{due: due}
}

// undelivered reports whether a match's last attempt failed by our own fault: no
// answer of its action is known, so it can't be called delivered, whatever its
// rule retries. An action that answers with an error, crashes or runs out of
// time has had its event.
func undelivered(it *item, act *whisk.Activation) bool {
	return it.match.Invoke == "" && act.Outcome == whisk.WhiskError
}

// retries reports whether a policy retries what an activation shows.
func retries(p *whisk.Retry, act *whisk.Activation) bool {
	switch act.Outcome {
	case whisk.Success:
		return false
	case whisk.WhiskError:
		return p.Platform
	// A timeout is a developer error with an annotation: OpenWhisk has no
	// outcome for it.
	case whisk.DeveloperError:
		if act.Annotations.Truthy("timeout") {
			return p.Timeout
		}
	}
	return p.Application
}

// backoff returns how long to wait after attempt n: a random part of a time
// that doubles with each attempt, so that what failed together does not come
// back together.
func backoff(p *whisk.Retry, n int) time.Duration {
	most := p.MaxBackoff
	// Compared from the other side: the doubled time may be beyond what a
	// Duration holds.
	if n-1 < 63 && p.Backoff < most>>(n-1) {
		most = p.Backoff << (n - 1)
	}
	// Milliseconds, as records tell it: a start finds the same time.
	return rand.N(max(most, time.Millisecond)).Truncate(time.Millisecond)
}

// story tells how an item's attempts ended.
func (it *item) story() string {
	n := len(it.attempts)
	if n == 0 {
		return "it was never tried"
	}
	// The last failure alone: the letter has all attempts.
	last := &it.attempts[n-1]
	text := "its only attempt failed"
	if n > 1 {
		text = fmt.Sprintf("all %d attempts failed, the last", n)
	}
	text += " with " + last.Status
	if last.Error != "" {
		text += ": " + last.Error
	}
	return text
}

// give ends an item that cannot be run any more: with a record that says why,
// which whoever asks for its activation ID finds, and a match with a dead letter
// besides. The record comes first: it decides, and a match that was given up
// does not come to life again when a crash interrupts and what was gone is back.
func (d *Delivery) give(ctx context.Context, it *item, why gone) {
	act := d.failed(ctx, it, now(), "It could not be run: "+string(why)+".")
	// Not ours: something that it needs was removed.
	act.Outcome = whisk.DeveloperError
	it.note(&act)
	n := next{final: true}
	if it.match.Invoke == "" {
		n = next{reason: string(why)}
	}
	d.conclude(ctx, it, &act, n)
}

// bury makes a dead letter of an item. The letter is on stable storage before
// the journal calls the match dead: a crash in between repeats the letter under
// the same ID.
func (d *Delivery) bury(ctx context.Context, it *item, reason string) {
	letter := whisk.DeadLetter{
		Time: now(), Match: it.match, Revision: it.revision, Action: it.line.name, Reason: reason, Attempts: it.attempts,
	}
	// A letter without its event is better than none.
	if b, err := d.body(ctx, it); err == nil {
		letter.Event, letter.Invoke = b.event, b.invoke
	}
	// After body, which may have told the event's ID.
	letter.ID = whisk.DeadLetterID(it.match, it.attempts, it.since)
	if err := d.Journal.Bury(ctx, letter); err != nil {
		d.leave(ctx, it, err)
		return
	}
	d.fault("delivery buried")
	if err := d.Journal.Append(ctx, whisk.Entry{Kind: whisk.EntryDead, Match: it.match, Dead: letter.ID}); err != nil {
		d.leave(ctx, it, err)
		return
	}
	d.fault("delivery dead")
	d.metrics.dead.Inc()
	d.log.WarnContext(ctx, "match became a dead letter", slog.String("rule", it.match.Rule.String()),
		slog.String("action", it.line.name.String()), slog.String("letter", letter.ID), slog.String("reason", reason))
	d.finish(it)
}
