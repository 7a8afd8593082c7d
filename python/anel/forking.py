"""Children as their parent knows them: how they are forked, heard, killed and followed by others.

Owns the fork and the parent's end of the channel, and how long to wait before somebody who died
has a successor. Knows nothing of what children do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Container

from anel.board import Row
from anel.child import PARENTS, run_child

# Who lived for so long died of something new; the successor starts at once.
_STEADY_S = 5.0

# The pause before somebody who follows one that died early; it doubles from death to death. What
# waits in the slot's accept queue waits meanwhile, so it stays short.
_PAUSE_S = 0.1
_PAUSE_S_MAX = 3.0


@dataclasses.dataclass(eq=False)
class Child:
    """A process of ours that was not reaped yet, so its number is nobody else's."""

    pid: int
    channel: socket.socket
    started_at: float
    # Where it says how it does.
    row: Row = dataclasses.field(default_factory=Row.unseen)
    # When it is killed; None as long as it is to live.
    kill_at: float | None = None
    was_killed: bool = False
    # Whether it was told to end, and so may be ended by just that.
    was_told: bool = False
    # Whether it was ended because it did not come round any more.
    was_stuck: bool = False

    def send_signal(self, number: int) -> None:
        """Sends a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def tell_to_end(self, seconds: float) -> None:
        """Has it end by itself, within so many seconds."""
        self.was_told = True
        self.end_within(seconds)
        self.send_signal(signal.SIGTERM)

    def end_within(self, seconds: float) -> None:
        """Sets the time at which it is killed."""
        self.kill_at = time.monotonic() + seconds

    def kill_if_due(self) -> None:
        """Kills it if it had its time to end."""
        if self.kill_at is not None and self.kill_at <= time.monotonic():
            self.kill_at = None
            self.was_killed = True
            self.send_signal(signal.SIGKILL)

    def hear(self, length: int) -> bytes:
        """What it says, if anything. At its end the channel is closed."""
        try:
            heard = self.channel.recv(length)
        except BlockingIOError:
            return b""
        except OSError:
            heard = b""
        if not heard:
            # Its death is told by its exit status.
            self.channel.close()
        return heard

    def reap(self) -> int | None:
        """Its exit code once it has ended: negative for a signal. None before.

        What it has said last may still be heard.
        """
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return None if pid == 0 else os.waitstatus_to_exitcode(status)


class BackOff:
    """How long to wait after a death: longer when one follows the other."""

    def __init__(self) -> None:
        """Begins with nobody dead."""
        self._in_a_row = 0

    def pause_s(self, lived_s: float) -> float:
        """Notes a death, and returns how long to wait."""
        self._in_a_row = 1 if lived_s >= _STEADY_S else self._in_a_row + 1
        if self._in_a_row == 1:
            return 0.0
        return float(min(_PAUSE_S * 2.0 ** (self._in_a_row - 2), _PAUSE_S_MAX))


def fork(
    work: Callable[[socket.socket], None],
    shed: Callable[[], None],
    kind: socket.SocketKind = socket.SOCK_STREAM,
) -> Child:
    """Forks a child that lets go of what is its parent's (`shed`) and works.

    It is handed its end of a socket pair of this kind, which does not block. Raises OSError when
    the machine has no room for another process.
    """
    ours, theirs = socket.socketpair(type=kind)
    ours.setblocking(False)
    theirs.setblocking(False)
    # What is in a buffer would be written twice.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    # A signal that came to the child before its handlers are its own would be noted here.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, PARENTS)
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        raise
    else:
        if pid == 0:

            def shed_and_work() -> None:
                ours.close()
                shed()
                work(theirs)

            run_child(shed_and_work, mask)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
    return Child(pid, ours, time.monotonic())


def reap_orphans(ours: Container[int]) -> None:
    """Reaps those who have ended and are nobody's, but ours now, because we are process 1."""
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if found.si_pid in ours:
                # It ended just now, and is looked at in the next turn.
                return
            os.waitpid(found.si_pid, os.WNOHANG)


def ending(code: int) -> str | None:
    """What there is to say of an exit code; None of the one that says nothing."""
    if code == 0:
        return None
    if code > 0:
        return f"exited with code {code}"
    try:
        return f"crashed on signal {signal.Signals(-code).name}!"
    except ValueError:
        return f"crashed on signal {-code}!"
