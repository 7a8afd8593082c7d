"""Engines: which can be had here, and a running one.

Reads engines.toml and scenarios.toml. A server is started on one processor, asked once whether it
answers as it should, and stopped by its process id. Knows nothing of measuring.
"""

import fnmatch
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass, field

HERE = pathlib.Path(__file__).resolve().parent
BODY = b"Hello world!"
START_SECONDS = 20
STOP_SECONDS = 10

# Room for 10,000 connections on each side; the usual soft limit is 1,024.
DESCRIPTORS = 16_384


class Unavailable(Exception):
    """An engine or a client cannot be had here; the text says why."""


@dataclass(frozen=True)
class Engine:
    """A row of engines.toml."""

    name: str
    label: str
    command: list
    calls_python: bool
    pipelines: bool = True


@dataclass(frozen=True)
class Scenario:
    """A row of scenarios.toml."""

    name: str
    client: str
    connections: int
    depth: int
    about: str
    idle: int = 0
    engines: list = field(default_factory=lambda: ["*"])

    def takes(self, engine):
        return any(fnmatch.fnmatch(engine.name, pattern) for pattern in self.engines)


@dataclass(frozen=True)
class Places:
    """Where programs are found on this machine."""

    python: str
    python37: str | None
    bin: pathlib.Path

    @classmethod
    def find(cls, bin_directory=None):
        """Looks at the environment (ANEL_PYTHON, CARGO_TARGET_DIR), then at what setup.sh makes."""
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE / "target"))
        python37 = HERE / ".venv37/bin/python"
        return cls(
            python=os.environ.get("ANEL_PYTHON", sys.executable),
            python37=str(python37) if python37.exists() else None,
            bin=pathlib.Path(bin_directory or target / "release"),
        )


def load_engines():
    rows = tomllib.loads((HERE / "engines.toml").read_text())["engine"]
    return [Engine(**row) for row in rows]


def load_scenarios():
    rows = tomllib.loads((HERE / "scenarios.toml").read_text())["scenario"]
    return [Scenario(**row) for row in rows]


def check_available(engine, places):
    """Raises `Unavailable` when the engine's program or its package is missing."""
    program = engine.command[0]
    if program == "{python}":
        _check_import(places.python, "anel")
    elif program == "{python37}":
        if places.python37 is None:
            raise Unavailable("no CPython 3.7 with japronto (benchmarks/setup.sh makes one)")
        _check_import(places.python37, "japronto")
    elif not pathlib.Path(program.format(bin=places.bin)).exists():
        raise Unavailable(f"{pathlib.Path(program).name} is not built (benchmarks/setup.sh)")


class Server:
    """A running engine, pinned to a processor; a context manager for one use."""

    def __init__(self, engine, places, cpu):
        self.engine = engine
        self.port = _free_port()
        names = {"python": places.python, "python37": places.python37, "bin": places.bin}
        words = [
            word.format(apps=HERE / "apps", port=self.port, **names) for word in engine.command
        ]
        self.command = ["taskset", "-c", str(cpu), *words]
        self.process = None
        # A file, not a pipe: a pipe that nobody reads would stop a talkative server.
        self.log = os.memfd_create("stderr")

    def __enter__(self):
        raise_descriptor_limit()
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.log,
            start_new_session=True,
        )
        try:
            self._wait_until_it_answers()
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
        os.close(self.log)

    @property
    def pid(self):
        return self.process.pid

    def _wait_until_it_answers(self):
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self.process.poll() is not None:
                words = os.pread(self.log, 65536, 0).decode(errors="replace").strip().splitlines()
                reason = words[-1] if words else f"exit code {self.process.returncode}"
                raise Unavailable(f"does not start: {reason}")
            try:
                check_answer(self.port, 2 if self.engine.pipelines else 1)
                return
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise Unavailable(f"does not listen within {START_SECONDS} s") from None
                time.sleep(0.02)


def check_answer(port, count):
    """Sends so many requests at once; raises `Unavailable` when an answer is wrong."""
    request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(request * count)
        received = b""
        while received.count(BODY) < count:
            try:
                chunk = connection.recv(65536)
            except TimeoutError:
                chunk = b""
            if not chunk:
                raise Unavailable(f"answers {count} requests at once with {received[:200]!r}")
            received += chunk
    answers = received.split(BODY)
    for head in answers[:count]:
        if not head.startswith(b"HTTP/1.1 200 ") or b"\r\n\r\n" not in head:
            raise Unavailable(f"answers {head[:200]!r}")
        if b"content-length: 12\r\n" not in head.lower() + b"\r\n":
            raise Unavailable(f"sends no Content-Length: {head[:200]!r}")


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
