"""Heartbeats: which workers do not come round any more.

Owns how long a worker that serves may be busy with one thing, and its end: it is told to show the
stacks of its threads and to die of it. Somebody who loads an application, or drains, may take long,
so only workers that serve are looked at. Knows nothing of slots.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator

from anel.forking import Child
from anel.telling import complain

# The stacks are written and the process is gone within milliseconds; somebody who was stopped, or
# waits for a disk, does neither and is killed.
_DYING_S = 2.0


class Heartbeats:
    """Looks at workers that serve."""

    def __init__(self, limit_s: float | None) -> None:
        """None: nobody is missed."""
        self._limit_s = limit_s

    def due(self, workers: Iterable[Child]) -> Iterator[float]:
        """When somebody is missed who does not come round before."""
        if self._limit_s is None:
            return
        for worker in workers:
            beat_at = worker.row.beat_at()
            if beat_at is not None and not worker.was_stuck:
                yield beat_at + self._limit_s

    def end_stuck(self, workers: Iterable[Child]) -> None:
        """Ends those who are missed, with the stacks of their threads on stderr."""
        now = time.monotonic()
        for worker in workers:
            if any(at <= now for at in self.due((worker,))):
                worker.was_stuck = True
                complain(
                    f"anel: worker {worker.pid} has not come round for {self._limit_s:g} s and is"
                    " replaced; the stacks of its threads follow"
                )
                # faulthandler writes them in the signal's handler, so before it dies, and without
                # the GIL, which the stuck thread may hold.
                worker.send_signal(signal.SIGABRT)
                worker.end_within(_DYING_S)
