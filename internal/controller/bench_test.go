package controller_test

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/controller"
	"github.com/millrace/millrace/internal/whisk"
)

// noop is a delivery that costs nothing, and an archive that does not either:
// what is measured is the API.
type noop struct{ act whisk.Activation }

func (n *noop) Call(_ context.Context, _ whisk.Runnable, inv whisk.Invocation, _ time.Duration) (whisk.Activation, bool, error) {
	act := n.act
	act.ID = inv.ActivationID
	return act, true, nil
}

func (n *noop) Invoke(context.Context, whisk.Name, whisk.Invocation) error { return nil }

func (n *noop) Accept(context.Context, ...whisk.Event) ([]whisk.Place, error) { return nil, nil }

func (n *noop) Room() error { return nil }

func benchHandler(b *testing.B) http.Handler {
	w := newWorld(b)
	h := w.handler(b)
	for path, body := range map[string]string{
		"actions/a":  `{"exec":{"kind":"python:3","code":"return args"},"annotations":[{"key":"web-export","value":true}]}`,
		"triggers/t": `{}`,
	} {
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, benchRequest(b, "PUT", root+path, body))
		if answer.Code != 200 {
			b.Fatalf("PUT %s = %d %s", path, answer.Code, answer.Body)
		}
	}
	run, err := w.Resolve(whisk.Name{Namespace: "guest", Entity: "a"})
	if err != nil {
		b.Fatal(err)
	}
	d := w.deps(b)
	quick := &noop{act: perform("return args", run, whisk.Invocation{Namespace: "guest", Subject: "guest", Received: time.Now()})}
	d.Delivery, d.Events = quick, quick
	h, err = controller.New(d)
	if err != nil {
		b.Fatal(err)
	}
	return h
}

func benchRequest(b *testing.B, method, path, body string) *http.Request {
	r := httptest.NewRequestWithContext(b.Context(), method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(guestKey)))
	return r
}

// What the API itself costs, without a network.
func BenchmarkAPI(b *testing.B) {
	for name, path := range map[string]string{
		"invoke": root + "actions/a?blocking=true",
		"fire":   root + "triggers/t",
		"web":    "/api/v1/web/guest/default/a.json",
		"get":    root + "actions/a",
	} {
		b.Run(name, func(b *testing.B) {
			h := benchHandler(b)
			method := http.MethodPost
			if name == "get" {
				method = http.MethodGet
			}
			body := strings.NewReader(`{"a":1}`)
			r := benchRequest(b, method, path, `{"a":1}`)
			b.ReportAllocs()
			for b.Loop() {
				body.Seek(0, io.SeekStart) //nolint:errcheck // of a string
				r.Body = io.NopCloser(body)
				answer := httptest.NewRecorder()
				if h.ServeHTTP(answer, r); answer.Code >= 300 {
					b.Fatalf("%d %s", answer.Code, answer.Body)
				}
			}
		})
	}
}

// A blocking call over HTTP with 32 clients, beside a bare server with the same
// clients.
func BenchmarkServer(b *testing.B) {
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write([]byte("hello"))
	})
	for name, h := range map[string]http.Handler{"hello": hello, "invoke": benchHandler(b)} {
		b.Run(name, func(b *testing.B) {
			s := httptest.NewServer(h)
			defer s.Close()
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
			defer client.CloseIdleConnections()
			auth := "Basic " + base64.StdEncoding.EncodeToString([]byte(guestKey))
			took := make([]time.Duration, 1<<20)
			var n atomic.Int64
			b.SetParallelism(16) // of two processors: 32 clients
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					r, err := http.NewRequest(http.MethodPost, s.URL+root+"actions/a?blocking=true", strings.NewReader(`{"a":1}`)) //nolint:noctx // of a benchmark
					if err != nil {
						b.Error(err)
						return
					}
					r.Header.Set("Authorization", auth)
					r.Header.Set("Content-Type", "application/json")
					began := time.Now()
					answer, err := client.Do(r)
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, answer.Body)
					answer.Body.Close()
					took[int(n.Add(1)-1)%len(took)] = time.Since(began)
				}
			})
			took = took[:min(int(n.Load()), len(took))]
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-p50")
			b.ReportMetric(float64(n.Load())/b.Elapsed().Seconds(), "req/s")
		})
	}
}
