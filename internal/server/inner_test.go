package server

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

func TestInnerDoorTakesItsNetworkAlone(t *testing.T) {
	for _, tt := range []struct {
		name, network string
		taken         bool
	}{
		{"own network", "127.0.0.0/8", true},
		{"another network", "172.17.0.0/16", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					c, err := within{l, netip.MustParsePrefix(tt.network)}.Accept()
					if err != nil {
						return
					}
					io.WriteString(c, "in") //nolint:errcheck // the reader tells
					c.Close()
				}
			}()
			defer func() {
				l.Close()
				<-done
			}()
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			got, err := io.ReadAll(c)
			if want := map[bool]string{true: "in"}[tt.taken]; string(got) != want || err != nil && tt.taken {
				t.Errorf("a caller read %q, %v, want %q", got, err, want)
			}
		})
	}
}

func TestInnerDoorShowsWhatAsksForAKey(t *testing.T) {
	h := withKey(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	for path, want := range map[string]int{
		"/api/v1/namespaces": 401, "/api/v1": 401, "/hub/v1/events": 401,
		"/metrics": 404, "/live": 404, "/": 404, "/hooks/x": 404, "/api/v1/web/guest/default/page": 404,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != want {
			t.Errorf("%s = %d, want %d", path, w.Code, want)
		}
	}
}
