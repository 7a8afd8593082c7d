"""Compares two records: `python benchmarks/compare.py before.json after.json`.

Prints, for every scenario and engine that both have, the ratio of the medians of CPU time per
request and of the rate, with the band that repeated runs allow: from the best of one to the worst
of the other. A change whose band holds 1 is noise. Records of different machines are compared with
a warning.
"""

import argparse
import json
import pathlib
import sys

import table

FIELDS = (("cpu_us", "CPU us"), ("requests_per_second", "requests/s"), ("p99_us", "p99 us"))
MUST_AGREE = ("cpu_model", "processors", "kernel", "governor", "mitigations")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=pathlib.Path)
    parser.add_argument("after", type=pathlib.Path)
    arguments = parser.parse_args()
    before, after = (json.loads(path.read_text()) for path in (arguments.before, arguments.after))
    lines = [*differences(before, after), comparison(before, after)]
    sys.stdout.write("\n".join(lines) + "\n")


def differences(before, after):
    """What makes two records hard to compare."""
    for name in MUST_AGREE:
        old, new = before["machine"].get(name), after["machine"].get(name)
        if old != new:
            yield f"warning: {name} differs: {old} / {new}"
    for name in ("seconds", "python", "tools"):
        if before[name] != after[name]:
            yield f"warning: {name} differs"


def comparison(before, after):
    rows = [
        (
            "scenario/engine",
            *(cell for _, title in FIELDS for cell in (title, "band")),
            "CPU verdict",
        )
    ]
    for name, old in before["results"].items():
        new = after["results"].get(name)
        if new is None:
            continue
        cells = []
        for field, _ in FIELDS:
            cells.extend(ratio_and_band(old["summary"].get(field), new["summary"].get(field)))
        rows.append((name, *cells, verdict(old["summary"]["cpu_us"], new["summary"]["cpu_us"])))
    return (
        table.align(rows) if len(rows) > 1 else "the records have no scenario and engine in common"
    )


def ratio_and_band(old, new):
    if not old or not new:
        return "-", "-"
    low, high = band(old, new)
    return f"{new['median'] / old['median']:.3f}", f"{low:.3f}-{high:.3f}"


def band(old, new):
    """The ratios that the runs allow."""
    return new["min"] / old["max"], new["max"] / old["min"]


def verdict(old, new):
    """Words for the ratio of CPU time: less is better."""
    low, high = band(old, new)
    if low <= 1 <= high:
        return "within noise"
    return "cheaper" if high < 1 else "dearer"


if __name__ == "__main__":
    main()
