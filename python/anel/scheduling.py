"""How the kernel schedules a worker's thread.

Owns the change between two policies of sched(7). Knows nothing of what a heavy load is: the worker
says.

A thread that wakes up interrupts whoever has its processor. That is right for a worker with little
to do: its answer leaves at once. A worker with much to do is woken by the first of many requests,
interrupts the client or the proxy that is just writing the others, and finds one where it would
have found them all; every interruption is two switches between processes. Under `SCHED_BATCH` a
thread waits for its turn, which comes when a processor is free, or with the end of the others' time
slice. It gets no less of the processor. Threads and processes that a handler starts meanwhile
inherit the policy.
"""

from __future__ import annotations

import os

AUTO = "auto"
FIXED = "fixed"

NAMES = (AUTO, FIXED)


class Scheduling:
    """The policy of the thread that uses it: another one while its load is heavy."""

    def __init__(self) -> None:
        """Changes nothing."""
        self._is_changed = False

    def on_load(self, is_heavy: bool) -> None:
        """Has the thread wait for its turn while the load is heavy.

        A policy that somebody else has chosen stays. So does the kernel's own where a sandbox
        allows no change: that costs speed alone.
        """
        if is_heavy:
            self._is_changed = _change(os.SCHED_OTHER, os.SCHED_BATCH)
        else:
            self.restore()

    def restore(self) -> None:
        """Leaves the thread as it was found."""
        if self._is_changed:
            self._is_changed = False
            _change(os.SCHED_BATCH, os.SCHED_OTHER)


def _change(present: int, wanted: int) -> bool:
    """Gives this thread another policy, if it has the present one. Says whether it has."""
    try:
        if os.sched_getscheduler(0) != present:
            return False
        os.sched_setscheduler(0, wanted, os.sched_param(0))
    except OSError:
        return False
    return True
