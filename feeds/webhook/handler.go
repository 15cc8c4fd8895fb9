package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

const (
	// patience is how long a request may take in all. GitHub waits 10 s.
	patience = 9 * time.Second
	// startup is how long a request waits for a feed that is about to run.
	startup = time.Second
	// retryAfter is when a sender that came too early or too many may come
	// again, in seconds.
	retryAfter = "5"
	// DuplicateHeader marks the answer to a delivery that came before.
	DuplicateHeader = "X-Millrace-Duplicate"
)

var (
	errAddress   = errors.New("there is no webhook at this address")
	errMethod    = errors.New("the method is not allowed")
	errBusy      = errors.New("the webhook takes no requests at present")
	errTooLarge  = errors.New("the body is larger than this webhook takes")
	errUnreached = errors.New("the body could not be read")
	errEncoding  = errors.New("bodies with a content encoding are not read")
)

// ServeHTTP takes a request to /hooks/{token}.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, _ := strings.CutPrefix(r.URL.Path, "/hooks/")
	f, loaded := p.route(token)
	switch {
	// A sender that is told 404 may give the address up for good.
	case f == nil && !loaded:
		refuse(w, whisk.E(whisk.Unavailable, "receive", errBusy))
		return
	case f == nil:
		refuse(w, whisk.E(whisk.NotFound, "receive", errAddress))
		return
	case !slices.Contains(f.cfg.methods, r.Method):
		w.Header().Set("Allow", strings.Join(f.cfg.methods, ", "))
		answer(w, http.StatusMethodNotAllowed, map[string]string{"error": errMethod.Error()})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	// A server that cannot bound its reads still bounds the answer.
	http.NewResponseController(w).SetReadDeadline(p.now().Add(patience)) //nolint:errcheck // as said
	f.receive(ctx, w, r)
}

// receive carries one request from its size to its answer.
func (f *feed) receive(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	if err := f.wait(ctx); err != nil {
		refuse(w, err)
		return
	}
	// What can be told from the headers alone is told before the body is sent.
	if r.ContentLength > f.cfg.maxBytes {
		refuse(w, whisk.E(whisk.TooLarge, "receive", errTooLarge))
		return
	}
	if err := f.cfg.admits(r.Header); err != nil {
		f.unauthorized(ctx, w, err)
		return
	}
	// What a body may come to is set aside before it is read. Of a body whose
	// length is not announced, the most that it may have.
	weight := f.cfg.maxBytes
	if r.ContentLength >= 0 {
		weight = r.ContentLength
	}
	// Nobody waits here: the sender would hold its connection, and time out.
	if !f.p.held.TryAcquire(weight) {
		refuse(w, whisk.E(whisk.Unavailable, "receive", errBusy))
		return
	}
	defer f.p.held.Release(weight)
	body, err := f.read(w, r)
	if err != nil {
		refuse(w, err)
		return
	}
	// Over the bytes as they came, before anything reads them.
	if err := f.cfg.verify(r, body, f.p.now()); err != nil {
		f.unauthorized(ctx, w, err)
		return
	}
	// After the signature: who is not the sender gets no answer out of it.
	if f.handshake(w, r, body) {
		return
	}
	ev, delivery, err := f.event(r, body)
	if err != nil {
		refuse(w, err)
		return
	}
	id, again, err := f.store(ctx, delivery, ev)
	switch {
	case err != nil:
		refuse(w, err)
	case again:
		w.Header().Set(DuplicateHeader, "true")
		answer(w, http.StatusOK, map[string]string{"activationId": id})
	default:
		answer(w, http.StatusAccepted, map[string]string{"activationId": id})
	}
}

// wait lets a feed that was just made begin to run.
func (f *feed) wait(ctx context.Context) error {
	t := time.NewTimer(startup)
	defer t.Stop()
	select {
	case <-f.started:
		return nil
	default:
	}
	select {
	case <-f.started:
		return nil
	case <-t.C: // it is paused
	case <-ctx.Done():
	}
	return whisk.E(whisk.Unavailable, "receive", errBusy)
}

// read returns the whole body. TooLarge, Unsupported for a body that is
// encoded, Invalid when it breaks off.
func (f *feed) read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if e := r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, whisk.E(whisk.Unsupported, "receive", errEncoding)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, f.cfg.maxBytes))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, whisk.E(whisk.TooLarge, "receive", errTooLarge)
	case err != nil:
		return nil, whisk.E(whisk.Invalid, "receive", errUnreached)
	}
	return body, nil
}

// handshake answers what a sender asks of a new address without making an
// event of it.
func (f *feed) handshake(w http.ResponseWriter, r *http.Request, body []byte) bool {
	switch f.cfg.preset {
	case github:
		if r.Header.Get("X-Github-Event") == "ping" {
			answer(w, http.StatusOK, map[string]string{"message": "pong"})
			return true
		}
	case slack:
		var q struct{ Type, Challenge string }
		if json.Unmarshal(body, &q) == nil && q.Type == "url_verification" {
			answer(w, http.StatusOK, map[string]string{"challenge": q.Challenge})
			return true
		}
	}
	return false
}

// store stores an event, once if its delivery has an ID.
func (f *feed) store(ctx context.Context, delivery string, ev whisk.Event) (id string, again bool, err error) {
	// Held until the event is stored, so that a feed that stops waits for it:
	// once Run has returned, nothing is emitted any more.
	f.gate.RLock()
	defer f.gate.RUnlock()
	if f.emit == nil {
		return "", false, whisk.E(whisk.Unavailable, "receive", errBusy)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The request ends with the sender, and with the feed.
	defer context.AfterFunc(f.life, cancel)()
	if delivery != "" && !f.cfg.again {
		id, again, err = f.once(ctx, delivery, ev)
	} else {
		// Nothing tells a repetition apart: each request is an event.
		ev.ID = whisk.NewID(f.p.now())
		id, err = ev.ID, f.emit(ctx, "", ev)
	}
	if err != nil && ctx.Err() != nil {
		err = whisk.E(whisk.Unavailable, "receive", errBusy) // out of time, or paused meanwhile
	}
	return id, again, err
}

// unauthorized refuses a request whose sender is not who it should be.
func (f *feed) unauthorized(ctx context.Context, w http.ResponseWriter, why error) {
	f.p.log.DebugContext(ctx, "webhook request refused", slog.String("trigger", f.spec.Trigger.String()), slog.String("why", why.Error()))
	switch f.cfg.preset {
	case basic:
		w.Header().Set("WWW-Authenticate", `Basic realm="webhook"`)
	case bearer:
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	refuse(w, whisk.E(whisk.Unauthorized, "receive", why))
}

// refuse answers with the status of an error.
func refuse(w http.ResponseWriter, err error) {
	status := whisk.KindOf(err).Status()
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retryAfter)
	}
	answer(w, status, map[string]string{"error": whisk.Message(err)})
}

// answer writes a JSON answer of known length.
func answer(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, nil
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	w.Write(b) //nolint:errcheck // the sender is gone, or not
}
