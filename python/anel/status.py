"""How a server does, as `anel ctl status` tells it.

Owns the words of the report, as JSON and for people. Knows nothing of where the board is, and who
asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from anel.board import Reading

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400

# Counters that people want to see at a glance, where there are any.
_COUNTERS = ("requests_total", "connections_open")


def status(reading: Reading, address: str) -> dict[str, Any]:
    """The report. Times are in seconds; counters are there where something is counted."""
    return {
        "pid": reading.pid,
        "state": reading.state.name.lower(),
        "age_s": round(reading.age_s, 3),
        "address": address,
        "workers_wanted": reading.workers_wanted,
        "slots": [
            {
                "slot": slot.number,
                "starts": slot.starts,
                "deaths": slot.deaths,
                "workers": [
                    {
                        "pid": process.pid,
                        "state": process.state.name.lower(),
                        "age_s": round(process.age_s, 3),
                    }
                    for process in slot.processes
                ],
                "counters": {name: slot.numbers[name] for name in _COUNTERS},
            }
            for slot in reading.slots
        ],
    }


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report for people."""
    slots = report["slots"]
    serving = sum(worker["state"] == "serving" for slot in slots for worker in slot["workers"])
    wanted = report["workers_wanted"]
    yield (
        f"{report['address']}: {report['state']} for {_age(report['age_s'])} as process"
        f" {report['pid']}, {serving} of {wanted} {'worker' if wanted == 1 else 'workers'}"
    )
    for slot in slots:
        workers = [
            f"process {worker['pid']} {worker['state']} for {_age(worker['age_s'])}"
            for worker in slot["workers"]
        ]
        told = [
            ", ".join(workers) or "no worker",
            f"{slot['starts']} started, {slot['deaths']} died",
        ]
        if any(slot["counters"].values()):
            told += [f"{count} {name}" for name, count in slot["counters"].items()]
        yield f"  slot {slot['slot']}: {'; '.join(told)}"


def _age(seconds: float) -> str:
    if seconds < _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    if seconds < _DAY_S:
        return f"{seconds / _HOUR_S:.1f} h"
    return f"{seconds / _DAY_S:.1f} days"
