"""
All measurements: ``python -m tests.suites.benchmarks [--quick] [--only a,b,c] [--out FOLDER]``.

Every figure is a ratio of two things measured side by side in the same run, in turn, each in a process of its own; what
is quoted is the median over the rounds. Writes ``benchmarks.json``, ``benchmarks.md`` and ``benchmarks.svg``. A full
run takes up to an hour, 8 GiB of disk and 8 GiB of memory (the obvious code takes six); ``--quick`` is a trial of some
minutes with less of everything, whose figures say little. With ``--only`` the other measurements that lie in FOLDER are
kept, so that a full run can be made in parts.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.suites.benchmarks.chart import plot, table
from tests.suites.benchmarks.measurements import GIB, MEASUREMENTS, MIB
from tests.suites.benchmarks.measuring import Row, Scale, note

_SIZES = tuple(64 * MIB * 2**n for n in range(8))
_NUMBERS = (1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 50_000, 100_000)


def scale_of(folder: Path, *, quick: bool, rounds: int | None) -> Scale:
    """Return how much is measured."""
    if quick:
        sizes, numbers = (MIB, 64 * MIB, 128 * MIB, 256 * MIB), (500, 1_000, 2_000)
        return Scale(folder, rounds or 3, 64 * MIB, 1_000, sizes, numbers, quick=True)
    return Scale(folder, rounds or 5, GIB, 10_000, (MIB, *_SIZES), _NUMBERS, quick=False)


def _kept(folder: Path, wanted: Sequence[str], *, quick: bool) -> list[Row]:
    """Return the rows of an earlier run of the same kind that are not measured anew."""
    try:
        earlier = json.loads((folder / "benchmarks.json").read_text())
    except FileNotFoundError:
        return []
    names = {field.name for field in dataclasses.fields(Row)}
    return [
        Row(**{name: value for name, value in row.items() if name in names})
        for row in earlier["rows"]
        if earlier["quick"] is quick and row["part"].partition(":")[0] not in wanted
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for; return 1 if a promise is not kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.suites.benchmarks")
    parser.add_argument("--quick", action="store_true", help="a trial: less of everything")
    parser.add_argument("--only", default=",".join(MEASUREMENTS), help="for example a,c (default: %(default)s)")
    parser.add_argument("--rounds", type=int, help="runs of each contestant (default: 5)")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the results (default: here)")
    parser.add_argument("--data", type=Path, help="folder for the test data (default: the temporary one)")
    asked = parser.parse_args(arguments)
    wanted = asked.only.split(",")
    if unknown := [one for one in wanted if one not in MEASUREMENTS]:
        parser.error(f"there is no measurement {', '.join(unknown)}; there are {', '.join(MEASUREMENTS)}")
    asked.out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="amili-benchmarks-", dir=asked.data)).resolve()
    kept = _kept(asked.out, wanted, quick=asked.quick)
    rows: list[Row] = []
    began = time.monotonic()
    try:
        for name in wanted:
            note(f"{name}: {MEASUREMENTS[name].__doc__}")
            rows += MEASUREMENTS[name](scale_of(folder, quick=asked.quick, rounds=asked.rounds))
    finally:
        rows = sorted([*kept, *rows], key=lambda row: list(MEASUREMENTS).index(row.part.partition(":")[0]))
        result = {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "load_average": os.getloadavg(),
            "quick": asked.quick,
            "seconds": round(time.monotonic() - began),
            "rows": [row.as_dict() for row in rows],
        }
        (asked.out / "benchmarks.json").write_text(json.dumps(result, indent=1) + "\n")
        (asked.out / "benchmarks.md").write_text(table(rows) + "\n")
        (asked.out / "benchmarks.svg").write_text(plot(rows))
        # Last: clearing up takes minutes, and may be interrupted.
        shutil.rmtree(folder, ignore_errors=True)
    print(table(rows))  # noqa: T201 - the result
    return 1 if any(row.held is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
