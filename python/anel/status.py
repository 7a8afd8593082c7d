"""How a server does, as `anel ctl status` tells it to people.

Owns the words. The report itself is the board's (`Reading.described`), with the address.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400

# Counters that people want to see at a glance, where something is counted.
_COUNTERS = ("requests_total", "connections_open")


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """One for the server, and one for each place of a worker."""
    states = [process["state"] for worker in report["workers"] for process in worker["processes"]]
    wanted = report["workers_wanted"]
    yield (
        f"{report['address']}: {report['state']} for {_age(report['uptime_s'])} as process"
        f" {report['pid']}, {states.count('serving')} of {wanted}"
        f" {'worker' if wanted == 1 else 'workers'}"
    )
    for worker in report["workers"]:
        processes = [
            f"process {process['pid']} {process['state']} for {_age(process['age_s'])}"
            for process in worker["processes"]
        ]
        told = [", ".join(processes) or "no process"]
        told.append(f"{worker['starts']} started, {worker['deaths']} died")
        counters = worker.get("counters", {})
        told += [f"{counters[name]} {name}" for name in _COUNTERS if name in counters]
        yield f"  worker {worker['worker']}: {'; '.join(told)}"


def _age(seconds: float) -> str:
    if seconds < _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    if seconds < _DAY_S:
        return f"{seconds / _HOUR_S:.1f} h"
    return f"{seconds / _DAY_S:.1f} days"
