package invokertest

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker"
)

// Suite says what driver to test and what it can be expected to do.
type Suite struct {
	// New returns a driver whose containers the test may use up. It is closed
	// by the test's end.
	New      func(t *testing.T) invoker.Driver
	Runtimes whisk.Runtimes
	// Python3 says that containers of native:1 have a python3.
	Python3 bool
}

// Run runs the contract of drivers, for each kind that the driver offers.
func (s Suite) Run(t *testing.T) {
	d := s.New(t)
	name, isolation := d.Describe()
	t.Logf("%s: %s", name, isolation)
	if name == "" || isolation == "" {
		t.Error("Describe says nothing")
	}
	for _, r := range s.Runtimes.All() {
		t.Run(strings.ReplaceAll(r.Kind, ":", "-"), func(t *testing.T) {
			if err := d.Offers(t.Context(), r); err != nil {
				t.Fatalf("%s is not offered: %v", r.Kind, err)
			}
			b := Start(t, d, s.Runtimes, invoker.WithMemory(4<<30))
			k := kit{Suite: s, T: t, b: b, r: r}
			for _, c := range []struct {
				name string
				run  func(kit)
			}{
				{"answers", kit.answers},
				{"warm", kit.warm},
				{"logs", kit.logs},
				{"many logs", kit.manyLogs},
				{"floods", kit.floods},
				{"big result", kit.bigResult},
				{"timeouts", kit.timeouts},
				{"exits", kit.exits},
				{"bad code", kit.badCode},
				{"memory", kit.memory},
				{"processes", kit.processes},
				{"files", kit.files},
				{"environment", kit.environment},
				{"archives", kit.archives},
				{"large payload", kit.largePayload},
			} {
				t.Run(c.name, func(t *testing.T) {
					k.T, k.b.T = t, t
					c.run(k)
				})
			}
			b.T = t
			b.Stop()
		})
	}
	if n, err := d.Sweep(t.Context()); n != 0 || err != nil {
		t.Errorf("Sweep with nothing left behind = %d, %v", n, err)
	}
}

// kit is what one test of the suite works with.
type kit struct {
	Suite
	*testing.T
	b *Bench
	r whisk.Runtime
}

// action returns one of the sources as an action; not all languages have all.
func (k kit) action(name string) (whisk.Runnable, bool) {
	if strings.HasPrefix(k.r.Kind, "fake:") {
		_, ok := fakes[name]
		return Runnable(strings.ReplaceAll(name, " ", "-"), k.r.Kind, name), ok
	}
	if k.r.Launcher == "native" && strings.HasPrefix(name, "allocate") && !k.Python3 {
		return whisk.Runnable{}, false
	}
	code, ok := sources[name][k.r.Launcher]
	return Runnable(strings.ReplaceAll(name, " ", "-"), k.r.Kind, code), ok
}

// with calls fn with an action that may be there.
func (k kit) with(name string, fn func(r whisk.Runnable)) {
	if r, ok := k.action(name); ok {
		fn(r)
	}
}

// call runs an action that may be there, and expects an end.
func (k kit) call(name, payload string, o whisk.Outcome, result string) {
	k.Helper()
	k.with(name, func(r whisk.Runnable) {
		k.Helper()
		Expect(k.T, k.b.Call(r, payload), o, result)
	})
}

func (k kit) answers() {
	k.call("echo", `{"a":[1,2.5,"ü𝄞",null,{"b":{}}]}`, whisk.Success, `{"a":[1,2.5,"ü𝄞",null,{"b":{}}]}`)
	k.call("echo", `{}`, whisk.Success, `{}`)
	k.call("array", `{}`, whisk.Success, `[1,"two"]`)
	k.call("error", `{}`, whisk.ApplicationError, `{"error":{"code":7}}`)
	k.with("scalar", func(r whisk.Runnable) {
		a := k.b.Call(r, `{}`)
		if a.Outcome != whisk.DeveloperError || !strings.Contains(string(a.Result), "did not") {
			k.Errorf("a scalar = %v, %s", a.Outcome, a.Result)
		}
	})
	k.with("throw", func(r whisk.Runnable) {
		a := k.b.Call(r, `{}`)
		if a.Outcome != whisk.ApplicationError || !strings.Contains(string(a.Result), "no good") {
			k.Errorf("an exception = %v, %s", a.Outcome, a.Result)
		}
	})
	k.call("stdin", `{"a":1}`, whisk.Success, `{"a":1}`)
}

func (k kit) warm() {
	k.with("count", func(r whisk.Runnable) {
		for _, want := range []string{`{"n":1}`, `{"n":2}`, `{"n":3}`} {
			a := k.b.Call(r, `{}`)
			Expect(k.T, a, whisk.Success, want)
			if cold := a.Annotations.Get("initTime") != nil; cold != (want == `{"n":1}`) {
				k.Errorf("run %s: cold is %v", want, cold)
			}
		}
	})
}

func (k kit) logs() {
	k.with("print", func(r whisk.Runnable) {
		cold := k.b.Call(r, `{}`)
		for _, want := range []string{"stdout: out", "stderr: err"} {
			if !HasLine(cold, want) {
				k.Errorf("logs %q have no line %q", cold.Logs, want)
			}
		}
		if k.r.Launcher != "native" && (!HasLine(cold, "stdout: loading") || !HasLine(cold, "stdout: no end")) {
			k.Errorf("logs of a cold start = %q", cold.Logs)
		}
		for _, l := range cold.Logs {
			if at, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(l[:30])); err != nil || at.Before(cold.Start.Add(-time.Second)) || l[30] != ' ' {
				k.Errorf("log line %q has no time", l)
			}
		}
		warm := k.b.Call(r, `{}`)
		if want := 3; k.r.Launcher != "native" && len(warm.Logs) != want {
			k.Errorf("logs of a warm start = %q, want %d lines", warm.Logs, want)
		}
		r.Action.Limits.Logs = 0
		r.Revision++
		if a := k.b.Call(r, `{}`); len(a.Logs) != 0 {
			k.Errorf("logs without room for any = %q", a.Logs)
		}
	})
	k.with("binary output", func(r whisk.Runnable) {
		a := k.b.Call(r, `{}`)
		Expect(k.T, a, whisk.Success, `{"x":"\ud800"}`)
		if !HasLine(a, "stdout: a\ufffdb") {
			k.Errorf("logs = %q", a.Logs)
		}
	})
	k.with("close output", func(r whisk.Runnable) {
		for range 3 {
			if a := k.b.Call(r, `{}`); a.Outcome != whisk.Success || len(a.Logs) != 1 || !strings.Contains(a.Logs[0], "stdout: run ") {
				k.Errorf("after output was closed: %v, %s, %q", a.Outcome, a.Result, a.Logs)
			}
		}
	})
}

func (k kit) manyLogs() {
	k.with("print 12 MB", func(r whisk.Runnable) {
		r.Action.Limits.Logs = 1
		before := heap()
		a := k.b.Call(r, `{}`)
		Expect(k.T, a, whisk.Success, `{"done":true}`)
		size := 0
		for _, l := range a.Logs {
			size += len(l)
		}
		if want := "stderr: Logs were truncated because the total bytes size exceeds the limit of 1048576 bytes."; size > 1<<20+200 || !strings.HasSuffix(a.Logs[len(a.Logs)-1], want) {
			k.Errorf("%d bytes of logs, ending in %.200q", size, a.Logs[len(a.Logs)-1])
		}
		if grown := heap() - before; grown > 32<<20 {
			k.Errorf("the heap grew by %d bytes", grown)
		}
		if b := k.b.Call(r, `{}`); k.r.Launcher != "native" && b.Annotations.Get("initTime") != nil {
			k.Error("the container was not kept")
		}
	})
}

// floods has an action whose children write on after it has answered.
func (k kit) floods() {
	for range 2 {
		k.call("flood", `{}`, whisk.Success, `{}`)
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func (k kit) bigResult() {
	k.with("2 MB result", func(r whisk.Runnable) {
		for i := range 2 {
			a := k.b.Call(r, `{}`)
			want := `{"error":"The action produced a response that exceeded the allowed length: 2097160 > 1048576 bytes. The truncated response was: {\"s\":\"xxx`
			if a.Outcome != whisk.ApplicationError || !strings.HasPrefix(string(a.Result), want) || len(a.Result) > 1<<20+300 || a.Size != 2097160 {
				k.Errorf("a big result = %v, %.200s, size %d", a.Outcome, a.Result, a.Size)
			}
			if cold := a.Annotations.Get("initTime") != nil; cold != (i == 0) {
				k.Error("the container was not kept")
			}
		}
	})
}

func (k kit) timeouts() {
	late := func(name string, limit int, text string) {
		k.with(name, func(r whisk.Runnable) {
			r.Action.Limits.Timeout = limit
			began := time.Now()
			a := k.b.Call(r, `{}`)
			Expect(k.T, a, whisk.DeveloperError, text)
			if d := time.Since(began); d > 8*time.Second {
				k.Errorf("%s: it took %v to notice", name, d)
			}
			if string(a.Annotations.Get("timeout")) != "true" || a.Duration < time.Duration(limit)*time.Millisecond {
				k.Errorf("%s: annotations %v, duration %v", name, a.Annotations, a.Duration)
			}
			if name == "hang" && k.r.Launcher != "native" && !HasLine(a, "stdout: before") {
				k.Errorf("%s: logs = %q", name, a.Logs)
			}
		})
	}
	late("hang", 500, `{"error":"The action exceeded its time limits of 500 milliseconds."}`)
	late("spin", 600, `{"error":"The action exceeded its time limits of 600 milliseconds."}`)
	late("hang in init", 300, `{"error":"The action exceeded its time limits of 300 milliseconds during initialization."}`)
}

func (k kit) exits() {
	k.with("exit", func(r whisk.Runnable) {
		for range 2 {
			a := k.b.Call(r, `{}`)
			Expect(k.T, a, whisk.DeveloperError, `{"error":"The action did not produce a valid response and exited unexpectedly."}`)
			if !HasLine(a, "stdout: bye") || a.Size != -1 {
				k.Errorf("logs = %q, size %d", a.Logs, a.Size)
			}
		}
	})
	k.with("exit in init", func(r whisk.Runnable) {
		a := k.b.Call(r, `{}`)
		Expect(k.T, a, whisk.DeveloperError, `{"error":"The action did not initialize and exited unexpectedly."}`)
		if !HasLine(a, "stdout: bye") {
			k.Errorf("logs = %q", a.Logs)
		}
	})
	k.call("forge", `{}`, whisk.DeveloperError, `{"error":"The action did not produce a valid response and exited unexpectedly."}`)
}

func (k kit) badCode() {
	k.with("broken", func(r whisk.Runnable) {
		a := k.b.Call(r, `{}`)
		if a.Outcome != whisk.DeveloperError || len(a.Logs) == 0 || a.Annotations.Get("initTime") == nil {
			k.Errorf("broken code = %v, %s, %q", a.Outcome, a.Result, a.Logs)
		}
	})
	if strings.HasPrefix(k.r.Kind, "fake:") {
		return
	}
	r := Runnable("nonsense", k.r.Kind, "%%%")
	r.Action.Exec.Binary = true
	Expect(k.T, k.b.Call(r, `{}`), whisk.DeveloperError, `{"error":"The action failed during initialization: the code is not valid base64"}`)
}

func (k kit) memory() {
	for _, name := range []string{"allocate", "allocate heap"} {
		k.with(name, func(r whisk.Runnable) {
			r.Action.Limits.Memory = 128
			a := k.b.Call(r, `{}`)
			if k.r.Launcher == "native" { // the program goes, not its launcher
				if a.Outcome != whisk.DeveloperError {
					k.Errorf("too much memory = %v, %s, %q", a.Outcome, a.Result, a.Logs)
				}
				return
			}
			Expect(k.T, a, whisk.DeveloperError, `{"error":"The action exhausted its memory and was aborted."}`)
		})
	}
	k.call("echo", `{"still":"here"}`, whisk.Success, `{"still":"here"}`)
}

func (k kit) processes() {
	k.with("fork bomb", func(r whisk.Runnable) {
		// It is told that there can be no more, or ended.
		if a := k.b.Call(r, `{}`); string(a.Result) != `{"stopped":true}` && a.Outcome != whisk.DeveloperError {
			k.Errorf("a fork bomb = %v, %s", a.Outcome, a.Result)
		}
	})
	for range 2 {
		k.call("children", `{}`, whisk.Success, `{"left":100}`)
		k.call("fork and return", `{}`, whisk.Success, `{"ok":true}`)
		k.call("threads", `{}`, whisk.Success, `{"ok":true}`)
	}
}

func (k kit) files() {
	k.call("close all", `{}`, whisk.DeveloperError, `{"error":"The action did not produce a valid response and exited unexpectedly."}`)
}

func (k kit) environment() {
	k.with("env", func(r whisk.Runnable) {
		r.Params = whisk.Params{{Key: "secret", Value: json.RawMessage(`"s3"`), Init: true}}
		for range 2 {
			a := k.b.Call(r, `{}`)
			var env map[string]string
			if err := json.Unmarshal(a.Result, &env); err != nil {
				k.Fatalf("%s: %v", a.Result, err)
			}
			for name, want := range map[string]string{
				"__OW_NAMESPACE": "guest", "__OW_ACTION_NAME": "/guest/env", "__OW_ACTION_VERSION": "0.0.1",
				"__OW_ACTIVATION_ID": a.ID, "secret": "s3",
			} {
				if env[name] != want {
					k.Errorf("%s = %q, want %q", name, env[name], want)
				}
			}
			if env["__OW_DEADLINE"] == "" || env["__OW_API_KEY"] != "" {
				k.Errorf("environment = %v", env)
			}
		}
	})
}

// pack returns a zip archive in base64.
func pack(files map[string]string) string {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range files {
		w, err := z.Create(name)
		if err == nil {
			_, err = w.Write([]byte(text))
		}
		if err != nil {
			panic(err) // a buffer takes all
		}
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(b.Bytes())
}

func (k kit) archives() {
	good := map[string]map[string]string{
		"python": {"__main__.py": "from lib.mod import x\nimport os\ndef main(args):\n    return {'x': x, 'file': open('data.txt').read()}\n", "lib/mod.py": "x = 5\n", "data.txt": "hi"},
		"node":   {"package.json": `{"main":"app.js"}`, "app.js": "const x = require('./lib/mod'); exports.main = () => ({ x, file: require('fs').readFileSync('data.txt', 'utf8') })", "lib/mod.js": "module.exports = 5", "data.txt": "hi"},
		"native": {"exec": "#!/bin/sh\necho \"{\\\"x\\\":$(cat lib/x),\\\"file\\\":\\\"$(cat data.txt)\\\"}\"\n", "lib/x": "5", "data.txt": "hi"},
	}[k.r.Launcher]
	if good == nil || strings.HasPrefix(k.r.Kind, "fake:") {
		return
	}
	call := func(name string, files map[string]string) whisk.Activation {
		r := Runnable(name, k.r.Kind, pack(files))
		r.Action.Exec.Binary = true
		return k.b.Call(r, `{}`)
	}
	Expect(k.T, call("good", good), whisk.Success, `{"x":5,"file":"hi"}`)
	if a := call("empty", map[string]string{"readme": "nothing"}); a.Outcome != whisk.DeveloperError {
		k.Errorf("an archive without a program = %v, %s", a.Outcome, a.Result)
	}
	Expect(k.T, call("dots", map[string]string{"../../tmp/evil": "x"}), whisk.DeveloperError, `{"error":"The action failed during initialization: \"../../tmp/evil\" in the archive leaves its folder"}`)
}

func (k kit) largePayload() {
	big := `{"s":"` + strings.Repeat("y", 1<<20-64) + `"}`
	k.with("echo", func(r whisk.Runnable) {
		if k.r.Launcher == "native" {
			r, _ = k.action("stdin")
		}
		Expect(k.T, k.b.Call(r, big), whisk.Success, big)
	})
}
