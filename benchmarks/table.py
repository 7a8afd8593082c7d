"""From samples to medians, and from a record to a table for people.

Knows the fields of a record and nothing about how they were measured.
"""

import statistics

MEDIANS = (
    "requests_per_second",
    "cpu_us",
    "cpu_user_us",
    "cpu_system_us",
    "server_load",
    "client_load",
    "bytes_per_request",
    "p50_us",
    "p75_us",
    "p90_us",
    "p99_us",
    "p99_9_us",
    "p99_99_us",
    "max_us",
    "rss_bytes",
    "steal",
    "foreign",
)

# Above this share of its processor, the client is what was measured; CPU per request still holds.
CLIENT_LIMIT = 0.95

CONTROL = "control-io_uring"
JAPRONTO = "japronto"


def summarise(record):
    """Adds to every result its medians with their spread, and whether the client was the limit."""
    for result in record["results"].values():
        summary = {}
        for name in MEDIANS:
            values = [sample[name] for sample in result["samples"] if sample.get(name) is not None]
            if values:
                summary[name] = {
                    "median": statistics.median(values),
                    "min": min(values),
                    "max": max(values),
                }
        result["summary"] = summary
        result["client_is_the_limit"] = summary["client_load"]["median"] > CLIENT_LIMIT
        result["disturbed"] = sum(sample["disturbed"] for sample in result["samples"])


def median(result, name):
    """The median of a field; None where it was not measured."""
    return result["summary"].get(name, {}).get("median")


def render(record):
    """The whole record as text."""
    parts = [header(record)]
    for name, scenario in record["scenarios"].items():
        rows = [result for result in record["results"].values() if result["scenario"] == name]
        if rows:
            parts.append(f"{name}: {scenario['about']}\n{rows_as_text(record, rows)}")
    parts.append("\n".join(legend(record)))
    if record["skipped"]:
        parts.append("\n".join(f"skipped: {line}" for line in record["skipped"]))
    return "\n\n".join(parts)


def header(record):
    """What the numbers depend on, in a few lines."""
    about = record["machine"]
    source, tools = record["source"], record["tools"]
    lines = [
        f"{record['date']}  {record['runs']} runs of {record['seconds']:g} s",
        f"{about['cpu_model']}, {about['processors']} processors"
        f"{' (virtual)' if about['virtual'] else ''}, Linux {about['kernel']}, "
        f"governor {about['governor']}, {about['congestion_control']}",
        f"commit {(source['commit'] or 'none')[:12]}{'' if source['clean'] else ' with changes'}, "
        f"{tools['rustc']}, {tools['wrk'] or 'no wrk'}",
    ]
    for name, build in builds(record).items():
        flags = "PGO" if build["pgo"] else "no PGO"
        lto = "LTO" if build["lto"] else "no LTO"
        lines.append(f"{name}: CPython {build['version']} ({flags}, {lto}), {build['compiler']}")
    return "\n".join(lines)


def builds(record):
    """The Pythons of a record; one that several use is named once."""
    found = {}
    for role, name in (("python", "anel"), ("peers", "peers"), ("python37", "japronto")):
        build = record.get(role)
        if build:
            same = [other for other, known in found.items() if known == build]
            if same:
                found[f"{same[0]}, {name}"] = found.pop(same[0])
            else:
                found[name] = build
    return found


def rows_as_text(record, results):
    """One aligned table, cheapest engine first."""
    reference = {result["engine"]: median(result, "cpu_us") for result in results}
    rows = [
        (
            "engine",
            "CPU us",
            "min-max",
            "user",
            "sys",
            "requests/s",
            "min-max",
            "p50 us",
            "p99 us",
            "RSS MB",
            "calls/req",
            "x control",
            "x japronto",
            "",
        )
    ]
    for result in sorted(results, key=lambda result: median(result, "cpu_us")):
        rows.append(row(record, result, reference))
    return align(rows)


def row(record, result, reference):
    summary = result["summary"]
    cpu, rate = summary["cpu_us"], summary["requests_per_second"]
    calls = result.get("syscalls", {}).get("all")
    return (
        result["engine"],
        f"{cpu['median']:.3f}",
        f"{cpu['min']:.3f}-{cpu['max']:.3f}",
        f"{median(result, 'cpu_user_us'):.3f}",
        f"{median(result, 'cpu_system_us'):.3f}",
        f"{rate['median'] / 1e3:,.1f} k",
        f"{rate['min'] / 1e3:,.1f}-{rate['max'] / 1e3:,.1f}",
        number(median(result, "p50_us"), ".0f"),
        number(median(result, "p99_us"), ".0f"),
        f"{median(result, 'rss_bytes') / 1e6:.1f}",
        number(calls, ".4f"),
        ratio(cpu["median"], reference.get(CONTROL)),
        ratio(cpu["median"], reference.get(JAPRONTO)),
        ", ".join(notes(record, result)),
    )


def notes(record, result):
    """What a reader has to know of a row."""
    found = []
    if not record["engines"][result["engine"]]["calls_python"]:
        found.append("no Python")
    if result["client_is_the_limit"]:
        found.append("client is the limit")
    if result["disturbed"]:
        found.append(f"{result['disturbed']} disturbed")
    if len(result["samples"]) < record["runs"]:
        found.append(f"{len(result['samples'])} of {record['runs']} runs")
    return found


def legend(record):
    """What the columns mean, and the exact commands."""
    yield (
        "CPU us: server user + system time per request; min-max over runs. "
        "x control, x japronto: CPU us divided by theirs in this scenario."
    )
    yield (
        "p50, p99: one batch of requests, closed loop. "
        "calls/req: system calls, from a run of its own."
    )
    for name, result in record["results"].items():
        yield f"{name}: {result['server_command']}   {result['client_command']}"


def ratio(value, reference):
    return f"{value / reference:.2f}" if reference else "-"


def number(value, form):
    return "-" if value is None else format(value, form)


def align(rows):
    """Text columns: the first and the last to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    last = len(widths) - 1
    lines = []
    for cells in rows:
        padded = [
            cell.ljust(width) if column in (0, last) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)
