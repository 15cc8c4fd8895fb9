package invoker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// server is a container with the server of a stock image.
type server struct {
	*httptest.Server
	dials atomic.Int32
	deaf  atomic.Int32 // refusals before it listens
	done  chan struct{}
}

func (s *server) ID() string { return "server" }
func (s *server) Dial(ctx context.Context) (Conn, error) {
	if s.deaf.Add(-1) >= 0 {
		return nil, errors.New("connection refused")
	}
	s.dials.Add(1)
	return new(net.Dialer).DialContext(ctx, "tcp", s.Listener.Addr().String())
}
func (s *server) Logs() (stdout, stderr io.ReadCloser) { return http.NoBody, http.NoBody }
func (s *server) Pause(context.Context) error          { return nil }
func (s *server) Resume(context.Context) error         { return nil }
func (s *server) Done() <-chan struct{}                { return s.done }
func (s *server) Ending(context.Context) Ending        { return Ending{} }
func (s *server) Remove(context.Context) error         { return nil }

func serve(t *testing.T, h http.HandlerFunc) (*server, *httpRunner) {
	s := &server{Server: httptest.NewServer(h), done: make(chan struct{})}
	r := &httpRunner{c: s}
	t.Cleanup(func() {
		r.close()
		s.Close()
	})
	return s, r
}

func soon() time.Time { return time.Now().Add(10 * time.Second) }

func TestHTTPKeepsItsConnection(t *testing.T) {
	s, r := serve(t, func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil || q.Header.Get("Content-Type") != "application/json" || q.Method != http.MethodPost {
			t.Errorf("%s %s: %v", q.Method, q.URL, err)
		}
		if q.URL.Path == "/init" {
			var m struct{ Value initRequest }
			if err := json.Unmarshal(body, &m); err != nil || m.Value.Main != "main" || *m.Value.Code != "x" {
				t.Errorf("init got %s: %v", body, err)
			}
			w.WriteHeader(http.StatusForbidden)
		}
		w.(http.Flusher).Flush() // chunked
		w.Write(body)
	})
	code := "x"
	s.deaf.Store(3)
	a, err := r.init(soon(), initRequest{Name: "a", Main: "main", Code: &code})
	if err != nil || a.status != http.StatusForbidden {
		t.Fatalf("init = %d, %v", a.status, err)
	}
	for i := range 3 {
		body := `{"value":` + strconv.Itoa(i) + `}`
		a, err := r.run(soon(), []byte(body))
		if err != nil || a.status != http.StatusOK || string(a.body) != body || a.size != len(body) {
			t.Errorf("run = %d, %s, %v", a.status, a.body, err)
		}
	}
	if n := s.dials.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestHTTPFailures(t *testing.T) {
	var mode atomic.Value
	mode.Store("")
	s, r := serve(t, func(w http.ResponseWriter, q *http.Request) {
		switch mode.Load() {
		case "late":
			<-q.Context().Done()
		case "lost":
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
			}
			c.Close()
		case "gone":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "long":
			io.WriteString(w, strings.Repeat("x", whisk.MaxPayload+10))
		}
	})
	_, err := r.run(time.Now().Add(20*time.Millisecond), nil)
	if err != nil {
		t.Errorf("an empty answer: %v", err)
	}
	mode.Store("late")
	if _, err := r.run(time.Now().Add(20*time.Millisecond), nil); !errors.Is(err, errTimeout) {
		t.Errorf("a late answer: %v, want a timeout", err)
	}
	mode.Store("lost")
	if _, err := r.run(soon(), nil); err == nil || errors.Is(err, errTimeout) || errors.Is(err, errUnsent) {
		t.Errorf("a lost connection: %v", err)
	}
	mode.Store("gone")
	if _, err := r.run(soon(), nil); !errors.Is(err, errUnsent) {
		t.Errorf("503: %v, want errUnsent", err)
	}
	mode.Store("long")
	if a, err := r.run(soon(), nil); err != nil || len(a.body) != whisk.MaxPayload || a.size != whisk.MaxPayload+10 {
		t.Errorf("a long answer = %d of %d bytes, %v", len(a.body), a.size, err)
	}
	s.deaf.Store(1 << 30)
	r.drop()
	if _, err := r.run(soon(), nil); !errors.Is(err, errUnsent) {
		t.Errorf("nobody listens: %v, want errUnsent", err)
	}
	if _, err := r.init(time.Now().Add(30*time.Millisecond), initRequest{}); !errors.Is(err, errTimeout) {
		t.Errorf("nobody ever listens: %v, want a timeout", err)
	}
	close(s.done)
	if _, err := r.init(soon(), initRequest{}); !errors.Is(err, io.EOF) {
		t.Errorf("nobody will listen: %v, want EOF", err)
	}
}
