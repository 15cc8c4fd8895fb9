package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/whisk"
)

// lockedBuffer is a bytes.Buffer that may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// world is a server as the demonstration sees it.
type world struct {
	mu     sync.Mutex
	calls  []string
	cron   string // what READ answers; empty: there is no feed
	puts   chan string
	events chan string // messages of the stream
	fail   string      // path that answers 500
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.mu.Lock()
	path := strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/")
	call := r.Method + " " + path
	var args struct {
		Event string `json:"lifecycleEvent"`
		Cron  string `json:"cron"`
		Exec  *struct {
			Code string `json:"code"`
		} `json:"exec"`
	}
	_ = json.Unmarshal(body, &args)
	if args.Event != "" {
		call += " " + args.Event
	}
	w.calls = append(w.calls, call)
	cron, failing := w.cron, w.fail != "" && strings.Contains(path, w.fail)
	if args.Event == feedCreate {
		w.cron = args.Cron
	}
	w.mu.Unlock()
	switch {
	case failing:
		rw.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(rw, `{"error":"There was an internal server error.","code":"tid"}`)
	case strings.HasSuffix(path, "/events/stream"):
		rw.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(rw).Flush()
		for {
			select {
			case m := <-w.events:
				_, _ = io.WriteString(rw, m)
				_ = http.NewResponseController(rw).Flush()
			case <-r.Context().Done():
				return
			}
		}
	case args.Event == feedRead && cron == "":
		rw.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(rw, `{"activationId":"f","response":{"status":"application error","success":false,"result":{"error":"none"}}}`)
	case args.Event == feedRead:
		_, _ = fmt.Fprintf(rw, `{"activationId":"f","response":{"status":"success","success":true,"result":{"config":{"cron":%q}}}}`, cron)
	default:
		_, _ = io.WriteString(rw, `{}`)
	}
	if args.Exec != nil {
		w.puts <- args.Exec.Code
	}
}

func (w *world) called() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.calls)
}

func newWorld(t *testing.T) (*world, StartServer, string) {
	t.Helper()
	w := &world{puts: make(chan string, 100), events: make(chan string)}
	srv := httptest.NewServer(w)
	t.Cleanup(srv.Close)
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "wskprops"), []byte("AUTH="+testKey+"\nAPIHOST=http://nowhere:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return w, func(ctx context.Context, _ config.Config, ready func(Ready)) error {
		ready(Ready{URL: srv.URL, Data: data, Driver: "process", Isolation: "none", Notes: []string{"no node"}})
		<-ctx.Done()
		return nil
	}, data
}

// await returns the next value that comes.
func await[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(10 * time.Second):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("never: %s", what)
		}
	}
}

func TestTry(t *testing.T) {
	t.Chdir(t.TempDir())
	w, start, data := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errs lockedBuffer
	done := make(chan int, 1)
	go func() {
		done <- Main(ctx, System{Out: &out, Err: &errs, Home: t.TempDir()}, []string{"dev", "--try"}, start)
	}()

	if code := await(t, w.puts, "action"); code != string(helloPy) {
		t.Errorf("the action is %q", code)
	}
	until(t, "the feed is made", func() bool {
		return slices.Contains(w.called(), "POST whisk.system/actions/alarms/alarm CREATE")
	})
	want := []string{
		"PUT _/actions/try-hello", "PUT _/triggers/try-tick", "PUT _/rules/try-rule", "POST _/rules/try-rule", "GET /hub/v1/events/stream",
		"POST whisk.system/actions/alarms/alarm READ", "POST whisk.system/actions/alarms/alarm CREATE",
	}
	if got := w.called(); !slices.Equal(got, want) {
		t.Errorf("calls = %q\nwant %q", got, want)
	}

	// What happens is seen, and what is saved is run.
	w.events <- "event: verdict\ndata: {\"verdict\":{\"event\":{\"seq\":1,\"id\":\"e1\"},\"trigger\":\"/guest/try-tick\",\"time\":\"2026-11-24T12:00:02Z\",\"rules\":[{\"rule\":\"/guest/try-rule\",\"action\":\"/guest/try-hello\",\"decision\":\"filtered\",\"reason\":\"second is 2\"}]}}\n\n"
	until(t, "the tree is shown", func() bool { return strings.Contains(out.String(), "filtered: second is 2") })
	if err := os.WriteFile(tryFile, []byte("def main(args): return {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if code := await(t, w.puts, "reload"); code != "def main(args): return {}\n" {
		t.Errorf("reloaded %q", code)
	}
	until(t, "the reload is told", func() bool { return strings.Contains(out.String(), "ok: updated action try-hello") })

	cancel()
	if code := await(t, done, "end"); code != 0 || errs.String() != "" {
		t.Errorf("ended with %d: %s", code, errs.String())
	}
	for _, line := range []string{"API        http://127.0.0.1", "Data       " + data, "Driver     process", "Isolation  none", "no node", "  export WSK_CONFIG_FILE=" + data + "/wskprops", "millrace-try/hello.py"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("the output lacks %q:\n%s", line, out.String())
		}
	}
}

// A file that is there is not written, and a feed that goes on is left alone.
func TestTryAgain(t *testing.T) {
	for _, tt := range []struct {
		cron string
		want []string
	}{
		{tryCron, []string{"READ"}},
		{"@hourly", []string{"READ", "DELETE", "CREATE"}},
	} {
		t.Run(tt.cron, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := os.Mkdir(filepath.Dir(tryFile), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(tryFile, []byte("mine"), 0o644); err != nil {
				t.Fatal(err)
			}
			w, start, _ := newWorld(t)
			w.cron = tt.cron
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan int, 1)
			go func() {
				done <- Main(ctx, System{Out: io.Discard, Err: io.Discard, Home: t.TempDir()}, []string{"try"}, start)
			}()
			if code := await(t, w.puts, "action"); code != "mine" {
				t.Errorf("the action is %q", code)
			}
			var told []string
			until(t, "the feed is looked at", func() bool {
				told = nil
				for _, c := range w.called() {
					if e, ok := strings.CutPrefix(c, "POST whisk.system/actions/alarms/alarm "); ok {
						told = append(told, e)
					}
				}
				return len(told) >= len(tt.want)
			})
			cancel()
			await(t, done, "end")
			if !slices.Equal(told, tt.want) {
				t.Errorf("the feed was told %q, want %q", told, tt.want)
			}
		})
	}
}

func TestTryFails(t *testing.T) {
	for _, fail := range []string{"actions/try-hello", "triggers/try-tick", "rules/try-rule", "alarms/alarm", "events/stream"} {
		t.Run(fail, func(t *testing.T) {
			t.Chdir(t.TempDir())
			w, start, _ := newWorld(t)
			w.fail = fail
			var errs lockedBuffer
			code := Main(t.Context(), System{Out: io.Discard, Err: &errs, Home: t.TempDir()}, []string{"try"}, start)
			if code != 244 || !strings.Contains(errs.String(), "hint: ") {
				t.Errorf("ended with %d: %s; want 244 and a hint", code, errs.String())
			}
		})
	}
}

// A server without Python refuses the action: the remedy must say so.
func TestTryWithoutPython(t *testing.T) {
	t.Chdir(t.TempDir())
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error":"The specified runtime 'python:default' is not supported by this platform.","code":"tid"}`)
	}))
	defer srv.Close()
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "wskprops"), []byte("AUTH="+testKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var errs lockedBuffer
	code := Main(t.Context(), System{Out: io.Discard, Err: &errs, Home: data}, []string{"try"}, func(ctx context.Context, _ config.Config, ready func(Ready)) error {
		ready(Ready{URL: srv.URL, Data: data})
		<-ctx.Done()
		return nil
	})
	if code != 144 || !strings.Contains(errs.String(), "hint: the demonstration's action is in Python: install python3") {
		t.Errorf("ended with %d: %s", code, errs.String())
	}
}

// The filter must let every second due time of the schedule pass, whatever the
// minute.
func TestTryFilterTakesEverySecond(t *testing.T) {
	var f struct {
		Event struct {
			Second []int `json:"second"`
		} `json:"__ow_event"`
	}
	if err := json.Unmarshal([]byte(tryFilter), &f); err != nil {
		t.Fatal(err)
	}
	last := false
	for s := 0; s < 180; s += 2 {
		passes := slices.Contains(f.Event.Second, s%60)
		if s > 0 && passes == last {
			t.Fatalf("at second %d and the one before, passes = %t", s, passes)
		}
		last = passes
	}
}

func TestServe(t *testing.T) {
	var got config.Config
	record := func(_ context.Context, c config.Config, ready func(Ready)) error {
		got = c
		ready(Ready{URL: "http://localhost:1", Data: c.Data, Driver: "docker", Isolation: "containers"})
		return nil
	}
	var out, errs lockedBuffer
	file := filepath.Join(t.TempDir(), "m.yaml")
	if err := os.WriteFile(file, []byte("memory: 1g\nlog-level: error\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	sys := System{Out: &out, Err: &errs, Home: home, Environ: []string{"MILLRACE_LOG_LEVEL=debug", "MILLRACE_GUEST_KEY=" + testKey}}
	code := Main(t.Context(), sys, []string{"serve", "--config", file, "--listen", ":0", "--allow-unsandboxed", "--driver", "process"}, record)
	if code != 0 {
		t.Fatalf("ended with %d: %s", code, errs.String())
	}
	if got.Listen != ":0" || got.Memory != 1<<30 || got.LogLevel != "debug" || !got.AllowUnsandboxed || got.Driver != config.Process || got.GuestKey != testKey || got.Data != filepath.Join(home, ".millrace") || got.LogFormat != "json" {
		t.Errorf("started with %+v", got)
	}
	if out.String() != "" || !strings.Contains(errs.String(), "API        http://localhost:1/api/v1\n") || strings.Contains(errs.String(), "export") {
		t.Errorf("out %q, err %q", out.String(), errs.String())
	}
}

// TestStoppingIsTold ends a server for people: they are told that it is
// stopping, since what runs may take its time. One that fails is not.
func TestStoppingIsTold(t *testing.T) {
	const told = "\nStopping: what runs may finish"
	for name, ends := range map[string]bool{"asked": true, "failed": false} {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var out, errs lockedBuffer
			Main(ctx, System{Out: &out, Err: &errs, Home: t.TempDir()}, []string{"dev"}, func(ctx context.Context, c config.Config, ready func(Ready)) error {
				ready(Ready{Data: c.Data})
				if !ends {
					return errors.New("broke")
				}
				stop()
				<-ctx.Done()
				return nil
			})
			if got := strings.Contains(out.String(), told); got != ends || errs.String() == "" != ends {
				t.Errorf("it says %q and %q, want %q: %t", out.String(), errs.String(), told, ends)
			}
		})
	}
}

func TestServeFails(t *testing.T) {
	cause := whisk.WithHint(whisk.E(whisk.Conflict, "", errors.New("the address is in use")), "choose another with --listen")
	tests := []struct {
		name string
		args []string
		err  error
		want string
		exit int
	}{
		{"start", []string{"dev"}, cause, "error: the address is in use\nhint: choose another with --listen\n", 1},
		{"without a remedy", []string{"dev"}, errors.New("broke"), "error: broke\nhint: 'millrace doctor' looks for what is wrong\n", 1},
		{"settings", []string{"dev", "--memory", "1", "--driver", "x"}, nil, "error: these settings are not valid:\ndriver: \"x\" is none of auto, docker, process\nmemory: 1 is less than one container (128m)\nhint: run 'millrace dev --help' for usage\n", 2},
		{"a flag of the client", []string{"serve", "--auth", "x"}, nil, "error: --auth is for commands that call a server, not for one that is one\nhint: run 'millrace serve --help' for usage\n", 1},
		{"a flag of later", []string{"serve", "--roles", "api"}, nil, "error: unknown flag: --roles\nhint: run 'millrace serve --help' for usage\n", 1},
		{"the key as a flag", []string{"serve", "--guest-key", "x"}, nil, "error: unknown flag: --guest-key\nhint: run 'millrace serve --help' for usage\n", 1},
		{"serve has no demonstration", []string{"serve", "--try"}, nil, "error: unknown flag: --try\nhint: run 'millrace serve --help' for usage\n", 1},
		{"arguments", []string{"dev", "now"}, nil, "error: Invalid argument(s): now. No arguments are required.\nhint: run 'millrace dev --help' for usage\n", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var errs bytes.Buffer
			started := false
			code := Main(t.Context(), System{Out: io.Discard, Err: &errs, Home: "/nowhere"}, tt.args, func(context.Context, config.Config, func(Ready)) error {
				started = true
				return tt.err
			})
			if code != tt.exit || errs.String() != tt.want {
				t.Errorf("ended with %d:\n%s\nwant %d:\n%s", code, errs.String(), tt.exit, tt.want)
			}
			if started != (tt.err != nil) {
				t.Errorf("started = %t", started)
			}
		})
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{"/a/b-c_d.e": "/a/b-c_d.e", "/a b": "'/a b'", "/it's": `'/it'\''s'`, "/$x": "'/$x'"} {
		if got := shellQuote(in); got != want {
			t.Errorf("shellQuote(%q) = %s, want %s", in, got, want)
		}
	}
}
