"""Ledgers for tests: created, and read as a person would."""

from __future__ import annotations

from pathlib import Path

from amili_provider.ledger.attempts import Attempt
from amili_provider.ledger.opening import create_in_file
from amili_provider.ledger.sql import SqlStore, sqlite_engine
from amili_provider.ledger.stores import Query


def new_ledger(folder: Path, name: str = "amili-ledger.db") -> str:
    """Create a ledger in a file of SQLite, unless it is there, and return its name."""
    return create_in_file(folder / name)


def attempts_in(ledger: str) -> list[Attempt]:
    """Return all attempts of a ledger in a file of SQLite, the oldest first."""
    path = ledger.removeprefix("sqlite:///")
    store = SqlStore(sqlite_engine(path), shown=ledger, path=path)
    try:
        return list(store.history(Query()))[::-1]
    finally:
        store.close()
