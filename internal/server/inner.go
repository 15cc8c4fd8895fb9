package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// networked is a driver whose containers have a network of their own: Address
// is where they reach this machine, within the network that they come from.
type networked interface {
	Address(ctx context.Context) (netip.Prefix, error)
}

// actionsURL is where actions reach the API: what they find in __OW_API_HOST.
// For containers with a network of their own, which this machine's loopback is
// no part of, a second door is opened on that network.
func (s *Server) actionsURL(ctx context.Context, r *road) string {
	// A driver without networks of its own runs actions where this server's
	// addresses are theirs.
	d, apart := r.driver.Driver.(networked)
	public, err := url.Parse(s.publicURL())
	if !apart || err == nil && s.o.Config.PublicURL != "" && !loopback(public.Hostname()) {
		return s.publicURL()
	}
	// An address that is not the loopback is reached from containers as well.
	outer, err := netip.ParseAddrPort(s.listener.Addr().String())
	if err == nil && !outer.Addr().IsLoopback() && !outer.Addr().IsUnspecified() {
		return s.publicURL()
	}
	var at netip.Prefix
	if err == nil {
		at, err = d.Address(ctx)
	}
	// A door on all addresses is open on theirs already.
	if err == nil && outer.Addr().IsLoopback() {
		err = s.openInner(ctx, r, at, outer.Port())
	}
	// Actions run without the API too: a note, not a failed start.
	if err != nil {
		r.notes = append(r.notes, fmt.Sprintf("actions in containers can't reach the API: %v; give them an address of this machine with --listen", err))
		return s.publicURL()
	}
	return "http://" + netip.AddrPortFrom(at.Addr(), outer.Port()).String()
}

// openInner serves the APIs that take a key on the network of containers as well:
// whoever else has one there may come, too, but finds no metrics, webhooks or
// web actions, which ask for none.
func (s *Server) openInner(ctx context.Context, r *road, at netip.Prefix, port uint16) error {
	var lc net.ListenConfig
	// The same port, so that only the host differs.
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(at.Addr().String(), strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	srv := s.httpServer(withKey(s.door()))
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(within{l, at.Masked()}) }()
	r.closers = append(r.closers, func() error {
		return errors.Join(srv.Close(), closed(<-ended))
	})
	return nil
}

// withKey lets through what asks for a key.
func withKey(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		if !strings.HasPrefix(path, "/api/v1") && !strings.HasPrefix(path, "/hub/v1") || strings.HasPrefix(path, "/api/v1/web/") {
			http.NotFound(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// loopback reports whether a host is this machine to itself alone.
func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// within is a listener that takes connections from one network alone. A packet
// from elsewhere can be routed to an address of this machine that only its
// containers are meant to know.
type within struct {
	net.Listener
	network netip.Prefix
}

func (w within) Accept() (net.Conn, error) {
	for {
		c, err := w.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from, err := netip.ParseAddrPort(c.RemoteAddr().String())
		// Others are cut off without a word: the caller of Accept never sees
		// them.
		if err == nil && w.network.Contains(from.Addr().Unmap()) {
			return c, nil
		}
		c.Close()
	}
}
