package server

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker/process"
)

func TestMain(m *testing.M) {
	process.MaybeShim()
	os.Exit(m.Run())
}

func options(dir string) Options {
	c := config.Dev()
	c.Data, c.Listen, c.Driver, c.StemCells = dir, "127.0.0.1:0", config.Process, 0
	return Options{Config: c, Log: slog.New(slog.DiscardHandler), Version: "test", Built: "2026-01-01T00:00:00Z"}
}

// refused checks that an error tells a cause and a remedy.
func refused(t *testing.T, err error, kind whisk.Kind, cause, hint string) {
	t.Helper()
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), cause) || !strings.Contains(whisk.HintOf(err), hint) {
		t.Errorf("error = %v (hint %q), want %v with %q and a hint with %q", err, whisk.HintOf(err), kind, cause, hint)
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	s, err := New(t.Context(), options(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer s.home.Close()
	defer s.listener.Close()

	_, err = New(t.Context(), options(dir))
	refused(t, err, whisk.Conflict, "in use by another server (process ", "--data")

	o := options(t.TempDir())
	o.Config.Listen = s.listener.Addr().String()
	_, err = New(t.Context(), o)
	refused(t, err, whisk.Conflict, "in use by another program", "--listen")
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("%v does not tell callers that the address is in use", err)
	}

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = New(t.Context(), options(file))
	refused(t, err, whisk.Unavailable, "can't be written", "--data")

	o = options(t.TempDir())
	o.Config.Listen = "no-such-host.invalid:1"
	_, err = New(t.Context(), o)
	refused(t, err, whisk.Invalid, "can't listen on", "--listen")
}

func TestBadSettingsEndTheStart(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
	for name, tt := range map[string]struct {
		set   func(*config.Config)
		kind  whisk.Kind
		cause string
	}{
		"runtimes missing": {func(c *config.Config) { c.Runtimes = "/nonexistent.json" }, whisk.Invalid, "cannot read the runtimes in '/nonexistent.json': no such file or directory"},
		"no docker":        {func(c *config.Config) { c.Driver = config.Docker }, whisk.Unavailable, "Docker does not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t.TempDir())
			tt.set(&o.Config)
			s, err := New(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			err = s.Run(t.Context(), func(Info) { t.Error("the server is ready") })
			refused(t, err, tt.kind, tt.cause, "--")
			if _, err := New(t.Context(), options(o.Config.Data)); err != nil {
				t.Errorf("the folder is still locked: %v", err)
			}
		})
	}
}

func TestBadRuntimes(t *testing.T) {
	for text, want := range map[string]string{
		"{\"runtimes\":\n }}": "unexpected '}' in line 2, column 2",
		`{"runtime": {}}`:     `unknown field "runtime"`,
		`{"runtimes": []}`:    "runtimes: found array, which does not belong there",
		`{"runtimes": {"python": [{"kind": "python:3", "image": {"name": 3}}]}}`: "found number, which does not belong there",
		`{"runtimes": {"python": [{"kind": "node:3", "image": {"name": "x"}}]}}`: `runtimes.python: kind "node:3"`,
	} {
		o := options(t.TempDir())
		o.Config.Runtimes = filepath.Join(t.TempDir(), "runtimes.json")
		if err := os.WriteFile(o.Config.Runtimes, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := (&Server{o: o}).runtimes()
		refused(t, err, whisk.Invalid, "the runtimes in '"+o.Config.Runtimes+"' are not valid: ", "OpenWhisk's runtimes.json")
		if err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "Go ") || strings.Contains(err.Error(), "json: ")) {
			t.Errorf("%s: %v\nwant %s", text, err, want)
		}
	}
}

// running starts a server and returns where it is, and how to stop it.
func running(t *testing.T, o Options) (info Info, stop func()) {
	t.Helper()
	s, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan Info, 1), make(chan error, 1)
	go func() { done <- s.Run(ctx, func(i Info) { ready <- i }) }()
	select {
	case info = <-ready:
	case err := <-done:
		t.Fatalf("the server ended: %v", err)
	}
	return info, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil after it was asked to stop", err)
		}
	}
}

func get(t *testing.T, url string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body map[string]any
	_ = json.NewDecoder(resp.Body).Decode(&body) // /metrics is no JSON
	return resp.StatusCode, body
}

func TestStartAndRestart(t *testing.T) {
	o := options(t.TempDir())
	info, stop := running(t, o)
	if !strings.HasPrefix(info.URL, "http://localhost:") || info.Data != o.Config.Data ||
		!strings.HasPrefix(info.Driver, "process") || info.Isolation == "" {
		t.Errorf("info = %+v", info)
	}
	for _, path := range []string{"/live", "/ready", "/metrics", "/", "/api/v1", "/hub/v1/openapi.json"} {
		if status, _ := get(t, info.URL+path); status != http.StatusOK {
			t.Errorf("GET %s = %d, want 200", path, status)
		}
	}
	key := (&home{dir: o.Config.Data}).authKey(propsFile)
	admin := (&home{dir: o.Config.Data}).authKey(adminFile)
	if len(key) != 101 || len(admin) != 101 {
		t.Errorf("keys = %q and %q, want uuid:key", key, admin)
	}
	for _, name := range []string{propsFile, adminFile, secretFile} {
		st, err := os.Stat(filepath.Join(o.Config.Data, name))
		if err != nil || st.Mode().Perm() != fs.FileMode(0o600) {
			t.Errorf("%s: %v, mode %v, want one for its owner alone", name, err, st.Mode())
		}
	}
	stop()

	_, stop = running(t, o)
	if again := (&home{dir: o.Config.Data}).authKey(propsFile); again != key {
		t.Errorf("the guest's key changed at a restart: %q, then %q", key, again)
	}
	stop()
}

// TestPackagesAreInstalledOnce checks that a start leaves alone what is there.
func TestPackagesAreInstalledOnce(t *testing.T) {
	o := options(t.TempDir())
	revisions := func() map[whisk.Name]whisk.Revision {
		s, err := New(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.home.Close()
		defer s.listener.Close()
		r, err := s.build(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer r.close() //nolint:errcheck // nothing was started
		out := map[whisk.Name]whisk.Revision{}
		table := r.store.Entities()
		for _, a := range table.Actions.List(whisk.SystemNamespace) {
			_, out[a.Name], _ = table.Actions.Get(a.Name)
		}
		return out
	}
	first := revisions()
	if len(first) < 4 {
		t.Fatalf("%d actions are installed, want those of alarms and webhook", len(first))
	}
	for name, rev := range revisions() {
		if first[name] != rev {
			t.Errorf("%v was written again: revision %d, then %d", name, first[name], rev)
		}
	}
}
