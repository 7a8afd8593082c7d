"""The observer: a process beside the workers that answers how the server does.

Owns what is to be had on `--metrics-bind`: /metrics for Prometheus, /health and /ready for whoever
starts, restarts and routes to servers. It reads the board and asks no worker, so it answers while
all of them are stuck; it is started before them and ends after them. Knows nothing of how handlers
are served: it is handed what does it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, TypeAlias

from anel import _core, metrics
from anel.board import Board, Reading, Row, State
from anel.companions import Companion, Orders
from anel.listener import Listeners
from anel.post import Post, WorkerPost
from anel.rules import Terms

Handlers: TypeAlias = Mapping[str, Callable[[_core.Request], _core.Response]]
# Serves handlers, by their paths, at a post.
Serve: TypeAlias = Callable[[Post, Handlers], None]

# Whoever asks every few seconds loses nothing by a new connection, and an observer whose
# connections are never idle ends at once.
_CLOSE = {"Connection": "close"}

# Who takes longer than this to send a request or to take an answer loses it when the server ends:
# less than a companion may take for its end.
_GRACEFUL_S = 0.5

# How a server that does not serve is told from one that does.
_DOINGS = {
    State.STARTING: "the server starts",
    State.SERVING: "the server serves",
    State.DRAINING: "the server drains",
    State.STOPPING: "the server stops",
}


@dataclasses.dataclass(frozen=True)
class Condition:
    """The answer to a question about the server: yes or no, and why."""

    name: str
    holds: bool
    why: str

    @classmethod
    def health(cls, reading: Reading) -> Condition:
        """Whether somebody serves, or is about to. If not, only a restart may help."""
        workers = sum(1 for _ in reading.processes())
        why = f"{_DOINGS[reading.state]}, {_counted(workers)} alive"
        return cls("healthy", workers > 0, why)

    @classmethod
    def readiness(cls, reading: Reading) -> Condition:
        """Whether new requests should be sent here."""
        serving = [process.state for process in reading.processes()].count(State.SERVING)
        is_ready = reading.state is State.SERVING and serving > 0
        why = f"{_DOINGS[reading.state]}, {serving} of {_counted(reading.workers_wanted)} ready"
        return cls("ready", is_ready, why)

    def answer(self, request: _core.Request, reading: Reading | None) -> _core.Response:
        """One line, or JSON for who accepts it."""
        code = 200 if self.holds else 503
        if not _accepts_json(request):
            line = f"{'' if self.holds else 'not '}{self.name}: {self.why}\n"
            return _core.Response(text=line, code=code, headers=_CLOSE)
        said: dict[str, Any] = {self.name: self.holds, "why": self.why}
        if reading is not None:
            processes = [process.state for process in reading.processes()]
            said["state"] = reading.state.name.lower()
            said["workers"] = {
                "wanted": reading.workers_wanted,
                **{state.name.lower(): processes.count(state) for state in State},
            }
        return _core.Response(json=said, code=code, headers=_CLOSE)


class Observer(Companion):
    """The companion. Its sockets are the master's, so that they outlive it."""

    name = "observer"

    def __init__(self, listeners: Listeners, board: Board, serve: Serve) -> None:
        """Takes open sockets, which it closes at the end, and what serves handlers."""
        self._listeners = listeners
        self._board = board
        self._serve = serve
        self._opener = os.getpid()

    def run(self, channel: socket.socket) -> None:
        """Answers until the master is gone. Whoever stops a server does not stop this first."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _nothing)
        post = _ObserverPost(self._listeners.of(0), channel)
        # What becomes of its own connections is not what people are told of the server's.
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            self._serve(post, self.handlers())

    def handlers(self) -> Handlers:
        """What is to be had, by its path."""
        return {"/metrics": self._metrics, "/health": self._health, "/ready": self._ready}

    def on_message(self, message: bytes, orders: Orders) -> None:
        """It says nothing."""

    def shed(self) -> None:
        """Closes the sockets; in the process that opened them, for good."""
        if os.getpid() == self._opener:
            self._listeners.close()
        else:
            self._listeners.keep(None)

    def address(self) -> str:
        """Where metrics are to be had: a URL, or a Unix socket."""
        address = self._listeners.addresses()
        return address if address.startswith("unix:") else f"{address}/metrics"

    # Answers.

    def _metrics(self, _request: _core.Request) -> _core.Response:
        try:
            text = metrics.render(self._board.read())
        except TimeoutError as error:
            return _core.Response(text=f"{error}\n", code=503, headers=_CLOSE)
        return _core.Response(text=text, mime_type=metrics.MEDIA_TYPE, headers=_CLOSE)

    def _health(self, request: _core.Request) -> _core.Response:
        return self._condition(request, "healthy", Condition.health)

    def _ready(self, request: _core.Request) -> _core.Response:
        return self._condition(request, "ready", Condition.readiness)

    def _condition(
        self, request: _core.Request, name: str, of: Callable[[Reading], Condition]
    ) -> _core.Response:
        reading = None
        try:
            reading = self._board.read()
            condition = of(reading)
        except TimeoutError as error:
            condition = Condition(name, False, str(error))
        return condition.answer(request, reading)


class _ObserverPost(WorkerPost):
    """The master has nothing to wait for, and nothing to tell but its own end."""

    signals = ()

    def __init__(self, listeners: list[socket.socket], channel: socket.socket) -> None:
        super().__init__(listeners, channel, Row.unseen(), Terms(graceful_s=_GRACEFUL_S))

    def announce(self) -> None:
        """Nobody waits for it."""


def _counted(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"


def _accepts_json(request: _core.Request) -> bool:
    """Whether it is named; who accepts anything gets the line."""
    accepted = request.headers.get("Accept", "").split(",")
    return any(one.partition(";")[0].strip().lower() == "application/json" for one in accepted)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """The master is told, too, and ends us when it is time."""
