"""Serves inside an event loop that is not ours.

Owns the coupling between a worker and any asyncio loop, in the loop's public interface only: its
`add_reader` watches the descriptor of the worker's reactor, its `call_soon` sends what tasks left
behind, its `call_at` meets the worker's deadlines. A `ReactorLoop` is the other way round: there
the worker waits for the loop. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
import weakref
from collections.abc import Callable, Iterator
from typing import Protocol

from anel.loop import ReactorLoop, Turning


class Visiting(Turning, Protocol):
    """What a foreign loop needs of a worker."""

    def join(self, event_loop: asyncio.AbstractEventLoop, ask: Callable[[], object]) -> int:
        """Becomes a guest of the loop, and returns the descriptor that tells of completions.

        From now on the worker calls `ask` when it wants `serve_ready` to be called soon.
        """

    def serve_ready(self) -> float | None:
        """Serves what is there; returns in how many seconds `serve_due` is to be called.

        None when nothing changes: the time it said before holds.
        """

    def serve_due(self) -> float | None:
        """As `serve_ready`, at the time that was said last."""


class Guest:
    """A worker on somebody else's loop. To be used on the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, worker: Visiting) -> None:
        """Takes a loop that has `add_reader`, running or not."""
        self._loop = loop
        self._worker: Visiting | None = worker
        self._alarm: asyncio.TimerHandle | None = None
        self._failure: BaseException | None = None
        # Turns must not run in the context of the task that happened to ask for one.
        self._context = contextvars.copy_context()
        self._descriptor = -1
        _guests.add(self)

    def attach(self) -> None:
        """Serves from now on, whenever the loop runs. To be called once."""
        assert self._worker is not None, "a guest that was detached cannot come back"
        ask = functools.partial(self._loop.call_soon, self._on_ready, context=self._context)
        self._descriptor = self._worker.join(self._loop, ask)
        self._loop.add_reader(self._descriptor, self._on_ready)
        ask()

    def detach(self) -> None:
        """Serves no more. To be called before the worker is stopped: it owns the descriptor."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
        self.forget()
        # The worker has to end on this thread, and exceptions of handlers keep frames with `self`.
        self._worker = None

    def forget(self) -> None:
        """Serves no more, and leaves the loop alone."""
        self._descriptor = -1
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def raise_failure(self) -> None:
        """Raises what ended the server, if something did."""
        if self._failure is not None:
            raise self._failure

    def _on_ready(self) -> None:
        if self._worker is not None:
            self._serve(self._worker.serve_ready)

    def _on_due(self) -> None:
        self._alarm = None
        if self._worker is not None:
            self._serve(self._worker.serve_due)

    def _serve(self, serve: Callable[[], float | None]) -> None:
        if self._descriptor < 0:
            return
        try:
            seconds = serve()
        except BaseException as failure:
            # Loops differ in what they let out of a callback; this goes out of `run` on each.
            self._failure = failure
            self.detach()
            self._loop.stop()
            return
        finally:
            # A method of the worker: see `detach`.
            del serve
        if seconds is not None:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = self._loop.call_later(seconds, self._on_due, context=self._context)


@contextlib.contextmanager
def attached(loop: asyncio.AbstractEventLoop, worker: Visiting) -> Iterator[None]:
    """Has the worker serve whenever the loop runs: as its host on a `ReactorLoop`, else as guest.

    Raises at the end what a handler raised to end the program (KeyboardInterrupt, SystemExit).
    """
    if isinstance(loop, ReactorLoop):
        loop.reactor_selector.attach(worker)
        try:
            yield
        finally:
            loop.reactor_selector.detach()
        return
    guest = Guest(loop, worker)
    guest.attach()
    try:
        yield
    finally:
        guest.detach()
    guest.raise_failure()


_guests: weakref.WeakSet[Guest] = weakref.WeakSet()


def _forget_all() -> None:
    for guest in _guests:
        guest.forget()


# A forked child inherits the loop but must not touch the parent's reactor. Taking the descriptor
# out of the loop would take it out of the parent's, too: they share the loop's epoll set.
os.register_at_fork(after_in_child=_forget_all)
