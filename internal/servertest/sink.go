package servertest

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
)

// Sink is an HTTP server that actions report to: what they did outside, kept
// apart from every record of the server under test.
type Sink struct {
	URL string

	mu   sync.Mutex
	runs []Run
}

// Run is one report of an action.
type Run struct {
	ActivationID string          `json:"activation"`
	Trigger      string          `json:"trigger"`
	Key          json.RawMessage `json:"key"`
}

// SinkAction is the source of a Python action that reports its activation ID
// and its parameter n, then fails if the parameter fail says so.
func (s *Sink) SinkAction(trigger string) string {
	return `
import http.client, json, os

def main(args):
    body = json.dumps({"activation": os.environ["__OW_ACTIVATION_ID"], "trigger": "` + trigger + `", "key": args.get("n")})
    c = http.client.HTTPConnection("` + s.URL + `")
    c.request("POST", "/", body)
    c.getresponse().read()
    c.close()
    return {"n": args.get("n")}
`
}

// NewSink starts a sink that containers reach too: it listens on the bridge of
// Docker when docker is true, else on the loopback.
func NewSink(t testing.TB, docker bool) *Sink {
	t.Helper()
	s := &Sink{}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var run Run
		if err := json.NewDecoder(r.Body).Decode(&run); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		s.runs = append(s.runs, run)
		s.mu.Unlock()
	}))
	if docker {
		l, err := net.Listen("tcp", bridgeAddr()+":0")
		if err != nil {
			t.Fatal(err)
		}
		srv.Listener.Close()
		srv.Listener = l
	}
	srv.Start()
	t.Cleanup(srv.Close)
	s.URL = srv.Listener.Addr().String()
	return s
}

// Runs returns what was reported so far.
func (s *Sink) Runs() []Run {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Run(nil), s.runs...)
}

// bridgeAddr is this machine's address on Docker's default bridge.
func bridgeAddr() string {
	if i, err := net.InterfaceByName("docker0"); err == nil {
		if addrs, err := i.Addrs(); err == nil {
			for _, a := range addrs {
				if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
					return n.IP.String()
				}
			}
		}
	}
	return "172.17.0.1"
}

// Drivers returns the drivers that a test runs on: process always, docker when
// the environment says that the tests may use it.
func Drivers() []string {
	if os.Getenv("TEST_DOCKER") != "" {
		return []string{"process", "docker"}
	}
	return []string{"process"}
}

// TestRuntimes is a runtimes.json of the images that .ci/docker makes, so that
// tests need no image registry.
const TestRuntimes = `{"runtimes": {
	"python": [{"kind": "python:3", "default": true, "image": {"prefix": "millrace-test", "name": "python", "tag": "3"}, "launcher": "python"}],
	"nodejs": [{"kind": "nodejs:20", "default": true, "image": {"prefix": "millrace-test", "name": "node", "tag": "20"}, "launcher": "node"}],
	"native": [{"kind": "native:1", "default": true, "image": {"prefix": "millrace-test", "name": "debian", "tag": "stable"}, "launcher": "native"}]
}}`
