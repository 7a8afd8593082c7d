"""Engines on this machine: whether one can be had, and a running one.

A server is started on the processors it is given, asked whether it answers as it should, in order, and
stopped by its process id. Knows nothing of measuring.
"""

import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import string
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from catalogue import HERE

START_SECONDS = 30
STOP_SECONDS = 10
ANSWER_SECONDS = 5

# Room for 10,000 connections on each side; the usual soft limit is 1,024.
DESCRIPTORS = 32_768


class Unavailable(Exception):
    """An engine or a client cannot be had here; the text says why."""


@dataclass(frozen=True)
class Places:
    """Where programs are found on this machine."""

    python: str
    python37: str | None
    peers: str | None
    bin: pathlib.Path
    rust: pathlib.Path
    go: pathlib.Path

    @classmethod
    def find(cls, bin_directory=None):
        """Looks at the environment (ANEL_PYTHON, CARGO_TARGET_DIR), then at what setup.sh makes."""
        made = HERE / "target"
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", made))
        python37, peers = HERE / ".venv37/bin/python", made / "peers/bin/python"
        return cls(
            python=os.environ.get("ANEL_PYTHON", sys.executable),
            python37=str(python37) if python37.exists() else None,
            peers=str(peers) if peers.exists() else None,
            bin=pathlib.Path(bin_directory or target / "release"),
            rust=made / "rust/release",
            go=made / "go",
        )

    def words(self):
        """What the names in an engine's command stand for."""
        return {
            "python": self.python,
            "python37": self.python37 or "(no CPython 3.7)",
            "peers": self.peers or "(no peers)",
            "bin": str(self.bin),
            "rust": str(self.rust),
            "go": str(self.go),
            "apps": str(HERE / "apps"),
        }

    def python_of(self, engine):
        """The Python that runs an engine; None when it is not a Python program."""
        found = {"{python}": self.python, "{python37}": self.python37, "{peers}": self.peers}
        return found.get(engine.command[0])


def check_available(engine, places):
    """Raises `Unavailable` when the engine's program or its package is missing."""
    program = engine.command[0]
    if program in ("{python}", "{python37}", "{peers}"):
        python = places.python_of(engine)
        if python is None:
            what = "CPython 3.7 with japronto" if program == "{python37}" else "Python with peers"
            raise Unavailable(f"no {what} (make bench-setup)")
        _check_import(python, engine.package)
    elif "{" in program:
        path = pathlib.Path(program.format(**places.words()))
        if not path.exists():
            raise Unavailable(f"{path.name} is not built (make bench-setup)")
    elif shutil.which(program) is None:
        raise Unavailable(f"no {program} (make bench-setup)")


class Server:
    """A running engine, pinned to processors; a context manager for one use."""

    def __init__(self, engine, places, cpus, environment=None):
        self.engine = engine
        self.port = _free_port()
        self.environment = {**os.environ, **engine.environment, **(environment or {})}
        # Open to all: a server that was started as root serves as somebody else.
        self.folder = tempfile.TemporaryDirectory(prefix="anel-bench-")
        os.chmod(self.folder.name, 0o755)
        words = places.words()
        if engine.conf:
            words["conf"] = self._configuration()
        pinned = ["taskset", "-c", ",".join(map(str, cpus))]
        self.command = pinned + [
            word.format(port=self.port, **words) for word in engine.command
        ]
        self.process = None
        self.last_words = ""
        # A file, not a pipe: a pipe that nobody reads would stop a talkative server.
        self.log = os.memfd_create("stderr")

    def __enter__(self):
        raise_descriptor_limit()
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
            env=self.environment,
        )
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                # The group of its own session: a master takes its workers along.
                os.killpg(self.process.pid, number)
                self.process.wait(STOP_SECONDS)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self.process.wait()
        self.last_words = self.words()
        os.close(self.log)
        self.folder.cleanup()

    @property
    def pid(self):
        """The first process, which may have others."""
        return self.process.pid

    @property
    def counters(self):
        """What a server that has ended says it counted; `Unavailable` when that is no JSON object."""
        try:
            counters = json.loads(self.last_words)
        except ValueError:
            counters = None
        if not isinstance(counters, dict):
            raise Unavailable(f"its last words are no counters: {self.last_words[:80]!r}")
        return counters

    def words(self):
        """The last line that the server has written; its exit code when there is none."""
        text = os.pread(self.log, 65536, 0).decode(errors="replace").strip()
        lines = [line for line in text.splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"exit code {self.process.poll()}"

    def _wait_until_it_listens(self):
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self.process.poll() is not None:
                raise Unavailable(f"does not start: {self.words()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise Unavailable(f"does not listen within {START_SECONDS} s") from None
                time.sleep(0.02)

    def _configuration(self):
        template = string.Template((HERE / self.engine.conf).read_text())
        folder = pathlib.Path(self.folder.name)
        big = folder / "big"
        big.write_text("0123456789abcdef" * 65536)
        path = folder / "configuration"
        text = template.substitute(port=self.port, folder=folder, big=big)
        path.write_text(text)
        return str(path)


def check_answers(port, exchange, scenario):
    """Asks for one answer, then for as many at once as the scenario does; `Unavailable` when wrong."""
    body = exchange.body(scenario.body_bytes)
    request = request_bytes(exchange, port, scenario)
    check_answer(port, request, [body])
    if scenario.depth > 1:
        check_answer(port, request * scenario.depth, [body] * scenario.depth)


def check_order(port, depth):
    """Pipelines requests whose answers differ, which the measured ones do not: they come in order."""
    requests = b"".join(
        f"GET /users/{number} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        for number in range(depth)
    )
    check_answer(port, requests, [str(number).encode() for number in range(depth)])


def request_bytes(exchange, port, scenario):
    """One request, as `load` makes it."""
    head = f"{exchange.method} {exchange.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode()
    body = b"x" * scenario.body_bytes
    if exchange.method == "GET":
        return head + b"\r\n"
    if scenario.body_framing == "chunked":
        return head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    return head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def check_answer(port, requests, bodies):
    """Sends bytes and reads as many answers; `Unavailable` unless they are these bodies, in order."""
    count = len(bodies)
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS) as connection:
        try:
            connection.sendall(requests)
            stream = connection.makefile("rb")
            for number, body in enumerate(bodies):
                found = read_answer(stream)
                if found != body:
                    raise Unavailable(
                        f"answer {number + 1} of {count} is {found[:80]!r}, not {body[:80]!r}"
                    )
        except (TimeoutError, EOFError, ConnectionError) as error:
            done = "" if count == 1 else f"; {number} of {count} came"
            raise Unavailable(f"no answer: {error or type(error).__name__}{done}") from None


def read_answer(stream):
    """The body of the next response of a connection."""
    status = stream.readline()
    if not status:
        raise EOFError("the connection was closed")
    if not status.startswith(b"HTTP/1.1 200 "):
        raise Unavailable(f"answers {status.strip()!r}")
    length = None
    while (line := stream.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    if length is None:
        raise Unavailable("sends no Content-Length")
    body = stream.read(length)
    if len(body) < length:
        raise EOFError("the connection was closed within an answer")
    return body


def raise_descriptor_limit():
    """Lets this process and its children have enough descriptors; as many as are allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _check_import(python, package):
    try:
        done = subprocess.run(
            [python, "-c", f"import {package}"], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"Python does not run: {error}") from None
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise Unavailable(f"cannot import {package}: {reason[0]}")


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
