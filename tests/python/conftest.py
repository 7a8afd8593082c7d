"""Fixtures: a live server in a process of its own, and a worker that serves nobody.

Owns starting, waiting and stopping. `serve` runs a program through the command line on a port that
the kernel picks and returns once it accepts; every wait has a deadline and every process is ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import queue
import re
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from anel import _core

# Bounds a hang; nothing takes this long on purpose.
DEADLINE_S = 20.0


@dataclasses.dataclass
class Server:
    """A running `anel` process. `lines` collects what it prints on both streams."""

    process: subprocess.Popen[str]
    port: int = 0
    lines: list[str] = dataclasses.field(default_factory=list)
    _printed: queue.Queue[str | None] = dataclasses.field(default_factory=queue.Queue)

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


@pytest.fixture(params=["io_uring", "epoll"])
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
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            )
            server = Server(process)
            reader = threading.Thread(target=server._read, daemon=True)
            reader.start()
            stack.callback(_end, process, reader)
            server.port = int(server.wait_for_line(r"Accepting connections on .*:(\d+)$")[1])
            return server

        yield start


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
        listener_fd: int,
        routes: list[Any],
        *,
        reactor: str,
        limits: dict[str, int] | None = None,
    ) -> None:
        self.app = app
        self.routes = routes
        self.reactor = reactor
        self.limits = limits
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

    def drain(self, deadline_s: float) -> None:
        self.told.append("drain")

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


@pytest.fixture
def plain_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes responses dicts of their arguments, so that a test can look at them."""
    monkeypatch.setattr(_core, "Response", lambda **arguments: arguments)
