"""A realistic day: objects, a network between, a database for the ledger; against what is written by hand."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.suites.benchmarks.measuring import (
    Row,
    Scale,
    above_nothing,
    contestant,
    database,
    in_turn,
    make_files,
    ratio,
    server,
    shown,
)

_FILE_BYTES = 50 * 1024
_STORAGE_SECONDS, _AMILI_SECONDS, _DATABASE_SECONDS = 0.02, 0.15, 0.001
_MIB = 1024 * 1024


@contextmanager
def far_away(port: int, seconds: float) -> Iterator[int]:
    """Relay a port of this machine; a question and its answer take *seconds* longer. Yields the relay's port."""

    def relay(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                time.sleep(seconds / 2)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, far = listener.accept()[0], socket.create_connection(("127.0.0.1", port))
                for one, other in ((near, far), (far, near)):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=relay, args=(one, other), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


@contextmanager
def surroundings(objects: Path, number: int) -> Iterator[dict[str, Any]]:
    """
    Make a day's objects, with what is around them while the block lasts; yields what a contestant asks of it.

    :param objects: the folder of the storage.
    :param number: of objects.
    """
    make_files(objects / f"day{number}", number, _FILE_BYTES)
    make_files(objects / "warm", 1, 1024)
    with (
        database() as near,
        far_away(near, _DATABASE_SECONDS) as far,
        server("sink", str(_AMILI_SECONDS)) as sink,
        server("objects", str(objects), "--latency", str(_STORAGE_SECONDS)) as storage,
    ):
        yield {
            "storage": storage,
            "sink": sink,
            "source": f"s3://day{number}/*",
            "warm_up": "s3://warm/*",
            "database": far,
        }


def realistic_day(scale: Scale) -> list[Row]:
    """2,000 objects of 50 KiB, 20 ms a request; Amili 150 ms, PostgreSQL 1 ms away; against a plain loop."""
    number = 200 if scale.quick else 2_000
    part = f"day: {number:,} objects of 50 KiB"
    with surroundings(scale.folder / "s3", number) as asked:
        tables = iter(range(1, 1_000))

        def ours() -> dict[str, float]:
            return contestant("ours", **asked, ledger=f"day_{next(tables)}")()

        figures = in_turn({"ours": ours}, scale.rounds)
        # It takes six minutes.
        figures["loop"] = in_turn({"loop": contestant("by_hand", **asked)}, 1)["loop"] * scale.rounds
    peaks = {who: max(run["peak_above_idle"] for run in runs) / _MIB for who, runs in figures.items()}
    detail = {**shown({**figures, "loop": figures["loop"][:1]}), "peak_mib": peaks}
    requests = figures["ours"][0]["requests"]
    return [
        Row(part, "faster than S3Hook, a loop and httpx.post", ratio(figures, "loop", "ours"), promise=20.0,
            at_least=True, detail=detail),
        Row(part, "processor time of that loop", ratio(figures, "ours", "loop", "cpu_seconds"), promise=0.5),
        Row(part, "peak memory above idle", peaks["ours"], unit="MiB"),
        Row(part, "peak of the process, above one whose task does nothing", above_nothing(figures["ours"]), unit="MiB"),
        Row(part, f"requests to Amili, where the loop makes {number:,}", requests, unit=""),
    ]  # fmt: skip
