"""
A small flame graph of a delivery, from the stacks that py-spy writes.

``py-spy record --gil --format raw --output stacks.txt -- python -m tests.suites.benchmarks.contestants ours JSON`` and
``python -m tests.suites.benchmarks.flame stacks.txt picture.svg``. A bar's width is its part of the processor time that
Python took for the delivery, in all threads; narrow ones are left out.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _NARROWEST = 1000, 15, 0.004
_ROOTS = ("AmiliFileUploadOperator.execute", "Pipeline._reader_job", "Pipeline._sender_job")
_COLOURS = {"delivery": "#8ecae6", "ledger": "#ffb703", "storage": "#90be6d", "api": "#f4a261", "": "#d9d9d9"}
Stack = tuple[str, ...]


def weights(folded: str) -> dict[Stack, int]:
    """Return the samples of each stack of frames, and of each of its beginnings, below the work of a delivery."""
    found: dict[Stack, int] = defaultdict(int)
    for line in folded.splitlines():
        written, _, samples = line.rpartition(" ")
        frames = [re.sub(r":\d+\)$", ")", frame) for frame in written.split(";")]
        start = next((i for i, frame in enumerate(frames) if frame.startswith(_ROOTS)), None)
        if start is not None:
            below = tuple(frames[start:])
            for end in range(len(below) + 1):
                found[below[:end]] += int(samples)
    return found


def drawn(found: dict[Stack, int]) -> str:
    """Return the picture: the callers above, what they call below."""
    left: dict[Stack, float] = {(): 0.0}
    total, bars, deepest = found[()], [], 0
    for stack in sorted(filter(None, found)):
        width, at = found[stack] / total, left[stack[:-1]]
        left[stack[:-1]], left[stack] = at + width, at
        if width < _NARROWEST:
            continue
        deepest = max(deepest, len(stack))
        name, _, file = stack[-1].rstrip(")").partition(" (")
        room = file.split("/")[1] if file.startswith("amili_provider/") else ""
        shown = name.rpartition(".<locals>.")[2][: int(width * _WIDTH / 6)]
        where = f'x="{at * _WIDTH:.1f}" y="{(len(stack) - 1) * _HEIGHT}"'
        bars.append(
            f'<svg {where} width="{width * _WIDTH:.1f}" height="{_HEIGHT}"><title>{escape(name)}, {escape(file)}: '
            f'{width:.1%}</title><rect width="100%" height="14" fill="{_COLOURS.get(room, _COLOURS[""])}"/>'
            f'<text x="2" y="11">{escape(shown)}</text></svg>'
        )
    size = f'width="{_WIDTH}" height="{deepest * _HEIGHT}"'
    style = 'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="10"'
    return f"<svg {style} {size}>\n" + "\n".join(bars) + "\n</svg>\n"


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(drawn(weights(Path(sys.argv[1]).read_text())))
