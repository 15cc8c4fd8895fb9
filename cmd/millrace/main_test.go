package main

import (
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/millrace/millrace/internal/client"
	"github.com/millrace/millrace/invoker/process"
)

func TestMain(m *testing.M) {
	process.MaybeShim() // the server of a script starts this test's binary as its shim
	testscript.Main(m, map[string]func(){"millrace": main})
}

// TestScripts runs what a person types. HOME is the script's own folder, so no
// key of this machine is found.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"ready": ready, "page": page,
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("NO_COLOR", "1")
			for _, v := range []string{"WSK_CONFIG_FILE", "MILLRACE_DATA", "WHISK_AUTH", "WHISK_APIHOST"} {
				e.Setenv(v, "")
			}
			return nil
		},
	})
}

func TestStamp(t *testing.T) {
	info := &debug.BuildInfo{
		Main:     debug.Module{Version: "v1.2.3"},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.time", Value: "2026-01-02T03:04:05Z"}},
	}
	for _, tt := range []struct {
		name, version, built   string
		info                   *debug.BuildInfo
		wantVersion, wantBuilt string
	}{
		{"by the Makefile", "v9", "2026-05-05T05:05:05Z", info, "v9", "2026-05-05T05:05:05Z"},
		{"by go install", "unknown", "", info, "v1.2.3", "2026-01-02T03:04:05Z"},
		{"of changed sources", "unknown", "", &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, "unknown", ""},
		{"nothing noted", "unknown", "", &debug.BuildInfo{}, "unknown", ""},
		{"no build info", "unknown", "", nil, "unknown", ""},
	} {
		if v, b := stamp(tt.version, tt.built, tt.info); v != tt.wantVersion || b != tt.wantBuilt {
			t.Errorf("%s: stamp = %q, %q, want %q, %q", tt.name, v, b, tt.wantVersion, tt.wantBuilt)
		}
	}
}

const (
	startWait = 30 * time.Second
	askEvery  = 20 * time.Millisecond
)

// ready waits until the server whose properties file is named answers.
//
//	ready data/wskprops
func ready(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: ready FILE")
	}
	file := ts.MkAbs(args[0])
	end := time.After(startWait)
	for {
		props, err := client.ReadProps(file)
		if err == nil && props["APIHOST"] != "" {
			if resp, err := http.Get(props["APIHOST"] + "/ready"); err == nil {
				resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					return
				}
			}
		}
		select {
		case <-end:
			ts.Fatalf("no server after %v", startWait)
		case <-time.After(askEvery):
		}
	}
}

// page checks what a path of the server answers, without a key.
//
//	page data/wskprops /api/v1/web/guest/p/a expected.txt
func page(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: page PROPS PATH FILE")
	}
	props, err := client.ReadProps(ts.MkAbs(args[0]))
	ts.Check(err)
	resp, err := http.Get(props["APIHOST"] + args[1])
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if want := ts.ReadFile(args[2]); string(body) != want {
		ts.Fatalf("%s is %d %q, want %q", args[1], resp.StatusCode, strings.TrimSpace(string(body)), want)
	}
}
