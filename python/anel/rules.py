"""How the operator wants workers to be treated.

Owns the terms on which a worker works and leaves. Knows nothing of processes: master and workers
read here what they owe each other.
"""

from __future__ import annotations

import dataclasses
import random

from anel.affinity import Affinity

# How long open requests may take once the server was told to stop. Japronto's number.
GRACEFUL_S = 5.0

# A worker comes round so many times before it is missed: a machine under load delays one of them.
_BEATS = 4


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


@dataclasses.dataclass(frozen=True)
class Terms:
    """What one worker has to know of the rules."""

    # How long the requests that are open may take in a drain.
    graceful_s: float = GRACEFUL_S
    # After how many requests it wants to be replaced.
    requests_max: int | None = None
    # How often it says that it comes round; None never.
    beat_every_s: float | None = None


@dataclasses.dataclass(frozen=True)
class Rules:
    """Everything that a master knows of its workers' duties."""

    lifetime: Lifetime = dataclasses.field(default_factory=Lifetime)
    # How long the requests that are open may take in a drain.
    graceful_s: float = GRACEFUL_S
    # How long the server goes on after it was told to stop, so that whoever sends it clients hears.
    shutdown_delay_s: float = 0.0
    # After how long a worker that does not come round is replaced; None never.
    heartbeat_s: float | None = None
    affinity: Affinity = dataclasses.field(default_factory=Affinity)
    # Whether the application is being edited: nobody wants to see the last version for long, and
    # what cannot start may do so after the next save.
    is_edited: bool = False

    def draw(self) -> Terms:
        """Those of the next worker."""
        beat_every_s = None if self.heartbeat_s is None else self.heartbeat_s / _BEATS
        return Terms(self.graceful_s, self.lifetime.draw(), beat_every_s)
