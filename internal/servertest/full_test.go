package servertest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/internal/servertest"
)

// TestDiskFills takes the disk from a running server: first nearly all of it,
// then all. What would need disk is refused while there is still enough to
// record what was accepted; on a failed write the server ends and says why;
// and nothing that was accepted is lost in any of it.
func TestDiskFills(t *testing.T) {
	dir := tmpfs(t, "size=1g", 0)
	resize := func(bytes int64) {
		t.Helper()
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d", bytes)); err != nil {
			t.Fatal(err)
		}
	}
	p := newProcess(t, "process")
	p.Data = dir
	p.Start()
	p.PutAction(t, "work", "python:3", "def main(args):\n    return args\n")
	p.PutRule(t, "on-filled", "filled", "work", nil)
	made := p.Feed(t, "CREATE", "/whisk.system/webhook/receive", "hooked", nil)
	hook := strings.TrimPrefix(fmt.Sprint(made["url"]), p.URL)
	if hook == fmt.Sprint(made["url"]) { // the address names this machine in its own way
		_, hook, _ = strings.Cut(hook, "/hooks/")
		hook = "/hooks/" + hook
	}
	var accepted []string
	fire := func() servertest.Answer {
		t.Helper()
		a, err := p.Do(t.Context(), "POST", entities+"triggers/filled", `{"n":1}`)
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ ActivationID string }
		if a.Status == http.StatusAccepted && json.Unmarshal(a.Body, &got) == nil {
			accepted = append(accepted, got.ActivationID)
		}
		return a
	}
	for range 20 {
		fire()
	}
	if len(accepted) != 20 {
		t.Fatalf("%d of 20 events were accepted on a disk with room", len(accepted))
	}

	resize(128 << 20)
	servertest.Eventually(t, time.Minute, "events are refused", func() bool { return fire().Status != http.StatusAccepted })
	for _, c := range [][3]string{
		{"POST", entities + "triggers/filled", `{}`},
		{"POST", entities + "actions/work", `{}`},
		{"PUT", entities + "actions/more", `{"exec":{"kind":"python:3","code":""}}`},
		{"POST", hook, `{}`},
	} {
		a := p.Must(t, http.StatusServiceUnavailable, c[0], c[1], c[2], nil)
		if !strings.Contains(string(a.Body), "the disk of the store is nearly full") || a.Header.Get("Retry-After") == "" {
			t.Errorf("%s %s is refused with %s and Retry-After %q", c[0], c[1], a.Body, a.Header.Get("Retry-After"))
		}
	}
	p.Must(t, http.StatusOK, "POST", entities+"actions/work?blocking=true", `{}`, nil) // what is there works
	checkRan(t, p, accepted)
	if !strings.Contains(p.Output(), "disk nearly full") {
		t.Errorf("the log does not tell of it:\n%s", p.Output())
	}

	resize(1 << 30)
	servertest.Eventually(t, time.Minute, "events are accepted again", func() bool { return fire().Status == http.StatusAccepted })
	checkRan(t, p, accepted)

	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	resize(int64(st.Blocks-st.Bfree)*st.Bsize + 64<<10)
	servertest.Eventually(t, time.Minute, "a write fails, and the server ends", func() bool {
		a, err := p.Do(t.Context(), "POST", entities+"actions/work?blocking=true", `{"a":"`+strings.Repeat("x", 8<<10)+`"}`)
		return err != nil || a.Status == http.StatusServiceUnavailable
	})
	checkDiedOf(t, p, "the disk of the store in "+dir+" is full")
	p.Launch()
	if err := p.AwaitReady(); err == nil {
		t.Error("a server starts on a full disk")
	}
	checkDiedOf(t, p, "the disk of the data folder "+dir+" is full")

	resize(1 << 30)
	p.Start()
	checkRan(t, p, accepted)
	p.Must(t, http.StatusAccepted, "POST", entities+"triggers/filled", `{}`, nil)
}

// checkDiedOf waits for the end of a server that failed and checks that it said
// why to a person, and what to do.
func checkDiedOf(t *testing.T, p *servertest.Process, cause string) {
	t.Helper()
	if code := p.Wait(); code <= 0 {
		t.Errorf("the server ended with %d, want a code that is not 0", code)
	}
	_, said, _ := strings.Cut(told(p.Output()), "error: ")
	if said = "error: " + said; !strings.Contains(said, cause) {
		t.Errorf("it says\n%swant %q", said, cause)
	}
	checkTwoLines(t, said)
}

// checkRan waits until each event was judged and has run.
func checkRan(t *testing.T, p *servertest.Process, ids []string) {
	t.Helper()
	servertest.Eventually(t, time.Minute, "all accepted events have run", func() bool {
		for _, id := range ids {
			ex := explain(t, p, id)
			if len(ex.Rules) != 1 || len(ex.Rules[0].Attempts) == 0 || ex.Rules[0].Attempts[len(ex.Rules[0].Attempts)-1].Status != "success" {
				return false
			}
		}
		return true
	})
}
