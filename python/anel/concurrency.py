"""How many workers there are.

Owns what `auto` means: one per processor that this process may use, by its affinity and by the
quota of its control group. Knows nothing of workers.
"""

from __future__ import annotations

import os

from anel.exceptions import ConfigError

# More is a slip of the keyboard, or a port number.
WORKERS_MAX = 1024

_CGROUPS = "/sys/fs/cgroup"


def worker_count(wanted: str | int) -> int:
    """The number that is meant; raises ConfigError for what is neither a number nor "auto"."""
    if wanted == "auto":
        return max(1, min(len(os.sched_getaffinity(0)), _quota()))
    is_number = isinstance(wanted, int) and not isinstance(wanted, bool)
    number = int(wanted) if is_number or str(wanted).isdecimal() else 0
    if not 1 <= number <= WORKERS_MAX:
        raise ConfigError(
            f'worker_num must be "auto" or a number from 1 to {WORKERS_MAX}, not {wanted!r}'
        )
    return number


def _quota() -> int:
    """Processors that the control group grants (cgroup v2, cpu.max), rounded up."""
    least = WORKERS_MAX
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            names = [line[3:].strip() for line in file if line.startswith("0::")]
    except OSError:
        return least
    # In a container the group is the root of what can be seen; elsewhere every group counts.
    folder = os.path.normpath(_CGROUPS + (names[0] if names else "/"))
    while folder.startswith(_CGROUPS):
        least = min(least, _granted(os.path.join(folder, "cpu.max")))
        folder = os.path.dirname(folder)
    return least


def _granted(path: str) -> int:
    try:
        with open(path, encoding="ascii") as file:
            quota, period = file.read().split()
    except (OSError, ValueError):
        return WORKERS_MAX
    return -(-int(quota) // int(period)) if quota != "max" else WORKERS_MAX
