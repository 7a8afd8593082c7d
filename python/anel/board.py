"""The board: what master and workers write down for whoever reads it, whatever they are about.

Owns a piece of memory that is made before the first fork and shared by all processes of a server:
what the master is about, a row per worker process, and per slot the totals of the workers that have
ended. A worker writes its own row (the core does, before every wait), the master everything else;
readers copy. So neither a handler that never returns nor a reader that stands still keeps anybody
waiting. When a worker ends, its totals join those of its slot, and no total ever goes back.
Knows nothing of HTTP, and nothing of what the numbers are for.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import mmap
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from anel import _core
from anel.concurrency import WORKERS_MAX

# Two workers of a slot live at a time while one replaces the other, and one more while a slot that
# was given up is taken again.
_ROWS = 3 * WORKERS_MAX

_BYTES = 8

# The master changes more than one number within microseconds. A reader that meets it stopped in the
# middle gives up.
_READ_S_MAX = 1.0

_NAMES, _HISTOGRAMS = _core.row_layout()

# How many numbers of a row are the core's.
COUNTED = len(_NAMES) + sum(len(bounds) + 2 for _, bounds in _HISTOGRAMS)


class Column(enum.IntEnum):
    """The other numbers of a row."""

    # The number of its slot and one: 0 is a free row.
    OWNER = COUNTED
    PID = enum.auto()
    STATE = enum.auto()
    # Of the clock that is `time.monotonic_ns()` in every process of the machine.
    STARTED_NS = enum.auto()
    # When its loop last came round; 0 without a heartbeat.
    BEAT_NS = enum.auto()
    # In the row of a slot's past alone: workers that were started, and that died unasked.
    STARTS = enum.auto()
    DEATHS = enum.auto()


_WIDTH = max(Column) + 1


class State(enum.IntEnum):
    """What a server or a worker is about. Of both, readiness is SERVING."""

    STARTING = 1
    SERVING = 2
    # It serves, and wants no new clients.
    DRAINING = 3
    STOPPING = 4


class _Head(enum.IntEnum):
    """The numbers of the master."""

    # Odd while the master changes what belongs together.
    VERSION = 0
    STATE = enum.auto()
    WANTED = enum.auto()
    PID = enum.auto()
    STARTED_NS = enum.auto()
    # As many rows and slots as were ever in use.
    ROWS = enum.auto()
    SLOTS = enum.auto()


# The number of rows that are on no board.
_UNSEEN = -1

# In the place of a descriptor, as mmap(2) has it.
_NO_FILE = -1

# A multiple of a cache line, so that what workers write is not in the master's.
_HEAD = 16
_PAST = _HEAD
_LIVE = _PAST + WORKERS_MAX * _WIDTH
_SIZE = _LIVE + _ROWS * _WIDTH

# What joins the past of a slot: everything but gauges.
_TOTALS = [
    *(at for at, name in enumerate(_NAMES) if name.endswith("_total")),
    *range(len(_NAMES), COUNTED),
]


@dataclasses.dataclass(frozen=True)
class Histogram:
    """How often a number was how large."""

    bounds: Sequence[int]
    # One more than bounds: the last has what is above them.
    buckets: Sequence[int]
    sum: int


@dataclasses.dataclass(frozen=True)
class Process:
    """A worker process that lives."""

    pid: int
    state: State
    # Seconds.
    age_s: float
    # For how long its worker has not come round to a wait; 0 when it waits.
    awake_s: float
    # Since its loop last came round; None without a heartbeat.
    beat_age_s: float | None


@dataclasses.dataclass(frozen=True)
class Slot:
    """A place of the server: its workers, and what all that it ever had have counted."""

    number: int
    starts: int
    deaths: int
    processes: Sequence[Process]
    # Totals of all its workers, and gauges of those that live; none where nobody counts.
    numbers: Mapping[str, int]
    histograms: Mapping[str, Histogram]

    def described(self) -> dict[str, Any]:
        """The same in what JSON has, without the histograms."""
        return {
            "worker": self.number,
            "starts": self.starts,
            "deaths": self.deaths,
            "processes": [
                {**dataclasses.asdict(process), "state": process.state.name.lower()}
                for process in self.processes
            ],
            "counters": dict(self.numbers),
        }


@dataclasses.dataclass(frozen=True)
class Reading:
    """The board at one moment."""

    state: State
    pid: int
    workers_wanted: int
    age_s: float
    slots: Sequence[Slot]

    def processes(self) -> Iterator[Process]:
        """The worker processes that live."""
        for slot in self.slots:
            yield from slot.processes

    def described(self) -> dict[str, Any]:
        """The same in what JSON has, for whoever shows it to people."""
        return {
            "state": self.state.name.lower(),
            "pid": self.pid,
            "uptime_s": self.age_s,
            "workers_wanted": self.workers_wanted,
            "workers": [slot.described() for slot in self.slots],
        }


class Row:
    """The place of one worker process."""

    def __init__(
        self, number: int, cells: memoryview, *, is_counted: bool, descriptor: int = _NO_FILE
    ) -> None:
        """Takes the numbers of the row; a row that is not counted has those of `Column` alone.

        `descriptor` is the board's file, if it has one.
        """
        self._descriptor = descriptor
        self.number = number
        self.cells = cells
        self.is_counted = is_counted

    @classmethod
    def unseen(cls) -> Row:
        """A row that is on no board, for who writes it all the same."""
        return cls(_UNSEEN, memoryview(bytearray(_WIDTH * _BYTES)).cast("Q"), is_counted=False)

    def hand_over(self) -> dict[str, int] | None:
        """What `taken_over` wants to know in the program that this process executes next.

        The descriptor stays open for it. None if the row does not survive that.
        """
        if self._descriptor == _NO_FILE:
            return None
        os.set_inheritable(self._descriptor, True)
        return {
            "number": self.number,
            "is_counted": self.is_counted,
            "descriptor": self._descriptor,
        }

    @classmethod
    def taken_over(cls, told: Mapping[str, int] | None) -> Row:
        """The row that this process had before; an unseen one for None."""
        if told is None:
            return cls.unseen()
        cells = _mapped(told["descriptor"])
        os.close(told["descriptor"])
        row = _row(cells, _LIVE, told["number"])
        return cls(told["number"], row, is_counted=bool(told["is_counted"]))

    @property
    def counted(self) -> memoryview | None:
        """The part that the core writes; None when it is to count for itself alone."""
        return self.cells[:COUNTED] if self.is_counted else None

    def note_pid(self, pid: int) -> None:
        """The process was started."""
        self.cells[Column.PID] = pid

    def note_state(self, state: State) -> None:
        """The process is about something else."""
        self.cells[Column.STATE] = state

    def note_beat(self) -> None:
        """Its loop has come round."""
        self.cells[Column.BEAT_NS] = time.monotonic_ns()

    def beat_at(self) -> float | None:
        """When its loop came round, in seconds of `time.monotonic()`; None: it does not say."""
        return self.cells[Column.BEAT_NS] / 1e9 or None


class Board:
    """The memory. To be made before the first fork; then the master alone calls what writes."""

    def __init__(self, *, is_counted: bool = True, survives_exec: bool = False) -> None:
        """Without `is_counted` workers have rows, but publish no counters there.

        With `survives_exec` they still have them after they have executed another program.
        """
        self._descriptor = _NO_FILE
        if survives_exec:
            self._descriptor = os.memfd_create("anel-board")
            os.ftruncate(self._descriptor, _SIZE * _BYTES)
        self._cells = _mapped(self._descriptor)
        self._is_counted = is_counted
        # The master's own; the first ones first, so that readers have little to look at.
        self._free = list(reversed(range(_ROWS)))
        self._cells[_Head.STATE] = State.STARTING
        self._cells[_Head.STARTED_NS] = time.monotonic_ns()

    # What the master writes.

    def note_master(self, pid: int) -> None:
        """The process that answers for the server."""
        self._cells[_Head.PID] = pid

    def note_state(self, state: State) -> None:
        """What the server is about."""
        self._cells[_Head.STATE] = state

    def note_wanted(self, workers: int) -> None:
        """How many workers there should be."""
        self._cells[_Head.WANTED] = workers

    def enter(self, slot: int) -> Row:
        """A row for a worker that is about to be started; an unseen one when none is free."""
        if not self._free:
            return Row.unseen()
        cells, number = self._cells, self._free.pop()
        row = _row(cells, _LIVE, number)
        cells[_Head.VERSION] += 1
        row[Column.STATE] = State.STARTING
        row[Column.STARTED_NS] = time.monotonic_ns()
        row[Column.OWNER] = slot + 1
        _row(cells, _PAST, slot)[Column.STARTS] += 1
        cells[_Head.ROWS] = max(cells[_Head.ROWS], number + 1)
        cells[_Head.SLOTS] = max(cells[_Head.SLOTS], slot + 1)
        cells[_Head.VERSION] += 1
        return Row(number, row, is_counted=self._is_counted, descriptor=self._descriptor)

    def leave(self, row: Row, *, died: bool) -> None:
        """Its worker has ended, or could not be started: its totals stay with its slot."""
        if row.number == _UNSEEN:
            return
        cells = row.cells
        past = _row(self._cells, _PAST, cells[Column.OWNER] - 1)
        self._cells[_Head.VERSION] += 1
        for at in _TOTALS:
            past[at] += cells[at]
        past[Column.DEATHS] += died
        cells.cast("B")[:] = bytes(cells.nbytes)
        self._cells[_Head.VERSION] += 1
        self._free.append(row.number)

    # What anybody reads.

    def read(self) -> Reading:
        """Everything, at one moment. Raises TimeoutError when the master was stopped midway."""
        until = time.monotonic() + _READ_S_MAX
        while (copied := self._copy()) is None:
            if time.monotonic() >= until:
                raise TimeoutError("the master stands still")
            time.sleep(0.0001)
        return _reading(*copied, is_counted=self._is_counted)

    def _copy(self) -> tuple[list[int], list[list[int]], list[list[int]]] | None:
        """Head, pasts and rows; None when the master was just changing them."""
        head = self._cells[:_HEAD].tolist()
        if head[_Head.VERSION] % 2:
            return None
        pasts = [_row(self._cells, _PAST, number).tolist() for number in range(head[_Head.SLOTS])]
        rows = [_row(self._cells, _LIVE, number).tolist() for number in range(head[_Head.ROWS])]
        return (head, pasts, rows) if self._cells[_Head.VERSION] == head[_Head.VERSION] else None


def _mapped(descriptor: int) -> memoryview:
    """The numbers of a file, or of nobody else's memory. Pages never written to take none."""
    return memoryview(mmap.mmap(descriptor, _SIZE * _BYTES)).cast("Q")


def _row(cells: memoryview, region: int, number: int) -> memoryview:
    begin = region + number * _WIDTH
    return cells[begin : begin + _WIDTH]


def _reading(
    head: list[int], pasts: list[list[int]], rows: list[list[int]], *, is_counted: bool
) -> Reading:
    now_ns = time.monotonic_ns()
    by_owner: dict[int, list[list[int]]] = {}
    for row in rows:
        by_owner.setdefault(row[Column.OWNER], []).append(row)
    slots = []
    for number, past in enumerate(pasts):
        living = by_owner.get(number + 1, [])
        # The past has no gauges, so they are of those that live.
        sums = [sum(column) for column in zip(past[:COUNTED], *living, strict=False)]
        slots.append(
            Slot(
                number,
                past[Column.STARTS],
                past[Column.DEATHS],
                [_process(row, now_ns) for row in living],
                dict(zip(_NAMES, sums, strict=False)) if is_counted else {},
                dict(_histograms(sums)) if is_counted else {},
            )
        )
    return Reading(
        State(head[_Head.STATE]),
        head[_Head.PID],
        head[_Head.WANTED],
        _seconds(now_ns, head[_Head.STARTED_NS]),
        slots,
    )


def _process(row: list[int], now_ns: int) -> Process:
    awake_since_ns = row[_NAMES.index("awake_since_ns")]
    return Process(
        row[Column.PID],
        State(row[Column.STATE]),
        _seconds(now_ns, row[Column.STARTED_NS]),
        _seconds(now_ns, awake_since_ns) if awake_since_ns else 0.0,
        _seconds(now_ns, row[Column.BEAT_NS]) if row[Column.BEAT_NS] else None,
    )


def _seconds(now_ns: int, since_ns: int) -> float:
    return max(0, now_ns - since_ns) / 1e9


def _histograms(numbers: list[int]) -> Iterator[tuple[str, Histogram]]:
    rest = itertools.islice(numbers, len(_NAMES), None)
    for name, bounds in _HISTOGRAMS:
        buckets = list(itertools.islice(rest, len(bounds) + 1))
        yield name, Histogram(bounds, buckets, next(rest))
