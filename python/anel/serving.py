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
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from types import FrameType
from typing import Any, TypeAlias

from anel.draining import Drain, Drainable
from anel.guest import attached
from anel.hooks import StartUpFailed
from anel.listener import shut, take_queued
from anel.post import Post, Word

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

# The same once what a worker serves is out of date. Whoever has changed it would not see so short a
# time, but who has just connected has asked nothing yet. And how long open requests may take then.
_OUTDATED_WIND_DOWN_S = 0.2
_OUTDATED_DEADLINE_S = 2.0

# There is traffic when a request comes within this time. Clients on a busy machine pause for tens
# of milliseconds; people do not see that a drain begins so late.
_LULL_S = 0.1

# How often requests are counted where a worker is to end after a number of them: it may serve what
# comes in so many seconds more.
_COUNT_S = 0.1

# What runs around serving: it sets the future once it has started, and ends after the event.
Life: TypeAlias = Callable[[asyncio.Future[None], asyncio.Event], Coroutine[Any, Any, None]]


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
        self._drain = Drain(loop, worker, deadline_s=post.graceful_s)
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
                if self._post.beat_every_s is not None:
                    self._beat(self._post.beat_every_s)
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

    def stop_at_once(self) -> None:
        """Does not wait for a drain, or for what an application does around serving."""
        self._stops = max(self._stops, 1)
        self.stop()

    def _wind_down(self) -> None:
        if self._is_serving and not self._is_winding_down and not self._is_draining:
            self._is_winding_down = True
            self._worker.wind_down()
            self._close_listeners()
            self._loop.call_later(_WIND_DOWN_S, self._begin_drain)

    def _give_way(self) -> None:
        """Drains soon: nobody is to be served by what is out of date, and no save is a story."""
        if self._is_serving and not self._is_draining:
            self._is_winding_down = self._is_draining = True
            self._drain = Drain(
                self._loop, self._worker, deadline_s=_OUTDATED_DEADLINE_S, is_story=False
            )
            self._worker.wind_down()
            self._close_listeners()
            self._await_leaving(self._loop.time() + _OUTDATED_WIND_DOWN_S)

    def _retire(self) -> None:
        if self._is_serving and not self._is_winding_down and not self._is_draining:
            self._is_draining = True
            self._drain_amid_traffic()

    def _beat(self, every_s: float) -> None:
        if self._is_serving:
            self._post.beat()
            self._loop.call_later(every_s, self._beat, every_s)

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
        if not self._is_serving or self._is_closed:
            return
        if self._worker.is_accepting():
            # The worker hears of it in its next turn; until then it may use the descriptor.
            self._loop.call_soon(self._close_listeners)
            return
        if not self._is_winding_down:
            # Closing would reset those who came since the last accept was cancelled.
            self._take_queued()
        shut(self._post.listeners)
        self._is_closed = True
        if self._is_winding_down:
            self._post.note_left()

    def _look_into_queue(self) -> None:
        """Takes those of whom only a worker was told that accepts no more: the kernel wakes one."""
        # Who accepts nobody at the moment will look by itself.
        if self._is_serving and self._worker.is_accepting():
            self._take_queued()

    def _take_queued(self) -> None:
        """Takes those who wait to be accepted."""
        for listener in self._post.listeners:
            for accepted in take_queued(listener):
                self._worker.adopt(accepted.fileno())
                accepted.detach()

    def _check_drain(self) -> None:
        if not self._is_serving:
            return
        self._drain.report()
        if self._worker.is_drained():
            self._loop.stop()
        else:
            self._loop.call_later(_DRAIN_CHECK_S, self._check_drain)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals_seen += 1
        if self._signals_seen > 1:
            if not self._post.is_hurried_by_signals:
                return
            signal.signal(number, signal.SIG_DFL)
        # Not `stop` itself: this runs between any two instructions, even inside a handler.
        self._loop.call_soon_threadsafe(self.stop)

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
        elif Word.AT_ONCE.value in words:
            self.stop_at_once()
        elif Word.OUTDATED.value in words:
            self._give_way()
        elif Word.REPLACED.value in words:
            self._wind_down()
        elif Word.RETIRED.value in words:
            self._retire()
        elif Word.QUEUED.value in words:
            self._look_into_queue()

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
