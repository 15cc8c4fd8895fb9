package controller_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// oneConn is a listener that accepts one connection.
type oneConn struct {
	conn   chan net.Conn
	closed chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *oneConn) Close() error   { close(l.closed); return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// A body that was announced and does not come is not waited for for ever: what
// came of it takes memory.
func TestSlowBody(t *testing.T) {
	nearly := "Content-Length: 3000000\r\n"
	for name, head := range map[string]string{
		"nearly":  "PUT /api/v1/namespaces/_/actions/x HTTP/1.1\r\n" + nearly,
		"event":   "POST /api/v1/namespaces/_/triggers/t HTTP/1.1\r\nContent-Length: 1000000\r\n",
		"little":  "POST /api/v1/namespaces/_/triggers/t HTTP/1.1\r\nContent-Length: 100000\r\n",
		"chunks":  "POST /api/v1/namespaces/_/triggers/t HTTP/1.1\r\nTransfer-Encoding: chunked\r\n",
		"entity":  "PUT /api/v1/namespaces/_/triggers/x HTTP/1.1\r\nContent-Length: 1000000\r\n",
		"code":    "PUT /api/v1/namespaces/_/actions/x HTTP/1.1\r\nContent-Length: 40000000\r\n",
		"web":     "POST /api/v1/web/guest/default/web HTTP/1.1\r\nContent-Length: 1000000\r\n",
		"unsized": "PUT /api/v1/namespaces/_/actions/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c := w.caller(t)
			c.must(200, "PUT", "triggers/t", `{}`)
			c.must(200, "PUT", "actions/web", `{"exec":{"kind":"python:3","code":"return args"},"annotations":[{"key":"web-export","value":true}]}`)
			h := w.handler(t)
			synctest.Test(t, func(t *testing.T) {
				here, there := net.Pipe()
				l := &oneConn{make(chan net.Conn, 1), make(chan struct{})}
				l.conn <- there
				srv := &http.Server{Handler: h}
				done := make(chan error, 1)
				go func() { done <- srv.Serve(l) }()
				began := time.Now()
				key := base64.StdEncoding.EncodeToString([]byte(guestKey))
				if _, err := fmt.Fprintf(here, "%sHost: h\r\nContent-Type: application/json\r\nAuthorization: Basic %s\r\n\r\n", head, key); err != nil {
					t.Fatal(err)
				}
				if strings.Contains(head, nearly) {
					if _, err := here.Write(make([]byte, 2_999_990)); err != nil {
						t.Fatal(err)
					}
				}
				answer, err := http.ReadResponse(bufio.NewReader(here), nil)
				if err != nil {
					t.Fatalf("no answer: %v", err)
				}
				answer.Body.Close()
				if took := time.Since(began); answer.StatusCode != http.StatusBadRequest || took != time.Minute {
					t.Errorf("a body that does not come = %s after %v, want 400 after a minute", answer.Status, took)
				}
				here.Close()
				time.Sleep(time.Second) // the server lingers over a connection that it closes
				srv.Close()
				if err := <-done; !strings.Contains(err.Error(), "closed") {
					t.Error(err)
				}
			})
			c.must(404, "GET", "triggers/x", "")
			c.must(404, "GET", "actions/x", "")
		})
	}
}
