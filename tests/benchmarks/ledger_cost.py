"""
What a receipt costs, in an empty ledger and in one with many older receipts.

One command: ``python -m tests.benchmarks.ledger_cost`` (local disk and S3; some minutes). Rounds alternate between the
two ledgers, the medians are compared. The promise is a ratio of at most 1.2.
"""

# ruff: noqa: T201 - printing is what it is for
from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="amili-ledger-cost-"))

from amili_provider.ledger import Ledger
from amili_provider.ledger.folders import Folder
from amili_provider.ledger.local_folder import LocalFolder
from amili_provider.ledger.remote_folders import ObjectStoreFolder
from tests.benchmarks.measuring import in_memory, server
from tests.ledger_cases import ACCEPTED, facts, file_id_of

REQUEST_FILES = 500
PROMISE = 1.2
Place = Callable[[str], Folder]


@contextmanager
def local(path: str | None) -> Iterator[tuple[Place, Callable[[str, str, bytes], None]]]:
    """Ledgers on the local disk, and a way to put receipts there in bulk."""
    root = Path(tempfile.mkdtemp(prefix="amili-ledger-cost-", dir=path))
    try:
        yield lambda name: LocalFolder(str(root / name), (root / name).as_uri()), _into(root)
    finally:
        shutil.rmtree(root)


@contextmanager
def s3(path: str | None) -> Iterator[tuple[Place, Callable[[str, str, bytes], None]]]:
    """Ledgers on an S3 server in a process of its own, and a way to put receipts there in bulk."""
    from s3fs import S3FileSystem

    with in_memory(path) as root, server("objects", str(root)) as port:
        bucket = root / "books"
        bucket.mkdir()
        where = {"endpoint_url": f"http://127.0.0.1:{port}", "client_kwargs": {"region_name": "us-east-1"}}
        fs = S3FileSystem(key="key", secret="secret", **where)
        yield lambda name: ObjectStoreFolder(fs, f"books/{name}", f"s3://books/{name}"), _into(bucket)


def _into(root: Path) -> Callable[[str, str, bytes], None]:
    """Return what puts a receipt of a ledger below *root*."""

    def put(ledger: str, name: str, data: bytes) -> None:
        target = root / ledger / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    return put


def opened(folder: Folder) -> Ledger:
    """Return a ledger over a folder."""
    folder.probe()
    return Ledger(folder, environment="staging", client_no="10042", answer_timeout=600.0)


def fill(ledger: Ledger, count: int, put: Callable[[str, bytes], None]) -> None:
    """Put *count* settled receipts into a ledger, past its own writing."""
    claim = ledger.claim(ledger.look_up(file_id_of(ledger, facts(b"pattern"))), facts(b"pattern"))
    pattern = ledger.settle(claim, ACCEPTED).to_json()
    base = ledger.receipt_url(claim.file_id, 1).removeprefix(ledger.folder.url).lstrip("/").split("/")[:2]
    for number in range(count):
        file_id = hashlib.sha256(f"old {number}".encode()).hexdigest()[:32]
        data = pattern.replace(claim.file_id.encode(), file_id.encode())
        put("/".join([*base, file_id[:2], f"{file_id}.1.json"]), data)


def seconds(ledger: Ledger, count: int) -> float:
    """Look up, claim and settle *count* files that nobody has seen before, as a delivery does."""
    run = uuid.uuid4().hex
    claims = [facts(f"{run} {number}".encode()) for number in range(count)]
    began = time.perf_counter()
    standings = ledger.look_up_all(file_id_of(ledger, claim) for claim in claims)
    wanted = list(zip(standings, claims, strict=True))
    for start in range(0, count, REQUEST_FILES):
        claimed = ledger.claim_all(wanted[start : start + REQUEST_FILES])
        ledger.settle_all([(claim, ACCEPTED) for claim in claimed])
    return time.perf_counter() - began


def compare(kind: str, receipts: int, older: int, rounds: int, path: str | None) -> float:
    """Print what a receipt costs in both ledgers, and return the ratio."""
    with {"local": local, "s3": s3}[kind](path) as (place, put):
        full = opened(place("full"))
        began = time.perf_counter()
        fill(full, older, lambda name, data: put("full", name, data))
        print(f"{kind}: {older} older receipts put there in {time.perf_counter() - began:.0f} s", flush=True)
        seconds(full, receipts // 10)
        empties, fulls = [], []
        for number in range(rounds):
            with opened(place(f"empty-{number}")) as empty:
                empties.append(seconds(empty, receipts))
            fulls.append(seconds(full, receipts))
            print(f"  round {number + 1}: {empties[-1]:.2f} s empty, {fulls[-1]:.2f} s full", flush=True)
        full.close()
    cost = [statistics.median(times) / receipts * 1000 for times in (empties, fulls)]
    ratio = cost[1] / cost[0]
    verdict = "kept" if ratio <= PROMISE else "BROKEN"
    print(f"{kind}: {cost[0]:.3f} ms a receipt at 0 older, {cost[1]:.3f} ms at {older}: ratio {ratio:.2f}, {verdict}")
    return ratio


def main() -> int:
    """Compare on the storages that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ledger_cost", description=__doc__)
    parser.add_argument("--storage", choices=("local", "s3", "all"), default="all")
    parser.add_argument("--receipts", type=int, default=10_000, help="per round (default: %(default)s)")
    parser.add_argument("--older", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--path", help="folder for the local ledgers (default: the temporary one)")
    asked = parser.parse_args()
    kinds = ("local", "s3") if asked.storage == "all" else (asked.storage,)
    ratios = [compare(kind, asked.receipts, asked.older, asked.rounds, asked.path) for kind in kinds]
    return 0 if max(ratios) <= PROMISE else 1


if __name__ == "__main__":
    raise SystemExit(main())
