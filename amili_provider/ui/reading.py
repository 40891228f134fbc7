"""One connection to a ledger's database that can read, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger.sql import SqlStore

_SECONDS = 20
"""A statement that takes longer is given up; PostgreSQL only."""
_READ_ONLY = {
    "sqlite": ("PRAGMA query_only=1",),
    "postgresql": (
        "SET TRANSACTION READ ONLY",
        f"SET LOCAL statement_timeout = '{_SECONDS}s'",
        "SET LOCAL enable_seqscan = off",  # each has an index in its order, and a bound
        "SET LOCAL enable_bitmapscan = off",
        "SET LOCAL jit = off",  # it takes longer to compile such a statement than to run it
    ),
    "mysql": ("START TRANSACTION READ ONLY",),
    "mariadb": ("START TRANSACTION READ ONLY",),
}


class Reading:
    """
    A ledger's database, to be asked within a ``with`` block: one transaction, which cannot write.

    :param store: open; a login that may only SELECT suffices.
    """

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.dialect = store.engine.dialect.name
        self._connection: sa.engine.Connection | None = None

    def __enter__(self) -> Self:
        try:
            self._connection = self._store.engine.connect()
            for statement in _READ_ONLY.get(self.dialect, ()):
                self._connection.exec_driver_sql(statement)
        except (SQLAlchemyError, OSError) as error:
            self.close()
            raise self._unavailable(error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def rows(self, statement: Any) -> Sequence[Any]:
        """
        Return the rows of a statement.

        :raises AmiliLedgerUnavailable: if it cannot be read.
        """
        assert self._connection is not None, "used outside its with block"
        try:
            return self._connection.execute(statement).all()
        except (SQLAlchemyError, OSError, UnicodeError) as error:
            raise self._unavailable(error) from None

    def together(self, parts: Sequence[Any]) -> Sequence[Any]:
        """Return the rows of all statements; each keeps its order and its limit."""
        if len(parts) == 1:
            return self.rows(parts[0])
        return self.rows(sa.union_all(*(sa.select(*one.c) for one in (part.subquery() for part in parts))))

    def _unavailable(self, error: Exception) -> AmiliLedgerUnavailable:
        # Not the driver's words: they may hold the statement's values, and name hosts to who may only look at a run.
        return AmiliLedgerUnavailable(
            f"The ledger {self._store.shown} cannot be read: {type(getattr(error, 'orig', None) or error).__name__}."
        )
