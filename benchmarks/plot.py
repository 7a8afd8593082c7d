"""Draws a record: `python benchmarks/plot.py benchmarks/record/<date>-<set>.json` writes the .svg
beside it.

Two bar charts per scenario, pipelined and plain where the record has them: CPU time per request,
user and system stacked, and requests per second. Rows that do not call Python say so and are drawn
paler. Written by hand, so that a chart needs no package.
"""

import argparse
import json
import pathlib
import sys
from xml.sax.saxutils import escape

import table

PREFERRED = ("pipelined", "plain")
USER, SYSTEM, RATE = "#2a6f97", "#a9d6e5", "#52796f"
PALE = 0.45
LABEL_WIDTH, CHART_WIDTH, GAP, MARGIN = 330, 330, 110, 20
ROW, BAR, TITLE, LINE = 24, 16, 54, 16
WIDTH = 2 * MARGIN + LABEL_WIDTH + 2 * CHART_WIDTH + 2 * GAP


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record", type=pathlib.Path)
    parser.add_argument("--scenarios", nargs="+", help="default: pipelined and plain")
    parser.add_argument("--out", type=pathlib.Path, help="default: the record's name with .svg")
    arguments = parser.parse_args()
    record = json.loads(arguments.record.read_text())
    path = arguments.out or arguments.record.with_suffix(".svg")
    path.write_text(draw(record, arguments.scenarios or preferred(record)))
    sys.stdout.write(f"{path.name}\n")


def preferred(record):
    """Pipelined and plain; in a record without them, whatever it has."""
    present = {result["scenario"] for result in record["results"].values()}
    return [name for name in PREFERRED if name in present] or sorted(present)


def draw(record, scenarios):
    """The whole picture as SVG text."""
    parts, top = [], MARGIN
    for name in scenarios:
        results = [result for result in record["results"].values() if result["scenario"] == name]
        if results:
            results.sort(key=lambda result: table.median(result, "cpu_us"))
            parts.extend(panel(record, name, results, top))
            top += TITLE + ROW * len(results) + ROW
    for line in footer(record):
        parts.append(text(MARGIN, top + LINE, line, size=11, colour="#555"))
        top += LINE
    height = top + MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def panel(record, name, results, top):
    """One scenario: its title and two charts side by side."""
    left = MARGIN + LABEL_WIDTH
    right = left + CHART_WIDTH + GAP
    about = record["scenarios"][name]["about"]
    yield text(MARGIN, top + 16, f"{name}: {about}", size=15, weight="bold")
    yield text(
        left, top + 42, "CPU us per request, dark: user, light: system (less is better)", size=12
    )
    yield text(right, top + 42, "requests per second (* the client is the limit)", size=12)
    cpu_max = max(result["summary"]["cpu_us"]["max"] for result in results)
    rate_max = max(result["summary"]["requests_per_second"]["max"] for result in results)
    for number, result in enumerate(results):
        y = top + TITLE + ROW * number
        about = record["engines"][result["engine"]]
        opacity = 1 if about["calls_python"] else PALE
        label = about["label"] + ("" if about["calls_python"] else " (no Python)")
        yield text(left - 8, y + 13, label, size=12, anchor="end")
        yield from cpu_bar(result, left, y, CHART_WIDTH / cpu_max, opacity)
        yield from rate_bar(result, right, y, CHART_WIDTH / rate_max, opacity)


def cpu_bar(result, x, y, scale, opacity):
    user = table.median(result, "cpu_user_us") * scale
    system = table.median(result, "cpu_system_us") * scale
    yield bar(x, y, user, USER, opacity)
    yield bar(x + user, y, system, SYSTEM, opacity)
    spread = result["summary"]["cpu_us"]
    yield whisker(x, y, spread, scale)
    end = x + max(user + system, spread["max"] * scale)
    yield text(end + 6, y + 13, f"{spread['median']:.3g}", size=12)


def rate_bar(result, x, y, scale, opacity):
    spread = result["summary"]["requests_per_second"]
    yield bar(x, y, spread["median"] * scale, RATE, opacity)
    yield whisker(x, y, spread, scale)
    limit = " *" if result["client_is_the_limit"] else ""
    yield text(x + spread["max"] * scale + 6, y + 13, f"{amount(spread['median'])}{limit}", size=12)


def footer(record):
    """What the bars depend on."""
    yield from table.header(record).splitlines()
    yield (
        "Bars are medians, lines are minimum to maximum. Pale rows do not call Python: "
        "a constant route is rendered once, a control has a Rust handler."
    )
    yield "Server on one processor, client on another, loopback; CPU is the server's own."


def amount(value):
    return f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value / 1e3:.0f} k"


def bar(x, y, width, colour, opacity):
    return (
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{colour}" '
        f'fill-opacity="{opacity}"/>'
    )


def whisker(x, y, spread, scale):
    middle = y + BAR / 2
    return (
        f'<line x1="{x + spread["min"] * scale:.1f}" x2="{x + spread["max"] * scale:.1f}" '
        f'y1="{middle}" y2="{middle}" stroke="#222" stroke-width="1.5"/>'
    )


def text(x, y, words, size, colour="#111", weight="normal", anchor="start"):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )


if __name__ == "__main__":
    main()
