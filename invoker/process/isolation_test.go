package process

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker"
	"github.com/millrace/millrace/invoker/invokertest"
)

// What an action sees of the machine that it runs on.
const spy = `
import os
def main(args):
    def can(path, mode='r'):
        try:
            open(path, mode).close()
            return True
        except OSError:
            return False
    return {
        'secret': can(args['secret']), 'home': os.listdir(args['home']) if os.path.isdir(args['home']) else [],
        'write': [p for p in ('/etc/evil', '/usr/evil', '/var/evil') if can(p, 'w')],
        'tmp': can('/tmp/mine', 'w'), 'uid': os.getuid(), 'pids': len([p for p in os.listdir('/proc') if p.isdigit()]),
        'caps': [l.split()[1] for l in open('/proc/self/status') if l.startswith('Cap')],
        'newprivs': [l.split()[1] for l in open('/proc/self/status') if l.startswith('NoNewPrivs')],
        'host': os.uname().nodename, 'leak': [k for k in os.environ if k == 'MILLRACE_TEST_LEAK'],
        'fds': sorted(int(f) for f in os.listdir('/proc/self/fd')),
    }
`

func TestIsolation(t *testing.T) {
	t.Setenv("MILLRACE_TEST_LEAK", "1")
	hidden := t.TempDir()
	secret := filepath.Join(hidden, "secret")
	if err := os.WriteFile(secret, []byte("s"), 0o666); err != nil {
		t.Fatal(err)
	}
	d := newDriver(t, Options{Hide: []string{hidden}})
	if !d.Isolated() {
		if os.Getenv("CI") == "true" {
			t.Fatal(d.bare)
		}
		t.Skipf("no namespaces here: %v", d.bare)
	}
	b := invokertest.Start(t, d, invoker.DefaultRuntimes())
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	a := b.Call(invokertest.Runnable("spy", "python:3", spy), fmt.Sprintf(`{"secret":%q,"home":%q}`, secret, home))
	var got struct {
		Secret, Tmp       bool
		Home, Write, Caps []string
		Newprivs, Leak    []string
		UID, Pids         int
		Host              string
		Fds               []int
	}
	if err := json.Unmarshal(a.Result, &got); err != nil || a.Outcome != whisk.Success {
		t.Fatalf("%s: %v; %q", a.Result, err, a.Logs)
	}
	if got.Secret || !got.Tmp || len(got.Write) > 0 || len(got.Leak) > 0 || got.Host != "action" || got.Newprivs[0] != "1" {
		t.Errorf("the action sees %s", a.Result)
	}
	for _, c := range got.Caps {
		if strings.Trim(c, "0") != "" {
			t.Errorf("the action has rights: %v", got.Caps)
		}
	}
	if os.Getuid() == 0 && got.UID != nobody {
		t.Errorf("the action runs as user %d", got.UID)
	}
	if got.Pids > 3 {
		t.Errorf("the action sees %d processes", got.Pids)
	}
	for _, name := range got.Home { // at most the way to the interpreter
		if name != ".pyenv" && name != ".local" {
			t.Errorf("the action sees %s in the home folder", name)
		}
	}
	if len(got.Fds) > 8 {
		t.Errorf("the action has files %v", got.Fds)
	}
}

func TestOffers(t *testing.T) {
	d := newDriver(t, Options{})
	for _, r := range invoker.DefaultRuntimes().All() {
		if err := d.Offers(t.Context(), r); err != nil {
			t.Errorf("Offers(%s) = %v", r.Kind, err)
		}
	}
	if err := d.Offers(t.Context(), whisk.Runtime{Kind: whisk.KindBlackbox}); err == nil {
		t.Error("images are offered")
	}
}

func TestClosedDriverMakesNothing(t *testing.T) {
	d := newDriver(t, Options{})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Create(context.Background(), invoker.Spec{Launcher: "python", Memory: 128}); err == nil {
		t.Error("a closed driver made a container")
	}
}

// However little isolation there is, an action has no rights of root's, cannot
// get any, and is bounded in what it opens.
func TestNoRights(t *testing.T) {
	code := `
import os, resource
def main(args):
    s = dict(l.split(':', 1) for l in open('/proc/self/status'))
    return {'rights': [s[k].strip().strip('0') for k in ('CapInh', 'CapPrm', 'CapEff', 'CapAmb')], 'new': s['NoNewPrivs'].strip(),
            'uid': os.getuid(), 'core': resource.getrlimit(resource.RLIMIT_CORE)[1], 'files': resource.getrlimit(resource.RLIMIT_NOFILE)[1] <= 1024}
`
	for _, o := range levels {
		d := newDriver(t, o)
		b := invokertest.Start(t, d, invoker.DefaultRuntimes())
		user := os.Getuid()
		if d.public != "" {
			user = nobody
		}
		if d.bare == nil {
			// In its namespace an ordinary user has the number of root.
			user = map[bool]int{true: nobody, false: 0}[os.Getuid() == 0]
		}
		invokertest.Expect(t, b.Call(invokertest.Runnable("rights", "python:3", code), `{}`), whisk.Success,
			fmt.Sprintf(`{"rights":["","","",""],"new":"1","uid":%d,"core":0,"files":true}`, user))
		b.Stop()
	}
}

// Root's actions are nobody's also where there are no namespaces: they see the
// server's files and cannot read them.
func TestNobodyWithoutNamespaces(t *testing.T) {
	d := newDriver(t, Options{bare: true})
	if os.Getuid() != 0 || d.public == "" {
		return // an ordinary user can become nobody else, nor can root that may not
	}
	if _, level := d.Describe(); !strings.Contains(level, "as nobody") {
		t.Errorf("isolation = %s", level)
	}
	public := d.public
	b := invokertest.Start(t, d, invoker.DefaultRuntimes())
	code := "import os\ndef main(args):\n    try:\n        return {'files': os.listdir(args['dir'])}\n    except OSError as e:\n        return {'error': e.strerror}\n"
	invokertest.Expect(t, b.Call(invokertest.Runnable("ls", "python:3", code), fmt.Sprintf(`{"dir":%q}`, d.dir)), whisk.ApplicationError, `{"error":"Permission denied"}`)
	b.Stop()
	if err := d.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	if _, err := os.Stat(public); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", public, err)
	}
}
