"""What the kernel accounts: CPU time and memory of a process tree, load of the processors.

Reads /proc and nothing else; knows neither servers nor clients. Two readings and their difference
make a measurement. Times are seconds.
"""

import contextlib
import os
import pathlib
from dataclasses import dataclass

PROC = pathlib.Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class CpuTime:
    """User and system time of some processes, threads included."""

    user: float = 0.0
    system: float = 0.0

    @property
    def total(self):
        return self.user + self.system

    def __sub__(self, earlier):
        return CpuTime(self.user - earlier.user, self.system - earlier.system)


@dataclass(frozen=True)
class Processors:
    """Time of some processors: doing anything, and stolen by the hypervisor."""

    busy: float
    stolen: float

    def __sub__(self, earlier):
        return Processors(self.busy - earlier.busy, self.stolen - earlier.stolen)


def tree(root):
    """The process `root` and its descendants, as a list of process ids."""
    parents = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                parents[int(entry.name)] = int(fields[1])
    found = [root]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


def cpu_time(pids):
    """CPU time of processes so far; one that is gone counts nothing.

    The total is the scheduler's (nanoseconds). It is divided by the ticks that hit user and system
    code, which are coarse: over three seconds the division is good to about two percent.
    """
    user = system = precise = 0.0
    for pid in pids:
        fields = _stat(pid)
        if fields:
            user += int(fields[11]) / TICKS_PER_SECOND
            system += int(fields[12]) / TICKS_PER_SECOND
            precise += _scheduled(pid)
    ticked = user + system
    if not precise or not ticked:
        return CpuTime(user, system)
    return CpuTime(precise * user / ticked, precise * system / ticked)


def resident_bytes(pids):
    """Resident memory of processes, shared pages counted in each."""
    total = 0
    for pid in pids:
        # A process that is gone has no memory.
        with contextlib.suppress(OSError):
            total += int((PROC / str(pid) / "statm").read_text().split()[1]) * PAGE_BYTES
    return total


def processors(numbers):
    """Busy and stolen time of these processors so far."""
    wanted = {f"cpu{number}" for number in numbers}
    busy = stolen = 0
    for line in (PROC / "stat").read_text().splitlines():
        name, *fields = line.split()
        if name in wanted:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            busy += user + nice + system + irq + softirq
            stolen += steal
    return Processors(busy / TICKS_PER_SECOND, stolen / TICKS_PER_SECOND)


def _stat(pid):
    """Fields of /proc/PID/stat after the name, which may itself hold blanks; None when gone."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _scheduled(pid):
    """Seconds that a process's threads have run; 0 where the kernel does not say."""
    total = 0
    try:
        for thread in (PROC / str(pid) / "task").iterdir():
            total += int((thread / "schedstat").read_text().split()[0])
    except (OSError, IndexError):
        return 0.0
    return total / 1e9
