"""Which processors the workers run on.

Owns how the operator says it, and which one a slot gets: its worker stays on that processor, with
everything that it starts. Knows nothing of workers.
"""

from __future__ import annotations

import dataclasses
import os
import re

from anel.exceptions import ConfigError, SetupError

OFF = "off"
AUTO = "auto"

_LIST = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")

# More is a slip of the keyboard; the kernel's own bound is 8192 processors (CONFIG_NR_CPUS).
_NUMBER_MAX = 8191


@dataclasses.dataclass(frozen=True)
class Affinity:
    """The processors in the order of slots; without any, workers run wherever the kernel likes."""

    processors: tuple[int, ...] = ()

    def pin(self, slot: int) -> None:
        """Keeps this thread, and those that it starts, on the processor of a slot."""
        if self.processors:
            os.sched_setaffinity(0, {self.processors[slot % len(self.processors)]})


def parse(text: str) -> tuple[int, ...] | None:
    """The numbers of a list like "0-3,6", none for "off", None for "auto". Raises ConfigError."""
    if text in (OFF, AUTO):
        return () if text == OFF else None
    if not isinstance(text, str) or not _LIST.fullmatch(text):
        raise ConfigError(f"must be off, auto or a list of processors such as 0-3,6, not {text!r}")
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        begin, end = int(first), int(last or first)
        if end > _NUMBER_MAX or begin > end:
            raise ConfigError(f"names no processors with {part!r}")
        numbers += range(begin, end + 1)
    return tuple(dict.fromkeys(numbers))


def affinity(text: str) -> Affinity:
    """What `text` means on this machine; auto is every processor that this process may use.

    Raises ConfigError for what is no list, SetupError for a processor that is not there for us.
    """
    usable = sorted(os.sched_getaffinity(0))
    wanted = parse(text)
    if wanted is None:
        return Affinity(tuple(usable))
    for number in wanted:
        if number not in usable:
            allowed = ", ".join(map(str, usable))
            raise SetupError(
                None, f"affinity names processor {number}, but this process may only use {allowed}"
            )
    return Affinity(wanted)
