"""A roll: every worker replaced by a new one, one slot after the other.

Owns which slots still have to be rolled, and whether it all begins again. Knows nothing of workers.
"""

from __future__ import annotations

from collections.abc import Iterable

from anel.slots import Slot


class Roll:
    """What is left of a roll, if there is one."""

    def __init__(self) -> None:
        """Nothing is to be rolled."""
        self._left: list[Slot] = []
        # Whether somebody asked for another one meanwhile, or before it could begin.
        self.is_wanted_again = False

    def __contains__(self, slot: Slot) -> bool:
        """Whether the slot's worker is still to be replaced."""
        return slot in self._left

    def __bool__(self) -> bool:
        """Whether there is one."""
        return bool(self._left)

    def begin(self, slots: Iterable[Slot]) -> None:
        """All of them, from now on."""
        self._left = list(slots)
        self.is_wanted_again = False

    def leave_out(self, slot: Slot) -> bool:
        """The slot has a new worker, or needs none. Returns whether it had to be rolled."""
        was_left = slot in self._left
        if was_left:
            self._left.remove(slot)
        return was_left

    def next(self) -> Slot | None:
        """The slot whose turn it is: one at a time, so that there is one worker more, not twice."""
        return self._left[0] if self._left else None

    def abandon(self) -> None:
        """Leaves the rest as it is."""
        self._left = []
        self.is_wanted_again = False
