"""
What the Deliveries page's questions take in a ledger of a million attempts, on SQLite and PostgreSQL.

One command: ``python -m tests.benchmarks.deliveries_page``; some minutes, of which most fill the ledgers. The promise
is 300 ms for the first page, for a search by a part of a name within one month, and for one day. Each figure is the
median of seven, and the first of them, with a connection of its own.
"""

# ruff: noqa: T201 - printing is what it is for
from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="amili-deliveries-"))

from amili_provider.ledger.attempts import Attempt
from amili_provider.ledger.sql import SqlStore
from amili_provider.receipts import Outcome, Verdict
from amili_provider.ui.filters import Filter
from amili_provider.ui.queries import Deliveries
from tests.benchmarks.ledger_cost import postgres, sqlite
from tests.ledger_cases import an_attempt

PROMISE = 0.3
_TOGETHER = 5_000
_TIMES = 7
_LAST = datetime(2026, 11, 22, 6, tzinfo=UTC)
_ENDS = ((Outcome.REJECTED, 0.01), (Outcome.NOT_SENT, 0.01), (Outcome.UNKNOWN, 0.0005), (Outcome.UPLOADED, 1.0))


def fill(store: SqlStore, count: int, days: int, clients: int) -> None:
    """Put *count* attempts into a ledger, as many on each of the last *days*, of several clients."""
    chance = random.Random(1)
    first = (_LAST - timedelta(days=days)).timestamp()
    for start in range(0, count, _TOGETHER):
        some: list[Attempt] = []
        for number in range(start, min(start + _TOGETHER, count)):
            name = f"invoices_{number % 97:02}_{chance.randrange(10**9):09}.csv"
            attempt = an_attempt(
                file_id=f"{chance.getrandbits(128):032x}",
                sha256=f"{chance.getrandbits(256):064x}",
                client_no=str(10042 + chance.randrange(clients)),
                name=name,
                source=f"s3://invoices/outbound/accounts/legal-entity-{number % 7}/{name}",
                size=chance.randrange(100, 100_000),
                dag_id=f"invoices_{number % 11}",
                run_id=f"scheduled__{number // 500}",
            )
            draw = chance.random()
            outcome = next(outcome for outcome, below in _ENDS if draw < below)
            attempt.settle(Verdict(outcome, "PROCESSED", "CREATED", "Batch is processed"))
            attempt.stamp(first + number // 200 * 200 * days * 86_400 / count, 0.0)
            some.append(attempt)
        store.restore(some)


def questions(deliveries: Deliveries) -> dict[str, Callable[[], Any]]:
    """Return what is asked, by name."""
    month = {"since": "2026-10-01", "until": "2026-10-31"}
    last = _LAST.date()

    def asked(**words: Any) -> Callable[[], Any]:
        wanted = Filter(**words)

        def ask() -> None:
            deliveries.clients()
            deliveries.strip(wanted, last)
            page = deliveries.page(wanted)
            if wanted.narrows:
                deliveries.totals(wanted, page)

        return ask

    return {
        "first page": asked(),
        "first page, one client": asked(client_no="10043"),
        "a rare part of a name, one month": asked(text="123456", **month),
        "a common part of a name, one month": asked(text="INVOICES_1", **month),
        "one day": asked(since="2026-10-03", until="2026-10-03"),
        "one day, one client": asked(since="2026-10-03", until="2026-10-03", client_no="10043"),
        "all that is unknown": asked(kind="unknown"),
        "a rare part of a name, all years (cut)": asked(text="123456"),
        "one DAG (cut)": asked(dag_id="invoices_3"),
        "one run": asked(dag_id="invoices_3", run_id="scheduled__1900"),
        "who may read two DAGs": asked(dags=frozenset({"invoices_3", "invoices_4"})),
    }


def main(count: int, days: int, clients: int, path: str | None) -> int:
    """Measure, print, and return the exit code."""
    slow = 0
    for name, kind in {"sqlite": sqlite, "postgres": postgres}.items():
        with kind(path) as place:
            store = place("deliveries")
            assert isinstance(store, SqlStore)
            store.create()
            fill(store, count, days, clients)
            if name == "postgres":
                with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.exec_driver_sql("VACUUM ANALYZE deliveries")  # as the server does by itself
            reader = Deliveries(store, "staging", clock=_LAST.timestamp)
            for what, ask in questions(reader).items():
                took = []
                for _ in range(_TIMES):
                    began = time.perf_counter()
                    with reader:
                        ask()
                    took.append(time.perf_counter() - began)
                slow += statistics.median(took) > PROMISE
                print(f"{name:9} {what:42} {statistics.median(took) * 1000:6.0f} ms, first {took[0] * 1000:6.0f} ms")
            store.close()
    return 1 if slow else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.deliveries_page", description=__doc__)
    parser.add_argument("--attempts", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=365, help="over how many days they are spread")
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--path", help="folder for the ledgers (default: that of temporary files)")
    given = parser.parse_args()
    raise SystemExit(main(given.attempts, given.days, given.clients, given.path))
