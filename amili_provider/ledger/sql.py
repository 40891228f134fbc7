"""
The ledger in a database: PostgreSQL, MySQL or MariaDB, SQLite. One table, Core statements, no sessions.

The database decides who was first: the key of an attempt is unique, and the claims of a request are one transaction,
its rows in the order of their keys, so that two requests wait for each other and do not deadlock. Its clock dates
everything.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
import tenacity
from sqlalchemy.exc import DBAPIError, IntegrityError, NoSuchTableError, SQLAlchemyError
from sqlalchemy.pool import QueuePool
from sqlalchemy.schema import CreateIndex, CreateTable

from amili_provider import fault_points
from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger.attempts import FIELDS, FORMAT, Attempt, AttemptState, epoch, timestamp
from amili_provider.ledger.stores import Found, Identity, Query, another_ledger
from amili_provider.ledger.table import DEFAULT_TABLE, INTEGERS, KEY, attempt_of, attempts_table, key_of, row_of
from amili_provider.receipts import Outcome, Verdict, one_line

DIALECTS = frozenset({"postgresql", "mysql", "mariadb", "sqlite"})
"""Databases that keep a unique key whatever happens."""
_NOW = {
    "sqlite": "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')",
    "postgresql": """to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')""",
    "mysql": "concat(left(date_format(utc_timestamp(3), '%Y-%m-%dT%H:%i:%s.%f'), 23), 'Z')",
}
_LOCK_SECONDS = 10
"""How long a statement waits for another transaction: less than writing a claim may take."""
_TOGETHER = 500
"""File ids in one statement."""
_PAGE = 1000
_PACKET_BYTES = 500_000
_ALL_KINDS = "Æ€😀'\\%"
"""Characters of one to four bytes, and those that statements are made of."""
_SAID = ("state", "outcome", "status", "result", "message", "settled_at", "uploaded_at")
"""What the settling of an attempt writes."""
_ending = attrgetter("owner", *_SAID)
_IDENTITY: dict[str, Any] = {"environment": "", "client_no": "", "file_id": "ledger"}
"""The key of the row that says which ledger this is; its attempt number is the format."""

T = TypeVar("T")


class _Failed(AmiliLedgerUnavailable):
    """What the database itself refused, or did not answer."""


def sqlite_engine(path: str, *, create: bool = False) -> sa.engine.Engine:
    """
    Return an engine for a file of SQLite, which is not made unless *create*.

    :param path: absolute path.
    """
    mode = "rwc" if create else "rw"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(path)}?mode={mode}",
            uri=True,
            timeout=_LOCK_SECONDS,
            check_same_thread=False,
            isolation_level=None,
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.create_function("lower", 1, lambda text: text.lower() if isinstance(text, str) else text)
        return connection

    engine = sa.create_engine(
        "sqlite://", creator=connect, poolclass=QueuePool, pool_size=4, max_overflow=32, future=True
    )

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.engine.Connection) -> None:
        # A transaction that reads first and writes then would be refused, not made to wait. One question needs none.
        if connection.get_execution_options().get("amili_writes"):
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


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
        self._conn_id = conn_id
        self._said = said
        self._opened: tuple[Identity, tuple[int, int] | None] | None = None
        self._dialect = "mysql" if engine.dialect.name == "mariadb" else engine.dialect.name
        if self._dialect not in DIALECTS:
            raise ValueError(
                f"A ledger cannot be kept in a database of kind {engine.dialect.name!r}: only PostgreSQL, MySQL, "
                f"MariaDB and SQLite are known to enforce the unique key that keeps a file from being sent twice."
            )
        schema, _, name = table.rpartition(".")
        self._named = name, schema or None
        self.table = attempts_table(*self._named)
        self._now = sa.literal_column(_NOW[self._dialect], sa.String())
        self._sleep = sleep
        self.shown = f"{shown}, table {table}"
        self.places = [("file", path + suffix) for suffix in ("", "-wal", "-shm")] if path else []
        columns = self.table.c
        self._select = sa.select(*(columns[field] for field in FIELDS))
        names = engine.dialect.identifier_preparer
        columns_sql = ", ".join(names.quote(field) for field in FIELDS)
        its_name = names.format_table(self.table)
        its_types = ", ".join(f"{names.quote(f)} {'bigint' if f in INTEGERS else 'text'}" for f in FIELDS)
        rows_sql = {
            "sqlite": f"VALUES {_values_sql('?')}",
            # Thousands of values in a statement take it longer to read than to write.
            "postgresql": f"SELECT * FROM json_to_recordset(CAST(%s AS json)) AS r({its_types})",  # noqa: S608 - quoted
            "mysql": "VALUES ",
        }
        self._insert_sql = f"INSERT INTO {its_name} ({columns_sql}) {rows_sql[self._dialect]}"
        # Made once: to make a statement costs as much as to run it. For the same reason ids are one parameter.
        of_files: dict[str, Any] = {
            "sqlite": sa.text("file_id IN (SELECT value FROM json_each(:its_file_ids))"),
            "postgresql": sa.text("file_id = ANY (CAST(:its_file_ids AS varchar[]))"),
            "mysql": columns.file_id.in_(sa.bindparam("its_file_ids", expanding=True)),
        }
        self._of_files = sa.and_(
            columns.environment == sa.bindparam("its_environment"),
            columns.client_no == sa.bindparam("its_client_no"),
            of_files[self._dialect],
        )
        self._look_up = (
            self._select.add_columns(self._now).where(self._of_files).order_by(columns.file_id, columns.attempt)
        )
        mine = sa.and_(self._of_files, columns.owner == sa.bindparam("its_owner"))
        self._settle = (
            sa.update(self.table)
            .where(mine, columns.state == AttemptState.CLAIMED.value)
            .values({columns[name]: sa.bindparam(name) for name in _SAID})
        )
        self._settled = sa.select(columns.file_id).where(mine, columns.state == AttemptState.SETTLED.value)

    # Creating and opening

    def create(self) -> tuple[Identity, bool]:
        """
        Create the table, and write down which ledger it is; see ``LedgerStore.create``.

        :raises AmiliLedgerUnavailable: if that is not allowed; the message holds the statements for the DBA.
        """

        def work(connection: sa.engine.Connection) -> tuple[Identity, bool]:
            self._refuse_unfit(connection)
            if not self._has_table(connection, *self._named):
                self.table.create(connection)
            elif self._dialect == "mysql":
                # Its statements that create are no part of a transaction: a table may be there without its indexes.
                there = {index["name"] for index in sa.inspect(connection).get_indexes(*self._named)}
                for index in self.table.indexes:
                    if index.name not in there:
                        index.create(connection)
            self._try_out(connection)
            known = self._identity(connection)
            if known is not None:
                return known, False
            now = self._clock(connection)
            row = row_of(Attempt(attempt=FORMAT, owner=secrets.token_hex(16), **_IDENTITY))
            row |= {"claimed_at": now, "expires_at": now, "message": "Which ledger this is."}
            connection.execute(sa.insert(self.table), [row])
            return Identity(row["owner"], now), True

        try:
            return self._transact("be created", work, writes=True, claims=True)
        except (IntegrityError, _Failed) as error:
            with suppress(AmiliLedgerUnavailable):  # created by another at the same moment
                return self.open(), False
            if self._dialect == "sqlite":
                raise
            raise AmiliLedgerUnavailable(
                f"{error} If the login may not create tables, give these statements to your DBA, and create the ledger "
                f"again with a login that may SELECT, INSERT and UPDATE:\n{self.ddl()}"
            ) from None

    def ddl(self) -> str:
        """Return the statements that create the table and let a login use it."""
        dialect = self.engine.dialect
        indexes = sorted(self.table.indexes, key=lambda index: str(index.name))
        statements: list[Any] = [CreateTable(self.table), *map(CreateIndex, indexes)]
        written = [str(s.compile(dialect=dialect)).strip().replace("\t", "    ") for s in statements]
        name = dialect.identifier_preparer.format_table(self.table)
        written.append(f"GRANT SELECT, INSERT, UPDATE ON {name} TO <login of the connection>")
        return "".join(f"{statement};\n" for statement in written)

    def open(self, *, read_only: bool = False) -> Identity:
        """Prove that the table is there and can be read and written; see ``LedgerStore.open``."""

        def work(connection: sa.engine.Connection) -> Identity:
            if not read_only:
                self._refuse_unfit(connection)
            if not self._has_table(connection, *self._named):
                raise NoSuchTableError(self.table.fullname)
            known = self._identity(connection)
            if known is None:
                raise AmiliLedgerUnavailable(
                    f"The ledger does not exist: the table is there in {self.shown}, but not its row that says which "
                    f"ledger it is. Nothing was sent. If it is new, run amili-ledger create once more. If files were "
                    f"sent with it before, it was emptied: restore it."
                )
            if not read_only:
                self._try_out(connection)
            return known

        try:
            if self._path is None or Path(self._path).is_file():
                who = self._transact("be opened", work, writes=not read_only)
                self._opened = who, self._file()
                return who
        except NoSuchTableError:
            pass
        raise AmiliLedgerUnavailable(
            f"The ledger does not exist: there is none in {self.shown}. Nothing was sent. If it existed before, "
            f"find out where it went: see that the connection leads to the same database and schema. If it is new, "
            f"create it once: amili-ledger create --conn-id <the amili connection>, or the DAG amili_ledger."
        )

    def _try_out(self, connection: sa.engine.Connection) -> None:
        """
        Claim and settle a file as a delivery does, and then let it be as if it had not been.

        :raises ValueError: if the table takes a key twice, or does not keep what is written.
        """
        trial = connection.begin_nested()
        attempt = Attempt(
            attempt=0, owner=secrets.token_hex(16), **_IDENTITY | {"file_id": secrets.token_hex(16)}, name=_ALL_KINDS
        )
        self._insert(connection, [attempt])
        attempt.settle(Verdict(Outcome.UPLOADED, _ALL_KINDS, "", _ALL_KINDS))
        attempt.stamp_settled(0.0)
        row = row_of(attempt)
        # By the whole key: MySQL locks what it looks at, and others open the ledger at the same moment.
        mine = sa.and_(*(self.table.c[field] == row[field] for field in KEY))
        said = {name: row[name] for name in _SAID}
        done = connection.execute(sa.update(self.table).where(mine).values(said))
        found = connection.execute(self._select.where(mine)).all()
        if done.rowcount != 1 or [tuple(one) for one in found] != [tuple(row.values())]:
            raise ValueError(
                f"The ledger cannot be kept in {self.shown}: it does not keep what is written. Remove triggers, rules "
                f"and policies from its table, and let the database, the table and the connection keep every character "
                f"of Unicode (UTF8; MySQL: utf8mb4, and as charset in the connection's extra)."
            )
        # In all but the key another's: a key that holds more, as of a table in partitions, would take it.
        others = replace(attempt, owner=secrets.token_hex(16), claimed_at=timestamp(0.0), settled_at=None, name="b")
        others = replace(others, uploaded_at=None, size=1, file_type="b", dag_id="b", run_id="b", request="b")
        try:
            with connection.begin_nested():
                self._insert(connection, [others])
        except IntegrityError:
            trial.rollback()
        else:
            raise ValueError(
                f"The ledger cannot be kept in {self.shown}: its table takes a key twice, so two tasks could send one "
                f"file. Give it back its primary key ({', '.join(KEY)}), or create another ledger and import this one."
            )

    def _refuse_unfit(self, connection: sa.engine.Connection) -> None:
        if any(
            all(self._has_table(connection, name, schema) for name in ("task_instance", "dag_run"))
            for schema in {None, self.table.schema}
        ):
            raise ValueError(
                f"The ledger cannot be kept in Airflow's own metadata database ({self.shown}): it is migrated, cleaned "
                f"and reset by Airflow. Give the ledger a database of its own, on the same server if you like."
            )
        if self._dialect == "postgresql":
            said = connection.exec_driver_sql("SELECT version(), current_setting('transaction_read_only')").one()
            if "redshift" in said[0].lower():
                raise ValueError(
                    "The ledger cannot be kept in Redshift, which enforces no unique keys: use PostgreSQL."
                )
            if said[1] == "on":
                raise AmiliLedgerUnavailable(
                    f"The ledger {self.shown} is read-only: a replica, or a server in recovery. Name the primary."
                )

    def _has_table(self, connection: sa.engine.Connection, name: str, schema: str | None) -> bool:
        inspector = sa.inspect(connection)
        if self._dialect == "mysql":
            # It refuses to describe a table to who has no right on it, also one that does not exist.
            names = inspector.get_table_names(schema=schema)
            return name in names or name.lower() in names  # as a server keeps it that folds the names of tables
        return bool(inspector.has_table(name, schema=schema))

    def _identity(self, connection: sa.engine.Connection) -> Identity | None:
        columns = self.table.c
        mine = sa.and_(*(columns[name] == value for name, value in _IDENTITY.items()))
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
        for start in range(0, len(file_ids), _TOGETHER):
            asked = self._asked(environment, client_no, file_ids[start : start + _TOGETHER])
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
        statement = self._select.where(self._matching(query)).order_by(*(c.desc() for c in order)).limit(_PAGE)
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

    def _matching(self, query: Query) -> Any:
        columns = self.table.c
        wanted = [columns.environment != ""]  # all but the row that says which ledger this is
        exact = ("environment", "client_no", "dag_id", "run_id", "request")
        wanted += [columns[field] == value for field in exact if (value := getattr(query, field)) is not None]
        if query.file_ids is not None:
            wanted.append(columns.file_id.in_(list(query.file_ids)))
        if query.since:
            wanted.append(columns.claimed_at >= query.since)
        if query.until:
            wanted.append(columns.claimed_at < f"{query.until}U")  # 'T' comes before it, and every time of the day
        if query.unsettled:
            wanted.append(sa.or_(columns.outcome.is_(None), columns.outcome == Outcome.UNKNOWN.value))
        if query.text:
            part = query.text.replace("!", "!!").replace("%", "!%").replace("_", "!_")
            # By the database's own idea of letters on both sides: in the locale C it knows ASCII's only.
            like = sa.func.lower(f"%{part}%")
            wanted.append(
                sa.or_(
                    sa.func.lower(columns.name).like(like, escape="!"),
                    sa.func.lower(columns.source).like(like, escape="!"),
                    columns.sha256.like(f"{part.lower()}%", escape="!"),
                    columns.file_id == query.text.lower(),
                )
            )
        return sa.and_(*wanted)

    def _asked(self, environment: str, client_no: str, file_ids: Sequence[str]) -> dict[str, Any]:
        ids: Any = list(file_ids)
        if self._dialect == "sqlite":
            ids = json.dumps(ids)
        elif self._dialect == "postgresql":
            ids = f"{{{json.dumps(ids)[1:-1]}}}"  # an array is written with other brackets
        return {"its_environment": environment, "its_client_no": client_no, "its_file_ids": ids}

    def _rows(self, statement: Any, asked: dict[str, Any] | None = None) -> Sequence[Any]:
        return self._transact("be read", lambda connection: connection.execute(statement, asked or {}).all())

    # Writing

    def claim(self, attempts: Sequence[Attempt], seconds: float) -> AbstractSet[str]:
        """Write new attempts in one transaction; see ``LedgerStore.claim``."""
        wanted = sorted(attempts, key=lambda a: a.file_id)
        taken: set[str] = set()

        def work(connection: sa.engine.Connection) -> None:
            if self._opened is not None and self._identity(connection) != self._opened[0]:
                raise another_ledger(self.shown)
            now = epoch(self._clock(connection))
            for attempt in wanted:
                attempt.stamp(now, seconds)
            self._insert(connection, wanted)

        while wanted:
            try:
                self._transact("be written", work, writes=True, claims=True)
            except IntegrityError as error:
                theirs, ours = self._owners(wanted)
                taken |= theirs
                left = [a for a in wanted if a.file_id not in theirs and a.file_id not in ours]
                if len(left) == len(wanted):
                    raise self._unavailable("be written", error) from None
                wanted = left
            else:
                break
        if self._opened is not None and self._file() != self._opened[1]:
            # The connection still writes to the file that was there.
            raise another_ledger(self.shown)
        return taken

    def _file(self) -> tuple[int, int] | None:
        """Return which file SQLite's path leads to; None if to none, and for a server."""
        try:
            found = Path(self._path).stat() if self._path is not None else None
        except OSError:
            return None
        return (found.st_dev, found.st_ino) if found else None

    def _insert(self, connection: sa.engine.Connection, attempts: Sequence[Attempt]) -> None:
        # As the driver takes it: SQLAlchemy would build each row's parameters once more.
        rows = [row_of(attempt) for attempt in attempts]
        written = 0
        if self._dialect == "sqlite":
            written = connection.exec_driver_sql(self._insert_sql, [tuple(row.values()) for row in rows]).rowcount
        elif self._dialect == "postgresql":
            # One statement: a driver may send many one by one, or prepare them, which PgBouncer has to know.
            written = connection.exec_driver_sql(self._insert_sql, (json.dumps(rows),)).rowcount
        else:
            for some in _in_packets(rows):
                values = ", ".join([_values_sql("%s")] * len(some))
                done = connection.exec_driver_sql(self._insert_sql + values, tuple(chain(*(r.values() for r in some))))
                written += done.rowcount
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
            now = epoch(self._clock(connection))
            for attempt in attempts:
                attempt.stamp_settled(now)
            # Most files of a request end alike, and one statement settles them all.
            alike: dict[tuple[Any, ...], list[Attempt]] = {}
            for attempt in attempts:
                alike.setdefault(_ending(attempt), []).append(attempt)
            for group in alike.values():
                for start in range(0, len(group), _TOGETHER):
                    self._settle_alike(connection, group[start : start + _TOGETHER])

        self._transact("be written", work, writes=True)

    def _settle_alike(self, connection: sa.engine.Connection, attempts: Sequence[Attempt]) -> None:
        first = attempts[0]
        asked = self._asked(first.environment, first.client_no, [a.file_id for a in attempts]) | {
            "its_owner": first.owner
        }
        row = row_of(first)
        done = connection.execute(self._settle, {name: row[name] for name in _SAID} | asked)
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
            columns = self.table.c
            keys = sa.select(*(columns[field] for field in KEY)).where(self._of_files)
            known: set[tuple[Any, ...]] = set()
            new: dict[tuple[Any, ...], Attempt] = {}
            # Client by client, which is how the key begins: else every row would be looked at.
            for environment, client_no in {(a.environment, a.client_no) for a in attempts}:
                ids = {a.file_id for a in attempts if (a.environment, a.client_no) == (environment, client_no)}
                asked = self._asked(environment, client_no, list(ids))
                known |= {tuple(row) for row in connection.execute(keys, asked)}
            for attempt in attempts:
                if key_of(attempt) in known:
                    taken.add((attempt.file_id, attempt.attempt))
                else:
                    new[key_of(attempt)] = attempt
            if new:
                self._insert(connection, [new[key] for key in sorted(new)])

        self._transact("be written", work, writes=True)
        return taken

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    # Transactions

    def _clock(self, connection: sa.engine.Connection) -> str:
        """Return the database's time; bound how long this transaction waits for others."""
        if self._dialect == "mysql":
            connection.exec_driver_sql(f"SET SESSION innodb_lock_wait_timeout = {_LOCK_SECONDS}")
        columns: list[Any] = [self._now]
        if self._dialect == "postgresql":
            columns.append(sa.func.set_config("lock_timeout", f"{_LOCK_SECONDS}s", True))  # noqa: FBT003 - for this transaction
        return str(connection.execute(sa.select(*columns)).one()[0])

    def _transact(
        self, what: str, work: Callable[[sa.engine.Connection], T], *, writes: bool = False, claims: bool = False
    ) -> T:
        """
        Run *work* in a transaction; once more if it failed for a reason that may pass.

        Every *work* can be repeated, also after a COMMIT whose answer was lost.

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
            raise self._unavailable(what, error) from None

    def _once(self, work: Callable[[sa.engine.Connection], T], *, writes: bool) -> T:
        options: dict[str, Any] = {"amili_writes": writes}
        if self._dialect == "postgresql":
            # One question needs no BEGIN; and claims of different files do not disturb each other, whatever the
            # server's default is.
            options["isolation_level"] = "READ COMMITTED" if writes else "AUTOCOMMIT"
        with self.engine.connect().execution_options(**options) as connection, connection.begin():
            result = work(connection)
            if writes:
                fault_points.reached("before commit")
        if writes:
            fault_points.reached("committed")
        return result

    def _unavailable(self, what: str, error: Exception) -> _Failed:
        # The driver's own words: SQLAlchemy's hold the statement and its values.
        said = self._said(getattr(error, "orig", None) or error).rstrip(".")
        remedy = (
            f"connection {self._conn_id!r} is right and its server reachable, that the database has room, and that the "
            f"login may SELECT, INSERT and UPDATE"
        )
        if self._path is not None:
            remedy = "the disk has room, and that the user who runs the tasks may write the folder and all files in it"
        return _Failed(
            f"The ledger {self.shown} cannot {what}: {type(error).__name__}: {said}. Nothing is sent without it. Check "
            f"that {remedy}."
        )


def _may_pass(error: BaseException) -> bool:
    """Return whether a transaction may succeed if it is tried again: no connection, a deadlock, a lock."""
    if not isinstance(error, DBAPIError) or isinstance(error, IntegrityError):
        return False
    refused = isinstance(error, sa.exc.ProgrammingError | sa.exc.DataError | sa.exc.NotSupportedError)
    return bool(error.connection_invalidated) or not refused


def _in_packets(rows: Sequence[dict[str, Any]]) -> Iterator[Sequence[dict[str, Any]]]:
    """Yield rows in statements that every server of MySQL takes, however small its ``max_allowed_packet`` is."""
    start = size = 0
    for number, row in enumerate(rows):
        its_size = sum(4 * len(value) if isinstance(value, str) else 16 for value in row.values())
        if number > start and (size + its_size > _PACKET_BYTES or number - start >= _TOGETHER):
            yield rows[start:number]
            start, size = number, 0
        size += its_size
    yield rows[start:]


def _values_sql(placeholder: str) -> str:
    return f"({', '.join([placeholder] * len(FIELDS))})"
