"""A drain: what a worker finishes before it ends, and how that is told.

Owns what draining needs of a worker, the deadline and Japronto's words. Knows nothing of when and
why a worker drains.
"""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

from anel.guest import Visiting
from anel.telling import say


class Drainable(Visiting, Protocol):
    """What serving and its end need of a worker."""

    def connections(self) -> tuple[int, int]:
        """How many connections are idle, and how many have a request in progress."""

    def counters(self) -> dict[str, int]:
        """What was counted since the start, by name."""

    def wind_down(self) -> None:
        """Stops accepting, and ends every connection with the answer to its next request."""

    def drain(self, deadline_s: float) -> None:
        """Stops accepting, lets open requests finish, cancels what is left at the deadline."""

    def is_accepting(self) -> bool:
        """Whether the listeners have to stay open."""

    def adopt(self, socket_fd: int) -> None:
        """Serves a connection that was accepted elsewhere, and owns its descriptor."""

    def is_drained(self) -> bool:
        """Whether nothing is open any more."""

    def stop(self) -> None:
        """Ends everything at once. Harmless when it has ended already."""


class Drain:
    """A drain as it is told on stdout, in Japronto's words."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        worker: Drainable,
        *,
        deadline_s: float,
        is_story: bool = True,
    ) -> None:
        """Takes the loop whose clock counts, and how long open requests may take.

        Without a story only what is lost is told.
        """
        self._loop = loop
        self._worker = worker
        self._deadline_s = deadline_s
        self._tell = say if is_story else _say_nothing
        self._until: float | None = None
        self._seconds_left = math.ceil(deadline_s)
        self._busy = 0

    def begin(self) -> None:
        """Tells the worker to drain."""
        idle, self._busy = self._worker.connections()
        if idle or self._busy:
            self._tell("Draining connections...")
        if idle:
            self._tell(f"{idle} idle connections closed immediately")
        if self._busy:
            self._tell(f"{self._busy} connections busy, read-end closed")
        self._worker.drain(self._deadline_s)
        self._until = self._loop.time() + self._deadline_s

    def report(self) -> None:
        """Tells once a second what is left."""
        if self._until is None or self._seconds_left == 0:
            return
        _, busy = self._worker.connections()
        seconds = max(0, math.ceil(self._until - self._loop.time()))
        if seconds == 0 and (busy or self._busy):
            # At the deadline the worker may have come first; those that it ended were busy before.
            say(f"Forcefully killing {busy or self._busy} connections")
        elif seconds < self._seconds_left and busy:
            self._tell(f"{seconds} seconds remaining, {busy} connections still busy")
        self._seconds_left = seconds
        self._busy = busy


def _say_nothing(_line: str) -> None:
    """What nobody wants to hear."""
