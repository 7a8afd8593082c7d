"""Signals, noted by a process that acts on them between two waits.

Owns the handlers, and the wait that a signal ends, with whatever else may end it. Knows nothing of
what signals mean.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType

_NOTES_BYTES = 4096


class Signals:
    """Notes signals from `with` on. To be used in the main thread."""

    def __init__(self, numbers: Sequence[int]) -> None:
        """Takes the numbers to note."""
        self._numbers = numbers
        self._noted: list[int] = []
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        self._undone = contextlib.ExitStack()

    def __enter__(self) -> Signals:
        """From now on signals are noted."""
        self._undone.callback(self.close)
        descriptor = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        self._undone.callback(signal.set_wakeup_fd, descriptor)
        for number in self._numbers:
            self._undone.callback(signal.signal, number, signal.getsignal(number))
            signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_exception: object) -> None:
        """Who handled them before does so again."""
        self._undone.close()

    def wait(self, readers: Mapping[int, Callable[[], None]], due: float | None) -> None:
        """Waits until one is noted, a descriptor is readable, or it is `due` (`time.monotonic()`).

        Whoever reads from such a descriptor is called.
        """
        poll = select.poll()
        for descriptor in (self._receiver.fileno(), *readers):
            poll.register(descriptor, select.POLLIN)
        if self._noted:
            wait_ms: float | None = 0.0
        else:
            # Rounded up: what is looked at early only costs another turn.
            wait_ms = None if due is None else max(0.0, (due - time.monotonic()) * 1000 + 1)
        for descriptor, _ in poll.poll(wait_ms):
            readers.get(descriptor, self._on_readable)()

    def note(self, numbers: Sequence[int]) -> None:
        """Puts signals that came earlier before those that were noted."""
        self._noted[:0] = numbers

    def take(self) -> int | None:
        """The next signal, in the order in which they came."""
        return self._noted.pop(0) if self._noted else None

    def close(self) -> None:
        """Closes the descriptors, also in a child, where the handlers are undone otherwise."""
        self._receiver.close()
        self._sender.close()

    def _on_readable(self) -> None:
        # What came is noted by then, or will be at the next instruction.
        with contextlib.suppress(BlockingIOError):
            self._receiver.recv(_NOTES_BYTES)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._noted.append(number)
