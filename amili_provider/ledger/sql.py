"""
The ledger in a database: PostgreSQL, MySQL or MariaDB, SQLite. One table, Core statements, no sessions.

The database decides who was first: the key of an attempt is unique, and the claims of a request are one transaction,
its rows in the order of their keys, so that two requests wait for each other and do not deadlock. Its clock dates
everything.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, NoSuchTableError

from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger import dialects
from amili_provider.ledger.attempts import FIELDS, FORMAT, Attempt, AttemptState, epoch
from amili_provider.ledger.dialects import DIALECTS, TOGETHER
from amili_provider.ledger.stores import Found, Identity, Query, another_ledger
from amili_provider.ledger.table import (
    DEFAULT_TABLE,
    IDENTITY,
    KEY,
    SAID,
    Transactions,
    attempt_of,
    attempts_table,
    ddl,
    key_of,
    matching,
    row_of,
    values_of,
)
from amili_provider.receipts import one_line

_PAGE = 1000
_ending = attrgetter("owner", *SAID)


class SqlStore:
    """
    Attempts in one table of a database.

    :param engine: of SQLAlchemy, 1.4 (``future=True``) or 2; of a server with a ``NullPool``, so that no connection is
        held while a task waits, and a session to a server that failed over is not used again.
    :param shown: the database as messages name it, without secrets.
    :param table: the table's name, perhaps with its schema before a dot.
    :param path: SQLite's file.
    :param conn_id: the Airflow connection of a server.
    :param said: returns an error's words without secrets.
    :param sleep: how to wait between tries.
    """

    def __init__(
        self,
        engine: sa.engine.Engine,
        *,
        shown: str,
        table: str = DEFAULT_TABLE,
        path: str | None = None,
        conn_id: str = "",
        said: Callable[[BaseException], str] = one_line,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.engine = engine
        self._path = path
        self._opened: tuple[Identity, tuple[int, int] | None] | None = None
        if engine.dialect.name not in DIALECTS:
            raise ValueError(
                f"A ledger cannot be kept in a database of kind {engine.dialect.name!r}: only PostgreSQL, MySQL, "
                f"MariaDB and SQLite are known to enforce the unique key that keeps a file from being sent twice."
            )
        schema, _, name = table.rpartition(".")
        self.table = attempts_table(name, schema or None)
        self._dialect = dialect = DIALECTS[engine.dialect.name](engine, self.table)
        self.shown = f"{shown}, table {table}"
        options = dialect.reads, dialect.writes
        self._transactions = Transactions(
            engine, options, shown=self.shown, path=path, conn_id=conn_id, said=said, sleep=sleep
        )
        self.places = [("file", path + suffix) for suffix in ("", "-wal", "-shm")] if path else []
        # Statements are made once: to make one costs as much as to run it.
        columns = self.table.c
        self._select = sa.select(*(columns[field] for field in FIELDS))
        of_files = dialect.of_files
        self._look_up = self._select.add_columns(dialect.now).where(of_files).order_by(columns.file_id, columns.attempt)
        mine = sa.and_(of_files, columns.owner == sa.bindparam("its_owner"))
        self._settle = (
            sa.update(self.table)
            .where(mine, columns.state == AttemptState.CLAIMED.value)
            .values({columns[name]: sa.bindparam(name) for name in SAID})
        )
        self._settled = sa.select(columns.file_id).where(mine, columns.state == AttemptState.SETTLED.value)

    # Creating and opening

    def create(self) -> tuple[Identity, bool]:
        """
        Create the table, and write down which ledger it is; see ``LedgerStore.create``.

        :raises AmiliLedgerUnavailable: if that is not allowed; the message holds the statements for the DBA.
        """

        def work(connection: sa.engine.Connection) -> tuple[Identity, bool]:
            dialects.refuse_unfit(connection, self._dialect, self.table, self.shown)
            self._dialect.create(connection, self.table)
            dialects.try_out(connection, self.table, self._insert, self.shown)
            known = self._identity(connection)
            if known is not None:
                return known, False
            now = self._dialect.clock(connection)
            row = row_of(Attempt(attempt=FORMAT, owner=secrets.token_hex(16), **IDENTITY))
            row |= {"claimed_at": now, "expires_at": now, "message": "Which ledger this is."}
            connection.execute(sa.insert(self.table), [row])
            return Identity(row["owner"], now), True

        also = ""
        if self._path is None:
            also = (
                " If the login may not create tables, give these statements to your DBA, and create the ledger again "
                f"with a login that may SELECT, INSERT and UPDATE:\n{ddl(self.table, self.engine)}"
            )
        try:
            return self._transactions.run("be created", work, writes=True, also=also)
        except AmiliLedgerUnavailable:
            with suppress(AmiliLedgerUnavailable):  # created by another at the same moment
                return self.open(), False
            raise

    def open(self, *, read_only: bool = False) -> Identity:
        """Prove that the table is there and can be read and written; see ``LedgerStore.open``."""

        def work(connection: sa.engine.Connection) -> Identity:
            if not read_only:
                dialects.refuse_unfit(connection, self._dialect, self.table, self.shown)
            if not self._dialect.has_table(connection, self.table.name, self.table.schema):
                raise NoSuchTableError(self.table.fullname)
            known = self._identity(connection)
            if known is None:
                raise AmiliLedgerUnavailable(
                    f"The ledger does not exist: the table is there in {self.shown}, but not its row that says which "
                    f"ledger it is. Nothing was sent. If it is new, run amili-ledger create once more. If files were "
                    f"sent with it before, it was emptied: restore it."
                )
            if not read_only:
                dialects.try_out(connection, self.table, self._insert, self.shown)
            return known

        try:
            if self._path is None or Path(self._path).is_file():
                dialects.refuse_strangers(self._path, self.shown)
                who = self._transactions.run("be opened", work, writes=not read_only)
                self._opened = who, _file(self._path)
                return who
        except NoSuchTableError:
            pass
        raise AmiliLedgerUnavailable(
            f"The ledger does not exist: there is none in {self.shown}. Nothing was sent. If it existed before, "
            f"find out where it went: see that the connection leads to the same database and schema. If it is new, "
            f"create it once: amili-ledger create --conn-id <the amili connection>, or the DAG amili_ledger."
        )

    def _identity(self, connection: sa.engine.Connection) -> Identity | None:
        columns = self.table.c
        mine = sa.and_(*(columns[name] == value for name, value in IDENTITY.items()))
        found = connection.execute(sa.select(columns.attempt, columns.owner, columns.claimed_at).where(mine)).all()
        if not found:
            return None
        if (newest := max(row[0] for row in found)) > FORMAT:
            raise AmiliLedgerUnavailable(
                f"The ledger {self.shown} has format {newest}; this version of the provider knows {FORMAT}. Update it."
            )
        return Identity(found[0][1], found[0][2])

    # Reading

    def look_up(self, environment: str, client_no: str, file_ids: Sequence[str]) -> Found:
        """Return the attempts of files of one client; see ``LedgerStore.look_up``."""
        found: dict[str, list[Attempt]] = {}
        now = 0.0
        for start in range(0, len(file_ids), TOGETHER):
            asked = self._dialect.asked(environment, client_no, file_ids[start : start + TOGETHER])
            for row in self._rows(self._look_up, asked):
                attempt = attempt_of(row)
                found.setdefault(attempt.file_id, []).append(attempt)
                now = epoch(row[-1])
        return Found(now, found)

    def has_size(self, environment: str, client_no: str, size: int) -> bool:
        """Return whether any attempt at a file of *size* bytes was made."""
        columns = self.table.c
        mine = sa.and_(columns.environment == environment, columns.client_no == client_no, columns.size == size)
        statement = sa.select(columns.size).where(mine).limit(1)
        return bool(self._rows(statement))

    def history(self, query: Query) -> Iterator[Attempt]:
        """Yield attempts, the newest first, page by page; no connection is held between two pages."""
        columns = self.table.c
        order = (columns.claimed_at, columns.file_id, columns.attempt)
        statement = self._select.where(matching(self.table, query)).order_by(*(c.desc() for c in order)).limit(_PAGE)
        page = statement
        while True:
            attempts = [attempt_of(row) for row in self._rows(page)]
            yield from attempts
            if len(attempts) < _PAGE:
                return
            at, file_id, number = attempts[-1].claimed_at, attempts[-1].file_id, attempts[-1].attempt
            earlier_file = sa.and_(columns.claimed_at == at, columns.file_id < file_id)
            same_file = sa.and_(columns.claimed_at == at, columns.file_id == file_id, columns.attempt < number)
            page = statement.where(sa.or_(columns.claimed_at < at, earlier_file, same_file))

    def _rows(self, statement: Any, asked: dict[str, Any] | None = None) -> Sequence[Any]:
        return self._transactions.run("be read", lambda connection: connection.execute(statement, asked or {}).all())

    # Writing

    def claim(self, attempts: Sequence[Attempt], seconds: float) -> AbstractSet[str]:
        """Write new attempts in one transaction; see ``LedgerStore.claim``."""
        wanted = sorted(attempts, key=lambda a: a.file_id)
        taken: set[str] = set()

        def work(connection: sa.engine.Connection) -> None:
            if self._opened is not None and self._identity(connection) != self._opened[0]:
                raise another_ledger(self.shown)
            now = epoch(self._dialect.clock(connection))
            for attempt in wanted:
                attempt.stamp(now, seconds)
            self._insert(connection, wanted)

        while wanted:
            try:
                self._transactions.run("be written", work, writes=True, claims=True)
            except IntegrityError as error:
                theirs, ours = self._owners(wanted)
                taken |= theirs
                left = [a for a in wanted if a.file_id not in theirs and a.file_id not in ours]
                if len(left) == len(wanted):
                    raise self._transactions.unavailable("be written", error) from None
                wanted = left
            else:
                break
        if self._opened is not None and _file(self._path) != self._opened[1]:
            # The connection still writes to the file that was there.
            raise another_ledger(self.shown)
        return taken

    def _insert(self, connection: sa.engine.Connection, attempts: Sequence[Attempt]) -> None:
        rows = [values_of(attempt) for attempt in attempts]
        written = self._dialect.insert(connection, rows)
        if written != len(rows):
            raise AmiliLedgerUnavailable(
                f"The ledger {self.shown} took {written} of {len(rows)} rows: a trigger or a rule of its table "
                f"swallows the others. Nothing is sent without them. Remove it."
            )

    def _owners(self, attempts: Sequence[Attempt]) -> tuple[set[str], set[str]]:
        """Return whose attempt others have, and whose is ours, written by a try whose answer was lost."""
        by_id = {attempt.file_id: attempt for attempt in attempts}
        theirs: set[str] = set()
        ours: set[str] = set()
        found = self.look_up(attempts[0].environment, attempts[0].client_no, list(by_id))
        for file_id, known in found.attempts.items():
            wanted = by_id[file_id]
            for attempt in known:
                if attempt.attempt == wanted.attempt:
                    (ours if attempt.owner == wanted.owner else theirs).add(file_id)
        return theirs, ours

    def settle(self, attempts: Sequence[Attempt]) -> None:
        """Write outcomes in one transaction; see ``LedgerStore.settle``."""

        def work(connection: sa.engine.Connection) -> None:
            now = epoch(self._dialect.clock(connection))
            for attempt in attempts:
                attempt.stamp_settled(now)
            # Most files of a request end alike, and one statement settles them all.
            alike: dict[tuple[Any, ...], list[Attempt]] = {}
            for attempt in attempts:
                alike.setdefault(_ending(attempt), []).append(attempt)
            for group in alike.values():
                for start in range(0, len(group), TOGETHER):
                    self._settle_alike(connection, group[start : start + TOGETHER])

        self._transactions.run("be written", work, writes=True)

    def _settle_alike(self, connection: sa.engine.Connection, attempts: Sequence[Attempt]) -> None:
        first = attempts[0]
        asked = self._dialect.asked(first.environment, first.client_no, [a.file_id for a in attempts]) | {
            "its_owner": first.owner
        }
        row = row_of(first)
        done = connection.execute(self._settle, {name: row[name] for name in SAID} | asked)
        if done.rowcount == len(attempts):
            return
        # Some were settled by us before: by a try whose answer was lost.
        known = {row[0] for row in connection.execute(self._settled, asked)}
        missing = [a for a in attempts if a.file_id not in known]
        if missing:
            raise AmiliLedgerUnavailable(
                f"The ledger {self.shown} no longer has our claim on {len(missing)} file(s), the first "
                f"{missing[0].file_id}: it was restored from a backup, failed over, or changed by hand."
            )

    def restore(self, attempts: Sequence[Attempt]) -> AbstractSet[tuple[str, int]]:
        """Write attempts exactly as they are; see ``LedgerStore.restore``."""
        taken: set[tuple[str, int]] = set()

        def work(connection: sa.engine.Connection) -> None:
            taken.clear()
            self._dialect.clock(connection)
            keys = sa.select(*(self.table.c[field] for field in KEY)).where(self._dialect.of_files)
            known: set[tuple[Any, ...]] = set()
            new: dict[tuple[Any, ...], Attempt] = {}
            # Client by client, which is how the key begins: else every row would be looked at.
            for environment, client_no in {(a.environment, a.client_no) for a in attempts}:
                ids = {a.file_id for a in attempts if (a.environment, a.client_no) == (environment, client_no)}
                asked = self._dialect.asked(environment, client_no, list(ids))
                known |= {tuple(row) for row in connection.execute(keys, asked)}
            for attempt in attempts:
                if key_of(attempt) in known:
                    taken.add((attempt.file_id, attempt.attempt))
                else:
                    new[key_of(attempt)] = attempt
            if new:
                self._insert(connection, [new[key] for key in sorted(new)])

        self._transactions.run("be written", work, writes=True)
        return taken

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()


def _file(path: str | None) -> tuple[int, int] | None:
    """Return which file SQLite's path leads to; None if to none, and for a server."""
    try:
        found = Path(path).stat() if path is not None else None
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found else None
