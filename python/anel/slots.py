"""Slots: places with listening sockets of their own, and the workers that have to do with them.

Owns which worker of a slot starts, serves or leaves, and when the next one is due. Knows nothing of
why: the master decides.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator

from anel.forking import BackOff, Child


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

    def workers(self) -> Iterator[Child]:
        """Everybody who lives."""
        yield from (one for one in (self.starting, self.serving) if one is not None)
        yield from self.leaving

    def is_free(self) -> bool:
        """Whether another worker may be started: two at a time are enough."""
        return self.starting is None and not self.leaving

    def wants_worker(self) -> bool:
        """Whether nobody is on the way who would serve next."""
        return self.starting is None and self.start_at is None


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
