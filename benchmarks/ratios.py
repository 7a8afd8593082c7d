"""What a server asked the kernel for, per request and per enter.

Takes a result of a record: `counters` of its samples, which the server wrote at its end, and `syscalls`, which strace
counted in a run of its own. Knows nothing of how they were measured.
"""

import statistics
from dataclasses import dataclass

# What a runtime waits with, as strace names it.
WAITS = ("io_uring_enter", "epoll_wait", "epoll_pwait")


@dataclass(frozen=True)
class Ratios:
    """Medians over samples; None where nobody knows."""

    calls_per_request: float | None
    submissions_per_enter: float | None
    completions_per_enter: float | None
    requests_per_send: float | None
    batch_max: int | None
    # Whether the first three are strace's, because somebody else made the calls.
    traced: bool


def of_result(result):
    """The ratios of one engine in one scenario."""
    counted = [sample["counters"] for sample in result["samples"] if sample.get("counters")]
    calls = quotient(counted, "calls", "requests")
    submissions = quotient(counted, "submissions", "enters")
    completions = quotient(counted, "completions", "enters")
    syscalls = result.get("syscalls")
    traced = calls is None and syscalls is not None
    if traced:
        calls = syscalls["all"]
        # A runtime that drives its ring through epoll waits with one and submits with the other.
        enters = next((syscalls[name] for name in WAITS if syscalls.get(name)), None)
        submissions = per_enter(quotient(counted, "submissions", "requests"), enters)
        completions = per_enter(quotient(counted, "completions", "requests"), enters)
    return Ratios(
        calls_per_request=calls,
        submissions_per_enter=submissions,
        completions_per_enter=completions,
        requests_per_send=quotient(counted, "requests", "sends"),
        batch_max=max((one["batch_max"] for one in counted if one["batch_max"]), default=None),
        traced=traced,
    )


def quotient(counted, over, under):
    """The median of one counter divided by another."""
    values = [
        one[over] / one[under] for one in counted if one[over] is not None and one[under]
    ]
    return statistics.median(values) if values else None


def per_enter(per_request, enters_per_request):
    """Entries per enter; the batch that a server works on does not change their number per request."""
    if per_request is None or not enters_per_request:
        return None
    return per_request / enters_per_request
