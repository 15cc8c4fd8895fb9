package server

import (
	"io"
	"net"
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
