// Package server assembles Millrace: it builds every part from the settings,
// runs them together and closes what they stand on in reverse.
//
// A start goes in this order. The data folder is locked and the port taken, so
// that what a person got wrong is told at once; /live answers from then on and
// /ready says 503. The bus opens its store, the store its tables, the journal
// its index; keys are made at the first start; the built-in packages are
// installed. Then the road runs from its end to its beginning: invoker,
// delivery, judge, feeds. At last the API answers.
//
// A stop goes the other way: the listener stops accepting, feeds and judge
// end, what runs is finished or handed back, and the bus flushes.
//
// No other room imports more than two or three of its neighbours: whoever
// needs to know how they fit together reads this one.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/telemetry"
	"github.com/millrace/millrace/internal/whisk"
)

// drain is how long a stop waits for what runs before it is handed back.
const drain = 30 * time.Second

// serving is what the server reports its own state as.
const serving = "server"

// headerWait is how long a client may take to send its headers.
const headerWait = 10 * time.Second

// Options are what a server is made from besides its settings.
type Options struct {
	Config  config.Config
	Log     *slog.Logger
	Version string // of this build
	Built   string // when, RFC 3339
	// Fault is called by name between the steps of the road. Only tests set it.
	Fault func(point string)
	// StreamLimit is how many bytes each stream may hold; 0: what the disk
	// allows. Only tests set it.
	StreamLimit int64
}

// Info is what a person is told at start. It is told once, when the API
// answers: before that a part may still fail.
type Info struct {
	URL       string // of the API, as a client on this machine reaches it
	Data      string // the data folder
	Driver    string // what actions run in, and which kinds there are
	Isolation string
	Notes     []string // what is missing or weaker than it could be, and how to change it
}

// Server is one server on one data folder. Make it with New, then Run it. The
// door is open from the start and looks at api for every request, so that a
// client that comes early is told to wait instead of refused.
type Server struct {
	o        Options
	home     *home
	listener net.Listener
	metrics  *prometheus.Registry
	health   telemetry.Health
	api      atomic.Pointer[http.Handler] // nil until the server is ready
}

// New locks the data folder and takes the port. It starts nothing. Errors say
// what to do (whisk.HintOf).
func New(ctx context.Context, o Options) (*Server, error) {
	// The lock before the port: with another server on the folder, that is what
	// a person has to know.
	h, err := openHome(o.Config.Data)
	if err != nil {
		return nil, err
	}
	l, err := listen(ctx, o.Config.Listen)
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	s := &Server{o: o, home: h, listener: l, metrics: telemetry.NewRegistry()}
	// Not ready until it is reported: a probe that comes early must not send
	// traffic.
	s.health.Expect(serving)
	return s, nil
}

// taken is the error of an address that another program has. It is EADDRINUSE.
type taken string

func (t taken) Error() string {
	return fmt.Sprintf("the address %s is in use by another program", string(t))
}

func (t taken) Unwrap() error { return syscall.EADDRINUSE }

// listen takes a TCP address. Its errors name the reason and the remedy.
func listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, whisk.WithHint(whisk.E(whisk.Conflict, "", taken(addr)), "stop that program, or choose another address with --listen")
	case errors.Is(err, syscall.EACCES):
		return nil, whisk.WithHint(whisk.E(whisk.Forbidden, "", fmt.Errorf("this user may not listen on %s", addr)),
			"choose a port above 1023 with --listen")
	case err != nil:
		var why *os.SyscallError // the reason without the names of the calls
		if errors.As(err, &why) {
			err = why.Err
		}
		return nil, whisk.WithHint(whisk.E(whisk.Invalid, "", fmt.Errorf("can't listen on %s: %w", addr, err)),
			"choose an address of this machine with --listen, as in 127.0.0.1:3233")
	}
	return l, nil
}

// URL is where the API answers, as a client on this machine reaches it.
func (s *Server) URL() string {
	host, port, err := net.SplitHostPort(s.listener.Addr().String())
	if err != nil {
		return "http://" + s.listener.Addr().String()
	}
	// A name that this machine always reaches itself by, whatever it listens
	// on.
	if ip := net.ParseIP(host); ip != nil && (ip.IsUnspecified() || ip.IsLoopback()) {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// Run starts everything, calls ready once the API answers, and returns when
// ctx ends (nil, after what runs was finished or handed back) or a part fails.
func (s *Server) Run(ctx context.Context, ready func(Info)) (err error) {
	defer func() { err = errors.Join(err, s.home.Close()) }()
	srv := s.httpServer(s.door())
	served := make(chan error, 1)
	// Before the parts are built: opening a large store takes a while, and
	// /live and /ready answer meanwhile.
	go func() { served <- srv.Serve(s.listener) }()

	road, err := s.build(ctx)
	if err != nil {
		// Waited for: the port is free when Run returns.
		return errors.Join(err, srv.Close(), closed(<-served))
	}
	// Runs before the lock is given free: the next server finds the files
	// closed.
	defer func() { err = errors.Join(err, road.close()) }()
	return road.run(ctx, s.o.Log, func(ctx context.Context) error {
		// Streams never end by themselves: without this Shutdown would wait for
		// them all of drain.
		streams, endStreams := context.WithCancel(ctx)
		defer endStreams()
		api, err := s.compose(road, streams.Done())
		if err != nil {
			return err
		}
		// Health after it: whoever is told ready finds the API.
		s.api.Store(&api)
		s.health.Report(serving, nil)
		ready(s.info(road))
		select {
		case err := <-served:
			return closed(err)
		case <-ctx.Done():
		}
		// First, so that a load balancer sends no more while the rest finishes.
		s.health.Report(serving, errors.New("stopping"))
		endStreams()
		bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		if err := srv.Shutdown(bye); err != nil {
			return srv.Close() // calls that outlive any patience
		}
		return closed(<-served)
	})
}

// httpServer returns a server with our limits. Bodies have no deadline here: the
// API gives large ones theirs.
func (s *Server) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: readOut(h), ReadHeaderTimeout: headerWait, ErrorLog: slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug),
	}
}

// closed is nil for the end of a server that was asked to end.
func closed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// door answers /live, /ready and /metrics at all times, and everything else
// once the server is ready.
func (s *Server) door() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /live", s.health.LiveHandler())
	mux.Handle("GET /ready", s.health.ReadyHandler())
	mux.Handle("GET /metrics", telemetry.Handler(s.metrics, s.o.Log))
	// Not all by the mux: it would clean paths that the API keeps as they are.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/live", "/ready", "/metrics":
			mux.ServeHTTP(w, r)
			return
		}
		if api := s.api.Load(); api != nil {
			(*api).ServeHTTP(w, r)
			return
		}
		w.Header().Set("Retry-After", "1")
		http.Error(w, `{"error":"The server is starting.","code":""}`, http.StatusServiceUnavailable)
	})
}
