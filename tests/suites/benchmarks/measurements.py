"""The measurements, a to h: each sets up its data, lets contestants run in turn, and returns lines of the result."""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.ledgers import new_ledger
from tests.suites.benchmarks.day import realistic_day
from tests.suites.benchmarks.measuring import (
    Contestant,
    Row,
    Scale,
    above_nothing,
    contestant,
    curl,
    database,
    in_memory,
    in_turn,
    make_body,
    make_file,
    make_files,
    note,
    ratio,
    server,
    shown,
)
from tests.suites.benchmarks.others import import_cost, ledger_cost, waiting

KIB, MIB, GIB = 1024, 1024**2, 1024**3
LINE = ("--latency", "0.01", "--rate", str(100 * 10**6))
"""An object storage as it is met in a data centre: 10 ms to the first byte, 100 MB/s on one connection."""


def _ours(scale: Scale, **asked: Any) -> Contestant:
    """
    Return our contestant, with a new ledger for each run where there is one.

    A ledger on disk stays until all is measured: ext4 does not use a deleted file's inode again for some minutes, and
    passes over each whenever a file is made, so that one run would pay for the clearing up of another.
    """
    kept, tables = asked.pop("ledger", None), itertools.count()

    def run() -> dict[str, Any]:
        if kept == "local":
            folder = Path(tempfile.mkdtemp(prefix="ledger-", dir=scale.folder))
            return contestant("ours", ledger=new_ledger(folder), **asked)()
        if kept == "s3":
            bucket = scale.folder / "s3" / "books"
            bucket.unlink(missing_ok=True)
            with in_memory(scale.folder) as memory:
                bucket.symlink_to(memory)
                return contestant("ours", ledger="s3://books/amili", ledger_conn_id="s3_here", **asked)()
        if kept == "postgres":
            return contestant("ours", ledger=f"books_{next(tables)}", **asked)()
        return contestant("ours", ledger=None, **asked)()

    return run


def _amount(size: int) -> str:
    return f"{size // GIB} GiB" if size >= GIB else f"{size // MIB} MiB"


def large_local(scale: Scale) -> list[Row]:
    """One large local file: against curl with a ready-made body, and against the obvious code."""
    part = f"a: a local file of {_amount(scale.large)}"
    file = make_file(scale.folder / "large.csv", scale.large)
    body = make_body(scale.folder / "large.json", file)
    with server("sink") as sink:
        figures = in_turn(
            {
                "ours": _ours(scale, sink=sink, source=str(file), ledger="local"),
                "curl": curl(body, sink),
                "hash and send": contestant("hash_and_send", sink=sink, source=str(file), body=str(body)),
                "obvious": contestant("obvious", sink=sink, source=str(file)),
            },
            scale.rounds,
        )
    body.unlink()
    detail = {"bytes": scale.large, **shown(figures)}
    peak = max(run["peak_above_idle"] for run in figures["ours"]) / MIB
    return [
        Row(part, "time of curl with a ready-made body", ratio(figures, "ours", "curl"), promise=1.45, detail=detail),
        Row(part, "time of curl, while the file is hashed beside it", ratio(figures, "ours", "hash and send")),
        Row(part, "faster than the obvious code", ratio(figures, "obvious", "ours"), promise=20.0, at_least=True),
        Row(part, "peak memory above idle", peak, unit="MiB", promise=8.0),
    ]


def large_s3(scale: Scale) -> list[Row]:
    """One large object: against pulling it only, on a line like a data centre's, and on an endless one."""
    part = f"b: an S3 object of {_amount(scale.large)}"
    objects = scale.folder / "s3"
    (objects / "day").mkdir(parents=True, exist_ok=True)
    body = make_body(scale.folder / "large.json", make_file(objects / "day" / "large.csv", scale.large))
    make_files(objects / "warm", 1, KIB)
    rows = []
    for words, line, promise in (
        ("100 MB/s and 10 ms per connection", LINE, 1.25),
        ("no bound but the processors", (), 1.15),
    ):
        with server("sink") as sink, server("objects", str(objects), *line) as storage:
            asked = {
                "storage": storage,
                "sink": sink,
                "source": "s3://day/large.csv",
                "warm_up": "s3://warm/*",
                "single": True,
            }
            figures = in_turn(
                {
                    "ours": _ours(scale, **asked, ledger="s3"),
                    "pull": contestant("pull", **asked),
                    "hash and send": contestant("hash_and_send", **asked, body=str(body)),
                    "download": contestant("download", **asked),
                },
                scale.rounds,
            )
        detail = {"bytes": scale.large, **shown(figures)}
        rows += [
            Row(
                part, f"time of pulling alone, {words}", ratio(figures, "ours", "pull"), promise=promise, detail=detail
            ),
            Row(
                part,
                f"time of pulling and hashing it, while curl sends, {words}",
                ratio(figures, "ours", "hash and send"),
            ),
            Row(part, f"time of pulling it to disk, {words}", ratio(figures, "ours", "download")),
        ]
    body.unlink()
    return rows


def small_files(scale: Scale) -> list[Row]:
    """Many small files from disk: against a loop of one request a file, and with a ledger against none."""
    part = f"c: {scale.files:,} files of 10 KiB"
    options = {"max_files": scale.files}
    rows = []
    for words, latency, files, promises in (
        ("answers at once", "0", scale.files, (6.0, 5.0)),
        (f"answers after 10 ms ({scale.files // 5:,} files)", "0.01", scale.files // 5, (100.0, 80.0)),
    ):
        some = make_files(scale.folder / "local" / str(files), files, 10 * KIB)
        with server("sink", latency) as sink, database() as postgres:
            asked: dict[str, Any] = {"sink": sink, "source": f"{some}/*", "options": options}
            local = in_turn(
                {
                    "ours": _ours(scale, **asked),
                    "ours with SQLite": _ours(scale, **asked, ledger="local"),
                    "ours with PostgreSQL": _ours(scale, **asked, ledger="postgres", database=postgres),
                    "loop": contestant("loop", sink=sink, source=str(some)),
                },
                scale.rounds,
            )
        detail = {"files": files, "bytes_each": 10 * KIB, **shown(local)}
        rows += [
            Row(
                part,
                f"local, {words}: faster than a loop, {books}",
                ratio(local, "loop", who),
                promise=promise,
                at_least=True,
                detail=more,
            )
            for books, who, promise, more in (
                ("no ledger", "ours", promises[0], detail),
                ("a ledger in SQLite", "ours with SQLite", promises[1], {}),
                ("a ledger in PostgreSQL", "ours with PostgreSQL", None, {}),
            )
        ]
        rows += [
            Row(part, f"local, {words}: time with a ledger in {where}, by that without",
                ratio(local, f"ours with {where}", "ours"), promise=promise)
            for where, promise in (("SQLite", 1.6), ("PostgreSQL", None))
        ]  # fmt: skip
    return rows


def small_objects(scale: Scale) -> list[Row]:
    """Many small objects from S3: against pulling only, and against a loop of one request a file."""
    part = f"c-s3: {scale.files:,} objects of 10 KiB"
    objects = scale.folder / "s3"
    make_files(objects / f"many{scale.files}", scale.files, 10 * KIB)
    make_files(objects / "warm", 1, KIB)
    options = {"max_files": scale.files}
    with server("sink") as sink, server("objects", str(objects), "--latency", "0.01") as storage:
        asked: dict[str, Any] = {
            "storage": storage,
            "sink": sink,
            "source": f"s3://many{scale.files}/*",
            "warm_up": "s3://warm/*",
            "single": False,
            "options": options,
        }
        remote = in_turn(
            {
                "ours": _ours(scale, **asked),
                "ours with ledger": _ours(scale, **asked, ledger="local"),
                "pull": contestant("pull", **asked),
            },
            scale.rounds,
        )
        # It takes minutes, and nothing is promised about it.
        loop = in_turn({"loop": contestant("loop", **asked)}, 1)["loop"] * scale.rounds
    detail = {"files": scale.files, "bytes_each": 10 * KIB, **shown({**remote, "loop": loop[:1]})}
    return [
        *(
            Row(part, f"time of pulling alone, {words}", ratio(remote, who, "pull"), promise=0.8, detail=more)
            for words, who, more in (("no ledger", "ours", detail), ("a ledger in SQLite", "ours with ledger", {}))
        ),
        Row(part, "faster than a loop, no ledger", ratio({**remote, "loop": loop}, "loop", "ours")),
    ]


def memory(scale: Scale) -> list[Row]:
    """Peak memory for files of all sizes: flat."""
    part = "d: memory by size"
    peaks: dict[int, float] = {}
    with server("sink") as sink:
        for size in scale.sizes:
            file = _sparse(scale, size)
            run = contestant("ours", sink=sink, source=str(file), ledger=None)()
            peaks[size] = run["peak_above_idle"] / MIB
            note(f"  {size // MIB} MiB: {peaks[size]:.1f} MiB")
            file.unlink()
    middle = min((size for size in scale.sizes if size >= 64 * MIB), default=scale.sizes[-1])
    detail = {"peak_mib_above_idle": {str(size): round(peak, 1) for size, peak in peaks.items()}}
    more = peaks[max(scale.sizes)] - peaks[middle]
    largest, words = max(scale.sizes) // MIB, f"MiB more than for {middle // MIB} MiB"
    above = "peak of the process, above one whose task does nothing"
    return [
        Row(part, f"a file of {largest} MiB: {words}", more, unit="MiB", promise=8.0, detail=detail),
        Row(part, f"a file of {largest} MiB: {above}", above_nothing([run]), unit="MiB"),
    ]


def _sparse(scale: Scale, size: int) -> Path:
    """Return a file of *size* bytes that takes no room on disk: all zeros but for its beginning."""
    file = scale.folder / f"sparse_{size}.csv"
    with file.open("wb") as out:
        out.write(size.to_bytes(8, "big"))
        out.truncate(size)
    return file


def doubling(scale: Scale) -> list[Row]:
    """Twice the files, twice the time; twice the bytes, twice the time."""
    rows = []
    with server("sink") as sink:
        for unit, steps in (("files", scale.numbers), ("bytes", scale.sizes)):
            runs: dict[str, Contestant] = {}
            for step in steps:
                if unit == "files":
                    folder = make_files(scale.folder / "s3" / f"many{step}", step, 10 * KIB)
                    run = _ours(scale, sink=sink, source=f"{folder}/*", options={"max_files": step})
                else:
                    run = _ours(scale, sink=sink, source=str(_sparse(scale, step)))
                # The first reading of a file that was just made measures how the machine finds memory to cache it.
                run()
                runs[str(step)] = run
            figures = in_turn(runs, scale.rounds)
            pairs = [(a, b) for a, b in itertools.pairwise(steps) if b <= 2 * a]
            worst = max(ratio(figures, str(b), str(a)) / (b / a) for a, b in pairs)
            ends = (f"{step:,}" if unit == "files" else _amount(step) for step in (pairs[0][0], pairs[-1][1]))
            part, what = f"h: doubling, {' to '.join(ends)}", f"worst growth of time for twice the {unit}, as part of 2"
            rows.append(Row(part, what, worst, promise=1.08, detail=shown(figures)))
    return rows


def sink_check(scale: Scale) -> list[Row]:
    """How fast the sink swallows what one core can push, beside curl: it must not be what is measured."""
    part = "sink"
    with server("sink") as sink:
        pushed = in_turn({"push": contestant("push", sink=sink, size=scale.large)}, scale.rounds)
    seconds = statistics.median(run["seconds"] for run in pushed["push"])
    return [Row(part, "swallows", scale.large * 4 / 3 / seconds / GIB, unit="GiB/s", detail=shown(pushed))]


MEASUREMENTS: dict[str, Callable[[Scale], list[Row]]] = {
    "sink": sink_check,
    "a": large_local,
    "b": large_s3,
    "c": small_files,
    "c-s3": small_objects,
    "day": realistic_day,
    "d": memory,
    "e": ledger_cost,
    "f": waiting,
    "g": import_cost,
    "h": doubling,
}
