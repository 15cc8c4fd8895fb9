package invoker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

const (
	// httpFresh is how long an unused connection is trusted: servers close
	// theirs after a few seconds, and a request that meets such an end cannot
	// be told from one that was lost.
	httpFresh = time.Second
	// httpRetry is how long to wait for a server that does not listen yet.
	httpRetry = 20 * time.Millisecond
	// httpDiscard is how much of an answer that is too long is read in order
	// to count it.
	httpDiscard = 64 << 20
)

// errRefused says that nobody listens, yet.
var errRefused = fmt.Errorf("%w: no connection", errUnsent)

// httpRunner speaks /init and /run with the server of a stock image. It keeps
// its connection, and is written by hand because a request costs half of what
// net/http's client needs for it.
type httpRunner struct {
	c Container

	mu     sync.Mutex // close may come at any time
	conn   Conn
	closed bool

	in   *bufio.Reader
	used time.Time
}

// ready has nothing to do: a server that cannot be reached is no failure
// before the action's own time limit.
func (*httpRunner) ready(context.Context) error { return nil }

func (h *httpRunner) init(until time.Time, req initRequest) (answer, error) {
	body, err := json.Marshal(struct {
		Value initRequest `json:"value"`
	}{req})
	if err != nil {
		return answer{}, err
	}
	for {
		// A server that does not listen yet was not asked anything.
		a, err := h.post(until, "/init", body)
		if !errors.Is(err, errRefused) {
			return a, err
		}
		select {
		case <-h.c.Done():
			return a, io.EOF
		case <-time.After(min(httpRetry, time.Until(until))):
		}
		if !time.Now().Before(until) {
			return a, errTimeout
		}
	}
}

func (h *httpRunner) run(until time.Time, body []byte) (answer, error) {
	return h.post(until, "/run", body)
}

// post sends a request and reads the answer. It does not try again: whether the
// server has seen the request is only known when none of it was written.
func (h *httpRunner) post(until time.Time, path string, body []byte) (answer, error) {
	conn, err := h.connect(until)
	if err != nil {
		return answer{}, err
	}
	if err := conn.SetDeadline(until); err != nil {
		return answer{}, errUnsent
	}
	// Head and body in one write: if that wrote nothing, the server has seen
	// nothing.
	msg := make([]byte, 0, len(body)+192)
	msg = fmt.Appendf(msg, "POST %s HTTP/1.1\r\nHost: action:8080\r\nContent-Type: application/json\r\nAccept: application/json\r\nContent-Length: %d\r\n\r\n", path, len(body))
	if n, err := conn.Write(append(msg, body...)); err != nil {
		h.drop()
		if n == 0 && !errors.Is(timedOut(err), errTimeout) {
			return answer{}, errUnsent
		}
		return answer{}, timedOut(err)
	}
	a, keep, err := readHTTP(h.in)
	if err != nil {
		h.drop()
		return answer{}, timedOut(err)
	}
	if h.used = time.Now(); !keep {
		h.drop()
	}
	if a.status == statusGone {
		return answer{}, errUnsent
	}
	return a, nil
}

// readHTTP reads one answer and reports whether its connection can be used
// again.
func readHTTP(in *bufio.Reader) (a answer, keep bool, err error) {
	res, err := http.ReadResponse(in, &http.Request{Method: http.MethodPost})
	if err != nil {
		return answer{}, false, err
	}
	defer res.Body.Close()
	// The answer may be chunked or end with the connection: OpenWhisk refuses
	// these, but nothing is lost by taking them.
	body, err := io.ReadAll(io.LimitReader(res.Body, whisk.MaxPayload))
	if err != nil {
		return answer{}, false, err
	}
	// Beyond the limit bytes are only counted. EOF says that all were: then
	// the connection stands at the next answer and can be used again.
	more, err := io.CopyN(io.Discard, res.Body, httpDiscard)
	if err != nil && err != io.EOF {
		return answer{}, false, err
	}
	return answer{res.StatusCode, body, len(body) + int(more)}, err == io.EOF && !res.Close, nil
}

// connect returns the connection that is kept, or a new one if that is too old.
// errRefused is the only error after which it makes sense to try again.
func (h *httpRunner) connect(until time.Time) (Conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errUnsent
	}
	if h.conn != nil && time.Since(h.used) < httpFresh {
		return h.conn, nil
	}
	if h.conn != nil {
		h.conn.Close()
		h.conn = nil
	}
	ctx, cancel := context.WithDeadline(context.Background(), until) // the runner's calls have a time, not a context
	defer cancel()
	conn, err := h.c.Dial(ctx)
	switch {
	case err == nil:
		h.conn, h.in, h.used = conn, bufio.NewReader(conn), time.Now()
		return conn, nil
	case ctx.Err() != nil:
		return nil, errTimeout
	}
	return nil, errRefused
}

func (h *httpRunner) drop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn != nil {
		h.conn.Close()
		h.conn = nil
	}
}

// close also keeps a job that is about to connect from doing so.
func (h *httpRunner) close() {
	h.drop()
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
}
