"""Transactions that are tried again if what failed may pass: no connection, a deadlock, a lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa
import tenacity
from sqlalchemy.exc import DBAPIError, IntegrityError, NoSuchTableError, SQLAlchemyError

from amili_provider import fault_points
from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger.dialects import Dialect

T = TypeVar("T")


class Transactions:
    """
    Transactions of one ledger in a database.

    :param engine: of the database.
    :param dialect: its words.
    :param shown: the ledger as messages name it, without secrets.
    :param path: SQLite's file.
    :param conn_id: the Airflow connection of a server.
    :param said: returns an error's words without secrets.
    :param sleep: how to wait between tries.
    """

    def __init__(
        self,
        engine: sa.engine.Engine,
        dialect: Dialect,
        *,
        shown: str,
        path: str | None,
        conn_id: str,
        said: Callable[[BaseException], str],
        sleep: Callable[[float], None],
    ) -> None:
        self._engine = engine
        self._dialect = dialect
        self._shown = shown
        self._path = path
        self._conn_id = conn_id
        self._said = said
        self._sleep = sleep

    def run(
        self,
        what: str,
        work: Callable[[sa.engine.Connection], T],
        *,
        writes: bool = False,
        claims: bool = False,
        also: str = "",
    ) -> T:
        """
        Run *work* in a transaction; once more if it failed for a reason that may pass.

        Every *work* can be repeated, also after a COMMIT whose answer was lost.

        :param what: as in "The ledger cannot <what>".
        :param also: what a message adds to that.
        :raises AmiliLedgerUnavailable: if it fails for good.
        :raises IntegrityError: if *claims*, and somebody else has a key.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=tenacity.wait_exponential(multiplier=0.1, max=2.0) + tenacity.wait_random(0, 0.1),
            stop=tenacity.stop_after_attempt(5),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return retrying(lambda: self._once(work, writes=writes))
        except NoSuchTableError:
            raise
        # Of a driver that is given settings, or characters, that it does not understand, errors come as they are.
        except (SQLAlchemyError, OSError, UnicodeError, TypeError, AttributeError, OverflowError) as error:
            if claims and isinstance(error, IntegrityError):
                raise
            raise self.unavailable(what, error, also) from None

    def _once(self, work: Callable[[sa.engine.Connection], T], *, writes: bool) -> T:
        options = {"amili_writes": writes, **(self._dialect.writes if writes else self._dialect.reads)}
        with self._engine.connect().execution_options(**options) as connection, connection.begin():
            result = work(connection)
            if writes:
                fault_points.reached("before commit")
        if writes:
            fault_points.reached("committed")
        return result

    def unavailable(self, what: str, error: Exception, also: str = "") -> AmiliLedgerUnavailable:
        """Return the error for what cannot be done, in the driver's own words and with the remedy."""
        # The driver's own words: SQLAlchemy's hold the statement and its values.
        said = self._said(getattr(error, "orig", None) or error).rstrip(".")
        remedy = (
            f"connection {self._conn_id!r} is right and its server reachable, that the database has room, and that the "
            f"login may SELECT, INSERT and UPDATE"
        )
        if self._path is not None:
            remedy = "the disk has room, and that the user who runs the tasks may write the folder and all files in it"
        return AmiliLedgerUnavailable(
            f"The ledger {self._shown} cannot {what}: {type(error).__name__}: {said}. Nothing is sent without it. "
            f"Check that {remedy}.{also}"
        )


def _may_pass(error: BaseException) -> bool:
    """Return whether a transaction may succeed if it is tried again: no connection, a deadlock, a lock."""
    if not isinstance(error, DBAPIError) or isinstance(error, IntegrityError):
        return False
    refused = isinstance(error, sa.exc.ProgrammingError | sa.exc.DataError | sa.exc.NotSupportedError)
    return bool(error.connection_invalidated) or not refused
