"""Charts as SVG text: stacked bars and curves. No package, no network, no colours of their own.

A chart is 440 units wide, so that its words are readable on a phone; colours are classes, which the page's
style sheet gives a meaning in light and in dark. A chart says in words what it shows and that a table has the
numbers: it is never the only place of one. Knows nothing of records.
"""

import math
import re
from dataclasses import dataclass, field
from html import escape

WIDTH = 440
# Bars end here, so that the value fits behind the longest.
BAR_WIDTH = 330
ROW, BAR, LABEL = 36, 12, 14
PLOT_LEFT, PLOT_TOP, PLOT_WIDTH, PLOT_HEIGHT = 52, 12, 352, 230
# Beyond this a curve cannot be told from the next one by colour, dash and mark.
CURVES_MAX = 10

STYLE = """
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .quiet { fill: var(--quiet); }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .whisker { stroke: var(--ink); stroke-width: 1.5; }
svg .user { fill: var(--user); } svg .system { fill: var(--system); } svg .rate { fill: var(--rate); }
svg .pale { fill-opacity: .45; }
svg .curve { fill: none; stroke-width: 2; }
svg .curve0 { stroke: #2f6fb0; } svg .curve1 { stroke: #d1651a; } svg .curve2 { stroke: #2c8a57; }
svg .curve3 { stroke: #b3407a; } svg .curve4 { stroke: #7a68c8; } svg .curve5 { stroke: #a08306; }
svg .curve6 { stroke: #2a97a8; } svg .curve7 { stroke: #c24848; } svg .curve8 { stroke: #6d7f2a; }
svg .curve9 { stroke: #8a8a8a; }
"""
DASHES = ("", "6 3", "2 2", "8 3 2 3")


@dataclass(frozen=True)
class Bar:
    """A row of a bar chart: a label, the parts of its bar, and the range of repeated runs."""

    label: str
    parts: list
    low: float
    high: float
    value: str
    pale: bool = False


@dataclass(frozen=True)
class Curve:
    """A line of a chart: points as (x, y)."""

    label: str
    points: list = field(default_factory=list)


def bars(name, title, rows):
    """A bar chart; the parts of a `Bar` are (value, class). Less or more is better: the title says."""
    top = 8
    height = top + ROW * len(rows) + 4
    longest = max((max(row.high, sum(part for part, _ in row.parts)) for row in rows), default=0)
    scale = BAR_WIDTH / longest if longest else 0
    parts = []
    for number, row in enumerate(rows):
        y = top + ROW * number
        parts.append(_text(0, y + LABEL - 3, row.label, "quiet" if row.pale else ""))
        x = 0.0
        for value, kind in row.parts:
            classes = f"{kind} pale" if row.pale else kind
            parts.append(
                f'<rect class="{classes}" x="{x:.1f}" y="{y + LABEL}" width="{value * scale:.1f}" '
                f'height="{BAR}"/>'
            )
            x += value * scale
        middle = y + LABEL + BAR / 2
        parts.append(_line(row.low * scale, middle, row.high * scale, middle, "whisker"))
        end = max(x, row.high * scale) + 6
        parts.append(_text(end, y + LABEL + BAR - 1, row.value))
    return _document(name, title, height, parts)


def curves(name, title, lines, x_name, y_name, x_words=None):
    """A chart of curves, both axes logarithmic; with `x_words`, x is a number of these words."""
    points = [point for line in lines for point in line.points]
    if not points:
        return ""
    x_of = _places([x for x, _ in points], PLOT_WIDTH, x_words)
    y_of = _places([y for _, y in points], PLOT_HEIGHT)
    bottom = PLOT_TOP + PLOT_HEIGHT
    parts = []
    for value in _decades([y for _, y in points]):
        y = bottom - y_of(value)
        parts.append(_line(PLOT_LEFT, y, PLOT_LEFT + PLOT_WIDTH, y, "grid"))
        parts.append(_text(PLOT_LEFT - 6, y + 4, amount(value), "quiet", "end"))
    for x in sorted({x for x, _ in points}):
        word = x_words[x] if x_words else amount(x)
        parts.append(_text(PLOT_LEFT + x_of(x), bottom + 16, word, "quiet", "middle"))
    for number, line in enumerate(lines[:CURVES_MAX]):
        parts.append(_curve(number, line.points, x_of, y_of, bottom))
    parts.append(_text(PLOT_LEFT + PLOT_WIDTH / 2, bottom + 34, x_name, "", "middle"))
    parts.append(_text(0, PLOT_TOP - 1, y_name))
    top = bottom + 52
    for number, line in enumerate(lines[:CURVES_MAX]):
        y = top + 18 * number
        parts.append(
            f'<line class="curve curve{number}" stroke-dasharray="{_dash(number)}" '
            f'x1="{PLOT_LEFT}" y1="{y}" x2="{PLOT_LEFT + 36}" y2="{y}"/>'
        )
        parts.append(_text(PLOT_LEFT + 44, y + 4, line.label))
    return _document(name, title, top + 18 * min(len(lines), CURVES_MAX), parts)


def amount(value):
    """A number in three digits, as people write it: 1.25 M, 830 k, 0.42."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return digits(value / size) + letter
    return digits(value)


def digits(value):
    """Three digits, zeroes included: 1.00, 12.0, 830."""
    return f"{value:#.3g}".rstrip(".")


def _curve(number, points, x_of, y_of, bottom):
    places = [(PLOT_LEFT + x_of(x), bottom - y_of(y)) for x, y in sorted(points)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marks = "".join(
        f'<circle class="curve curve{number}" cx="{x:.1f}" cy="{y:.1f}" r="2"/>' for x, y in places
    )
    dash = f'stroke-dasharray="{_dash(number)}"'
    return f'<polyline class="curve curve{number}" {dash} points="{path}"/>{marks}'


def _dash(number):
    return DASHES[number % len(DASHES)]


def _places(values, length, words=None):
    """A function from a value to its place on an axis."""
    if words:
        return lambda value: length * value / max(1, len(words) - 1)
    low, high = math.log10(min(values)), math.log10(max(values))
    if words is None and len(set(values)) > 1:
        # Room above and below, so that no curve runs along the frame.
        return lambda value: length * (0.02 + 0.96 * (math.log10(value) - low) / (high - low))
    return lambda value: length / 2


def _decades(values):
    """Round numbers between the least and the greatest: 1, 2, 5, 10 and so on."""
    low, high = min(values), max(values)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [digit * 10.0**exponent for exponent in exponents for digit in (1, 2, 5)]
    inside = [value for value in found if low <= value <= high]
    # More than eight lines are a hatching: the powers of ten alone, then.
    return inside if len(inside) <= 8 else [v for v in inside if f"{v:e}".startswith("1")]


def sheet(title, rows, palette):
    """A picture of its own: rows of (caption, chart) side by side, with the colours in it."""
    parts, top, columns = [], 34, max(len(row) for row in rows)
    for row in rows:
        heights = []
        for number, (caption, chart) in enumerate(row):
            left = 16 + number * (WIDTH + 24)
            width, height = re.search(r'viewBox="0 0 (\d+) (\d+)"', chart).groups()
            parts.append(_text(left, top + 20, caption, "caption"))
            place = f'<svg x="{left}" y="{top + 30}" width="{width}" height="{height}"'
            parts.append(chart.replace("<svg", place, 1))
            heights.append(int(height))
        top += max(heights) + 50
    width = 16 + columns * (WIDTH + 24)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}">'
        f"<style>{palette}{STYLE} svg .caption {{ font-weight: 600; }}</style>"
        f'<rect width="{width}" height="{top}" style="fill: var(--paper)"/>'
        + _text(16, 24, title, "caption")
        + "\n".join(parts)
        + "</svg>\n"
    )


def _document(name, title, height, parts):
    described = f"{title}. The table below has the numbers."
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-labelledby="{name}-title {name}-about"><title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-about">{escape(described)}</desc>\n{body}\n</svg>'
    )


def _text(x, y, words, kind="", anchor="start"):
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
    )


def _line(x1, y1, x2, y2, kind):
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
