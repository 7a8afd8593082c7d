"""Makes a page of a record: `python benchmarks/report.py benchmarks/record/<date>-<set>.json`.

Writes the .html beside it (`--svg`: a picture): charts, tables, machine, versions, what was skipped and the exact commands, in one
file that needs no network. Rows are ordered by CPU time per request and none is left out; those without Python
and those that the client limited say so. Reads records of format 1 and 2.
"""

import argparse
import pathlib
import sys
from html import escape

import charts
import table
from records import Refused, read

PERCENTILES = {
    "p50_us": "p50",
    "p75_us": "p75",
    "p90_us": "p90",
    "p99_us": "p99",
    "p99_9_us": "p99.9",
    "p99_99_us": "p99.99",
    "max_us": "max",
}
SERIES_FIELDS = (
    ("requests_per_second", "requests per second", "more is better"),
    ("cpu_us", "CPU us per request", "less is better"),
    ("p99_us", "p99 in us, per batch", "less is better"),
)

PALETTE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --quiet: #59636e; --grid: #d9dee3;
  --user: #2a6f97; --system: #8fc1d9; --rate: #4d7c6a; --note: #8a4b00; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171a; --ink: #e8eaed; --quiet: #9aa4ae; --grid: #343a40;
    --user: #58a6d6; --system: #2f5d78; --rate: #6fb598; --note: #e0a458; } }
"""

STYLE = """
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; font: 1rem/1.5 system-ui, sans-serif;
  background: var(--paper); color: var(--ink); }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 3rem; } h3 { font-size: 1rem; }
nav ul { columns: 16rem; padding-left: 1.2rem; }
.charts { display: grid; gap: 2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
figure { margin: 0; } figcaption { font-weight: 600; margin-bottom: .5rem; }
svg { width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; } .scroll:focus-visible { outline: 2px solid var(--user); }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; margin: 1rem 0; }
caption { text-align: left; color: var(--quiet); padding-bottom: .3rem; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th[scope=row], td.words, th.words { text-align: left; }
.note { color: var(--note); } .quiet { color: var(--quiet); }
code, pre { font: .8125rem ui-monospace, monospace; } pre { overflow-x: auto; }
details { margin: 1rem 0; } summary { cursor: pointer; }
a { color: var(--user); }
.swatch { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 .8em; }
.swatch.user { background: var(--user); } .swatch.system { background: var(--system); }
"""

CPU_CAPTION = "CPU us per request (less is better)"
RATE_CAPTION = "Requests per second (more is better)"
PARTS = '<span class="swatch user"></span>user<span class="swatch system"></span>system'


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, help="default: the record's name with .html")
    parser.add_argument(
        "--svg", nargs="+", metavar="SCENARIO", help="instead: the bars of these, as one picture"
    )
    arguments = parser.parse_args()
    try:
        record = read(arguments.record)
        # An interrupted run has samples and no medians yet.
        table.summarise(record)
        if arguments.svg:
            text, suffix = picture(record, arguments.svg), ".svg"
        else:
            text, suffix = page(record, arguments.record.name), ".html"
    except Refused as problem:
        sys.exit(f"report.py: {problem}")
    path = arguments.out or arguments.record.with_suffix(suffix)
    path.write_text(text)
    sys.stdout.write(f"{path}\n")


def page(record, name):
    """The whole page."""
    scenarios = {key: row for key, row in record["scenarios"].items() if results_of(record, key)}
    single = [key for key, row in scenarios.items() if not row.get("series")]
    series = list(dict.fromkeys(row["series"] for row in scenarios.values() if row.get("series")))
    title = f"anel: benchmarks of {record['date'][:10]}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        introduction(record),
        contents([*single, *series, "skipped", "versions", "commands"]),
        *(section(record, key) for key in single),
        *(series_section(record, key) for key in series),
        skipped(record),
        versions(record),
        commands(record, name),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{PALETTE}{STYLE}{charts.STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def introduction(record):
    lines = "".join(f"<li>{escape(line)}</li>" for line in table.header(record).splitlines())
    whole = "" if record["complete"] else '<p class="note">The run was interrupted: not all rounds are here.</p>'
    return (
        f"{whole}<p>Servers are pinned to one processor and the client to another, on loopback; what is compared "
        "takes turns within each round. Figures are medians of the rounds, with least and greatest. CPU is the "
        "server's own, user and system, with all its processes: rank by it, because servers that both wait for "
        f"the client have the same rate at different prices.</p><ul>{lines}</ul>"
    )


def contents(names):
    links = "".join(f'<li><a href="#{escape(name)}">{escape(name)}</a></li>' for name in names)
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>'


def results_of(record, scenario):
    """The results of a scenario, cheapest first."""
    found = [
        row for row in record["results"].values() if row["scenario"] == scenario and row["samples"]
    ]
    return sorted(found, key=lambda row: table.median(row, "cpu_us"))


def section(record, name):
    """One scenario: rates, prices, latencies and the table."""
    rows = results_of(record, name)
    figures = [
        figure(RATE_CAPTION, rate_chart(record, name, rows)),
        figure(CPU_CAPTION, cpu_chart(record, name, rows), PARTS),
        figure("Latency of a batch in us, by percentile", latency_chart(record, name, rows)),
    ]
    return (
        f'<section><h2 id="{escape(name)}">{escape(name)}</h2>'
        f"<p>{escape(record['scenarios'][name]['about'])}</p>"
        f'<div class="charts">{"".join(figures)}</div>{scenario_table(record, name, rows)}</section>'
    )


def figure(caption, chart, legend=""):
    """A chart with its caption; nothing where there is nothing to draw. `legend` is markup."""
    if not chart:
        return ""
    return f"<figure><figcaption>{escape(caption)}{legend}</figcaption>{chart}</figure>"


def picture(record, names):
    """The bars of some scenarios as one SVG, for a README."""
    rows = []
    for name in names:
        found = results_of(record, name)
        if not found:
            raise Refused(f"the record has no results of {name}")
        rows.append(
            [
                (f"{name}: {CPU_CAPTION}; user, then system", cpu_chart(record, name, found)),
                (f"{name}: {RATE_CAPTION}", rate_chart(record, name, found)),
            ]
        )
    return charts.sheet(table.header(record).splitlines()[1], rows, PALETTE)


def label(record, row):
    """An engine's label, with what a reader has to know of the row."""
    return ", ".join([record["engines"][row["engine"]]["label"], *table.notes(record, row)])


def rate_chart(record, name, rows):
    found = []
    for row in sorted(rows, key=lambda row: -table.median(row, "requests_per_second")):
        spread = row["summary"]["requests_per_second"]
        found.append(bar(record, row, spread, [(spread["median"], "rate")]))
    return charts.bars(f"{name}-rate", f"{name}: requests per second", found)


def cpu_chart(record, name, rows):
    found = []
    for row in rows:
        parts = [
            (table.median(row, "cpu_user_us"), "user"),
            (table.median(row, "cpu_system_us"), "system"),
        ]
        found.append(bar(record, row, row["summary"]["cpu_us"], parts))
    return charts.bars(f"{name}-cpu", f"{name}: CPU us per request", found)


def bar(record, row, spread, parts):
    without = not record["engines"][row["engine"]]["calls_python"]
    value = charts.amount(spread["median"])
    return charts.Bar(label(record, row), parts, spread["min"], spread["max"], value, without)


def latency_chart(record, name, rows):
    """Percentile curves; of many engines those that have curves elsewhere, else the cheapest."""
    fields = [field for field in PERCENTILES if field != "max_us"]
    lines = [
        (row["engine"], charts.Curve(
            record["engines"][row["engine"]]["label"],
            [
                (number, table.median(row, field))
                for number, field in enumerate(fields)
                if table.median(row, field)
            ],
        ))
        for row in rows
    ]
    lines = [(engine, line) for engine, line in lines if len(line.points) > 2]
    if len(lines) > charts.CURVES_MAX:
        drawn = curve_engines(record) or [engine for engine, _ in lines]
        lines = [pair for pair in lines if pair[0] in drawn][: charts.CURVES_MAX]
    words = [PERCENTILES[field] for field in fields]
    title = f"{name}: latency by percentile"
    found = [line for _, line in lines]
    return charts.curves(f"{name}-latency", title, found, "percentile", "us", words)


def curve_engines(record):
    """The engines that take part in a sweep."""
    names = [name for name, row in record["scenarios"].items() if row.get("series")]
    return {row["engine"] for row in record["results"].values() if row["scenario"] in names}


def scenario_table(record, name, rows):
    heads = [
        ("engine", "words"), ("CPU us", ""), ("min-max", ""), ("user", ""), ("sys", ""),
        ("requests/s", ""), ("min-max", ""), *((word, "") for word in PERCENTILES.values()),
        ("RSS MB", ""), ("bytes/req", ""), ("calls/req", ""), ("client load", ""), ("steal", ""),
        ("runs", ""), ("", "words"),
    ]
    body = []
    for row in rows:
        cpu, rate = row["summary"]["cpu_us"], row["summary"]["requests_per_second"]
        cells = [
            three(cpu["median"]), f"{three(cpu['min'])}-{three(cpu['max'])}",
            three(table.median(row, "cpu_user_us")), three(table.median(row, "cpu_system_us")),
            f"{rate['median']:,.0f}", f"{rate['min']:,.0f}-{rate['max']:,.0f}",
            *(three(table.median(row, field)) for field in PERCENTILES),
            f"{table.median(row, 'rss_bytes') / 1e6:.1f}",
            three(table.median(row, "bytes_per_request")),
            three(row.get("syscalls", {}).get("all")),
            f"{table.median(row, 'client_load'):.0%}", f"{table.median(row, 'steal'):.1%}",
            str(len(row["samples"])),
        ]
        body.append((record["engines"][row["engine"]]["label"], cells, table.notes(record, row)))
    return html_table(f"{name}: all numbers; latencies in us, of a batch", heads, body)


def html_table(caption, heads, body):
    """A table that scrolls by itself; rows are (label, cells, notes)."""
    head = "".join(
        f'<th scope="col"{f" class={kind}" if kind else ""}>{escape(word)}</th>' for word, kind in heads
    )
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + f'<td class="words note">{escape(", ".join(notes))}</td></tr>'
        for name, cells, notes in body
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def series_section(record, series):
    """A sweep: a chart and a table for each field, engines as curves."""
    rows = [
        (record["scenarios"][row["scenario"]], row)
        for row in record["results"].values()
        if record["scenarios"][row["scenario"]].get("series") == series and row["samples"]
    ]
    scenario = rows[0][0]
    axis = scenario["axis"]
    values = sorted({point[axis] for point, _ in rows})
    engines = list(dict.fromkeys(row["engine"] for _, row in rows))
    figures, tables = [], []
    for field, words, better in SERIES_FIELDS:
        found = {
            (row["engine"], point[axis]): table.median(row, field)
            for point, row in rows
            if table.median(row, field)
        }
        lines = [
            charts.Curve(
                record["engines"][engine]["label"],
                [(value, found[engine, value]) for value in values if (engine, value) in found],
            )
            for engine in engines
        ]
        chart = charts.curves(f"{series}-{field}", f"{series}: {words}", lines, axis, words)
        figures.append(figure(f"{words} ({better})", chart))
        body = [
            (
                record["engines"][engine]["label"],
                [three(found.get((engine, value))) for value in values],
                [] if record["engines"][engine]["calls_python"] else ["no Python"],
            )
            for engine in engines
        ]
        heads = [("engine", "words"), *((f"{value:,}", "") for value in values), ("", "words")]
        tables.append(html_table(f"{words}, by {axis}", heads, body))
    return (
        f'<section><h2 id="{escape(series)}">{escape(series)}</h2><p>{escape(scenario["about"])}</p>'
        f'<div class="charts">{"".join(figures)}</div>{"".join(tables)}</section>'
    )


def skipped(record):
    lines = "".join(f"<li>{escape(line)}</li>" for line in record["skipped"]) or "<li>nothing</li>"
    return (
        f'<section><h2 id="skipped">skipped</h2><p>What could not be had or measured, and why.</p>'
        f"<ul>{lines}</ul></section>"
    )


def versions(record):
    body = []
    for engine in record["engines"].values():
        found = engine.get("versions", {})
        words = ", ".join(
            f"{name} {number or '(unknown)'}" for name, number in found.items()
        )
        body.append((engine["label"], [], [words or "this commit"]))
    tools = ", ".join(
        number if isinstance(number, str) else " ".join(number)
        for number in record["tools"].values()
        if number
    )
    rows = html_table("versions", [("engine", "words"), ("versions", "words")], body)
    return f'<section><h2 id="versions">versions</h2><p>{escape(tools)}</p>{rows}</section>'


def commands(record, name):
    lines = []
    for key, row in record["results"].items():
        lines.append(f"{key}\n  {row['server_command']}\n  {row['client_command']}")
    return (
        '<section><h2 id="commands">commands</h2><p>In three commands, on Linux with two processors:</p>'
        "<pre>make bench-setup\nmake bench\n"
        f"python benchmarks/compare.py benchmarks/record/{escape(name)} benchmarks/record/(the new one).json</pre>"
        f"<details><summary>The exact command of every row</summary><pre>{escape(chr(10).join(lines))}</pre>"
        "</details></section>"
    )


def three(value):
    """Three digits, and no exponent; a dash where nothing was measured."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else charts.digits(value)


if __name__ == "__main__":
    main()
