"""The master: keeps the workers of a server alive, and replaces them without losing a request.

Owns the slots, what their workers are about, and when the next one is started or the last one is
killed. A worker that dies while it serves is replaced, later and later when that goes on. One that
dies before it serves ends the server while nobody serves: the next one would fail the same way.
Signals only set flags; `run` acts on them between two waits. The master serves nobody, makes no
event loop and opens no ring, so that forking it is safe.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from anel.board import Board, Row, State
from anel.child import run_child
from anel.failures import EXIT_SETUP
from anel.listener import Listeners
from anel.post import Word, WorkerPost
from anel.serving import DRAIN_DEADLINE_S
from anel.systemd import Notifier

# After its drain a worker has so long for the application's shutdown hooks. Kubernetes kills after
# 30 s in all, systemd after 90 s.
ENDING_S = DRAIN_DEADLINE_S + 10.0

# A second signal ends at once: a worker has this long to close its ring.
_AT_ONCE_S = 1.0

# A worker that served for so long died of something new; its successor starts at once.
_STEADY_S = 5.0

# The pause before a worker that follows one that died early; it doubles from death to death. What
# waits in the slot's accept queue waits meanwhile, so it stays short.
_PAUSE_S = 0.1
_PAUSE_S_MAX = 3.0

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


@dataclasses.dataclass(eq=False)
class _Worker:
    """A process of a slot."""

    pid: int
    channel: socket.socket
    started_at: float
    row: Row | None
    # When it is killed; None as long as it is to serve.
    kill_at: float | None = None
    was_killed: bool = False


class _Slot:
    """A place with listening sockets of its own, and the workers that have to do with it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.starting: _Worker | None = None
        self.serving: _Worker | None = None
        self.leaving: list[_Worker] = []
        # When the next worker is to be started; None when one is there or on its way.
        self.start_at: float | None = None
        self.deaths_in_a_row = 0

    def workers(self) -> Iterator[_Worker]:
        """Everybody who lives."""
        yield from (one for one in (self.starting, self.serving) if one is not None)
        yield from self.leaving

    def is_free(self) -> bool:
        """Whether another worker may be started: two at a time are enough."""
        return self.starting is None and not self.leaving

    def pause_s(self, lived_s: float) -> float:
        """How long to wait after a death."""
        self.deaths_in_a_row = 1 if lived_s >= _STEADY_S else self.deaths_in_a_row + 1
        if self.deaths_in_a_row == 1:
            return 0.0
        return float(min(_PAUSE_S * 2.0 ** (self.deaths_in_a_row - 2), _PAUSE_S_MAX))


@dataclasses.dataclass(frozen=True)
class Lifetime:
    """After how many requests a worker is replaced, give or take: `jitter` spreads the workers."""

    requests_max: int | None = None
    jitter: int = 0

    def draw(self) -> int | None:
        """The number for one worker; None for no end."""
        if self.requests_max is None:
            return None
        return self.requests_max + random.randint(0, self.jitter)


class Master:
    """Starts the workers of a server, and answers for them until the last one has ended."""

    def __init__(
        self,
        listeners: Listeners,
        workers: int,
        work: Callable[[], None],
        notifier: Notifier,
        lifetime: Lifetime,
        board: Board | None = None,
    ) -> None:
        """Takes the sockets of all slots, what a worker does once it has its post, and a board.

        Without a board nobody is told how the server does.
        """
        self._listeners = listeners
        self._work = work
        self._notifier = notifier
        self._lifetime = lifetime
        self._board = board
        self._slots = [_Slot(number) for number in range(workers)]
        self._to_roll: list[_Slot] = []
        self._rolls_again = False
        self._has_served = False
        self._stops = 0
        self._code = 0
        self._noted: list[int] = []
        self._wake_receiver, self._wake_sender = socket.socketpair()

    def run(self, early: Sequence[int] = ()) -> int:
        """Serves until a signal or a failure, and returns the exit code.

        `early` are signals that came before.
        """
        with self._wake_receiver, self._wake_sender, self._signals():
            self._noted[:0] = early
            if self._board is not None:
                self._board.note_master(os.getpid())
                self._board.note_wanted(len(self._slots))
            # Alone: what is wrong with the application is said once.
            self._slots[0].start_at = 0.0
            while True:
                self._obey()
                self._start_due()
                self._kill_due()
                if self._stops and not any(True for slot in self._slots for _ in slot.workers()):
                    return self._code
                self._wait()
                self._reap()

    # What comes in.

    def _wait(self) -> None:
        """Until a signal, a word, or the time at which something is due."""
        poll = select.poll()
        poll.register(self._wake_receiver, select.POLLIN)
        by_descriptor = {}
        for slot in self._slots:
            for worker in slot.workers():
                if worker.channel.fileno() >= 0:
                    poll.register(worker.channel, select.POLLIN)
                    by_descriptor[worker.channel.fileno()] = (slot, worker)
        if self._noted:
            return
        due = self._next_due()
        # Rounded up: what is looked at early only costs another turn.
        wait_ms = None if due is None else max(0.0, (due - time.monotonic()) * 1000 + 1)
        for descriptor, _ in poll.poll(wait_ms):
            if descriptor in by_descriptor:
                self._hear(*by_descriptor[descriptor])
            else:
                with contextlib.suppress(BlockingIOError):
                    self._wake_receiver.recv(4096)

    def _next_due(self) -> float | None:
        starts = [slot.start_at for slot in self._slots if slot.is_free() and not self._stops]
        kills = [worker.kill_at for slot in self._slots for worker in slot.workers()]
        return min((at for at in (*starts, *kills) if at is not None), default=None)

    def _hear(self, slot: _Slot, worker: _Worker) -> None:
        try:
            words = worker.channel.recv(16)
        except BlockingIOError:
            return
        except OSError:
            words = b""
        if not words:
            # Its death is told by its exit status.
            worker.channel.close()
        if Word.SERVING.value in words and worker is slot.starting:
            self._on_serving(slot, worker)
        is_wanted = slot.starting is None and slot.start_at is None
        if Word.SPENT.value in words and worker is slot.serving and is_wanted:
            slot.start_at = time.monotonic()

    def _obey(self) -> None:
        while self._noted:
            number = self._noted.pop(0)
            if number in (signal.SIGINT, signal.SIGTERM):
                self._on_stop()
            elif number == signal.SIGHUP and not self._stops:
                self._on_reload()

    # What follows from it.

    def _on_serving(self, slot: _Slot, worker: _Worker) -> None:
        slot.starting, before, slot.serving = None, slot.serving, worker
        if worker.row is not None:
            worker.row.note_state(State.SERVING)
        if before is not None:
            self._tell_to_leave(slot, before)
        if not self._has_served:
            for other in self._slots:
                if other.serving is None and other.starting is None and other.start_at is None:
                    other.start_at = 0.0
            if all(other.serving is not None for other in self._slots):
                self._has_served = True
                self._note_state(State.SERVING)
                print(f"Accepting connections on {self._listeners.addresses()}", flush=True)
                self._notifier.ready()
                if self._rolls_again:
                    self._roll()
        elif slot in self._to_roll:
            self._to_roll.remove(slot)
            self._go_on_rolling()

    def _tell_to_leave(self, slot: _Slot, worker: _Worker) -> None:
        slot.leaving.append(worker)
        if worker.row is not None:
            worker.row.note_state(State.DRAINING)
        worker.kill_at = time.monotonic() + ENDING_S
        with contextlib.suppress(OSError):
            worker.channel.send(Word.REPLACED.value)

    def _on_reload(self) -> None:
        print("Reload request received", flush=True)
        if self._to_roll or not self._has_served:
            self._rolls_again = True
        else:
            self._roll()

    def _roll(self) -> None:
        self._rolls_again = False
        self._notifier.reloading()
        self._to_roll = list(self._slots)
        self._go_on_rolling()

    def _go_on_rolling(self) -> None:
        """One slot at a time, so that the machine has one worker more, not twice as many."""
        if self._to_roll:
            slot = self._to_roll[0]
            if slot.start_at is None and slot.starting is None:
                slot.start_at = time.monotonic()
        elif self._rolls_again:
            self._roll()
        else:
            self._notifier.ready()

    def _on_stop(self) -> None:
        self._stops += 1
        if self._stops == 1:
            print("Termination request received", flush=True)
            self._notifier.stopping()
            self._stop(ENDING_S)
        else:
            self._stop(_AT_ONCE_S if self._stops == 2 else 0.0)

    def _stop(self, seconds: float) -> None:
        """Tells every worker to end, and kills those that are left after so many seconds."""
        self._note_state(State.STOPPING)
        self._listeners.refuse_more()
        # The workers' own descriptors keep the sockets open until they have stopped accepting.
        self._listeners.close()
        for slot in self._slots:
            for worker in slot.workers():
                worker.kill_at = time.monotonic() + seconds
                _send(worker, signal.SIGTERM)

    def _fail(self) -> None:
        """Ends the server because a worker cannot start."""
        self._code = EXIT_SETUP
        self._stops += 1
        self._notifier.stopping()
        self._stop(ENDING_S)

    def _note_state(self, state: State) -> None:
        if self._board is not None:
            self._board.note_state(state)

    # Deaths.

    def _reap(self) -> None:
        for slot in self._slots:
            for worker in list(slot.workers()):
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
                if pid == 0:
                    continue
                worker.channel.close()
                code = os.waitstatus_to_exitcode(status)
                self._clear_row(worker, is_wanted=worker not in slot.leaving)
                if worker is slot.starting:
                    slot.starting = None
                    self._on_death_in_start_up(slot, code)
                elif worker is slot.serving:
                    slot.serving = None
                    self._on_death(slot, worker, code)
                else:
                    slot.leaving.remove(worker)
                    self._on_end(worker, code)

    def _clear_row(self, worker: _Worker, *, is_wanted: bool) -> None:
        if self._board is not None and worker.row is not None:
            self._board.leave(worker.row, died=is_wanted and not self._stops)

    def _on_death_in_start_up(self, slot: _Slot, code: int) -> None:
        if self._stops:
            return
        # With this code the worker itself has said what is wrong.
        if code != EXIT_SETUP:
            how = _ending(code) or "ended"
            print(f"anel: a worker {how} before it served", file=sys.stderr, flush=True)
        if not self._has_served or all(other.serving is None for other in self._slots):
            self._fail()
            return
        is_rolling = slot in self._to_roll
        self._to_roll, self._rolls_again = [], False
        if is_rolling and slot.serving is not None:
            print("anel: the workers stay as they are", file=sys.stderr, flush=True)
            self._notifier.ready()
            return
        slot.start_at = time.monotonic() + slot.pause_s(0.0)

    def _on_death(self, slot: _Slot, worker: _Worker, code: int) -> None:
        if self._stops:
            self._on_end(worker, code)
            return
        _tell(code)
        if slot.starting is None:
            now = time.monotonic()
            slot.start_at = now + slot.pause_s(now - worker.started_at)

    def _on_end(self, worker: _Worker, code: int) -> None:
        """Somebody has ended who was told to. What went wrong is the server's failure, too."""
        if worker.was_killed:
            print(f"anel: worker {worker.pid} did not end in time", file=sys.stderr, flush=True)
        elif self._stops and code == -signal.SIGTERM:
            # It had nothing left to do but to leave.
            return
        else:
            _tell(code)
        if self._stops and code != 0 and self._code == 0:
            self._code = 1

    # What is due.

    def _start_due(self) -> None:
        for slot in self._slots:
            if self._stops or slot.start_at is None or not slot.is_free():
                continue
            if slot.start_at <= time.monotonic():
                slot.start_at = None
                slot.starting = self._start(slot)

    def _kill_due(self) -> None:
        for slot in self._slots:
            for worker in slot.workers():
                if worker.kill_at is not None and worker.kill_at <= time.monotonic():
                    worker.kill_at = None
                    worker.was_killed = True
                    _send(worker, signal.SIGKILL)

    def _start(self, slot: _Slot) -> _Worker:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        requests_max = self._lifetime.draw()
        row = self._board.enter(slot.number) if self._board is not None else None
        # What is in a buffer would be written twice.
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal that came to the child before its handlers are its own would be noted here.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if pid == 0:
            others = [one.channel for other in self._slots for one in other.workers()]
            for other in (*others, ours, self._wake_receiver, self._wake_sender):
                other.close()
            self._listeners.keep(slot.number)
            post = WorkerPost(self._listeners.of(slot.number), theirs, requests_max, row)
            run_child(self._work, post, mask)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        if row is not None:
            row.note_pid(pid)
        return _Worker(pid, ours, time.monotonic(), row)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)
        previous = {number: signal.getsignal(number) for number in _SIGNALS}
        descriptor = signal.set_wakeup_fd(self._wake_sender.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(descriptor)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._noted.append(number)


def _send(worker: _Worker, number: int) -> None:
    # It is ours until it is reaped, so the number is not somebody else's by now.
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker.pid, number)


def _ending(code: int) -> str | None:
    """What there is to say of an exit code; None of the one that says nothing."""
    if code == 0:
        return None
    if code > 0:
        return f"exited with code {code}"
    try:
        return f"crashed on signal {signal.Signals(-code).name}!"
    except ValueError:
        return f"crashed on signal {-code}!"


def _tell(code: int) -> None:
    """Says how a worker ended, in Japronto's words."""
    if (ending := _ending(code)) is not None:
        print(f"Worker {ending}", flush=True)
