"""
What the Deliveries page's questions take in a ledger of a million attempts, on SQLite and PostgreSQL.

One command: ``python -m tests.suites.benchmarks.deliveries_page``; some minutes, of which most fill the ledgers. The
promise is 300 ms for the first page, for a search by a part of a name within one month, and for one day. Each figure is
the median of seven, and the first of them, with a connection of its own. The other promise is 50 MiB: so much more than
Airflow's API server alone may a process need at its peak that has the page, asks all of it, and writes a CSV.
"""

# ruff: noqa: T201 - printing is what it is for
from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="amili-deliveries-"))

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from amili_provider.ledger.attempts import Attempt
from amili_provider.ledger.dialects import sqlite_engine
from amili_provider.ledger.sql import SqlStore
from amili_provider.ledger.table import DEFAULT_TABLE
from amili_provider.receipts import Outcome, Verdict
from amili_provider.ui.filters import Filter
from amili_provider.ui.queries import Deliveries
from tests.ledger_cases import an_attempt
from tests.suites.benchmarks.ledger_cost import postgres, sqlite

PROMISE = 0.3
PROMISED_MIB = 50
_TABLE = "deliveries"
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
        "one month": asked(**month),
        "all that is unknown": asked(kind="unknown"),
        "one day, not delivered": asked(since="2026-10-03", until="2026-10-03", undelivered=True),
        "all that is not delivered": asked(undelivered=True),
        "a rare part of a name, all years (cut)": asked(text="123456"),
        "one DAG (cut)": asked(dag_id="invoices_3"),
        "one run": asked(dag_id="invoices_3", run_id="scheduled__1900"),
        "who may read two DAGs": asked(dags=frozenset({"invoices_3", "invoices_4"})),
    }


def memory(url: str) -> int:
    """Print how much more than Airflow's API server alone a process with the page needs; return the exit code."""
    import airflow.api_fastapi.app  # noqa: F401 - what it has, too

    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins here
    from amili_provider.ui.page import _lines

    path = url.removeprefix("sqlite:///") if url.startswith("sqlite:") else None
    engine = sqlite_engine(path) if path else sa.create_engine(url, poolclass=NullPool, future=True)
    store = SqlStore(engine, shown=url, table=DEFAULT_TABLE if path else _TABLE, path=path)
    reader = Deliveries(store, "staging", clock=_LAST.timestamp)
    with reader, ExitStack() as stack:
        for ask in questions(reader).values():
            ask()
        for _ in _lines(stack, reader.rows(Filter()), None, None):
            pass
    more = (_resident("VmHWM") - before) / 1024
    print(f"{more:.0f} MiB more than the {before / 1024:.0f} of Airflow's API application")
    return int(more > PROMISED_MIB)


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def main(count: int, days: int, clients: int, path: str | None) -> int:
    """Measure, print, and return the exit code."""
    slow = 0
    for name, kind in {"sqlite": sqlite, "postgres": postgres}.items():
        with kind(path) as place:
            store = place(_TABLE)
            assert isinstance(store, SqlStore)
            store.create()
            fill(store, count, days, clients)
            if name == "postgres":
                with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.exec_driver_sql(f"VACUUM ANALYZE {_TABLE}")  # as the server does by itself
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
            url = f"sqlite:///{store.places[0][1]}" if store.places else str(store.engine.url)
            store.close()
            print(f"{name:9} memory: ", end="", flush=True)
            command = [sys.executable, "-W", "ignore", "-m", "tests.suites.benchmarks.deliveries_page", "--memory", url]
            slow += subprocess.run(command, check=False).returncode
    return 1 if slow else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.suites.benchmarks.deliveries_page", description=__doc__)
    parser.add_argument("--attempts", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=365, help="over how many days they are spread")
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--path", help="folder for the ledgers (default: that of temporary files)")
    parser.add_argument("--memory", metavar="URL", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory:
        raise SystemExit(memory(given.memory))
    raise SystemExit(main(given.attempts, given.days, given.clients, given.path))
