package invokertest

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/millrace/millrace/invoker"
)

// sources are the same small actions in every language that the suite knows,
// by what they do and the launcher that runs them. A language that cannot do a
// thing has no source for it, and is not asked.
var sources = map[string]map[string]string{
	"echo": {
		"python": "def main(args):\n    return args\n",
		"node":   "function main(args) { return args }",
		"native": "#!/bin/sh\nprintf '%s\\n' \"$1\"\n",
	},
	"count": {
		"python": "n = 0\ndef main(args):\n    global n\n    n += 1\n    return {'n': n}\n",
		"node":   "let n = 0; exports.main = () => Promise.resolve({ n: ++n })",
	},
	"print": {
		"python": "import sys\nprint('loading')\ndef main(args):\n    print('out')\n    print('err', file=sys.stderr)\n    print('no end', end='')\n    return {}\n",
		"node":   "console.log('loading'); function main() { console.log('out'); console.error('err'); process.stdout.write('no end'); return {} }",
		"native": "echo out\necho err >&2\necho\necho '{}'\n",
	},
	"binary output": {
		"python": "import os\ndef main(args):\n    os.write(1, b'a\\xff\\xfeb\\n')\n    return {'x': '\\ud800'}\n",
		"node":   "function main() { process.stdout.write(Buffer.from([97, 0xff, 0xfe, 98, 10])); return { x: '\\ud800' } }",
		"native": "#!/bin/sh\nprintf 'a\\377\\376b\\n{\"x\":\"\\\\ud800\"}\\n'\n",
	},
	"print 12 MB": {
		"python": "def main(args):\n    for i in range(12):\n        print('x' * ((1 << 20) - 1))\n    return {'done': True}\n",
		"node":   "function main() { for (let i = 0; i < 12; i++) console.log('x'.repeat((1 << 20) - 1)); return { done: true } }",
		"native": "#!/bin/sh\nhead -c 12582912 /dev/zero | tr '\\0' x\necho\necho '{\"done\":true}'\n",
	},
	"flood": { // goes on after the answer
		"python": "import subprocess\ndef main(args):\n    for i in range(3): subprocess.Popen(['sh', '-c', 'yes | head -c 30000000'])\n    return {}\n",
		"node":   "const { spawn } = require('child_process'); function main() { for (let i = 0; i < 3; i++) spawn('sh', ['-c', 'yes | head -c 30000000'], { stdio: 'inherit' }); return {} }",
	},
	"2 MB result": {
		"python": "def main(args):\n    return {'s': 'x' * (2 << 20)}\n",
		"node":   "function main() { return { s: 'x'.repeat(2 << 20) } }",
		"native": "#!/bin/sh\nprintf '{\"s\":\"'\nhead -c 2097152 /dev/zero | tr '\\0' x\necho '\"}'\n",
	},
	"array": {
		"python": "def main(args):\n    return [1, 'two']\n",
		"node":   "function main() { return [1, 'two'] }",
		"native": "echo '[1,\"two\"]'\n",
	},
	"scalar": {
		"python": "def main(args):\n    return 7\n",
		"node":   "function main() { return 7 }",
		"native": "echo 7\n",
	},
	"error": {
		"python": "def main(args):\n    return {'error': {'code': 7}, 'x': 1}\n",
		"node":   "function main() { return Promise.reject({ error: { code: 7 } }) }",
		"native": "echo '{\"error\": {\"code\":7}, \"x\":1}'\n",
	},
	"hang": {
		"python": "import time\ndef main(args):\n    print('before', flush=True)\n    while True: time.sleep(1)\n",
		"node":   "function main() { console.log('before'); return new Promise(() => {}) }",
		"native": "echo before\necho held >&2\nsleep 1000\n",
	},
	"spin": {
		"python": "def main(args):\n    while True: pass\n",
		"node":   "function main() { for (;;); }",
		"native": "while :; do :; done\n",
	},
	"hang in init": {
		"python": "import time\ntime.sleep(1000)\ndef main(args):\n    return {}\n",
		"node":   "for (;;);",
	},
	"exit": {
		"python": "import os, sys\ndef main(args):\n    print('bye')\n    sys.exit(3)\n",
		"node":   "function main() { console.log('bye'); process.exit(3) }",
	},
	"exit in init": {
		"python": "print('bye')\nexit(0)\n",
		"node":   "console.log('bye'); process.exit(0)",
	},
	"broken": {
		"python": "def main(args)\n",
		"node":   "function main( {",
	},
	"throw": {
		"python": "def main(args):\n    raise ValueError('no good')\n",
		"node":   "function main() { return Promise.reject(new Error('no good')) }",
	},
	"allocate": {
		"python": "def main(args):\n    x = []\n    while True: x.append(bytearray(1 << 20))\n",
		"node":   "function main() { const x = []; for (;;) x.push(Buffer.alloc(1 << 20, 1)) }",
		"native": "exec python3 -c '\nx = []\nwhile True: x.append(bytearray(1 << 20))'\n",
	},
	"allocate heap": {
		"node": "function main() { const x = []; for (;;) x.push({ a: [x.length, {}] }) }",
	},
	"fork bomb": {
		"python": "import os, time\ndef main(args):\n    n = 0\n    try:\n        while n < 8000:\n            if os.fork() == 0:\n                time.sleep(1000)\n                os._exit(0)\n            n += 1\n    except OSError as ex:\n        return {'stopped': n < 8000}\n    return {'stopped': False}\n",
	},
	"children": {
		"python": "import subprocess\ndef main(args):\n    for i in range(100): subprocess.Popen(['sleep', '1000'])\n    return {'left': 100}\n",
		"node":   "const { spawn } = require('child_process'); function main() { for (let i = 0; i < 100; i++) spawn('sleep', ['1000'], { stdio: 'inherit' }); return { left: 100 } }",
		"native": "i=0\nwhile [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done\necho '{\"left\":100}'\n",
	},
	"fork and return": {
		"python": "import os\ndef main(args):\n    os.fork()\n    return {'ok': True}\n",
	},
	"close output": {
		"python": "import os, sys\nn = 0\ndef main(args):\n    global n\n    n += 1\n    print('run', n)\n    sys.stdout.flush()\n    os.close(1); os.close(2)\n    sys.stdout = None\n    return {'n': n}\n",
		"node":   "const fs = require('fs'); function main() { console.log('run 1'); fs.closeSync(1); fs.closeSync(2); return { n: 1 } }",
	},
	"close all": {
		"python": "import os\ndef main(args):\n    os.closerange(0, 256)\n    return {}\n",
	},
	"forge": {
		"python": "import os\ndef main(args):\n    os.write(4, b'\\xff\\xff\\xff\\xff' + b'A' * 100)\n    os._exit(0)\n",
	},
	"env": {
		"python": "import os\ndef main(args):\n    return {k: v for k, v in os.environ.items() if k.startswith('__OW') or k == 'secret'}\n",
		"node":   "function main() { const o = {}; for (const k in process.env) if (k.startsWith('__OW') || k === 'secret') o[k] = process.env[k]; return o }",
		"native": "printf '{'\nenv | grep -E '^(__OW|secret=)' | sed -e 's/=/\":\"/' -e 's/^/\"/' -e 's/$/\",/' | tr -d '\\n'\necho '\"x\":\"\"}'\n",
	},
	"stdin": {
		"native": "cat\n",
	},
	"threads": {
		"python": "import threading, time\ndef main(args):\n    threading.Thread(target=time.sleep, args=(1000,)).start()\n    return {'ok': True}\n",
	},
}

// fakes are the same for the fake driver.
var fakes = map[string]Action{
	"echo": func(c *Call) json.RawMessage { return c.Args },
	"count": func(c *Call) json.RawMessage {
		if !c.Init {
			c.State["n"]++
		}
		return fmt.Appendf(nil, `{"n":%d}`, c.State["n"])
	},
	"print": func(c *Call) json.RawMessage {
		if c.Init {
			fmt.Fprintln(c.Stdout, "loading")
			return nil
		}
		fmt.Fprint(c.Stdout, "out\nno end")
		fmt.Fprintln(c.Stderr, "err")
		return json.RawMessage(`{}`)
	},
	"binary output": func(c *Call) json.RawMessage {
		if !c.Init {
			fmt.Fprint(c.Stdout, "a\xff\xfeb\n")
		}
		return json.RawMessage(`{"x":"\ud800"}`)
	},
	"print 12 MB": func(c *Call) json.RawMessage {
		if !c.Init {
			for range 12 {
				fmt.Fprintln(c.Stdout, strings.Repeat("x", 1<<20-1))
			}
		}
		return json.RawMessage(`{"done":true}`)
	},
	"2 MB result": func(*Call) json.RawMessage {
		return json.RawMessage(`{"s":"` + strings.Repeat("x", 2<<20) + `"}`)
	},
	"array":  func(*Call) json.RawMessage { return json.RawMessage(`[1,"two"]`) },
	"scalar": func(*Call) json.RawMessage { return json.RawMessage(`7`) },
	"error":  func(*Call) json.RawMessage { return json.RawMessage(`{"error":{"code":7},"x":1}`) },
	"hang": func(c *Call) json.RawMessage {
		if !c.Init {
			fmt.Fprintln(c.Stdout, "before")
			<-c.Done()
		}
		return nil
	},
	"hang in init": func(c *Call) json.RawMessage {
		select {
		case <-c.Done():
		case <-time.After(time.Hour):
		}
		return nil
	},
	"exit": func(c *Call) json.RawMessage {
		if !c.Init {
			fmt.Fprintln(c.Stdout, "bye")
			c.End(invoker.Ending{ExitCode: 3})
		}
		return nil
	},
	"exit in init": func(c *Call) json.RawMessage {
		fmt.Fprintln(c.Stdout, "bye")
		c.End(invoker.Ending{})
		return nil
	},
	"allocate": func(c *Call) json.RawMessage {
		if !c.Init {
			c.End(invoker.Ending{ExitCode: 137, OutOfMemory: true})
		}
		return nil
	},
}

// FakeActions returns the actions that the suite needs of a fake driver.
func FakeActions() map[string]Action { return fakes }
