"""Loads and calls the main function of a Python action.

Frames come on fd 3 and leave on fd 4, or both travel over a unix socket (see
the Go package that embeds this file). Only what every start needs is imported
at the top: the rest is imported where it is used.
"""
import os
import sys
from json import dumps, loads

FD_IN, FD_OUT = 3, 4
# The kinds of frames, as indexing bytes gives them.
PING, FILE, INIT, RUN = 80, 70, 73, 82
# Taken away, as the environment is what the action sees.
WORK = os.environ.pop("MILLRACE_WORK", "/tmp/action")
BAD_RESULT = "The action did not return a dictionary or array."
BAD_START = "Cannot start action. Check logs for details."


class Site:
    """Finds modules that are not in the standard library: installs what the
    site module offers when it is first needed, because that is slow."""

    done = False

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if cls.done or path is not None:
            return None
        cls.done = True
        import site

        site.main()
        from importlib.machinery import PathFinder

        return PathFinder.find_spec(name, path, target)


class Launcher:
    def __init__(self):
        self.pid = os.getpid()
        self.buffer = b""
        self.main = None
        self.initialized = False
        self.env = {}
        # The action may close or redirect 1 and 2. These stay as they are, to
        # give them back from before the next activation.
        self.out, self.err = os.dup(1), os.dup(2)
        sys.stdout = self.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", buffering=8192, closefd=False)
        sys.stderr = self.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=8192, closefd=False)
        # Whole lines go out as they are printed: a crash loses at most a part
        # of one.
        for stream in (self.stdout, self.stderr):
            stream.reconfigure(line_buffering=True)
        self.spare = None
        # A program that the action starts must not hold them: it could write
        # frames, and the invoker would not see the end of this process.
        for fd in (FD_IN, FD_OUT, self.out, self.err):
            os.set_inheritable(fd, False)

    # Frames.

    def read(self):
        """Returns the kind and the body of the next frame; ends with the input."""
        # One read mostly brings one whole frame.
        data = self.buffer or os.read(FD_IN, 65536)
        while len(data) < 5:
            more = os.read(FD_IN, 65536)
            if not more:
                # Not sys.exit, which would run what the action has left to run
                # at an exit.
                os._exit(0)
            data += more
        size = 4 + int.from_bytes(data[:4], "big")
        if len(data) < size:
            parts, have = [data], len(data)
            while have < size:
                more = os.read(FD_IN, min(1 << 20, size - have))
                if not more:
                    os._exit(0)
                parts.append(more)
                have += len(more)
            data = b"".join(parts)
        self.buffer = data[size:]
        return data[4], data[5:size]

    def write(self, kind, body):
        data = (len(body) + 1).to_bytes(4, "big") + kind + body
        sent = os.write(FD_OUT, data)
        # A pipe may take less than all.
        while sent < len(data):
            data = data[sent:]
            sent = os.write(FD_OUT, data)

    def answer(self, status, value):
        if not isinstance(value, bytes):
            value = encode(value)
        self.write(b"A", status.to_bytes(2, "big") + value)

    # Output of the action.

    def take_output(self):
        """Gives the action its output streams, whatever it did to them before."""
        os.dup2(self.out, 1)
        os.dup2(self.err, 2)
        if self.stdout.closed:
            self.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
        if self.stderr.closed:
            self.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
        sys.stdout, sys.stderr = self.stdout, self.stderr

    def flush(self):
        # The action may have put streams of its own in their place: their text
        # is output too.
        for stream in {sys.stdout, sys.stderr, self.stdout, self.stderr}:
            try:
                stream.flush()
            except Exception:
                pass

    def trace(self, skip):
        """Prints the current exception without the launcher's own frames."""
        import traceback

        kind, value, tb = sys.exc_info()
        for _ in range(skip):
            tb = tb.tb_next if tb is not None else None
        try:
            self.stderr.write("".join(traceback.format_exception(kind, value, tb)))
        except Exception:
            pass

    def set_env(self, env):
        for key, value in env.items():
            # Most stay the same from one activation to the next, and to
            # compare costs less than to set.
            if self.env.get(key) != value:
                self.env[key] = value
                os.environ[key] = value

    # The messages.

    def file(self, body):
        head, _, content = body.partition(b"\n")
        head = loads(head)
        path = os.path.join(WORK, head["path"])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if head.get("link"):
            os.symlink(head["link"], path)
            return
        with open(path, "ab" if head.get("append") else "wb") as f:
            f.write(content)
        os.chmod(path, head["mode"])

    def init(self, body):
        if self.initialized:
            print("Cannot initialize the action more than once.", file=sys.stderr)
            return 403, {"error": "Cannot initialize the action more than once."}
        # Also when it fails: half of a module may have run.
        self.initialized = True
        value = loads(body)
        self.set_env({k: v if isinstance(v, str) else dumps(v, separators=(",", ":")) for k, v in value.get("env", {}).items()})
        os.makedirs(WORK, exist_ok=True)
        os.chdir(WORK)
        path = os.path.join(WORK, "__main__.py")
        if value.get("code") is not None:
            with open(path, "w", encoding="utf-8") as f:
                f.write(value["code"])
        if not os.path.exists(path):
            return 502, {"error": "Zip file does not include __main__.py."}
        try:
            self.load(path, value.get("main") or "main")
        except SystemExit as ex:
            self.leave(ex)
        except BaseException:
            self.trace(2)
            return 502, {"error": BAD_START}
        return 200, {"ok": True}

    def load(self, path, main):
        sys.path.insert(0, WORK)
        # OpenWhisk's convention for packages that an archive brings along.
        activate = os.path.join(WORK, "virtualenv", "bin", "activate_this.py")
        if os.path.exists(activate):
            with open(activate, "rb") as f:
                exec(compile(f.read(), activate, "exec"), {"__file__": activate, "__name__": "__main__"})
        # A module of another name than __main__, so that the usual guard at
        # the end of a script does not run it.
        module = type(sys)("main__")
        module.__file__ = path
        sys.modules["main__"] = module
        with open(path, "rb") as f:
            code = compile(f.read(), path, "exec")
        exec(code, module.__dict__)
        self.main = getattr(module, main)
        if not callable(self.main):
            raise TypeError("%s is not a function" % main)

    def run(self, body):
        if self.main is None:
            return 403, {"error": "System not initialized."}
        message = loads(body)
        value = message.pop("value", None)
        self.set_env({"__OW_" + k.upper(): v for k, v in message.items() if isinstance(v, str)})
        try:
            result = self.main({} if value is None else value)
        except SystemExit as ex:
            self.leave(ex)
        except BaseException as ex:
            self.trace(1)
            # An exception is an application error, as is an error that was
            # returned.
            result = {"error": text(ex)}
        if os.getpid() != self.pid:
            os._exit(0)  # a child that the action forked came back from main
        if not isinstance(result, (dict, list, tuple)):
            return 502, {"error": BAD_RESULT}
        try:
            return 200, encode(result)
        except BaseException:
            self.trace(1)
            return 502, {"error": BAD_RESULT}

    def leave(self, ex):
        """Ends the process as the action asked for."""
        self.flush()
        code = ex.code
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)

    def serve(self):
        while True:
            kind, body = self.read()
            if kind == RUN or kind == INIT:
                self.take_output()
                status, value = self.run(body) if kind == RUN else self.init(body)
                self.flush()
                # After the output is written: who has the answer looks into
                # the pipes at once.
                self.answer(status, value)
            elif kind == PING:
                self.write(b"P", body)
            elif kind == FILE:
                try:
                    self.file(body)
                except OSError as ex:
                    # A File has no answer. The log says what is missing when
                    # Init fails for it.
                    os.write(self.err, ("%s\n" % ex).encode())


def encode(value):
    try:
        return dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return dumps(value, separators=(",", ":")).encode()


def text(ex):
    try:
        return str(ex)
    except BaseException:
        return type(ex).__name__


def connect(folder):
    import socket

    s = socket.socket(socket.AF_UNIX)
    s.connect(os.path.join(folder, "sock"))
    for fd, name in ((1, "out"), (2, "err")):
        pipe = os.open(os.path.join(folder, name), os.O_WRONLY)
        os.dup2(pipe, fd)
        os.close(pipe)
    s = s.detach()
    os.dup2(s, FD_IN)
    os.dup2(s, FD_OUT)
    if s not in (FD_IN, FD_OUT):
        os.close(s)


def leave(code=None):
    raise SystemExit(code)


if __name__ == "__main__":
    import builtins

    builtins.exit = builtins.quit = leave  # what the site module would define
    sys.meta_path.append(Site)
    if len(sys.argv) > 1:
        connect(sys.argv[1])
    sys.argv[1:] = []
    Launcher().serve()
