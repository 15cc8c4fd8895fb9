package process

import (
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker"
	"github.com/millrace/millrace/invoker/invokertest"
)

// Where there are no control groups, the memory of all processes of a
// container counts together, and what they share counts once.
func TestMemoryIsWatched(t *testing.T) {
	const exhausted = `{"error":"The action exhausted its memory and was aborted."}`
	for _, tt := range []struct {
		name, code string
		outcome    whisk.Outcome
		result     string
		isolated   bool // it has folders of its own
	}{
		{"many children", `
import os, time
def main(args):
    for i in range(8):
        if os.fork() == 0:
            x = os.urandom(1) * (40 << 20)
            time.sleep(1000)
    os.wait()
`, whisk.DeveloperError, exhausted, false},
		{"daemons", `
import os, time
def main(args):
    for i in range(8):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                x = os.urandom(1) * (40 << 20)
                time.sleep(1000)
            os._exit(0)
    time.sleep(1000)
`, whisk.DeveloperError, exhausted, false},
		{"forks that share", `
import os
def main(args):
    x = os.urandom(1) * (70 << 20)
    r, w = os.pipe()
    pids = []
    for i in range(5):
        pid = os.fork()
        if pid == 0:
            os.close(w)
            os.read(r, 1)
            os._exit(0)
        pids.append(pid)
    end = os.times().elapsed + 0.4
    while os.times().elapsed < end: pass
    os.close(w)
    for pid in pids: os.waitpid(pid, 0)
    return {"bytes": len(x)}
`, whisk.Success, `{"bytes":73400320}`, false},
		{"files in memory", `
import time
def main(args):
    for dir in ('/tmp', '/var/tmp'):
        with open(dir + '/big', 'wb') as f:
            for i in range(80): f.write(b'x' * (1 << 20))
    time.sleep(1000)
`, whisk.DeveloperError, exhausted, true},
		{"files that are mapped", `
import mmap, os
def main(args):
    f = open('/tmp/big', 'w+b')
    f.truncate(80 << 20)
    m = mmap.mmap(f.fileno(), 80 << 20)
    for i in range(0, 80 << 20, 4096): m[i] = 1
    end = os.times().elapsed + 0.4
    while os.times().elapsed < end: pass
    return {"bytes": len(m)}
`, whisk.Success, `{"bytes":83886080}`, true},
	} {
		for _, o := range []Options{{noCgroups: true}, {bare: true, noCgroups: true}} {
			d := newDriver(t, o)
			if tt.isolated && !d.Isolated() {
				continue
			}
			_, level := d.Describe()
			t.Run(tt.name+", "+strings.ReplaceAll(level, ",", ""), func(t *testing.T) {
				b := invokertest.Start(t, d, invoker.DefaultRuntimes())
				r := invokertest.Runnable("hungry", "python:3", tt.code)
				r.Action.Limits.Memory = 128
				invokertest.Expect(t, b.Call(r, `{}`), tt.outcome, tt.result)
				b.Stop()
			})
		}
	}
}
