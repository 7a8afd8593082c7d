"""What the board says, in the text format of Prometheus.

Owns the names, types and meanings of all metrics (METRICS.md lists them) and the format, version
0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/): one HELP and TYPE per family,
base units in the names, totals ending in `_total`. Also reads what the kernel knows of the workers.
Knows nothing of HTTP.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from anel import _core
from anel.board import Histogram, Process, Reading, Slot, State

# UTF-8 text, as every response that is not told otherwise.
MEDIA_TYPE = "text/plain; version=0.0.4"

Labels: TypeAlias = Mapping[str, str]
# Suffix of the name, labels, value.
Sample: TypeAlias = tuple[str, Labels, float]


@dataclasses.dataclass(frozen=True)
class Metric:
    """A family of samples."""

    name: str
    type: str
    help: str
    labels: tuple[str, ...]
    samples: Callable[[Reading], Iterable[Sample]] = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class _Usage:
    """What a process has used, as /proc says."""

    cpu_s: float
    virtual_bytes: int
    resident_bytes: int
    # Since the epoch.
    started_s: float


def render(reading: Reading) -> str:
    """All metrics."""
    return "".join(itertools.chain.from_iterable(map(_lines, METRICS, itertools.repeat(reading))))


def _lines(metric: Metric, reading: Reading) -> Iterator[str]:
    yield f"# HELP {metric.name} {_escape(metric.help)}\n"
    yield f"# TYPE {metric.name} {metric.type}\n"
    for suffix, labels, value in metric.samples(reading):
        named = ",".join(f'{name}="{_escape(text, quotes=True)}"' for name, text in labels.items())
        yield f"{metric.name}{suffix}{f'{{{named}}}' if named else ''} {value!r}\n"


def _escape(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text


# What numbers of the board become.


def _worker(slot: Slot) -> dict[str, str]:
    return {"worker": str(slot.number)}


def _number(
    name: str, help: str, *, of: str | None = None, type: str = "counter", scale: int = 1
) -> Metric:
    """A number of each slot, by the name that it has on the board."""
    source = name if of is None else of

    def samples(reading: Reading) -> Iterator[Sample]:
        for slot in reading.slots:
            number = slot.numbers[source]
            yield "", _worker(slot), number if scale == 1 else number / scale

    return Metric(f"anel_{name}", type, help, ("worker",), samples)


def _distribution(
    name: str,
    help: str,
    sources: Iterable[tuple[Labels, str]],
    *,
    scale: int = 1,
) -> Metric:
    """A histogram of each slot, or some that differ by a label."""
    sources = list(sources)

    def samples(reading: Reading) -> Iterator[Sample]:
        for slot in reading.slots:
            for labels, source in sources:
                yield from _buckets(slot.histograms[source], {**_worker(slot), **labels}, scale)

    labels = ("worker", *(label for label in sources[0][0]))
    return Metric(f"anel_{name}", "histogram", help, labels, samples)


def _buckets(histogram: Histogram, labels: Labels, scale: int) -> Iterator[Sample]:
    bounds = [repr(bound if scale == 1 else bound / scale) for bound in histogram.bounds]
    total = 0
    for bound, count in zip([*bounds, "+Inf"], histogram.buckets, strict=True):
        total += count
        yield "_bucket", {**labels, "le": bound}, total
    yield "_sum", labels, histogram.sum if scale == 1 else histogram.sum / scale
    yield "_count", labels, total


def _of_processes(
    name: str, type: str, help: str, look: Callable[[Process], float | None]
) -> Metric:
    """A number of each worker process that lives; who is gone, or not ours to look at, has none."""

    def samples(reading: Reading) -> Iterator[Sample]:
        for slot in reading.slots:
            for process in slot.processes:
                # A process that was not yet noted has the number 0.
                if process.pid and (number := look(process)) is not None:
                    yield "", {**_worker(slot), "pid": str(process.pid)}, number

    return Metric(name, type, help, ("worker", "pid"), samples)


def _responses(reading: Reading) -> Iterator[Sample]:
    for slot in reading.slots:
        for digit in "2345":
            labels = {**_worker(slot), "status": f"{digit}xx"}
            yield "", labels, slot.numbers[f"responses_{digit}xx_total"]


def _build(_reading: Reading) -> Iterator[Sample]:
    yield "", {"version": _core.__version__, "python": platform.python_version()}, 1


def _states(reading: Reading) -> Iterator[Sample]:
    for state in State:
        yield "", {"state": state.name.lower()}, int(reading.state is state)


def _workers(reading: Reading) -> Iterator[Sample]:
    found = [process.state for process in reading.processes()]
    for state in State:
        yield "", {"state": state.name.lower()}, found.count(state)


# What the kernel says of a process.

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def _usage(process: Process) -> _Usage | None:
    """Its line in /proc, whose numbers proc_pid_stat(5) lists; the name may have blanks in it."""
    try:
        with open(f"/proc/{process.pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        booted_s = _booted_s()
    except OSError:
        return None
    # The first field here is the third one there.
    user, system, started = (int(fields[at]) / _TICKS_PER_S for at in (11, 12, 19))
    return _Usage(user + system, int(fields[20]), int(fields[21]) * _PAGE_BYTES, booted_s + started)


@functools.cache
def _booted_s() -> int:
    """When the machine was started, since the epoch."""
    with open("/proc/stat", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("btime "))


def _used(look: Callable[[_Usage], float]) -> Callable[[Process], float | None]:
    def look_at(process: Process) -> float | None:
        usage = _usage(process)
        return None if usage is None else look(usage)

    return look_at


def _open_descriptors(process: Process) -> int | None:
    try:
        return len(os.listdir(f"/proc/{process.pid}/fd"))
    except OSError:
        # Gone; or it has changed its user since it was started, and is private (proc(5)).
        return None


def _most_descriptors(process: Process) -> int | None:
    try:
        with open(f"/proc/{process.pid}/limits", encoding="ascii") as file:
            soft = next(line for line in file if line.startswith("Max open files")).split()[3]
    except (OSError, StopIteration):
        return None
    return int(soft) if soft.isdecimal() else None


METRICS: tuple[Metric, ...] = (
    # The server.
    Metric("anel_build_info", "gauge", "What serves; always 1.", ("version", "python"), _build),
    Metric("anel_server_state", "gauge", "1 for what the server is about.", ("state",), _states),
    Metric(
        "anel_server_uptime_seconds",
        "gauge",
        "Time since the server was started.",
        (),
        lambda reading: [("", {}, reading.age_s)],
    ),
    Metric(
        "anel_workers_wanted",
        "gauge",
        "Workers that there should be.",
        (),
        lambda reading: [("", {}, reading.workers_wanted)],
    ),
    Metric("anel_workers", "gauge", "Worker processes by what they do.", ("state",), _workers),
    Metric(
        "anel_worker_starts_total",
        "counter",
        "Worker processes that were started in this slot.",
        ("worker",),
        lambda reading: [("", _worker(slot), slot.starts) for slot in reading.slots],
    ),
    Metric(
        "anel_worker_deaths_total",
        "counter",
        "Those that ended without being told to.",
        ("worker",),
        lambda reading: [("", _worker(slot), slot.deaths) for slot in reading.slots],
    ),
    # Requests.
    _number("requests_total", "Requests handed to a handler or answered by a constant route."),
    _number(
        "requests_in_progress",
        "Requests that are not answered at the end of a turn: a handler awaits, or a body streams.",
        type="gauge",
    ),
    Metric(
        "anel_responses_total",
        "counter",
        "Responses by the class of their status, those to refused requests included.",
        ("worker", "status"),
        _responses,
    ),
    _number(
        "requests_refused_total",
        "Requests that broke the protocol or a limit, and connections that did before any.",
        of="refusals_total",
    ),
    _distribution(
        "handler_seconds",
        "Time of handlers: that of the call, or until the answer if they suspended.",
        [
            ({"suspended": "no"}, "handler_call_ns"),
            ({"suspended": "yes"}, "handler_task_ns"),
        ],
        scale=10**9,
    ),
    _number("handlers_overdue_total", "Handlers that were cancelled because their time was up."),
    _number("streams_total", "Responses whose body was streamed."),
    _number("bodies_streamed_total", "Requests whose body was streamed."),
    _number("answers_dropped_total", "Answers for clients that were gone."),
    # Connections.
    _number("connections_open", "Connections that are open.", type="gauge"),
    _number("connections_accepted_total", "Connections that were accepted."),
    _number("connections_closed_total", "Connections that ended, for whatever reason."),
    _number("received_bytes_total", "Bytes received.", of="bytes_received_total"),
    _number("sent_bytes_total", "Bytes the kernel took for sending.", of="bytes_sent_total"),
    _number("deadlines_total", "Connections that a deadline has ended."),
    _number("pauses_total", "Times a connection was not read because it owed too much."),
    _number("shares_total", "Times a connection had its share of a turn, and others came first."),
    _number("accept_pauses_total", "Times accepting stopped for want of descriptors or memory."),
    _number("accept_errors_total", "Accepts that failed."),
    # The loop.
    _number("waits_total", "Turns: waits for the kernel."),
    _number("enters_total", "System calls that wait: io_uring_enter, or epoll_wait."),
    _number("system_calls_total", "All system calls of the reactor."),
    _number("submissions_total", "Operations submitted; with epoll, calls on sockets."),
    _number("completions_total", "Completions that came back."),
    _number("sends_total", "Sends submitted; one has all answers of a connection and turn."),
    _distribution(
        "wait_completions", "Completions that one wait brought.", [({}, "wait_completions")]
    ),
    _distribution(
        "gil_wait_seconds",
        "Time after a wait until the worker had the GIL again.",
        [({}, "gil_wait_ns")],
        scale=10**9,
    ),
    _of_processes(
        "anel_worker_awake_seconds",
        "gauge",
        "For how long a worker process has not come round to a wait; grows while it is stuck.",
        lambda process: process.awake_s,
    ),
    _of_processes(
        "anel_worker_beat_age_seconds",
        "gauge",
        "Time since its event loop last came round, with --timeout-heartbeat.",
        lambda process: process.beat_age_s,
    ),
    _number("access_log_lines_total", "Lines of the access log that were written."),
    _number("access_log_dropped_total", "Lines that were dropped, as nobody took them in time."),
    _number("starved_total", "Receives that found no free buffer."),
    _number("shortages_total", "Operations that the kernel had no memory for; they are repeated."),
    _number("stale_completions_total", "Completions for connections that had ended."),
    _number("overflows_total", "Times the completion queue was too small."),
    _number("flushes_total", "Times the submission queue was full before the wait."),
    _number("wakeups_total", "Waits that another thread ended."),
    # Processes, by the names that Prometheus's own client libraries use.
    _of_processes(
        "process_cpu_seconds_total",
        "counter",
        "Processor time that the worker process has used.",
        _used(lambda usage: usage.cpu_s),
    ),
    _of_processes(
        "process_resident_memory_bytes",
        "gauge",
        "Its resident memory.",
        _used(lambda usage: usage.resident_bytes),
    ),
    _of_processes(
        "process_virtual_memory_bytes",
        "gauge",
        "Its address space.",
        _used(lambda usage: usage.virtual_bytes),
    ),
    _of_processes(
        "process_start_time_seconds",
        "gauge",
        "When it was started, since the epoch.",
        _used(lambda usage: usage.started_s),
    ),
    _of_processes("process_open_fds", "gauge", "Descriptors it has open.", _open_descriptors),
    _of_processes("process_max_fds", "gauge", "As many as it may have.", _most_descriptors),
)
