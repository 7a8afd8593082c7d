"""The master: keeps the workers of a server alive, and replaces them without losing a request.

Owns what the workers are about, and when the next one is started or the last one is killed. A
worker that dies while it serves is replaced, later and later when that goes on. One that dies
before it serves ends the server while nobody serves: the next one would fail the same way.
Signals only set flags; `run` acts on them between two waits. The master serves nobody, makes no
event loop and opens no ring, so that forking it is safe.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence

from anel.board import Board, State
from anel.child import PARENTS
from anel.companions import Companion, Companions
from anel.failures import EXIT_SETUP
from anel.forking import Child, ending, fork
from anel.listener import Listeners
from anel.noting import Signals
from anel.post import Word, WorkerPost, take
from anel.serving import DRAIN_DEADLINE_S
from anel.slots import Lifetime, Slot
from anel.systemd import Notifier
from anel.telling import complain, say

# After its drain a worker has so long for the application's shutdown hooks. Kubernetes kills after
# 30 s in all, systemd after 90 s.
ENDING_S = DRAIN_DEADLINE_S + 10.0

# A second signal ends at once: a worker has this long to close its ring.
_AT_ONCE_S = 1.0

# Words are of one byte.
_WORDS_MAX = 16


class Master:
    """Starts the workers of a server, and answers for them until the last one has ended."""

    def __init__(
        self,
        listeners: Listeners,
        workers: int,
        work: Callable[[], None],
        notifier: Notifier,
        lifetime: Lifetime,
        board: Board,
        companions: Sequence[Companion] = (),
    ) -> None:
        """Takes the sockets of all slots, and what a worker does once it has its post.

        The board tells others how the server does.
        """
        self._listeners = listeners
        self._work = work
        self._notifier = notifier
        self._lifetime = lifetime
        self._board = board
        self._slots = [Slot(number) for number in range(workers)]
        self._companions = Companions(companions)
        self._signals = Signals(PARENTS)
        self._to_roll: list[Slot] = []
        self._rolls_again = False
        self._has_served = False
        self._stops = 0
        self._code = 0

    def run(self, early: Sequence[int] = ()) -> int:
        """Serves until a signal or a failure, and returns the exit code.

        `early` are signals that came before.
        """
        with self._signals:
            self._signals.note(early)
            self._board.note_master(os.getpid())
            self._board.note_wanted(len(self._slots))
            self._companions.start_due(self._shed_all)
            # Alone: what is wrong with the application is said once.
            self._slots[0].start_at = 0.0
            while not self._has_ended():
                self._wait()
                self._obey()
                self._reap()
                self._start_due()
                self._kill_due()
        return self._code

    def _has_ended(self) -> bool:
        """Whether it was to end, and nobody is left: the companions end after the workers."""
        if not self._stops or any(True for _ in self._workers()):
            return False
        self._companions.end()
        return self._companions.have_ended()

    # What may be asked of it, by a signal or a companion.

    def reload(self) -> None:
        """Replaces all workers, one slot after the other, by new ones that find what is there."""
        if self._stops:
            return
        say("Reload request received")
        if self._to_roll or not self._has_served:
            self._rolls_again = True
        else:
            self._roll()

    def stop(self) -> None:
        """Ends the server: the first call drains, the second ends at once, the third kills."""
        self._stops += 1
        if self._stops == 1:
            say("Termination request received")
            self._notifier.stopping()
            self._end_workers(ENDING_S)
        else:
            self._end_workers(_AT_ONCE_S if self._stops == 2 else 0.0)

    # What comes in.

    def _wait(self) -> None:
        """Until a signal, a word, or the time at which something is due."""
        readers = dict(self._watched())
        poll = select.poll()
        for descriptor in readers:
            poll.register(descriptor, select.POLLIN)
        due = self._next_due()
        if self._signals:
            wait_ms: float | None = 0.0
        else:
            # Rounded up: what is looked at early only costs another turn.
            wait_ms = None if due is None else max(0.0, (due - time.monotonic()) * 1000 + 1)
        for descriptor, _ in poll.poll(wait_ms):
            readers[descriptor]()

    def _watched(self) -> Iterator[tuple[int, Callable[[], None]]]:
        """Descriptors that may have something to read, and who reads it."""
        yield self._signals.fileno(), self._signals.on_readable
        for slot, worker in self._workers():
            if worker.channel.fileno() >= 0:
                yield worker.channel.fileno(), functools.partial(self._hear, slot, worker)
        yield from self._companions.watched(self)

    def _workers(self) -> Iterator[tuple[Slot, Child]]:
        return ((slot, worker) for slot in self._slots for worker in slot.workers())

    def _next_due(self) -> float | None:
        starts = (slot.start_at for slot in self._slots if slot.is_free() and not self._stops)
        kills = (worker.kill_at for _, worker in self._workers())
        all_due = (*starts, *kills, *self._companions.due())
        return min((at for at in all_due if at is not None), default=None)

    def _hear(self, slot: Slot, worker: Child) -> None:
        words = worker.hear(_WORDS_MAX)
        if Word.SERVING.value in words and worker is slot.starting:
            self._on_serving(slot, worker)
        if Word.SPENT.value in words and worker is slot.serving and slot.wants_worker():
            slot.start_at = time.monotonic()

    def _obey(self) -> None:
        while (number := self._signals.take()) is not None:
            if number in (signal.SIGINT, signal.SIGTERM):
                self.stop()
            elif number == signal.SIGHUP:
                self.reload()

    # What follows from it.

    def _on_serving(self, slot: Slot, worker: Child) -> None:
        slot.starting, before, slot.serving = None, slot.serving, worker
        worker.row.note_state(State.SERVING)
        if before is not None:
            self._tell_to_leave(slot, before)
        if not self._has_served:
            for other in self._slots:
                if other.serving is None and other.wants_worker():
                    other.start_at = 0.0
            if all(other.serving is not None for other in self._slots):
                self._has_served = True
                self._board.note_state(State.SERVING)
                say(f"Accepting connections on {self._listeners.addresses()}")
                self._notifier.ready()
                if self._rolls_again:
                    self._roll()
        elif slot in self._to_roll:
            self._to_roll.remove(slot)
            self._go_on_rolling()

    def _tell_to_leave(self, slot: Slot, worker: Child) -> None:
        slot.leaving.append(worker)
        worker.row.note_state(State.DRAINING)
        worker.end_within(ENDING_S)
        with contextlib.suppress(OSError):
            worker.channel.send(Word.REPLACED.value)

    def _roll(self) -> None:
        self._rolls_again = False
        self._notifier.reloading()
        self._to_roll = list(self._slots)
        self._go_on_rolling()

    def _go_on_rolling(self) -> None:
        """One slot at a time, so that the machine has one worker more, not twice as many."""
        if self._to_roll:
            slot = self._to_roll[0]
            if slot.wants_worker():
                slot.start_at = time.monotonic()
        elif self._rolls_again:
            self._roll()
        else:
            self._notifier.ready()

    def _end_workers(self, seconds: float) -> None:
        """Tells every worker to end, and kills those that are left after so many seconds."""
        self._board.note_state(State.STOPPING)
        self._listeners.refuse_more()
        # The workers' own descriptors keep the sockets open until they have stopped accepting.
        self._listeners.close()
        for _, worker in self._workers():
            worker.end_within(seconds)
            worker.send_signal(signal.SIGTERM)

    def _fail(self) -> None:
        """Ends the server because a worker cannot start."""
        self._code = EXIT_SETUP
        self._stops += 1
        self._notifier.stopping()
        self._end_workers(ENDING_S)

    # Deaths.

    def _reap(self) -> None:
        self._companions.reap()
        for slot, worker in list(self._workers()):
            if (code := worker.reap()) is None:
                continue
            # Whether it served before is in its last words.
            self._hear(slot, worker)
            worker.channel.close()
            is_unasked = worker not in slot.leaving and not self._stops
            self._board.leave(worker.row, died=is_unasked)
            if worker is slot.starting:
                slot.starting = None
                self._on_death_in_start_up(slot, code)
            elif worker is slot.serving:
                slot.serving = None
                self._on_death(slot, worker, code)
            else:
                slot.leaving.remove(worker)
                self._on_end(worker, code)

    def _on_death_in_start_up(self, slot: Slot, code: int) -> None:
        if self._stops:
            return
        # With this code the worker itself has said what is wrong.
        if code != EXIT_SETUP:
            complain(f"anel: a worker {ending(code) or 'ended'} before it served")
        if not self._has_served or all(other.serving is None for other in self._slots):
            self._fail()
            return
        is_rolling = slot in self._to_roll
        self._to_roll, self._rolls_again = [], False
        if is_rolling and slot.serving is not None:
            complain("anel: the workers stay as they are")
            self._notifier.ready()
            return
        slot.start_at = time.monotonic() + slot.back_off.pause_s(0.0)

    def _on_death(self, slot: Slot, worker: Child, code: int) -> None:
        if self._stops:
            self._on_end(worker, code)
            return
        _tell(code)
        if slot.starting is None:
            now = time.monotonic()
            slot.start_at = now + slot.back_off.pause_s(now - worker.started_at)

    def _on_end(self, worker: Child, code: int) -> None:
        """Somebody has ended who was told to. What went wrong is the server's failure, too."""
        if worker.was_killed:
            complain(f"anel: worker {worker.pid} did not end in time")
        elif self._stops and code == -signal.SIGTERM:
            # It had nothing left to do but to leave.
            return
        else:
            _tell(code)
        if self._stops and code != 0 and self._code == 0:
            self._code = 1

    # What is due.

    def _start_due(self) -> None:
        self._companions.start_due(self._shed_all)
        for slot in self._slots:
            if self._stops or slot.start_at is None or not slot.is_free():
                continue
            if slot.start_at <= time.monotonic():
                slot.start_at = None
                slot.starting = self._start(slot)

    def _kill_due(self) -> None:
        self._companions.kill_due()
        for _, worker in self._workers():
            worker.kill_if_due()

    def _start(self, slot: Slot) -> Child:
        requests_max = self._lifetime.draw()
        row = self._board.enter(slot.number)

        def work(channel: socket.socket) -> None:
            take(WorkerPost(self._listeners.of(slot.number), channel, requests_max, row))
            self._work()

        def shed() -> None:
            self._shed()
            self._listeners.keep(slot.number)
            self._companions.shed()

        worker = fork(work, shed)
        worker.row = row
        row.note_pid(worker.pid)
        return worker

    def _shed(self) -> None:
        """Closes, in a child, what is the master's alone."""
        for _, worker in self._workers():
            worker.channel.close()
        self._signals.close()

    def _shed_all(self) -> None:
        """Closes, in a child that is no worker, the sockets of all slots, too."""
        self._shed()
        self._listeners.keep(None)


def _tell(code: int) -> None:
    """Says how a worker ended, in Japronto's words."""
    if (how := ending(code)) is not None:
        say(f"Worker {how}")
