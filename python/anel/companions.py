"""Companions: processes of a server beside its workers, such as one that watches files.

Owns what a companion is, and its life: started before the workers, replaced with back-off when it
dies, for a server does not depend on it, and ended after the last worker. Knows nothing of workers;
what a companion wants of them it asks the master for, through `Orders`.
"""

from __future__ import annotations

import abc
import functools
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from anel.forking import BackOff, Child, ending, fork
from anel.telling import complain

# How long a companion may take to end. It has nothing to finish: the server is gone.
_ENDING_S = 2.0

# The longest message that is heard whole.
_MESSAGE_BYTES_MAX = 65536


class Orders(Protocol):
    """What a companion may have the master do."""

    @property
    def awaits_change(self) -> bool:
        """Whether a worker could not start, so that nothing happens until it is told to reload."""

    def reload(self) -> None:
        """Replaces all workers, one slot after the other."""

    def reload_at_once(self) -> None:
        """The same for workers that serve what is out of date: nobody starts or lingers for it."""

    def stop(self) -> None:
        """Ends the server: the first call drains, the second ends at once."""


class Companion(abc.ABC):
    """A process beside the workers, and what the master makes of what it says.

    One object is both sides: `run` is called in the forked process, the rest in the master (and
    `shed` in every other process that it forks). Whatever it opens before the server starts, it
    finds again after each fork.
    """

    # As people are told of it: "file watcher".
    name: str

    @abc.abstractmethod
    def run(self, channel: socket.socket) -> None:
        """Does its work, in a process of its own, until the channel ends: the master is gone.

        The channel does not block and keeps messages apart (SOCK_SEQPACKET); what is sent on it is
        heard by `on_message`. Ctrl-C is the master's to act on, SIGTERM ends the process. To
        return, or to fail, is to die: another one is started.
        """

    @abc.abstractmethod
    def on_message(self, message: bytes, orders: Orders) -> None:
        """Acts on a message, in the master, which waits meanwhile."""

    @abc.abstractmethod
    def shed(self) -> None:
        """Closes, in a process that is not its own, what it has opened for itself."""


class _Place:
    """Where a companion belongs: it, or its successor, is always there or on its way."""

    def __init__(self, companion: Companion) -> None:
        self.companion = companion
        self.child: Child | None = None
        # When the next one is to be started; None when one is there.
        self.start_at: float | None = 0.0
        self.back_off = BackOff()


class Companions:
    """All companions of a server."""

    def __init__(self, companions: Sequence[Companion]) -> None:
        """All are due."""
        self._places = [_Place(companion) for companion in companions]
        self._is_ending = False

    def start_due(self, shed: Callable[[], None]) -> None:
        """Starts those whose time has come. `shed` lets go of what is the master's."""
        for place in self._places:
            if place.start_at is None or self._is_ending or place.start_at > time.monotonic():
                continue
            place.start_at = None
            try:
                place.child = self._start(place, shed)
            except OSError as error:
                complain(f"anel: cannot start the {place.companion.name}: {error.strerror}")
                place.start_at = time.monotonic() + place.back_off.pause_s(0.0)

    def shed(self) -> None:
        """Closes, in another process, the channels and what is the companions' own."""
        for place in self._places:
            if place.child is not None:
                place.child.channel.close()
            place.companion.shed()

    def watched(self, orders: Orders) -> Iterator[tuple[int, Callable[[], None]]]:
        """Descriptors that may have something to read, and who reads it."""
        for place in self._places:
            child = place.child
            if child is not None and child.channel.fileno() >= 0:
                hear = functools.partial(self._hear, place.companion, child, orders)
                yield child.channel.fileno(), hear

    def due(self) -> Iterator[float | None]:
        """When something is to be done for them."""
        for place in self._places:
            if not self._is_ending:
                yield place.start_at
            if place.child is not None:
                yield place.child.kill_at

    def reap(self) -> None:
        """Notes who has ended, and when the next one is to be started."""
        for place in self._places:
            child = place.child
            if child is None or (code := child.reap()) is None:
                continue
            child.channel.close()
            place.child = None
            if not self._is_ending:
                now = time.monotonic()
                how = ending(code) or "ended"
                complain(f"anel: the {place.companion.name} {how}; starting another")
                place.start_at = now + place.back_off.pause_s(now - child.started_at)
            elif child.was_killed:
                complain(f"anel: the {place.companion.name} did not end in time")

    def kill_due(self) -> None:
        """Kills those that had their time to end."""
        for place in self._places:
            if place.child is not None:
                place.child.kill_if_due()

    def end(self) -> None:
        """Tells all of them to end, as if the master were gone. Harmless when it was done."""
        if self._is_ending:
            return
        self._is_ending = True
        for place in self._places:
            if place.child is not None:
                place.child.channel.close()
                place.child.end_within(_ENDING_S)

    def pids(self) -> set[int]:
        """The processes that live."""
        return {place.child.pid for place in self._places if place.child is not None}

    def have_ended(self) -> bool:
        """Whether none is left."""
        return all(place.child is None for place in self._places)

    def _start(self, place: _Place, shed: Callable[[], None]) -> Child:
        def shed_all() -> None:
            shed()
            for other in self._places:
                if other is not place:
                    other.companion.shed()
                    if other.child is not None:
                        other.child.channel.close()

        return fork(place.companion.run, shed_all, socket.SOCK_SEQPACKET)

    @staticmethod
    def _hear(companion: Companion, child: Child, orders: Orders) -> None:
        if message := child.hear(_MESSAGE_BYTES_MAX):
            companion.on_message(message, orders)
