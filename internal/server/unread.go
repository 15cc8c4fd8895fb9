package server

import (
	"io"
	"net/http"
	"time"
)

// Bounds of what is read of a body that was refused: more than the largest that
// is taken, and as long as a client may take to see that it is refused.
const (
	maxUnread  = 96 << 20
	unreadWait = 30 * time.Second
)

// readOut has next answer, and then reads what next has left of the body. A
// client that still sends when its connection is closed may never see the
// answer that tells it why.
func readOut(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Who waits for a 100 is told the answer in its place, and sends nothing.
		if r.Body == nil || r.ContentLength == 0 || r.Header.Get("Expect") != "" {
			next.ServeHTTP(w, r)
			return
		}
		body := &counted{ReadCloser: r.Body}
		r.Body = body
		next.ServeHTTP(w, r)
		if body.ended || r.ContentLength >= 0 && body.read >= r.ContentLength {
			return
		}
		// The answer goes out at once, so that who listens while it sends may
		// stop. Without full duplex the server would close the body with it.
		control := http.NewResponseController(w)
		for _, do := range []func() error{
			control.EnableFullDuplex, control.Flush,
			func() error { return control.SetReadDeadline(time.Now().Add(unreadWait)) },
		} {
			if do() != nil {
				return // the connection is gone, or a test's
			}
		}
		_, _ = io.CopyN(io.Discard, r.Body, maxUnread) // whatever comes of it, the answer is given
	})
}

// counted knows how much of a body was read, and whether all.
type counted struct {
	io.ReadCloser
	read  int64
	ended bool
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.read += int64(n)
	c.ended = c.ended || err == io.EOF //nolint:errorlint // readers return it bare
	return n, err
}
