package server

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// TestRefusedBodyIsReadOut sends bodies that are refused unread, larger than
// what lies in the buffers between the two: who sends all before it reads, as
// simple clients do, must still get the answer, and the connection go on.
func TestRefusedBodyIsReadOut(t *testing.T) {
	var conns atomic.Int64
	srv := httptest.NewUnstartedServer(readOut(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/read" {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				t.Error(err)
			}
			return
		}
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
	})))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	large := bytes.Repeat([]byte("x"), 24<<20)
	for _, tt := range []struct {
		name, path string
		body       func() io.Reader
		want       int
	}{
		{"known length", "/refused", func() io.Reader { return bytes.NewReader(large) }, 413},
		{"unknown length", "/refused", func() io.Reader { return io.MultiReader(bytes.NewReader(large)) }, 413},
		{"read by its handler", "/read", func() io.Reader { return bytes.NewReader(large) }, 200},
		{"none", "/read", func() io.Reader { return nil }, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := net.Dial("tcp", srv.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			req, err := http.NewRequest(http.MethodPost, srv.URL+tt.path, tt.body())
			if err != nil {
				t.Fatal(err)
			}
			// Twice on one connection: all is sent before anything is read.
			for range 2 {
				if req.Body != nil {
					req.Body = io.NopCloser(tt.body())
				}
				if err := req.Write(c); err != nil {
					t.Fatalf("send: %v", err)
				}
				res, err := http.ReadResponse(bufio.NewReader(c), req)
				if err != nil {
					t.Fatalf("read: %v", err)
				}
				text, err := io.ReadAll(res.Body)
				if err != nil || res.StatusCode != tt.want {
					t.Errorf("answer = %d %q, %v, want %d", res.StatusCode, text, err, tt.want)
				}
			}
		})
	}
	if n := conns.Load(); n != 4 {
		t.Errorf("%d connections were made, want one each", n)
	}
}

// Who asks whether to send is not made to.
func TestRefusedBodyThatWaitsIsNotAskedFor(t *testing.T) {
	srv := httptest.NewServer(readOut(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })))
	defer srv.Close()
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || !strings.Contains(line, " 401 ") {
		t.Errorf("the first line is %q, %v, want a 401", line, err)
	}
}
