package webhook

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"sync"

	"github.com/millrace/millrace/internal/whisk"
)

// once stores the event of a delivery unless that was done before, and returns
// the event's ID and whether it was there already. One delivery is stored by
// one request at a time; whoever comes second learns what became of the first.
func (f *feed) once(ctx context.Context, delivery string, ev whisk.Event) (id string, again bool, err error) {
	// A digest, as a sender's ID may have any length and characters. The
	// feed's ID is part of the name: the same delivery to two addresses is two
	// events.
	sum := sha256.Sum256([]byte(delivery))
	name := whisk.Name{Namespace: f.spec.Trigger.Namespace, Package: f.spec.ID, Entity: hex.EncodeToString(sum[:16])}
	land, err := f.p.flights.start(ctx, name)
	if err != nil {
		return "", false, whisk.E(whisk.Unavailable, "receive", err)
	}
	defer land()

	now := f.p.now()
	d, rev, err := f.p.deliveries.Get(name)
	switch {
	case err != nil && !errors.Is(err, whisk.NotFound):
		return "", false, err
	case err == nil && now.Before(d.Expires):
		if !d.Done {
			// A process died, or did not learn whether the event was stored.
			if d.Done, err = f.p.archive.Has(ctx, name.Namespace, d.Event); err != nil {
				return "", false, err
			}
			if d.Done {
				f.done(ctx, d, rev)
			}
		}
		if d.Done {
			return d.Event, true, nil
		}
	default:
		// The ID is stored before the event that will have it. Whatever is cut
		// off afterwards, the next request of the delivery knows which event
		// to ask for.
		d = Delivery{Name: name, Event: whisk.DeriveID(now, f.spec.ID, delivery), Expires: now.Add(f.cfg.window)}
		if rev, err = f.p.deliveries.Put(ctx, name, d, rev); err != nil {
			return "", false, err
		}
	}
	// The record is new, or its event never came to the archive: this request
	// stores it, under the ID that was written down.
	ev.ID = d.Event
	if err := f.emit(ctx, "", ev); err != nil {
		return "", false, err
	}
	f.done(ctx, d, rev)
	return d.Event, false, nil
}

// done marks a delivery's event as stored. Should that fail, the archive is
// asked the next time.
func (f *feed) done(ctx context.Context, d Delivery, rev whisk.Revision) {
	d.Done = true
	if _, err := f.p.deliveries.Put(ctx, d.Name, d, rev); err != nil {
		f.p.log.WarnContext(ctx, "delivery not marked as done", slog.String("trigger", f.spec.Trigger.String()), slog.Any("err", err))
	}
}

// sweep deletes the deliveries whose time is over.
func (p *Provider) sweep(ctx context.Context) {
	now := p.now()
	for _, d := range p.deliveries.List("") {
		if now.Before(d.Expires) || ctx.Err() != nil {
			continue
		}
		// The list is as old as the sweep: the record is read again, with its
		// revision.
		d, rev, err := p.deliveries.Get(d.Name)
		if err != nil || now.Before(d.Expires) {
			continue // another sweep, or a new delivery, was quicker
		}
		if err := p.deliveries.Delete(ctx, d.Name, rev); err != nil && !errors.Is(err, whisk.Conflict) && !errors.Is(err, whisk.NotFound) {
			p.log.WarnContext(ctx, "expired delivery not deleted", slog.Any("err", err))
		}
	}
}

// flights lets one request at a time store a delivery. The zero value is
// ready.
type flights struct {
	mu  sync.Mutex
	now map[whisk.Name]chan struct{} // closed when the flight has landed
}

// start waits until no other request stores the delivery n.
func (f *flights) start(ctx context.Context, n whisk.Name) (land func(), err error) {
	for {
		f.mu.Lock()
		other, busy := f.now[n]
		if !busy {
			if f.now == nil {
				f.now = map[whisk.Name]chan struct{}{}
			}
			done := make(chan struct{})
			f.now[n] = done
			f.mu.Unlock()
			return func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				delete(f.now, n)
				close(done)
			}, nil
		}
		f.mu.Unlock()
		// It landed, or the caller left. Another may take off first: so it is
		// looked at again.
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
