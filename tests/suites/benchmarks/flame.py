"""
Small flame graphs of deliveries: ``python -m tests.suites.benchmarks.flame [--out FOLDER] [NAME ...]``.

py-spy takes the stacks. A bar's width is its part of the time of a delivery, in all threads; narrow ones are left out,
and so is what is imported before the delivery. Of many local files it is the processor time of Python; of the others,
whose bytes and waiting pass Python by, the time that passes. Of objects py-spy cannot read every stack.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from tests.ledgers import new_ledger
from tests.suites.benchmarks.day import surroundings
from tests.suites.benchmarks.measurements import GIB, KIB
from tests.suites.benchmarks.measuring import ROOT, make_file, make_files, server

_WIDTH, _HEIGHT, _NARROWEST = 1000, 15, 0.004
_ROOTS = ("AmiliFileUploadOperator.execute", "Pipeline._reader_job", "Pipeline._sender_job", "ObjectFiles.read")
_COLOURS = {"delivery": "#8ecae6", "ledger": "#ffb703", "storage": "#90be6d", "api": "#f4a261", "": "#d9d9d9"}
_IMPORTED = "<frozen importlib"
Stack = tuple[str, ...]


def weights(folded: str) -> dict[Stack, int]:
    """Return the samples of each stack of frames, and of each of its beginnings, below the work of a delivery."""
    found: dict[Stack, int] = defaultdict(int)
    for line in folded.splitlines():
        written, _, samples = line.rpartition(" ")
        frames = [re.sub(r":\d+\)$", ")", frame) for frame in written.split(";")]
        start = next((i for i, frame in enumerate(frames) if frame.startswith(_ROOTS)), None)
        if start is not None and not any(_IMPORTED in frame for frame in frames):
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


def _large_file(folder: Path, _: ExitStack) -> dict[str, Any]:
    return {"source": str(make_file(folder / "large.csv", GIB)), "ledger": new_ledger(folder)}


def _small_files(folder: Path, _: ExitStack) -> dict[str, Any]:
    some = make_files(folder / "local", 10_000, 10 * KIB)
    return {"source": f"{some}/*", "options": {"max_files": 10_000}, "ledger": new_ledger(folder)}


def _objects(folder: Path, stack: ExitStack, *line: str) -> dict[str, Any]:
    make_files(folder / "s3" / "warm", 1, KIB)
    storage = stack.enter_context(server("objects", str(folder / "s3"), *line))
    return {"storage": storage, "warm_up": "s3://warm/*", "ledger": new_ledger(folder)}


def _large_object(folder: Path, stack: ExitStack) -> dict[str, Any]:
    (folder / "s3" / "day").mkdir(parents=True)
    make_file(folder / "s3" / "day" / "large.csv", GIB)
    return _objects(folder, stack) | {"source": "s3://day/large.csv", "single": True}


def _small_objects(folder: Path, stack: ExitStack) -> dict[str, Any]:
    make_files(folder / "s3" / "many", 10_000, 10 * KIB)
    return _objects(folder, stack, "--latency", "0.01") | {"source": "s3://many/*", "options": {"max_files": 10_000}}


def _day(folder: Path, stack: ExitStack) -> dict[str, Any]:
    return stack.enter_context(surroundings(folder / "s3", 2_000)) | {"ledger": "a_day"}


_PICTURES: dict[str, Callable[[Path, ExitStack], dict[str, Any]]] = {
    "large-file": _large_file,
    "large-object": _large_object,
    "small-files": _small_files,
    "small-objects": _small_objects,
    "day": _day,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.suites.benchmarks.flame", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(_PICTURES), help="of pictures (default: all)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="folder of the pictures")
    asked = parser.parse_args(arguments)
    for name in asked.names:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amili-flame-")))
            found = {"sink": stack.enter_context(server("sink"))} | _PICTURES[name](folder, stack)
            ours = [sys.executable, "-m", "tests.suites.benchmarks.contestants", "ours", json.dumps(found)]
            spy = ["py-spy", "record", *(["--gil"] if name == "small-files" else []), "--rate", "500"]
            stacks = folder / "stacks.txt"
            command = [*spy, "--format", "raw", "--output", str(stacks), "--", *ours]
            subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
            (asked.out / f"profile-{name}.svg").write_text(drawn(weights(stacks.read_text())))


if __name__ == "__main__":
    main()
