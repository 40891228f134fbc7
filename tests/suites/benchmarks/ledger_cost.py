"""
What an attempt costs, in an empty ledger and in one with many older attempts.

One command: ``python -m tests.suites.benchmarks.ledger_cost`` (SQLite, PostgreSQL and S3; some minutes). Rounds
alternate between the two ledgers, the medians are compared. The promise is a ratio of at most 1.2. PostgreSQL and
SQLite write to the disk as in earnest.
"""

# ruff: noqa: T201 - printing is what it is for
from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="amili-ledger-cost-"))

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from amili_provider.ledger import Ledger
from amili_provider.ledger.dialects import sqlite_engine
from amili_provider.ledger.objects import ObjectStore
from amili_provider.ledger.sql import SqlStore
from amili_provider.ledger.stores import LedgerStore
from tests.ledger_cases import ACCEPTED, an_attempt, facts, file_id_of
from tests.suites.benchmarks.measuring import database, in_memory, server

REQUEST_FILES = 500
PROMISE = 1.2
_TOGETHER = 5_000
Place = Callable[[str], LedgerStore]


@contextmanager
def sqlite(path: str | None) -> Iterator[Place]:
    """Ledgers in files of SQLite."""
    with tempfile.TemporaryDirectory(prefix="amili-ledger-cost-", dir=path) as folder:

        def place(name: str) -> LedgerStore:
            file = f"{folder}/{name}.db"
            return SqlStore(sqlite_engine(file, create=True), shown=file, path=file)

        yield place


@contextmanager
def postgres(path: str | None) -> Iterator[Place]:
    """Ledgers in tables of a PostgreSQL server."""
    with database(path) as port:
        url = f"postgresql+psycopg2://airflow@127.0.0.1:{port}/postgres"

        def place(name: str) -> LedgerStore:
            engine = sa.create_engine(url, poolclass=NullPool, future=True)
            return SqlStore(engine, shown=name, table=name.replace("-", "_"))

        yield place


@contextmanager
def s3(path: str | None) -> Iterator[Place]:
    """Ledgers on an S3 server in a process of its own."""
    import boto3

    from amili_provider.storage.backends.objects import ObjectFiles
    from amili_provider.storage.backends.s3 import S3Client

    with in_memory(path) as root, server("objects", str(root)) as port:
        (root / "books").mkdir()
        where = {"endpoint_url": f"http://127.0.0.1:{port}", "region_name": "us-east-1"}
        client = boto3.client("s3", aws_access_key_id="key", aws_secret_access_key="secret", **where)
        files = ObjectFiles(S3Client(client))
        yield lambda name: ObjectStore(files, f"books/{name}", f"s3://books/{name}")


STORES = {"sqlite": sqlite, "postgres": postgres, "s3": s3}


def opened(store: LedgerStore) -> Ledger:
    """Return a new ledger over a store."""
    store.create()
    store.open()
    return Ledger(store, environment="staging", client_no="10042", answer_timeout=600.0)


def fill(store: LedgerStore, count: int) -> None:
    """Put *count* settled attempts into a ledger."""
    for start in range(0, count, _TOGETHER):
        older = []
        for number in range(start, min(start + _TOGETHER, count)):
            file_id = hashlib.sha256(f"old {number}".encode()).hexdigest()[:32]
            attempt = an_attempt(file_id=file_id, name=f"older-{number}.csv", size=number)
            attempt.settle(ACCEPTED)
            attempt.stamp(1_790_000_000.0 + number, 0.0)
            older.append(attempt)
        store.restore(older)


def seconds(ledger: Ledger, count: int) -> float:
    """Look up, claim and settle *count* files that nobody has seen before, as a delivery does."""
    run = uuid.uuid4().hex
    wanted = [facts(f"{run} {number}".encode(), name=f"{run}-{number}.csv") for number in range(count)]
    ids = [file_id_of(ledger, claim) for claim in wanted]
    began = time.perf_counter()
    for start in range(0, count, REQUEST_FILES):
        some = slice(start, start + REQUEST_FILES)
        histories = ledger.look_up(ids[some])
        claims = ledger.claim([(histories[i], claim) for i, claim in zip(ids[some], wanted[some], strict=True)])
        ledger.settle([(claim, ACCEPTED) for claim in claims])
    return time.perf_counter() - began


def compare(kind: str, attempts: int, older: int, rounds: int, path: str | None) -> float:
    """Print what an attempt costs in both ledgers, and return the ratio."""
    with STORES[kind](path) as place:
        full = opened(place("full"))
        began = time.perf_counter()
        fill(full.store, older)
        if kind == "postgres":
            assert isinstance(full.store, SqlStore)
            with full.store.engine.begin() as connection:
                connection.exec_driver_sql("ANALYZE")  # as autovacuum does within a minute
        print(f"{kind}: {older} older attempts put there in {time.perf_counter() - began:.0f} s", flush=True)
        seconds(full, attempts // 10)
        empties, fulls = [], []
        for number in range(rounds):
            with opened(place(f"empty-{number}")) as empty:
                empties.append(seconds(empty, attempts))
            fulls.append(seconds(full, attempts))
            print(f"  round {number + 1}: {empties[-1]:.2f} s empty, {fulls[-1]:.2f} s full", flush=True)
        full.close()
    cost = [statistics.median(times) / attempts * 1000 for times in (empties, fulls)]
    ratio = cost[1] / cost[0]
    verdict = "kept" if ratio <= PROMISE else "BROKEN"
    print(f"{kind}: {cost[0]:.3f} ms an attempt at 0 older, {cost[1]:.3f} ms at {older}: ratio {ratio:.2f}, {verdict}")
    return ratio


def main() -> int:
    """Compare on the stores that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.suites.benchmarks.ledger_cost", description=__doc__)
    parser.add_argument("--store", choices=(*STORES, "all"), default="all")
    parser.add_argument("--attempts", type=int, default=10_000, help="per round (default: %(default)s)")
    parser.add_argument("--older", type=int, help="default: a million, in the bucket 100,000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--path", help="folder for databases (default: the temporary one)")
    asked = parser.parse_args()
    kinds = list(STORES) if asked.store == "all" else [asked.store]
    usual = {"sqlite": 1_000_000, "postgres": 1_000_000, "s3": 100_000}
    ratios = [compare(k, asked.attempts, asked.older or usual[k], asked.rounds, asked.path) for k in kinds]
    return 0 if max(ratios) <= PROMISE else 1


if __name__ == "__main__":
    raise SystemExit(main())
