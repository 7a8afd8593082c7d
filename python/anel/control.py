"""The control socket: where the master takes orders from `anel ctl`.

Owns the socket, who may connect, and the messages: a request is one JSON object, answered with one,
and with another once what was asked for has happened, if whoever asks waits for it. Nothing here
waits: a client that says nothing, or reads nothing, is closed. What is asked for is the master's to
do, through `Controlled`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from anel.exceptions import SetupError
from anel.socket_path import SocketPath

# Others wait in the queue of the socket; it is one operator, or a script.
_CLIENTS_MAX = 16

# Whoever connects has something to say.
_SILENCE_S = 5.0

_REQUEST_BYTES_MAX = 4096

# The kernel takes less than 208 KiB at once (net.core.wmem_default).
_ANSWER_BYTES_MAX = 128 * 1024

# The server's user, and root.
_MODE = 0o600


class Controlled(Protocol):
    """What may be asked of a master."""

    @property
    def is_ending(self) -> bool:
        """Whether somebody has told it to end."""

    def report(self) -> dict[str, Any]:
        """How the server does."""

    def reload(self) -> None:
        """Replaces all workers."""

    def scale(self, workers: int) -> None:
        """Has so many workers from now on. Raises SetupError."""

    def stop(self) -> None:
        """Ends the server."""


class Control:
    """The master's end of the control socket."""

    def __init__(self) -> None:
        """Nobody asks before it was opened."""
        self._listener: socket.socket | None = None
        self._path: SocketPath | None = None
        # When each of those who have said nothing yet is closed.
        self._silent: dict[socket.socket, float] = {}
        self._await_roll: list[socket.socket] = []
        self._await_end: list[socket.socket] = []

    def open(self, path: str) -> None:
        """Listens on a path; OSError when it is not to be had."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._path = SocketPath(self._listener, path, _MODE)
        self._listener.setblocking(False)
        self._listener.listen()

    def give_to(self, uid: int, gid: int) -> None:
        """Has another user be the one who may connect. OSError when that may not be."""
        if self._path is not None:
            self._path.give_to(uid, gid)

    def watched(self, master: Controlled) -> Iterator[tuple[int, Callable[[], None]]]:
        """Descriptors that may have something to read, and who reads it."""
        if self._listener is not None and len(self._silent) < _CLIENTS_MAX:
            yield self._listener.fileno(), functools.partial(self._accept, self._listener)
        for client in self._silent:
            yield client.fileno(), functools.partial(self._hear, client, master)

    def due(self) -> Iterator[float]:
        """When somebody has been silent for too long."""
        yield from self._silent.values()

    def close_silent(self) -> None:
        """Closes those who have said nothing for too long."""
        now = time.monotonic()
        for client in [one for one, until in self._silent.items() if until <= now]:
            self._close(client)

    def on_rolled(self, failure: str | None) -> None:
        """A roll has ended, with all workers replaced, or not."""
        waiting, self._await_roll = self._await_roll, []
        for client in waiting:
            _say(client, {"done": True} if failure is None else {"error": failure})
            client.close()

    def on_ended(self, code: int) -> None:
        """No worker is left, and the process ends with this exit code."""
        for client in self._await_end:
            _say(client, {"code": code})

    def shed(self) -> None:
        """Closes, in another process, what is the master's."""
        for one in (self._listener, *self._silent, *self._await_roll, *self._await_end):
            if one is not None:
                one.close()

    def close(self) -> None:
        """Ends it. Those who wait for the server's end see it by this: to be called last."""
        self.shed()
        if self._path is not None:
            self._path.remove()
            self._path = None

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            client.setblocking(False)
            self._silent[client] = time.monotonic() + _SILENCE_S

    def _close(self, client: socket.socket) -> None:
        self._silent.pop(client, None)
        client.close()

    def _hear(self, client: socket.socket, master: Controlled) -> None:
        try:
            # One byte more than is allowed shows what was cut off.
            message = client.recv(_REQUEST_BYTES_MAX + 1)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._close(client)
            return
        del self._silent[client]
        answer, waiting = self._obey(_parsed(message), master)
        is_said = _say(client, answer)
        if is_said and waiting is not None:
            waiting.append(client)
        else:
            client.close()

    def _obey(
        self, request: Mapping[str, Any], master: Controlled
    ) -> tuple[dict[str, Any], list[socket.socket] | None]:
        """The answer, and with whom the client waits for more."""
        command, waits = request.get("command"), request.get("wait") is True
        if command == "status":
            return master.report(), None
        if command == "scale":
            workers = request.get("workers")
            if not isinstance(workers, int) or isinstance(workers, bool):
                return {"error": f"workers must be a number, not {workers!r}"}, None
            try:
                master.scale(workers)
            except SetupError as error:
                return {"error": str(error)}, None
            return {"workers_wanted": workers}, None
        if command == "reload" and master.is_ending:
            return {"error": "the server is about to end"}, None
        if command == "reload":
            master.reload()
            return {"begun": True}, self._await_roll if waits else None
        if command == "stop":
            master.stop()
            return {"begun": True}, self._await_end if waits else None
        return {"error": f"there is no command {command!r}"}, None


def _parsed(message: bytes) -> Mapping[str, Any]:
    """The request; an empty one for what is none."""
    try:
        request = json.loads(message) if len(message) <= _REQUEST_BYTES_MAX else None
    except ValueError:
        request = None
    return request if isinstance(request, dict) else {}


def _say(client: socket.socket, answer: Mapping[str, Any]) -> bool:
    """Sends a message, if it can be sent at once."""
    message = json.dumps(answer).encode()
    if len(message) > _ANSWER_BYTES_MAX and "workers" in answer:
        # Hundreds of workers that count. Whoever wants all numbers asks for the metrics.
        brief = [{**worker, "counters": {}} for worker in answer["workers"]]
        message = json.dumps({**answer, "workers": brief}).encode()
    try:
        client.send(message)
    except OSError:
        # It is gone, or reads nothing.
        return False
    return True
