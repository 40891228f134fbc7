"""Ledgers for tests: created, and read as a person would."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from amili_provider.ledger.attempts import Attempt
from amili_provider.ledger.dialects import sqlite_engine
from amili_provider.ledger.opening import create_in_file
from amili_provider.ledger.sql import SqlStore
from amili_provider.ledger.stores import Query


def new_ledger(folder: Path, name: str = "amili-ledger.db") -> str:
    """Create a ledger in a file of SQLite, unless it is there, and return its name."""
    return create_in_file(folder / name)


def run_sql(ledger: str, statement: str) -> None:
    """Do to a ledger in a file of SQLite what a person with a database tool does."""
    with closing(sqlite3.connect(ledger.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(statement)


@contextmanager
def taking_no_outcome(ledger: str) -> Iterator[None]:
    """Let a ledger in a file of SQLite take claims, and refuse to settle them."""
    run_sql(
        ledger,
        "CREATE TRIGGER no_outcome BEFORE UPDATE ON amili_attempts WHEN NEW.environment != '' "
        "BEGIN SELECT RAISE(ABORT, 'the disk is broken'); END",
    )
    try:
        yield
    finally:
        run_sql(ledger, "DROP TRIGGER no_outcome")


def attempts_in(ledger: str) -> list[Attempt]:
    """Return all attempts of a ledger in a file of SQLite, the oldest first."""
    path = ledger.removeprefix("sqlite:///")
    store = SqlStore(sqlite_engine(path), shown=ledger, path=path)
    try:
        return list(store.history(Query()))[::-1]
    finally:
        store.close()
