"""Serves with one worker until told to stop.

Owns the life of a serving process: signals, drain, and the end of the asyncio loop. Signals only
set things in motion: the first one drains, the second ends at once, a third finds the default
disposition, so that even a handler that never returns cannot keep the process. Knows nothing of
routes or HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Protocol

from anel.guest import Visiting, attached

# How long open requests may take once the server was told to stop. Japronto's number.
DRAIN_DEADLINE_S = 5.0

# How often a drain is checked for its end. Short against human patience, long against a turn.
_DRAIN_CHECK_S = 0.05


class Drainable(Visiting, Protocol):
    """What serving needs of a worker."""

    def drain(self, deadline_s: float) -> None:
        """Stops accepting, lets open requests finish, cancels what is left at the deadline."""

    def is_drained(self) -> bool:
        """Whether nothing is open any more."""

    def stop(self) -> None:
        """Ends everything at once. Harmless when it has ended already."""


class Serving:
    """One worker on one loop, from the first accept to the last close."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        worker: Drainable,
        listener: socket.socket | None = None,
    ) -> None:
        """Takes a loop that is not running and a worker of this thread.

        The listener is closed once the worker has stopped accepting from it.
        """
        self._loop = loop
        self._worker = worker
        self._listener = listener
        self._stops = 0
        self._signals_seen = 0

    def run(self, announcement: str) -> None:
        """Serves until a signal, or `loop.stop()`, and closes the loop.

        The announcement is printed once a signal would drain: whoever waits for it may send one.
        """
        try:
            with self._signals(), attached(self._loop, self._worker):
                print(announcement, flush=True)
                self._loop.run_forever()
        finally:
            self._worker.stop()
            _close(self._loop)

    def stop(self) -> None:
        """The first call drains, the second ends at once."""
        self._stops += 1
        if self._stops == 1:
            self._worker.drain(DRAIN_DEADLINE_S)
            # The worker hears of it in its next turn; until then it may use the descriptor.
            self._loop.call_later(_DRAIN_CHECK_S, self._check_drain)
        else:
            self._loop.stop()

    def _check_drain(self) -> None:
        if self._listener is not None:
            # Peers are refused at once instead of waiting for somebody who will never accept.
            self._listener.close()
            self._listener = None
        if self._worker.is_drained():
            self._loop.stop()
        else:
            self._loop.call_later(_DRAIN_CHECK_S, self._check_drain)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # Not `stop` itself: this runs between any two instructions, even inside a handler.
        self._loop.call_soon_threadsafe(self.stop)
        self._signals_seen += 1
        if self._signals_seen > 1:
            signal.signal(number, signal.SIG_DFL)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Stops on SIGINT and SIGTERM. Outside the main thread signals are somebody else's."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        previous = {number: signal.getsignal(number) for number in numbers}
        for number in numbers:
            # A signal that arrives just before the reactor starts to wait interrupts nothing; the
            # byte that asyncio has Python write does. It has it written as long as the loop has
            # one signal handler, so these stay although nothing is left for them to do.
            self._loop.add_signal_handler(number, _nothing)
            signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            for number in numbers:
                self._loop.remove_signal_handler(number)
                signal.signal(number, previous[number])


def _nothing() -> None:
    """What is to be done was done in `_on_signal`."""


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Ends what handlers left behind, as `asyncio.Runner` does."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    try:
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
