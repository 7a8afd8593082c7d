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
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from anel.board import Board, State
from anel.child import PARENTS
from anel.companions import Companion, Companions
from anel.concurrency import WORKERS_MAX
from anel.control import Control
from anel.exceptions import SetupError
from anel.failures import EXIT_SETUP
from anel.forking import Child, ending, reap_orphans
from anel.heartbeat import Heartbeats
from anel.listener import Listeners
from anel.noting import Signals
from anel.post import Word
from anel.rolling import Roll
from anel.rules import Rules
from anel.slots import Slot, Slots
from anel.starting import Starter
from anel.systemd import Notifier
from anel.telling import complain, say

# After its drain a worker has so long for the application's shutdown hooks. Kubernetes kills after
# 30 s in all, systemd after 90 s.
_SHUTDOWN_S = 10.0

# A second signal ends at once: a worker has this long to close its ring.
_AT_ONCE_S = 1.0

# Words are of one byte.
_WORDS_MAX = 16


class Master:
    """Starts the workers of a server, and answers for them until the last one has ended."""

    def __init__(
        self,
        listeners: Listeners,
        slots: int,
        work: Callable[[], None],
        notifier: Notifier,
        rules: Rules,
        board: Board,
        control: Control,
        companions: Sequence[Companion] = (),
    ) -> None:
        """Takes the sockets of all slots, and what a worker does once it has its post.

        The board tells others how the server does; who asks for it, and gives orders, comes in on
        the control socket.
        """
        self._listeners = listeners
        # It is told when the sockets are closed, too.
        self._address = listeners.addresses()
        self._starter = Starter(listeners, rules, board, work)
        self._control = control
        self._notifier = notifier
        self._rules = rules
        self._board = board
        self._slots = Slots(listeners, slots)
        self._companions = Companions(companions)
        self._heartbeats = Heartbeats(rules.heartbeat_s)
        self._signals = Signals(PARENTS)
        self._roll = Roll()
        self._state = State.STARTING
        self._awaits_change = False
        # When the workers are told to end, and how often more they were told since.
        self._stop_at: float | None = None
        self._insisted = 0
        self._alive_at = 0.0
        self._code = 0

    def run(self, early: Sequence[int] = ()) -> int:
        """Serves until a signal or a failure, and returns the exit code.

        `early` are signals that came before.
        """
        with self._signals:
            self._signals.note(early)
            self._board.note_master(os.getpid())
            self._board.note_wanted(self._slots.wanted)
            self._companions.start_due(self._shed_of_companion)
            # Alone: what is wrong with the application is said once.
            self._slots.first().start_at = 0.0
            while not self._has_ended():
                self._wait()
                self._obey()
                self._reap()
                self._adjust()
                self._act_on_time()
        return self._code

    def _has_ended(self) -> bool:
        """Whether it was to end, and nobody is left: the companions end after the workers."""
        if self._state is not State.STOPPING or any(True for _ in self._slots.workers()):
            return False
        self._companions.end()
        return self._companions.have_ended()

    def _enter(self, state: State) -> None:
        self._state = state
        self._board.note_state(state)

    # What may be asked of it, by a signal or a companion.

    @property
    def is_ending(self) -> bool:
        """Whether somebody has told it to end."""
        return self._state in (State.DRAINING, State.STOPPING)

    def report(self) -> dict[str, Any]:
        """How the server does."""
        return {"address": self._address, **self._board.read().described()}

    @property
    def awaits_change(self) -> bool:
        """Whether a worker could not start, and nobody tries again before the next reload."""
        return self._awaits_change

    def reload(self) -> None:
        """Replaces all workers, one slot after the other, by new ones that find what is there."""
        if self.is_ending:
            return
        say("Reload request received")
        if self._rules.is_edited:
            self.reload_at_once()
        elif self._roll or self._state is State.STARTING:
            self._roll.is_wanted_again = True
        else:
            self._begin_roll()

    def reload_at_once(self) -> None:
        """The same, and who is about to start begins anew."""
        if self.is_ending:
            return
        self._awaits_change = False
        for slot in self._slots:
            if (given_up := slot.give_up()) is not None:
                given_up.tell_to_end(_AT_ONCE_S)
        if self._state is State.STARTING:
            self._slots.first().start_at = 0.0
        else:
            self._begin_roll()

    def scale(self, workers: int) -> None:
        """Has so many workers from now on. Raises SetupError for what cannot be."""
        if self.is_ending:
            raise SetupError(None, "the server is about to end")
        if not 1 <= workers <= WORKERS_MAX:
            raise SetupError(None, f"there can be from 1 to {WORKERS_MAX} workers, not {workers}")
        if workers != self._slots.wanted:
            say(f"Scaling from {self._slots.wanted} to {workers} workers")
        self._slots.wanted = workers
        try:
            if self._state is State.SERVING:
                self._slots.adjust(self._retire)
        finally:
            self._board.note_wanted(self._slots.wanted)

    def stop(self) -> None:
        """Ends the server: the first call drains, the next one ends at once, the third kills.

        Where there is a delay before the drain, the second call cuts it short, and so on.
        """
        if self._state is State.STOPPING:
            self._insisted += 1
            self._end_workers(_AT_ONCE_S if self._insisted == 1 else 0.0)
        elif self._state is State.DRAINING:
            self._begin_to_end()
        else:
            say("Termination request received")
            self._notifier.stopping()
            delay_s = self._rules.shutdown_delay_s
            if self._state is State.STARTING or not delay_s:
                self._begin_to_end()
                return
            say(f"Serving for {delay_s:g} more seconds")
            self._enter(State.DRAINING)
            self._stop_at = time.monotonic() + delay_s

    # What comes in.

    def _wait(self) -> None:
        """Until a signal, a word, or the time at which something is due."""
        readers = dict(self._watched())
        poll = select.poll()
        for descriptor in readers:
            poll.register(descriptor, select.POLLIN)
        due = min((at for at in self._due() if at is not None), default=None)
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
        for slot, worker in self._slots.workers():
            if worker.channel.fileno() >= 0:
                yield worker.channel.fileno(), functools.partial(self._hear, slot, worker)
        yield from self._companions.watched(self)
        yield from self._control.watched(self)

    def _due(self) -> Iterator[float | None]:
        """When something is to be done."""
        yield from (worker.kill_at for _, worker in self._slots.workers())
        yield from self._companions.due()
        yield from self._control.due()
        if self._notifier.beat_every_s is not None:
            yield self._alive_at
        if self._state is State.STOPPING:
            return
        yield from (slot.start_at for slot in self._slots if self._may_start(slot))
        yield from self._heartbeats.due(self._slots.serving())
        yield self._stop_at
        if self._state is State.SERVING:
            yield self._slots.retire_due()

    def _hear(self, slot: Slot, worker: Child) -> None:
        words = worker.hear(_WORDS_MAX)
        if Word.SERVING.value in words and worker is slot.starting:
            self._on_serving(slot, worker)
        if Word.LEFT.value in words:
            self._on_left(slot)
        if Word.SPENT.value in words and worker is slot.serving and slot.wants_worker():
            slot.start_at = time.monotonic()

    def _obey(self) -> None:
        while (number := self._signals.take()) is not None:
            if number in (signal.SIGINT, signal.SIGTERM):
                self.stop()
            elif number == signal.SIGHUP:
                self.reload()
            elif number in (signal.SIGTTIN, signal.SIGTTOU):
                more = 1 if number == signal.SIGTTIN else -1
                with _complaints():
                    self.scale(self._slots.wanted + more)

    # What follows from it.

    def _on_serving(self, slot: Slot, worker: Child) -> None:
        self._awaits_change = False
        slot.starting, before, slot.serving = None, slot.serving, worker
        worker.row.note_state(State.SERVING)
        if before is not None:
            self._tell_to_leave(slot, before, self._parting_word())
        if self._state is State.STOPPING:
            return
        self._slots.open(slot)
        if self._state is State.STARTING:
            for other in self._slots:
                if other.serving is None and other.wants_worker():
                    other.start_at = 0.0
            if all(other.serving is not None for other in self._slots):
                self._enter(State.SERVING)
                say(f"Accepting connections on {self._address}")
                self._go_on_rolling()
        elif self._roll.leave_out(slot):
            self._go_on_rolling()

    def _on_left(self, slot: Slot) -> None:
        """Has the successor look into a queue that somebody has left.

        The kernel wakes one of those who accept from a socket, and that one may just have left.
        """
        heirs = self._slots.serving() if self._listeners.are_shared() else [slot.serving]
        for heir in heirs[:1]:
            if heir is not None:
                with contextlib.suppress(OSError):
                    heir.channel.send(Word.QUEUED.value)

    def _parting_word(self) -> Word:
        return Word.OUTDATED if self._rules.is_edited else Word.REPLACED

    def _tell_to_leave(self, slot: Slot, worker: Child, word: Word) -> None:
        slot.leaving.append(worker)
        worker.row.note_state(State.DRAINING)
        worker.end_within(self._rules.graceful_s + _SHUTDOWN_S)
        with contextlib.suppress(OSError):
            worker.channel.send(word.value)

    def _retire(self, slot: Slot) -> None:
        """Ends a slot that is given up: whoever serves there empties the sockets before."""
        if slot.serving is not None:
            worker, slot.serving = slot.serving, None
            word = self._parting_word() if self._listeners.are_shared() else Word.RETIRED
            self._tell_to_leave(slot, worker, word)
        slot.start_at = None
        if self._roll.leave_out(slot):
            self._go_on_rolling()

    def _begin_roll(self) -> None:
        self._notifier.reloading()
        self._roll.begin(self._slots.lasting())
        self._go_on_rolling()

    def _go_on_rolling(self) -> None:
        slot = self._roll.next()
        if slot is not None:
            if slot.wants_worker():
                slot.start_at = time.monotonic()
        elif self._roll.is_wanted_again:
            self._begin_roll()
        elif self._state is State.SERVING:
            self._control.on_rolled(None)
            self._notifier.ready()

    def _begin_to_end(self) -> None:
        """Has everybody drain."""
        self._enter(State.STOPPING)
        self._control.on_rolled("the server ends")
        self._end_workers(self._rules.graceful_s + _SHUTDOWN_S)

    def _end_workers(self, seconds: float) -> None:
        """Tells every worker to end, and kills those that are left after so many seconds."""
        self._listeners.refuse_more()
        # The workers' own descriptors keep the sockets open until they have stopped accepting.
        self._listeners.close()
        for _, worker in self._slots.workers():
            worker.row.note_state(State.STOPPING)
            worker.tell_to_end(seconds)

    def _fail(self) -> None:
        """Ends the server because a worker cannot start."""
        self._code = EXIT_SETUP
        self._notifier.stopping()
        self._begin_to_end()

    # Deaths.

    def _reap(self) -> None:
        self._companions.reap()
        for slot, worker in list(self._slots.workers()):
            if (code := worker.reap()) is None:
                continue
            # Whether it served before is in its last words.
            self._hear(slot, worker)
            worker.channel.close()
            is_unasked = worker not in slot.leaving and self._state is not State.STOPPING
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
            self._on_left(slot)
        if os.getpid() == 1:
            ours = {worker.pid for _, worker in self._slots.workers()}
            reap_orphans(ours | self._companions.pids())

    def _on_death_in_start_up(self, slot: Slot, code: int) -> None:
        if self._state is State.STOPPING:
            return
        # With this code the worker itself has said what is wrong.
        if code != EXIT_SETUP:
            complain(f"anel: a worker {ending(code) or 'ended'} before it served")
        self._on_failed_start(slot)

    def _on_failed_start(self, slot: Slot) -> None:
        if self._rules.is_edited:
            self._await_change()
            return
        if self._state is State.STARTING or self._slots.serve_nobody():
            self._fail()
            return
        is_rolling = slot in self._roll
        self._abandon_roll()
        if is_rolling and slot.serving is not None:
            complain("anel: the workers stay as they are")
            self._go_on_rolling()
            return
        # A slot that is given up has tried in vain to have somebody empty its queue.
        if slot.retire_at is None:
            slot.start_at = time.monotonic() + slot.back_off.pause_s(0.0)

    def _abandon_roll(self) -> None:
        self._roll.abandon()
        self._control.on_rolled("a new worker cannot start; the others stay as they are")

    def _await_change(self) -> None:
        """Leaves things as they are until the next save, which may mend them."""
        self._awaits_change = True
        self._abandon_roll()
        before = "" if self._slots.serve_nobody() else "the last version goes on; "
        complain(f"anel: {before}waiting for a file to change")
        self._go_on_rolling()

    def _on_death(self, slot: Slot, worker: Child, code: int) -> None:
        if self._state is State.STOPPING:
            self._on_end(worker, code)
            return
        if not worker.was_stuck:
            _tell(code)
        if slot.starting is None:
            now = time.monotonic()
            slot.start_at = now + slot.back_off.pause_s(now - worker.started_at)

    def _on_end(self, worker: Child, code: int) -> None:
        """Somebody has ended who was told to. What went wrong is the server's failure, too."""
        if worker.was_killed:
            complain(f"anel: worker {worker.pid} did not end in time")
        elif worker.was_told and code == -signal.SIGTERM:
            # It had nothing left to do but to leave.
            return
        else:
            _tell(code)
        if self._state is State.STOPPING and code != 0 and self._code == 0:
            self._code = 1

    # What is due.

    def _adjust(self) -> None:
        if self._state is State.SERVING:
            with _complaints():
                self._slots.adjust(self._retire)
            self._board.note_wanted(self._slots.wanted)

    def _act_on_time(self) -> None:
        now = time.monotonic()
        if self._stop_at is not None and self._stop_at <= now and self._state is State.DRAINING:
            self._begin_to_end()
        if self._notifier.beat_every_s is not None and self._alive_at <= now:
            self._notifier.alive()
            self._alive_at = now + self._notifier.beat_every_s
        if self._state is not State.STOPPING:
            self._heartbeats.end_stuck(self._slots.serving())
        self._companions.start_due(self._shed_of_companion)
        for slot in self._slots:
            if slot.start_at is not None and slot.start_at <= now and self._may_start(slot):
                slot.start_at = None
                self._start(slot)
        self._companions.kill_due()
        for _, worker in self._slots.workers():
            worker.kill_if_due()
        self._control.close_silent()

    def _may_start(self, slot: Slot) -> bool:
        """Whether a worker that is due is let begin."""
        is_free = slot.starting is None if self._rules.is_edited else slot.is_free()
        return is_free and self._state is not State.STOPPING

    def _start(self, slot: Slot) -> None:
        try:
            slot.starting = self._starter.start(slot.number, self._shed_of_worker)
        except OSError as error:
            complain(f"anel: cannot start a worker: {error.strerror}")
            self._on_failed_start(slot)

    def _shed(self) -> None:
        """Closes, in a child, what is the master's alone."""
        for _, worker in self._slots.workers():
            worker.channel.close()
        self._signals.close()
        self._control.shed()

    def _shed_of_worker(self) -> None:
        self._shed()
        self._companions.shed()

    def _shed_of_companion(self) -> None:
        self._shed()
        self._listeners.keep(None)


@contextlib.contextmanager
def _complaints() -> Iterator[None]:
    """Tells people what cannot be; nobody else has asked for it."""
    try:
        yield
    except SetupError as error:
        complain(f"anel: {error}")


def _tell(code: int) -> None:
    """Says how a worker ended, in Japronto's words."""
    if (how := ending(code)) is not None:
        say(f"Worker {how}")
