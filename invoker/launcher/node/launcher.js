// Loads and calls the main function of a Node.js action. Frames come on fd 3
// and leave on fd 4, or both travel over a unix socket (see the Go package that
// embeds this file).
'use strict';

const fs = require('fs');
const net = require('net');

const PING = 80, FILE = 70, INIT = 73, RUN = 82, ANSWER = 65;
const WORK = process.env.MILLRACE_WORK || '/tmp/action';
delete process.env.MILLRACE_WORK;

// With a folder, the channel is there. A descriptor that is closed is the next
// to be given out, so the pipes become standard output and standard error.
const folder = process.argv[2];
if (folder) {
  fs.closeSync(1);
  fs.openSync(folder + '/out', 'w');
  fs.closeSync(2);
  fs.openSync(folder + '/err', 'w');
  process.argv.splice(2);
}

let main = null;
let initialized = false;
let send; // writes one frame
// The action may replace write: these are the real ones.
const stdoutWrite = process.stdout.write, stderrWrite = process.stderr.write;
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', () => {}); // closed by the action
  // Else what a full pipe does not take at once would be written after the
  // answer, or never.
  if (stream._handle && stream._handle.setBlocking) stream._handle.setBlocking(true);
}

// One buffer for head and body, so that a frame is one write.
function frame(kind, status, body) {
  const n = Buffer.byteLength(body), head = status === null ? 5 : 7;
  const b = Buffer.allocUnsafe(head + n);
  b.writeUInt32BE(head - 4 + n, 0);
  b[4] = kind;
  if (status !== null) b.writeUInt16BE(status, 5);
  if (typeof body === 'string') b.write(body, head); else body.copy(b, head);
  return b;
}

// A result that JSON can't say, such as a circle, is the action's failure and
// not the launcher's.
function answer(status, value) {
  let text;
  try {
    text = typeof value === 'string' ? value : JSON.stringify(value);
  } catch (e) {
    status = 502;
    text = JSON.stringify({ error: 'An error has occurred: ' + describe(e) });
  }
  send(frame(ANSWER, status, text));
}

function writeSync(fd, b) {
  for (let at = 0; at < b.length;) {
    try {
      at += fs.writeSync(fd, b, at);
    } catch (e) {
      // A full pipe that does not block: try again until the reader has made
      // room.
      if (e.code !== 'EAGAIN') process.exit(1);
    }
  }
}

// Anything can be thrown, also what cannot become a string.
function describe(e) {
  try {
    return String(e && e.stack || e);
  } catch (_) {
    return 'unknown error';
  }
}

// What an action rejects with, as JSON can say it.
function serialize(e) {
  if (e === undefined || e === null) return { error: {} };
  if (e instanceof Error) {
    // An error's own properties do not show in JSON. The stack stays in the
    // log.
    const out = {};
    for (const k of Object.getOwnPropertyNames(e)) if (k !== 'stack') out[k] = e[k];
    if (!('name' in out)) out.name = e.name;
    return { error: out };
  }
  return typeof e === 'object' && 'error' in e ? e : { error: e };
}

// Gives the action its output streams, whatever it did to them before. If it
// closed them they cannot be had back: false.
function takeOutput() {
  process.stdout.write = stdoutWrite;
  process.stderr.write = stderrWrite;
  try {
    fs.fstatSync(1);
    fs.fstatSync(2);
    return true;
  } catch (_) {
    return false;
  }
}

// Paths were checked by the sender.
function file(body) {
  const at = body.indexOf(10);
  const head = JSON.parse(body.toString('utf8', 0, at));
  const path = WORK + '/' + head.path;
  fs.mkdirSync(path.slice(0, path.lastIndexOf('/')), { recursive: true });
  if (head.link) return fs.symlinkSync(head.link, path);
  fs.writeFileSync(path, body.subarray(at + 1), { flag: head.append ? 'a' : 'w' });
  fs.chmodSync(path, head.mode);
}

// Finds the entry point: "main", or "file.function" in an archive.
function entry(value) {
  const wanted = value.main || 'main';
  if (typeof value.code === 'string') {
    // A script sees what a module sees, and its main need not be exported.
    const names = wanted.split('.');
    fs.writeFileSync(WORK + '/index.js', value.code);
    const Module = require('module');
    const m = new Module(WORK + '/index.js');
    m.filename = WORK + '/index.js';
    m.paths = Module._nodeModulePaths(WORK);
    // A name is added to the exports only if it can stand in an expression.
    const find = /^[A-Za-z_$][\w$]*$/.test(names[0])
      ? `\n;if (typeof ${names[0]} !== 'undefined' && !(${JSON.stringify(names[0])} in module.exports)) module.exports[${JSON.stringify(names[0])}] = ${names[0]};` : '';
    m._compile(value.code + find, m.filename);
    m.loaded = true;
    return names.reduce((o, k) => o === undefined || o === null ? undefined : o[k], m.exports);
  }
  if (!fs.existsSync(WORK + '/package.json') && !fs.existsSync(WORK + '/index.js')) {
    throw 'Zipped actions must contain either package.json or index.js at the root.';
  }
  const dot = wanted.indexOf('.');
  const module = dot < 0 ? '' : wanted.slice(0, dot);
  const name = dot < 0 ? wanted : wanted.slice(dot + 1);
  return require(WORK + (module ? '/' + module : ''))[name];
}

async function init(value) {
  if (initialized) {
    console.error('Cannot initialize the action more than once.');
    return answer(403, { error: 'Cannot initialize the action more than once.' });
  }
  initialized = true;
  try {
    for (const [k, v] of Object.entries(value.env || {})) {
      process.env[k] = v === null ? '' : typeof v === 'string' ? v : typeof v === 'object' ? JSON.stringify(v) : String(v);
    }
    fs.mkdirSync(WORK, { recursive: true });
    process.chdir(WORK);
    let found;
    try {
      found = entry(value);
    } catch (e) {
      // An ES module can only be imported, not required.
      if (e && e.code === 'ERR_REQUIRE_ESM') {
        const { pathToFileURL } = require('url');
        const pkg = fs.existsSync(WORK + '/package.json') ? JSON.parse(fs.readFileSync(WORK + '/package.json', 'utf8')) : {};
        const m = await import(pathToFileURL(WORK + '/' + (pkg.main || 'index.js')).href);
        found = m[value.main || 'main'] || m.default;
      } else throw e;
    }
    if (typeof found !== 'function') throw `Action entrypoint '${value.main || 'main'}' is not a function.`;
    main = found;
    answer(200, { OK: true });
  } catch (e) {
    console.error(describe(e));
    answer(502, { error: 'Initialization has failed due to: ' + describe(e) });
  }
}

// What an action returns, by OpenWhisk's rules: nothing stands for an empty
// object.
function finish(result) {
  if (result === undefined) result = {};
  if (typeof result !== 'object') {
    console.error('Result must be of type object but has type "' + typeof result + '":', result);
    return answer(502, { error: 'The action did not return a dictionary.' });
  }
  answer(200, result === null ? {} : result);
}

function run(message) {
  if (main === null) return answer(403, { error: 'System not initialized.' });
  for (const k in message) {
    if (k !== 'value' && typeof message[k] === 'string') {
      const name = '__OW_' + k.toUpperCase();
      // Setting a variable of the environment is a call into C: only what
      // changes.
      if (seen[name] !== message[k]) process.env[name] = seen[name] = message[k];
    }
  }
  let result;
  try {
    result = main(message.value === undefined || message.value === null ? {} : message.value);
  } catch (e) {
    console.error(describe(e));
    return answer(502, { error: 'An error has occurred: ' + describe(e) });
  }
  // A result that is there is answered in the same turn, without a promise.
  if (result === null || typeof result !== 'object' || typeof result.then !== 'function') return finish(result);
  result.then(finish, (e) => answer(200, serialize(e)));
}
const seen = {};

// What was received and belongs to no whole frame, and how many bytes the next
// step needs.
let chunks = [], have = 0, need = 4;

// One read often brings one whole frame: then nothing is copied.
function receive(data) {
  chunks.push(data);
  have += data.length;
  while (have >= need) {
    let all = chunks.length === 1 ? chunks[0] : Buffer.concat(chunks, have);
    chunks = [all];
    need = 4 + all.readUInt32BE(0);
    if (have < need) return;
    const kind = all[4], body = all.subarray(5, need);
    all = all.subarray(need);
    have = all.length;
    chunks = have ? [all] : [];
    need = 4;
    handle(kind, body);
  }
}

function handle(kind, body) {
  switch (kind) {
    case PING: return send(frame(PING, null, body));
    case FILE:
      try { file(body); } catch (e) { console.error(describe(e)); }
      return;
    case INIT: init(JSON.parse(body.toString())); return;
    case RUN:
      // 503: the invoker takes another container.
      if (takeOutput()) run(JSON.parse(body.toString())); else answer(503, {});
  }
}

// Else Node would end the process, and with it an activation that may go well.
process.on('unhandledRejection', (e) => console.error('unhandled rejection:', describe(e)));
const input = folder ? net.connect(folder + '/sock') : new net.Socket({ fd: 3, readable: true, writable: false });
// The pipe is written to at once; a socket by Node, which keeps the order.
send = folder ? (b) => input.write(b) : (b) => writeSync(4, b);
input.on('data', receive);
input.on('end', () => process.exit(0));
input.on('error', () => process.exit(1));
