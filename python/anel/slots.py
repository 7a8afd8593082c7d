"""Slots: places with listening sockets of their own, and the workers that have to do with them.

Owns which worker of a slot starts, serves or leaves, when the next one is due, and how many slots
there are. A slot that is given up is emptied first: new connections go to others, then its worker
takes who is left in the queue. Knows nothing of why: the master decides.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

from anel.exceptions import SetupError
from anel.forking import BackOff, Child
from anel.listener import Listeners

# Whoever was on the way to a slot's sockets when new connections began to go to others has arrived
# by then: a round trip, and the kernel's first retry after 1 s.
_ARRIVING_S = 1.5


class Slot:
    """At most one worker that serves, one that starts in its place, and those that leave."""

    def __init__(self, number: int) -> None:
        """A slot without workers, and none is due."""
        self.number = number
        self.starting: Child | None = None
        self.serving: Child | None = None
        self.leaving: list[Child] = []
        # When the next worker is to be started; None when one is there or on its way.
        self.start_at: float | None = None
        self.back_off = BackOff()
        # Whether new connections may come: from the time on at which somebody has served.
        self.is_open = False
        # When it is given up; None as long as it is wanted.
        self.retire_at: float | None = None
        self.is_retired = False

    def workers(self) -> Iterator[Child]:
        """Everybody who lives."""
        yield from (one for one in (self.starting, self.serving) if one is not None)
        yield from self.leaving

    def is_free(self) -> bool:
        """Whether another worker may be started: two at a time are enough."""
        return self.starting is None and not self.leaving

    def give_up(self) -> Child | None:
        """Has whoever is to serve next be among those that leave. None: nobody is on the way."""
        given_up, self.starting, self.start_at = self.starting, None, None
        if given_up is not None:
            self.leaving.append(given_up)
        return given_up

    def wants_worker(self) -> bool:
        """Whether nobody is on the way who would serve next."""
        return self.starting is None and self.start_at is None

    def retire_due(self) -> float | None:
        """When it can be given up; None: not yet, for somebody is to empty its queue."""
        is_awaited = self.starting is not None or (
            self.serving is None and self.start_at is not None
        )
        return None if is_awaited else self.retire_at


class Slots:
    """All slots of a server, in the order of their sockets."""

    def __init__(self, listeners: Listeners, wanted: int) -> None:
        """As many as there are sockets."""
        self.wanted = wanted
        self._listeners = listeners
        self._slots = [Slot(number) for number in range(wanted)]
        for slot in self._slots:
            # Whoever finds the port open before anybody serves, waits.
            slot.is_open = True

    def __iter__(self) -> Iterator[Slot]:
        """Those that have, or had, something to do."""
        return iter(self._slots)

    def lasting(self) -> list[Slot]:
        """Those that are not given up."""
        return [slot for slot in self._slots if slot.retire_at is None and not slot.is_retired]

    def workers(self) -> Iterator[tuple[Slot, Child]]:
        """Everybody who lives, with the slot."""
        return ((slot, worker) for slot in self._slots for worker in slot.workers())

    def serve_nobody(self) -> bool:
        """Whether no worker serves."""
        return all(slot.serving is None for slot in self._slots)

    def serving(self) -> list[Child]:
        """Those who serve."""
        return [slot.serving for slot in self._slots if slot.serving is not None]

    def first(self) -> Slot:
        """The one that is always there."""
        return self._slots[0]

    def retire_due(self) -> float | None:
        """When a slot can be given up; None: there is none to give up."""
        return self._last().retire_due()

    def open(self, slot: Slot) -> None:
        """A worker of the slot serves: from now on connections may come."""
        if not slot.is_open:
            slot.is_open = True
            self._steer()

    def adjust(self, retire: Callable[[Slot], None]) -> None:
        """Adds slots, or gives some up, until there are as many as are wanted.

        `retire` tells the workers of a slot whose time has come. Raises SetupError when no socket
        can be added; as many as there are, are wanted then.
        """
        now = time.monotonic()
        lasting = self.lasting()
        for slot in lasting[self.wanted :]:
            slot.retire_at = now + (_ARRIVING_S if self._steer(self.wanted) else 0.0)
        for number in range(len(lasting), self.wanted):
            if not self._add(number):
                break
        while (due := self._last().retire_due()) is not None and due <= now:
            slot = self._last()
            slot.retire_at, slot.is_retired = None, True
            self._listeners.give_up(slot.number)
            retire(slot)
        self._slots = [slot for slot in self._slots if not slot.is_retired or any(slot.workers())]

    def _last(self) -> Slot:
        """The last one that still has its sockets. They are given up in this order."""
        return [slot for slot in self._slots if not slot.is_retired][-1]

    def _add(self, number: int) -> bool:
        """Whether there is one by now; otherwise the one with its number has to end first."""
        if number < len(self._slots):
            slot = self._slots[number]
            if slot.is_retired:
                return False
            # It was about to be given up.
            slot.retire_at = None
        else:
            # Nobody is to wait in its queue for a worker that only starts.
            self._steer()
            slot = Slot(number)
            try:
                self._listeners.add(number)
            except OSError as error:
                self.wanted = number
                raise SetupError(
                    error.errno,
                    f"there cannot be more workers than {number}: cannot open another socket for"
                    f" {self._listeners.addresses()}",
                    "a server that has given up its privileges opens none; start it with as many"
                    " workers as it may need",
                ) from None
            self._slots.append(slot)
        if slot.serving is None and slot.wants_worker():
            slot.start_at = time.monotonic()
        self._steer()
        return True

    def _steer(self, most: int | None = None) -> bool:
        """Has new connections go to slots that are open, in their order, and not to the rest."""
        opened = itertools.takewhile(lambda slot: slot.is_open, self.lasting())
        count = sum(1 for _ in opened)
        return self._listeners.steer(max(1, count if most is None else min(count, most)))
