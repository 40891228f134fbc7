"""The result as a table for people and as a plot: how near each figure is to its promise."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from tests.suites.benchmarks.measuring import Row

_LINE, _LEFT, _WIDTH, _RIGHT = 26, 430, 330, 230
_FULL = 2.0
"""The bars end at twice the promise."""


def _number(value: float, unit: str) -> str:
    digits = 0 if value >= 100 or unit in ("", "ms", "KiB") else 2 if unit == "x" else 1
    return f"{value:.{digits}f}{' ' if unit not in ('x', '') else ''}{unit}"


def _promise(row: Row) -> str:
    if row.promise is None:
        return ""
    return f"{'at least' if row.at_least else 'at most'} {_number(row.promise, row.unit)}"


def table(rows: Sequence[Row]) -> str:
    """Return a table in Markdown."""
    lines = ["| | Measured | Figure | Promise | Held |", "|---|---|---|---|---|"]
    for row in rows:
        held = {None: "", True: "yes", False: "**no**"}[row.held]
        lines.append(f"| {row.part} | {row.what} | {_number(row.value, row.unit)} | {_promise(row)} | {held} |")
    return "\n".join(lines)


def plot(rows: Sequence[Row]) -> str:
    """Return an SVG: a bar for each figure with a promise, a line where the promise is; shorter is better."""
    rows = [row for row in rows if row.promise is not None]
    height = _LINE * (len(rows) + 2)
    width = _LEFT + _WIDTH + _RIGHT
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif" font-size="13">'
        ),
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        '<text x="12" y="18" font-weight="bold">Each figure as part of its promise, the line; shorter is better</text>',
    ]
    for number, row in enumerate(rows, 1):
        assert row.promise is not None
        used = row.promise / row.value if row.at_least and row.value else row.value / row.promise
        length = max(1.0, min(used, _FULL) / _FULL * _WIDTH)
        top = _LINE * number
        colour = "#2f7d5b" if row.held else "#b5483a"
        figure = f"{_number(row.value, row.unit)} ({_promise(row)})"
        what = f"{row.part[:1]}: {row.what}"
        parts += [
            f'<text x="{_LEFT - 10}" y="{top + 17}" text-anchor="end">{escape(what[:66])}</text>',
            f'<rect x="{_LEFT}" y="{top + 5}" width="{length:.0f}" height="16" fill="{colour}"/>',
            f'<text x="{_LEFT + _WIDTH + 10}" y="{top + 17}">{escape(figure)}</text>',
        ]
    line = _LEFT + _WIDTH / _FULL
    ends = f'y1="{_LINE}" y2="{height - _LINE + 2}"'
    parts.append(f'<line x1="{line}" x2="{line}" {ends} stroke="#333333" stroke-dasharray="4 3"/>')
    return "\n".join([*parts, "</svg>\n"])
