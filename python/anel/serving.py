"""Serves with one worker until told to stop.

Owns the life of a serving process: signals, the application's start-up and shutdown, drain, and the
end of the asyncio loop. Signals only set things in motion: the first one drains, the second ends at
once, a third finds the default disposition, so that even a handler that never returns cannot keep
the process. A worker whose place is taken winds down first: it answers everybody once more, so that
no request meets a connection that is just being closed. Knows nothing of routes or HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from types import FrameType
from typing import Any, Protocol, TypeAlias

from anel.guest import Visiting, attached
from anel.hooks import StartUpFailed
from anel.listener import shut, take_queued
from anel.post import Post, Word
from anel.telling import say

# How long open requests may take once the server was told to stop. Japronto's number.
DRAIN_DEADLINE_S = 5.0

# How often a drain is checked for its end. Short against human patience, long against a turn.
_DRAIN_CHECK_S = 0.05

# Before a drain the worker goes on until nothing happens for so many turns: accepting, receiving,
# answering and closing take a turn each. On a busy server something always happens; 0.1 s is
# arbitrary, more than a machine under load needs for them.
_QUIET_TURNS = 3
_SETTLING_S_MAX = 0.1
_PROGRESS = ("completions_total", "requests_total", "connections_open")

# How long idle connections stay open once another worker has taken the place of theirs, or the
# server ends amid traffic. Clients that send requests in a row use them well within this time, and
# are told that it was the last one.
_WIND_DOWN_S = 1.0

# There is traffic when a request comes within this time. Clients on a busy machine pause for tens
# of milliseconds; people do not see that a drain begins so late.
_LULL_S = 0.1

# How often requests are counted where a worker is to end after a number of them: it may serve what
# comes in so many seconds more.
_COUNT_S = 0.1

# What runs around serving: it sets the future once it has started, and ends after the event.
Life: TypeAlias = Callable[[asyncio.Future[None], asyncio.Event], Coroutine[Any, Any, None]]


class Drainable(Visiting, Protocol):
    """What serving needs of a worker."""

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


@contextlib.contextmanager
def early_signals(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    """Notes signals until a `Serving` takes over, which is given what it yields.

    To be entered before the port opens: whoever sees it open may tell the server to stop.
    """
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    previous = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, lambda caught, _frame: noted.append(caught))
    try:
        yield noted
    finally:
        for number in numbers:
            signal.signal(number, previous[number])


class Serving:
    """One worker on one loop, from start-up to the last close."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        worker: Drainable,
        post: Post,
        life: Life | None = None,
        early: Sequence[int] = (),
    ) -> None:
        """Takes a loop that is not running and a worker of this thread.

        The post's listeners are closed once the worker has stopped accepting from them. `life` runs
        around it all, as one task. `early` are the signals that came before; see `early_signals`.
        """
        self._loop = loop
        self._worker = worker
        self._post = post
        self._life = _Life(loop, life) if life is not None else None
        self._drain = Drain(loop, worker)
        self._early = early
        self._is_serving = False
        self._is_winding_down = False
        self._is_draining = False
        self._is_closed = False
        self._stops = 0
        self._signals_seen = 0

    def run(self) -> None:
        """Starts up, serves until a signal or `loop.stop()`, shuts down and closes the loop.

        Raises StartUpFailed for what fails in the start-up, and what ended `life` too early.
        """
        try:
            with self._signals(), self._orders():
                try:
                    if self._life is not None:
                        self._life.start()
                    if not self._stops:
                        self._serve()
                finally:
                    # No connection is left when the application shuts down.
                    self._worker.stop()
                    if self._life is not None:
                        self._life.finish()
        finally:
            _close(self._loop)
            self._release()

    def _release(self) -> None:
        """Lets go of the worker, which has to end on this thread.

        An exception that somebody keeps, or that waits for the garbage collector, keeps the frames
        below it with their locals, down to this object.
        """
        del self._worker, self._drain

    def _serve(self) -> None:
        self._is_serving = True
        if self._life is not None:
            self._life.when_ended(self._begin_drain)
        try:
            with attached(self._loop, self._worker):
                self._post.announce()
                if self._post.requests_max is not None:
                    self._count(self._post.requests_max)
                self._loop.run_forever()
        finally:
            self._is_serving = False

    def stop(self) -> None:
        """The first call drains, the second ends at once. A start-up or shutdown is cut short."""
        self._stops += 1
        if self._stops == 1:
            self._post.note_stop()
        if not self._is_serving:
            if self._life is not None:
                self._life.cut_short(is_repeated=self._stops > 1)
        elif self._stops == 1:
            self._begin_drain()
        else:
            self._loop.stop()

    def _wind_down(self) -> None:
        if self._is_serving and not self._is_winding_down and not self._is_draining:
            self._is_winding_down = True
            # Who is in the queue of its listeners is the successor's.
            self._worker.wind_down()
            self._loop.call_later(_WIND_DOWN_S, self._begin_drain)

    def _count(self, requests_max: int) -> None:
        if not self._is_serving:
            return
        if self._worker.counters()["requests_total"] >= requests_max:
            self._post.note_spent()
        else:
            self._loop.call_later(_COUNT_S, self._count, requests_max)

    def _begin_drain(self) -> None:
        if self._is_serving and not self._is_draining:
            self._is_draining = True
            self._settle(self._loop.time() + _SETTLING_S_MAX, (), 0)

    def _settle(self, until: float, before: Sequence[int], quiet: int) -> None:
        """Has the worker take in what arrived before the signal, then drains.

        A request that was sent before somebody told the server to stop is in progress although
        nobody has read it yet, and a connection whose end is there is none any more.
        """
        if not self._is_serving:
            # The loop runs again to end its tasks, and then its old callbacks run, too.
            return
        counters = self._worker.counters()
        now = [counters[name] for name in _PROGRESS]
        quiet = quiet + 1 if now == before else 0
        if quiet < _QUIET_TURNS and self._loop.time() < until:
            self._loop.call_soon(self._settle, until, now, quiet)
        elif self._is_winding_down:
            self._drain_now()
        elif quiet < _QUIET_TURNS:
            self._drain_amid_traffic()
        else:
            self._loop.call_later(_LULL_S, self._drain_in_lull, counters["requests_total"])

    def _drain_in_lull(self, requests: int) -> None:
        if not self._is_serving:
            return
        if self._worker.counters()["requests_total"] == requests:
            self._drain_now()
        else:
            self._drain_amid_traffic()

    def _drain_amid_traffic(self) -> None:
        """Drains once everybody was answered once more, or has asked nothing for long."""
        self._worker.wind_down()
        self._close_listeners()
        self._await_leaving(self._loop.time() + _WIND_DOWN_S)

    def _await_leaving(self, until: float) -> None:
        if not self._is_serving:
            return
        # Closed listeners: nobody is accepted any more who would be a stranger to the wind-down.
        is_over = self._is_closed and not any(self._worker.connections())
        if not is_over and self._loop.time() < until:
            self._loop.call_later(_DRAIN_CHECK_S, self._await_leaving, until)
        else:
            self._drain_now()

    def _drain_now(self) -> None:
        self._drain.begin()
        self._close_listeners()
        self._loop.call_later(_DRAIN_CHECK_S, self._check_drain)

    def _close_listeners(self) -> None:
        """Closes them as soon as nobody is accepted any more.

        Peers are refused at once then, instead of waiting for somebody who will never accept.
        """
        if not self._is_serving:
            return
        if self._worker.is_accepting():
            # The worker hears of it in its next turn; until then it may use the descriptor.
            self._loop.call_soon(self._close_listeners)
            return
        for listener in self._post.listeners:
            # Who came since the last accept was cancelled: closing would reset these connections.
            for accepted in take_queued(listener):
                self._worker.adopt(accepted.fileno())
                accepted.detach()
        shut(self._post.listeners)
        self._is_closed = True

    def _check_drain(self) -> None:
        if not self._is_serving:
            return
        self._drain.report()
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

    def _on_order(self) -> None:
        channel = self._post.channel
        assert channel is not None
        try:
            words = channel.recv(16)
        except BlockingIOError:
            return
        except OSError:
            words = b""
        if not words:
            # Nobody is left who would start another worker, or stop this one.
            self._loop.remove_reader(channel)
            self.stop()
        elif Word.REPLACED.value in words:
            self._wind_down()

    @contextlib.contextmanager
    def _orders(self) -> Iterator[None]:
        """Listens to the master, if there is one."""
        channel = self._post.channel
        if channel is None:
            yield
            return
        self._loop.add_reader(channel, self._on_order)
        try:
            yield
        finally:
            self._loop.remove_reader(channel)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Stops on the signals of the post. Outside the main thread signals are somebody else's."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.getsignal(number) for number in self._post.signals}
        for number in previous:
            # A signal that arrives just before the reactor starts to wait interrupts nothing; the
            # byte that asyncio has Python write does. It has it written as long as the loop has
            # one signal handler, so these stay although nothing is left for them to do.
            self._loop.add_signal_handler(number, _nothing)
            signal.signal(number, self._on_signal)
        for early in self._early:
            self._on_signal(early, None)
        try:
            yield
        finally:
            for number in previous:
                self._loop.remove_signal_handler(number)
                signal.signal(number, previous[number])


class Drain:
    """A drain as it is told on stdout, in Japronto's words."""

    def __init__(self, loop: asyncio.AbstractEventLoop, worker: Drainable) -> None:
        """Takes the loop whose clock counts."""
        self._loop = loop
        self._worker = worker
        self._until: float | None = None
        self._seconds_left = math.ceil(DRAIN_DEADLINE_S)
        self._busy = 0

    def begin(self) -> None:
        """Tells the worker to drain."""
        idle, self._busy = self._worker.connections()
        if idle or self._busy:
            say("Draining connections...")
        if idle:
            say(f"{idle} idle connections closed immediately")
        if self._busy:
            say(f"{self._busy} connections busy, read-end closed")
        self._worker.drain(DRAIN_DEADLINE_S)
        self._until = self._loop.time() + DRAIN_DEADLINE_S

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
            say(f"{seconds} seconds remaining, {busy} connections still busy")
        self._seconds_left = seconds
        self._busy = busy


class _Life:
    """What the application does around serving, as one task."""

    def __init__(self, loop: asyncio.AbstractEventLoop, life: Life) -> None:
        self._loop = loop
        self._started = loop.create_future()
        self._stopping = asyncio.Event()
        self._task = loop.create_task(life(self._started, self._stopping))
        self._is_cut_short = False

    def start(self) -> None:
        """Runs until it has started, or was cut short; raises StartUpFailed."""
        self._wait(self._started)
        if not self._started.done() and not self._is_cut_short:
            cancelled = self._task.cancelled()
            raise StartUpFailed from (
                asyncio.CancelledError() if cancelled else self._task.exception()
            )

    def finish(self) -> None:
        """Runs to its end; raises what ended it before its time."""
        self._stopping.set()
        self._wait()
        if not self._task.cancelled() and self._started.done():
            self._task.result()

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Calls back when it ends, on its own or not."""
        self._task.add_done_callback(lambda _task: callback())

    def cut_short(self, *, is_repeated: bool) -> None:
        """Gives up a start-up; or a shutdown, once asked a second time."""
        if is_repeated or not self._started.done():
            self._is_cut_short = True
            self._task.cancel()

    def _wait(self, *others: asyncio.Future[None]) -> None:
        either = asyncio.wait((self._task, *others), return_when=asyncio.FIRST_COMPLETED)
        self._loop.run_until_complete(either)


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
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                loop.call_exception_handler(
                    {
                        "message": "a task failed while the server ended",
                        "exception": error,
                        "task": task,
                    }
                )
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
