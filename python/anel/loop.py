"""The asyncio loop whose `select()` is the reactor's turn.

Owns the coupling between asyncio and a worker, in public interfaces only: a selector under the
stock `SelectorEventLoop`. Foreign descriptors (asyncio's own pipe, database drivers, subprocesses)
stay in an ordinary epoll set that the worker's reactor watches, so there is one place that waits.
Without a worker the loop is asyncio's own. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import threading
import weakref
from asyncio import format_helpers
from typing import Any, Protocol

from anel import _core


class Turning(Protocol):
    """What the selector needs of a worker."""

    def turn(self, timeout: float | None) -> bool:
        """Serves until asyncio has something to do; False when only the time is up."""

    def watch(self, fd: int) -> None:
        """Ends a turn when this descriptor is readable."""


class ReactorSelector(selectors.EpollSelector):
    """An epoll selector that lets a worker do the waiting while one is attached.

    Registration is untouched, so its rules (EPERM for plain files, KeyError for unknown ones) are
    epoll's.
    """

    def __init__(self) -> None:
        """Starts without a worker."""
        super().__init__()
        self._worker: Turning | None = None
        self._thread = 0
        self._turning = False
        _selectors.add(self)

    def attach(self, worker: Turning) -> None:
        """Waits in this worker from now on, on this thread: its ring belongs to it."""
        worker.watch(self.fileno())
        self._worker = worker
        self._thread = threading.get_ident()

    def detach(self) -> None:
        """Waits in plain epoll again."""
        self._worker = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Waits for descriptors, serving HTTP meanwhile."""
        # A patched loop can run from within a handler, which is within a turn; it gets the epoll
        # part alone. So does another thread, which must not touch the ring.
        if self._worker is None or self._turning or self._thread != threading.get_ident():
            return super().select(timeout)
        self._turning = True
        try:
            # No local name: exceptions of handlers keep this frame, and with it the worker, which
            # has to end on this thread.
            ready = self._worker.turn(timeout)
        finally:
            self._turning = False
        return super().select(0) if ready else []


class ReactorLoop(asyncio.SelectorEventLoop):
    """asyncio's selector loop on a `ReactorSelector`."""

    def __init__(self) -> None:
        """Starts without a worker: until one is attached, this is asyncio as it always is."""
        self.reactor_selector = ReactorSelector()
        super().__init__(self.reactor_selector)

        self._choose_ways()

    def set_debug(self, enabled: bool) -> None:
        """Switches debug mode, in which every callback goes asyncio's own way."""
        super().set_debug(enabled)
        self._choose_ways()

    def run_forever(self) -> None:
        """Runs until `stop()`. RuntimeError where the loop runs already, and it goes on."""
        # CPython 3.13.0 refuses it too, but cleans up after the loop that is running.
        if self.is_running():
            raise RuntimeError("This event loop is already running")
        super().run_forever()

    def close(self) -> None:
        """Closes the loop, as asyncio does."""
        super().close()
        self._choose_ways()

    def _choose_ways(self) -> None:
        """Puts native methods before asyncio's, which are in the way of every step of a task.

        They are found first because they are the instance's. Asyncio's remain for debug mode, for
        closed loops, whose errors they raise, and for versions without the private queue.
        """
        ready = getattr(self, "_ready", None)
        if ready is None or self.is_closed() or super().get_debug():
            vars(self).pop("call_soon", None)
            vars(self).pop("get_debug", None)
        else:
            queue = _core.ReadyQueue(self, ready.append)
            vars(self).update(call_soon=queue.call_soon, get_debug=queue.get_debug)


def describe(handle: Any) -> str:
    """What asyncio's own handle would say it is."""
    if handle.cancelled():
        return "<Handle cancelled>"
    return f"<Handle {_source(handle)}>"


def report(handle: Any, exception: BaseException) -> None:
    """Tells the loop's exception handler what a callback has raised, in asyncio's words."""
    handle._loop.call_exception_handler(
        {
            "message": f"Exception in callback {_source(handle)}",
            "exception": exception,
            "handle": handle,
        }
    )


def new_loop() -> ReactorLoop:
    """Makes a loop that can serve. Fits `asyncio.Runner(loop_factory=new_loop)`."""
    return ReactorLoop()


def _source(handle: Any) -> str:
    return format_helpers._format_callback_source(handle._callback, handle._args)


_selectors: weakref.WeakSet[ReactorSelector] = weakref.WeakSet()


def _detach_all() -> None:
    for selector in _selectors:
        selector.detach()


# A forked child inherits the loop but must not touch the parent's ring: the kernel refuses it
# (EEXIST).
os.register_at_fork(after_in_child=_detach_all)
