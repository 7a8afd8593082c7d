"""Fixtures: a live server in a process of its own, its client, and a worker that serves nobody.

Owns starting, waiting and stopping. `serve` runs a program through the command line on a port that
the kernel picks and returns once it accepts; `shared` does so once for all tests of a module. Every
wait has a deadline and every process is ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import queue
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import pytest
from anel import Application, _core
from services import certificate as certificate
from services import postgres as postgres
from services import redis_url as redis_url

# Bounds a hang; nothing takes this long on purpose.
DEADLINE_S = 20.0

REACTORS = ["io_uring", "epoll"]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """With ANEL_NO_SKIPS=1 a run in which something was skipped has failed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = len(reporter.stats.get("skipped", ())) if reporter is not None else 0
    if os.environ.get("ANEL_NO_SKIPS") == "1" and skipped and exitstatus == 0:
        print(f"\n{skipped} skipped, and ANEL_NO_SKIPS=1: what is skipped has not passed")
        session.exitstatus = 1


@dataclasses.dataclass
class Answer:
    """A response as it came over the wire. `fields` keeps order, case and repetition."""

    version: str
    status: int
    reason: str
    fields: list[tuple[str, str]]
    body: bytes
    head: bytes

    def field(self, name: str) -> str | None:
        """The only value of a field, or None."""
        values = [value for known, value in self.fields if known.lower() == name.lower()]
        assert len(values) <= 1, f"{name} was sent {len(values)} times"
        return values[0] if values else None

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode()

    @property
    def value(self) -> Any:
        """What the body says: parsed if it is JSON, else its text."""
        is_json = (self.field("Content-Type") or "").startswith("application/json")
        return json.loads(self.body) if is_json else self.text


class Client:
    """A connection that sends bytes and reads one response after the other."""

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        self._open(socket.AF_INET, ("127.0.0.1", port), receive_buffer)

    @classmethod
    def to(cls, family: int, address: Any) -> Client:
        """A connection to any address."""
        client = cls.__new__(cls)
        client._open(family, address)
        return client

    def _open(self, family: int, address: Any, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket(family)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            # What the kernel remembers of a peer's address (`ip tcp_metrics`) decides how much it
            # takes at once, so a slow reader has an address that nobody had before.
            own = ".".join(str(number) for number in os.urandom(2))
            self.socket.bind((f"127.77.{own}", 0))
        self.socket.settimeout(DEADLINE_S)
        try:
            self.socket.connect(address)
        except BaseException:
            self.socket.close()
            raise
        if family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Sends all of it."""
        self.socket.sendall(data)

    def finish(self) -> None:
        """Ends the sending side."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Closes with a reset instead of a FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def ask(self, data: bytes, method: str = "GET") -> Answer:
        """Sends a request and reads its response."""
        self.send(data)
        return self.answer(method)

    def answer(self, method: str = "GET", *, skip_continue: bool = True) -> Answer:
        """Reads the next response; `100 Continue` is passed over unless it is asked for."""
        head = bytes(self._take(self._find(b"\r\n\r\n") + 4))
        lines = head.decode("latin-1").split("\r\n")[:-2]
        version, status, reason = lines[0].split(" ", 2)
        if status == "100" and skip_continue:
            return self.answer(method)
        fields = []
        for line in lines[1:]:
            name, _, value = line.partition(": ")
            fields.append((name, value))
        answer = Answer(version, int(status), reason, fields, b"", head)
        if method != "HEAD" and answer.status >= 200 and answer.status not in (204, 304):
            answer.body = self._body(answer)
        return answer

    def chunk(self) -> bytes:
        """The next chunk of a chunked body; empty for the last one, which ends the body."""
        size = int(self._take(self._find(b"\r\n") + 2), 16)
        chunk = self._take(size)
        assert self._take(2) == b"\r\n"
        return chunk

    def head(self) -> bytes:
        """The next response's head alone; its body is read by other means."""
        return self._take(self._find(b"\r\n\r\n") + 4)

    def is_ended(self) -> bool:
        """Waits for what comes next: True if it is the end, False if it is a byte."""
        return not self._received and not self._receive()

    def is_silent(self) -> bool:
        """Whether nothing is there to be read at this moment."""
        return not self._received and not select.select([self.socket], [], [], 0)[0]

    def rest(self) -> bytes:
        """Everything until the end of the connection."""
        while self._receive():
            pass
        return self._take(len(self._received))

    def next_bytes(self, length: int) -> bytes:
        """Exactly so many bytes."""
        return self._take(length)

    def _body(self, answer: Answer) -> bytes:
        length = answer.field("Content-Length")
        if length is not None:
            assert answer.field("Transfer-Encoding") is None, answer.head
            return self._take(int(length))
        if answer.field("Transfer-Encoding") == "chunked":
            return b"".join(iter(self.chunk, b""))
        assert answer.version == "HTTP/1.0", answer.head
        assert answer.field("Connection") == "close", answer.head
        return self.rest()

    def _find(self, end: bytes) -> int:
        begin = 0
        while (at := self._received.find(end, begin)) < 0:
            begin = max(0, len(self._received) - len(end))
            if not self._receive():
                raise EOFError(f"the connection ended within {bytes(self._received)!r}")
        return at

    def _take(self, length: int) -> bytes:
        while len(self._received) < length:
            if not self._receive():
                raise EOFError(f"the connection ended {length - len(self._received)} bytes early")
        taken = bytes(self._received[:length])
        del self._received[:length]
        return taken

    def _receive(self) -> bool:
        part = self.socket.recv(1 << 18)
        self._received += part
        return bool(part)


def get(
    target: str = "/",
    *fields: str,
    method: str = "GET",
    body: bytes | None = None,
    version: str = "1.1",
) -> bytes:
    """The bytes of a request. A body comes with its Content-Length, HTTP/1.1 with a Host."""
    lines = [f"{method} {target} HTTP/{version}", *fields]
    if version == "1.1" and not any(field.lower().startswith("host:") for field in fields):
        lines.append("Host: a")
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


@contextlib.contextmanager
def sending(client: Client, data: bytes) -> Iterator[None]:
    """Sends from a thread of its own, for a server that may not read it; gives up at the end."""

    def send() -> None:
        with contextlib.suppress(OSError):
            client.socket.sendall(data)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            client.socket.shutdown(socket.SHUT_RDWR)
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def wait_until(condition: Callable[[], bool], what: str = "condition") -> None:
    """Looks again and again until it is so, or the deadline is over."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.002)


@dataclasses.dataclass
class Server:
    """A running `anel` process. `lines` collects what it prints on both streams."""

    process: subprocess.Popen[str]
    port: int = 0
    lines: list[str] = dataclasses.field(default_factory=list)
    _printed: queue.Queue[str | None] = dataclasses.field(default_factory=queue.Queue)

    def client(self, receive_buffer: int | None = None) -> Client:
        """A connection that reads responses."""
        return Client(self.port, receive_buffer)

    def ask(self, data: bytes, method: str = "GET") -> Answer:
        """Sends one request on a connection of its own."""
        with self.client() as client:
            return client.ask(data, method)

    def open_descriptors(self) -> int:
        """How many descriptors the process has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def resident_kib(self) -> int:
        """The process's resident memory."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1])

    def peak_kib(self) -> int:
        """The most memory that was ever resident in the process."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1])

    def connect(self) -> socket.socket:
        """A connection whose operations time out instead of hanging."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)

    def exchange(self, request: bytes) -> bytes:
        """Sends bytes, ends the sending side and returns everything until the server closes."""
        with self.connect() as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while part := connection.recv(65536):
                answer += part
            return answer

    def wait_for_line(self, pattern: str) -> re.Match[str]:
        """Waits until a printed line matches."""
        for line in self.lines:
            if found := re.search(pattern, line):
                return found
        deadline = time.monotonic() + DEADLINE_S
        while (line_or_end := self._printed.get(timeout=deadline - time.monotonic())) is not None:
            self.lines.append(line_or_end)
            if found := re.search(pattern, line_or_end):
                return found
        raise AssertionError(f"no line matches {pattern!r} in:\n" + "\n".join(self.lines))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Waits for the exit status."""
        status = self.process.wait(timeout=DEADLINE_S)
        while (line := self._printed.get(timeout=DEADLINE_S)) is not None:
            self.lines.append(line)
        self._printed.put(None)
        return status

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._printed.put(line.rstrip("\n"))
        self._printed.put(None)


Serve = Callable[..., Server]


@pytest.fixture(params=REACTORS)
def reactor(request: pytest.FixtureRequest) -> str:
    """Each reactor in turn."""
    return str(request.param)


@pytest.fixture
def serve(tmp_path: pathlib.Path) -> Iterator[Serve]:
    """`serve(source, *options, **environment)` starts a program that defines `app`."""
    with contextlib.ExitStack() as stack:

        def start(source: str, *options: str, **environment: str) -> Server:
            program = tmp_path / "program.py"
            program.write_text(textwrap.dedent(source))
            command = [sys.executable, "-m", "anel", "run", str(program), "--port", "0", *options]
            return start_server(stack, command, **environment)

        yield start


@pytest.fixture
def serve_at(tmp_path: pathlib.Path) -> Iterator[Serve]:
    """`serve` for programs that listen elsewhere than on a port: the options say where."""
    with contextlib.ExitStack() as stack:

        def start(source: str, *options: str, **environment: str) -> Server:
            program = tmp_path / "program.py"
            program.write_text(textwrap.dedent(source))
            command = [sys.executable, "-m", "anel", "run", str(program), *options]
            return start_service(stack, command, "^Accepting connections on", (), environment)

        yield start


@pytest.fixture(scope="module", params=REACTORS)
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One server for all tests of a module, on each reactor: it runs the module's PROGRAM."""
    program = tmp_path_factory.mktemp("shared") / "program.py"
    program.write_text(textwrap.dedent(request.module.PROGRAM))
    options = ["--port", "0", "--reactor", request.param]
    command = [sys.executable, "-m", "anel", "run", str(program), *options]
    with contextlib.ExitStack() as stack:
        server = start_server(stack, command)
        yield server
        assert server.process.poll() is None, "the server ended:\n" + "\n".join(server.lines)
        assert server.stop() == 0, "\n".join(server.lines)


@pytest.fixture
def serve_japronto(tmp_path: pathlib.Path) -> Iterator[Serve]:
    """`serve_japronto(source_or_path, *its_arguments)` runs a Japronto program, unchanged."""
    with contextlib.ExitStack() as stack:

        def start(program: str | pathlib.Path, *arguments: str, reactor: str = "auto") -> Server:
            if isinstance(program, str):
                path = tmp_path / "program.py"
                path.write_text(textwrap.dedent(program))
                program = path
            return start_server(stack, as_japronto(program, reactor, *arguments))

        yield start


@pytest.fixture(scope="module", params=REACTORS)
def japronto(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """`shared` for a module whose PROGRAM is one of Japronto's."""
    program = tmp_path_factory.mktemp("japronto") / "program.py"
    program.write_text(textwrap.dedent(request.module.PROGRAM))
    with contextlib.ExitStack() as stack:
        server = start_server(stack, as_japronto(program, request.param))
        yield server
        assert server.process.poll() is None, "the server ended:\n" + "\n".join(server.lines)
        assert server.stop() == 0, "\n".join(server.lines)


def as_japronto(program: pathlib.Path | str, reactor: str, *arguments: str) -> list[str]:
    """The command that runs a Japronto program on a port that the kernel picks."""
    where = ["--host", "127.0.0.1", "--port", "0", "--reactor", reactor]
    command = [sys.executable, "-m", "anel", "run", "--japronto", *where]
    return [*command, str(program), *arguments]


def start_server(stack: contextlib.ExitStack, command: list[str], **environment: str) -> Server:
    """Starts a process that announces its port, and ends it with the stack."""
    return start_service(stack, command, r"Accepting connections on .*:(\d+)$", (), environment)


def start_service(
    stack: contextlib.ExitStack,
    command: list[str],
    announced: str,
    pass_fds: Collection[int],
    environment: Mapping[str, str],
) -> Server:
    """Starts a process that announces itself, and ends it with the stack.

    The group of `announced`, if it has one, is the port.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **environment},
        pass_fds=pass_fds,
    )
    server = Server(process)
    reader = threading.Thread(target=server._read, daemon=True)
    reader.start()
    stack.callback(_end, process, reader)
    found = server.wait_for_line(announced)
    server.port = int(found[1] or 0) if found.re.groups else 0
    return server


def _end(process: subprocess.Popen[str], reader: threading.Thread) -> None:
    if process.poll() is None:
        process.kill()
    process.wait(timeout=DEADLINE_S)
    reader.join(timeout=DEADLINE_S)
    assert process.stdout is not None
    process.stdout.close()


class IdleWorker:
    """A worker that accepts nobody: it waits for the watched descriptor and notes its orders."""

    made: list[IdleWorker]
    reactor_name = "idle"
    reactor_notice: str | None = None

    def __init__(
        self,
        app: Any,
        listeners: list[int],
        routes: list[Any],
        *,
        reactor: str,
        limits: dict[str, int] | None = None,
        automatic_methods: bool = True,
        row: memoryview | None = None,
        access_log: Any = None,
        on_load: Callable[[bool], object] | None = None,
    ) -> None:
        self.app = app
        self.routes = routes
        self.reactor = reactor
        self.limits = limits
        self.automatic_methods = automatic_methods
        self.row = row
        self.access_log = access_log
        self.on_load = on_load
        self.told: list[str] = []
        self.turns = 0
        self.drained_after_checks = 0
        self.on_turn: Callable[[], None] | None = None
        self._poll = select.poll()
        self.made.append(self)

    def watch(self, fd: int) -> None:
        self._poll.register(fd, select.POLLIN)

    def turn(self, timeout: float | None) -> bool:
        self.turns += 1
        if self.on_turn is not None:
            self.on_turn()
        wait_ms = DEADLINE_S * 1000 if timeout is None else timeout * 1000
        return bool(self._poll.poll(wait_ms))

    def connections(self) -> tuple[int, int]:
        return 0, 0

    def counters(self) -> dict[str, int]:
        return {"completions_total": 0, "requests_total": 0, "connections_open": 0}

    def wind_down(self) -> None:
        self.told.append("wind down")

    def drain(self, deadline_s: float) -> None:
        self.told.append("drain")

    def is_accepting(self) -> bool:
        return False

    def adopt(self, socket_fd: int) -> None:
        os.close(socket_fd)

    def is_drained(self) -> bool:
        self.drained_after_checks -= 1
        return self.drained_after_checks < 0

    def stop(self) -> None:
        self.told.append("stop")


@pytest.fixture
def idle_worker(monkeypatch: pytest.MonkeyPatch) -> type[IdleWorker]:
    """Replaces the extension's worker; `made` lists those that were made."""
    monkeypatch.setattr(IdleWorker, "made", [], raising=False)
    monkeypatch.setattr(_core, "Worker", IdleWorker)
    return IdleWorker


def run_until(app: Application, *signals: int, checks: int = 0) -> IdleWorker:
    """Runs the application and sends it the signals, one per turn, from within its first turns."""
    pending = list(signals)

    def send_next() -> None:
        worker = IdleWorker.made[-1]
        worker.drained_after_checks = max(worker.drained_after_checks, checks)
        if pending:
            os.kill(os.getpid(), pending.pop(0))

    original = IdleWorker.__init__

    def init(worker: IdleWorker, *arguments: Any, **named: Any) -> None:
        original(worker, *arguments, **named)
        worker.on_turn = send_next

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IdleWorker, "__init__", init)
        app.run("127.0.0.1", 0)
    return IdleWorker.made[-1]


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """An empty working directory; modules that come from it are forgotten at the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = {*sys.modules}
    yield tmp_path
    for name in {*sys.modules} - before:
        del sys.modules[name]


@pytest.fixture
def plain_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes responses dicts of their arguments, so that a test can look at them."""
    monkeypatch.setattr(_core, "Response", lambda **arguments: arguments)
