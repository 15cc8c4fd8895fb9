package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker"
	"github.com/millrace/millrace/invoker/invokertest"
)

// registry stands for a daemon that has no images but can pull them.
type registry struct {
	pulled atomic.Int32
	mu     sync.Mutex
	here   map[string]bool
	said   string        // what it writes about a pull
	gate   chan struct{} // a pull waits for it; may be nil
}

func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Api-Version", "1.41")
	path := req.URL.Path[strings.Index(req.URL.Path[1:], "/")+1:] // without the version of the API
	switch {
	case req.URL.Path == "/_ping":
	case path == "/version":
		fmt.Fprint(w, `{"Version":"0.0","ApiVersion":"1.41"}`)
	case path == "/images/create":
		r.pulled.Add(1)
		if r.gate != nil {
			<-r.gate
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if !strings.Contains(r.said, `"error"`) {
			r.here[req.URL.Query().Get("fromImage")+":"+req.URL.Query().Get("tag")] = true
		}
		fmt.Fprint(w, r.said)
	case strings.HasPrefix(path, "/images/"):
		r.mu.Lock()
		defer r.mu.Unlock()
		if !r.here[strings.TrimSuffix(strings.TrimPrefix(path, "/images/"), "/json")] {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"message":"No such image"}`)
			return
		}
		fmt.Fprint(w, `{"Id":"sha256:1"}`)
	case path == "/containers/create":
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"message":"invalid mount config for type \"bind\": bind source path does not exist: /x"}`)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (r *registry) driver(t *testing.T, pull bool) (d *Driver, log *bytes.Buffer) {
	t.Helper()
	r.here = map[string]bool{}
	srv := httptest.NewServer(r)
	t.Cleanup(srv.Close)
	t.Setenv("DOCKER_HOST", "tcp://"+strings.TrimPrefix(srv.URL, "http://"))
	log = &bytes.Buffer{}
	d, err := New(t.Context(), Options{Dir: t.TempDir(), Pull: pull, Log: slog.New(slog.NewTextHandler(log, nil)), progress: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, log
}

const goodPull = `{"status":"Pulling from library/python","id":"3-slim"}
{"status":"Pulling fs layer","progressDetail":{},"id":"a"}
{"status":"Downloading","progressDetail":{"current":10,"total":100},"progress":"[=>  ]","id":"a"}
{"status":"Downloading","progressDetail":{"current":50,"total":60},"id":"b"}
{"status":"Download complete","progressDetail":{},"id":"a"}
{"status":"Extracting","progressDetail":{"current":5,"total":900},"id":"a"}
{"status":"Status: Downloaded newer image for python:3-slim"}
`

var stock = whisk.Runtime{Kind: "python:3", Image: whisk.Image{Name: "python", Tag: "3-slim"}}

// A server that was told to use Docker pulls what is missing, once however many
// kinds share an image, and tells how far it is.
func TestPull(t *testing.T) {
	r := &registry{said: goodPull}
	d, log := r.driver(t, true)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if err := d.Offers(t.Context(), stock); err != nil {
				t.Errorf("Offers = %v", err)
			}
		})
	}
	wg.Wait()
	if err := d.Offers(t.Context(), stock); err != nil {
		t.Errorf("Offers when it is here = %v", err)
	}
	for _, want := range []string{
		`msg="pulling image" image=python:3-slim bytes=10 of=100`, "bytes=60 of=160", "bytes=150 of=160", `msg="image pulled" image=python:3-slim`,
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %s:\n%s", want, log)
		}
	}
}

func TestPullFails(t *testing.T) {
	for _, tt := range []struct {
		said, want string
		fault      error
	}{
		{`{"status":"Pulling"}` + "\n" + `{"errorDetail":{"message":"no space left"},"error":"no space left"}` + "\n", "its image can't be pulled: no space left", whisk.Invalid},
		{`{"status":"Pull`, "its image can't be pulled: unexpected EOF", nil}, // the daemon ended
	} {
		r := &registry{said: tt.said}
		d, _ := r.driver(t, true)
		if err := d.Offers(t.Context(), stock); err == nil || err.Error() != tt.want {
			t.Errorf("Offers = %v, want %s", err, tt.want)
		}
		// The image of an action is the action's own affair.
		_, err := d.Create(t.Context(), invoker.Spec{Kind: whisk.KindBlackbox, Image: "me/mine:1", Memory: 128})
		if tt.fault == nil && (err == nil || errors.Is(err, whisk.Invalid)) {
			t.Errorf("Create without a daemon = %v, want no fault of the action's", err)
		}
		if tt.fault != nil && (!errors.Is(err, tt.fault) || whisk.Message(err) != "Failed to pull container image 'me/mine:1'.") {
			t.Errorf("Create = %v", err)
		}
	}
}

// Nothing is pulled at start for somebody who did not ask for Docker.
func TestNoPull(t *testing.T) {
	r := &registry{said: goodPull}
	d, log := r.driver(t, false)
	if err := d.Offers(t.Context(), stock); err == nil || err.Error() != "its image is not here (docker pull python:3-slim)" {
		t.Errorf("Offers = %v", err)
	}
	if n := r.pulled.Load(); n != 0 || log.Len() > 0 {
		t.Errorf("%d pulls, log %s", n, log)
	}
}

// Whoever stops the server does not wait for a download.
func TestPullIsLeft(t *testing.T) {
	r := &registry{said: goodPull, gate: make(chan struct{})}
	d, _ := r.driver(t, true)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- d.Offers(ctx, stock) }()
	invokertest.Eventually(t, "the pull is under way", func() bool { return r.pulled.Load() == 1 })
	cancel()
	if err := <-done; err == nil {
		t.Error("Offers waited for the pull")
	}
	close(r.gate)
}

// Launchers are mounted from the data folder, so a daemon that has another view
// of the disk cannot run them, and says so before any action does.
func TestDaemonDoesNotSeeTheFolder(t *testing.T) {
	r := &registry{said: goodPull}
	d, _ := r.driver(t, true)
	for range 2 {
		err := d.Offers(t.Context(), whisk.Runtime{Kind: "python:3", Image: stock.Image, Launcher: "python"})
		if want := "the Docker daemon does not find " + d.o.Dir + ": it must be on the daemon's machine, and have the same path there"; err == nil || err.Error() != want {
			t.Errorf("Offers = %v, want %s", err, want)
		}
	}
	if err := d.Offers(t.Context(), stock); err != nil {
		t.Errorf("an image that serves itself needs no folder: %v", err)
	}
}
