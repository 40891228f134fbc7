"""
PostgreSQL, MySQL and SQLite: what each says in its own words, SQLite's engine, and whether a database is fit.

And the proof that one is fit for a ledger: its server keeps unique keys, and its table what is written.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import QueuePool

from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger.attempts import FIELDS, Attempt, timestamp
from amili_provider.ledger.table import IDENTITY, INTEGERS, KEY, SAID, row_of
from amili_provider.receipts import Outcome, Verdict

NOW = {
    "sqlite": "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')",
    "postgresql": """to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')""",
    "mysql": "concat(left(date_format(utc_timestamp(3), '%Y-%m-%dT%H:%i:%s.%f'), 23), 'Z')",
}
LOCK_SECONDS = 10
"""How long a statement waits for another transaction: less than writing a claim may take."""
TOGETHER = 500
"""File ids, and rows of MySQL, in one statement."""
_PACKET_BYTES = 500_000
Row = dict[str, Any]
Values = tuple[Any, ...]
"""Of the columns, in the order of :data:`~amili_provider.ledger.attempts.FIELDS`."""
_ALL_KINDS = "Æ€😀'\\%"
"""Characters of one to four bytes, and those that statements are made of."""


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
            timeout=LOCK_SECONDS,
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


class Dialect:
    """
    SQLite's words, and what all databases share.

    :param engine: of the database.
    :param table: the ledger's.
    """

    name = "sqlite"
    reads: ClassVar[Row] = {}
    """Options of a connection for one question."""
    writes: ClassVar[Row] = {}
    """Options of a connection for a transaction that writes."""

    def __init__(self, engine: sa.engine.Engine, table: sa.Table) -> None:
        self._names = engine.dialect.identifier_preparer
        columns = ", ".join(self._names.quote(field) for field in FIELDS)
        self._insert = f"INSERT INTO {self._names.format_table(table)} ({columns}) "
        self.now = sa.literal_column(NOW[self.name], sa.String())
        self.of_files = sa.and_(
            table.c.environment == sa.bindparam("its_environment"),
            table.c.client_no == sa.bindparam("its_client_no"),
            self._of_ids(table),
        )
        """The rows of files of one client; :meth:`asked` gives its parameters."""

    def _of_ids(self, table: sa.Table) -> Any:  # noqa: ARG002 - others need it
        # Ids are one parameter: to make a statement of many costs as much as to run it.
        return sa.text("file_id IN (SELECT value FROM json_each(:its_file_ids))")

    def asked(self, environment: str, client_no: str, file_ids: Sequence[str]) -> Row:
        """Return the parameters of :attr:`of_files`."""
        return {"its_environment": environment, "its_client_no": client_no, "its_file_ids": self._ids(file_ids)}

    def _ids(self, file_ids: Sequence[str]) -> Any:
        return json.dumps(list(file_ids))

    def clock(self, connection: sa.engine.Connection) -> str:
        """Return the database's time; bound how long this transaction waits for others, and let its COMMIT last."""
        return str(connection.execute(sa.select(self.now)).one()[0])

    def insert(self, connection: sa.engine.Connection, rows: Sequence[Values]) -> int:
        """Write rows as the driver takes them, since SQLAlchemy would build each once more; return how many it took."""
        return int(connection.exec_driver_sql(f"{self._insert}VALUES {_values('?')}", list(rows)).rowcount)

    def has_table(self, connection: sa.engine.Connection, name: str, schema: str | None) -> bool:
        """Return whether there is a table."""
        return bool(sa.inspect(connection).has_table(name, schema=schema))

    def create(self, connection: sa.engine.Connection, table: sa.Table) -> None:
        """Create the table, with its indexes, if it is not there."""
        if not self.has_table(connection, table.name, table.schema):
            table.create(connection)

    def refuse_server(self, connection: sa.engine.Connection, shown: str) -> None:
        """Refuse a server that cannot keep a ledger."""


class Postgres(Dialect):
    """PostgreSQL's words."""

    name = "postgresql"
    # One question needs no BEGIN; and claims of different files do not disturb each other, whatever the default is.
    reads: ClassVar[Row] = {"isolation_level": "AUTOCOMMIT"}
    writes: ClassVar[Row] = {"isolation_level": "READ COMMITTED"}

    def _of_ids(self, table: sa.Table) -> Any:  # noqa: ARG002
        return sa.text("file_id = ANY (CAST(:its_file_ids AS varchar[]))")

    def _ids(self, file_ids: Sequence[str]) -> Any:
        return f"{{{json.dumps(list(file_ids))[1:-1]}}}"  # an array is written with other brackets

    def clock(self, connection: sa.engine.Connection) -> str:
        """Return the database's time; see :meth:`Dialect.clock`."""
        bounded = sa.func.set_config("lock_timeout", f"{LOCK_SECONDS}s", True)  # noqa: FBT003 - for this transaction
        # A claim that a crash of the server may take back is none; what waits for standbys stays as it is.
        chosen = sa.func.nullif(sa.func.current_setting("synchronous_commit"), "off")
        lasting = sa.func.set_config("synchronous_commit", sa.func.coalesce(chosen, "on"), True)  # noqa: FBT003
        return str(connection.execute(sa.select(self.now, bounded, lasting)).one()[0])

    def insert(self, connection: sa.engine.Connection, rows: Sequence[Values]) -> int:
        """
        Write rows in one statement; return how many it took.

        Thousands of values in a statement take it longer to read than to write; and a driver may send many statements
        one by one, or prepare them, which PgBouncer has to know.
        """
        types = ", ".join(f"{self._names.quote(f)} {'bigint' if f in INTEGERS else 'text'}" for f in FIELDS)
        statement = f"{self._insert}SELECT * FROM json_to_recordset(CAST(%s AS json)) AS r({types})"  # noqa: S608 - quoted
        named = [dict(zip(FIELDS, row, strict=True)) for row in rows]
        return int(connection.exec_driver_sql(statement, (json.dumps(named),)).rowcount)

    def refuse_server(self, connection: sa.engine.Connection, shown: str) -> None:
        """
        Refuse a server that cannot keep a ledger.

        :raises ValueError: if it is Redshift.
        :raises AmiliLedgerUnavailable: if it cannot be written.
        """
        said = connection.exec_driver_sql("SELECT version(), current_setting('transaction_read_only')").one()
        if "redshift" in said[0].lower():
            raise ValueError("The ledger cannot be kept in Redshift, which enforces no unique keys: use PostgreSQL.")
        if said[1] == "on":
            raise AmiliLedgerUnavailable(
                f"The ledger {shown} is read-only: a replica, or a server in recovery. Name the primary."
            )


class Mysql(Dialect):
    """MySQL's words, and MariaDB's."""

    name = "mysql"

    def _of_ids(self, table: sa.Table) -> Any:
        return table.c.file_id.in_(sa.bindparam("its_file_ids", expanding=True))

    def _ids(self, file_ids: Sequence[str]) -> Any:
        return list(file_ids)

    def clock(self, connection: sa.engine.Connection) -> str:
        """Return the database's time; see :meth:`Dialect.clock`."""
        connection.exec_driver_sql(f"SET SESSION innodb_lock_wait_timeout = {LOCK_SECONDS}")
        return super().clock(connection)

    def insert(self, connection: sa.engine.Connection, rows: Sequence[Values]) -> int:
        """Write rows in a few statements; return how many they took."""
        written = 0
        for some in _in_packets(rows):
            values = ", ".join([_values("%s")] * len(some))
            flat = tuple(chain(*some))
            written += connection.exec_driver_sql(f"{self._insert}VALUES {values}", flat).rowcount
        return written

    def has_table(self, connection: sa.engine.Connection, name: str, schema: str | None) -> bool:
        """Return whether there is a table; to describe one is refused to a login without rights on it, there or not."""
        names = sa.inspect(connection).get_table_names(schema=schema)
        return name in names or name.lower() in names  # as a server keeps it that folds the names of tables

    def create(self, connection: sa.engine.Connection, table: sa.Table) -> None:
        """Create the table, and the indexes that an earlier try may have left out: its DDL is in no transaction."""
        if not self.has_table(connection, table.name, table.schema):
            table.create(connection)
        there = {index["name"] for index in sa.inspect(connection).get_indexes(table.name, table.schema)}
        for index in table.indexes:
            if index.name not in there:
                index.create(connection)


DIALECTS: dict[str, type[Dialect]] = {"sqlite": Dialect, "postgresql": Postgres, "mysql": Mysql, "mariadb": Mysql}
"""Databases that keep a unique key whatever happens."""


def _values(placeholder: str) -> str:
    return f"({', '.join([placeholder] * len(FIELDS))})"


def _in_packets(rows: Sequence[Values]) -> Iterator[Sequence[Values]]:
    """Yield rows in statements that every server of MySQL takes, however small its ``max_allowed_packet`` is."""
    start = size = 0
    for number, row in enumerate(rows):
        its_size = sum(4 * len(value) if isinstance(value, str) else 16 for value in row)
        if number > start and (size + its_size > _PACKET_BYTES or number - start >= TOGETHER):
            yield rows[start:number]
            start, size = number, 0
        size += its_size
    yield rows[start:]


def refuse_unfit(connection: sa.engine.Connection, dialect: Dialect, table: sa.Table, shown: str) -> None:
    """
    Refuse a database that cannot keep a ledger.

    :param shown: the ledger as messages name it.
    :raises ValueError: if it is Airflow's own, or Redshift.
    :raises AmiliLedgerUnavailable: if it cannot be written.
    """
    if any(
        all(dialect.has_table(connection, name, schema) for name in ("task_instance", "dag_run"))
        for schema in {None, table.schema}
    ):
        raise ValueError(
            f"The ledger cannot be kept in Airflow's own metadata database ({shown}): it is migrated, cleaned "
            f"and reset by Airflow. Give the ledger a database of its own, on the same server if you like."
        )
    dialect.refuse_server(connection, shown)


def refuse_strangers(path: str | None, shown: str) -> None:
    """
    Refuse to open a file that this user may not write: SQLite makes files beside it that lock others out.

    :param path: SQLite's file; None for a server.
    :param shown: the ledger as messages name it.
    :raises AmiliLedgerUnavailable: if this user may not write it.
    """
    if path is None:
        return
    try:
        with Path(path).open("r+b"):
            pass
    except PermissionError as error:
        raise AmiliLedgerUnavailable(
            f"The ledger {shown} cannot be opened: {error.strerror}. SQLite makes files beside it even to read, and "
            "those of another user would lock the tasks out. Run this as the user who runs the tasks, who may write "
            "the folder and all files in it."
        ) from None


def try_out(
    connection: sa.engine.Connection,
    table: sa.Table,
    insert: Callable[[sa.engine.Connection, Sequence[Attempt]], None],
    shown: str,
) -> None:
    """
    Claim and settle a file as a delivery does, and then let it be as if it had not been.

    :param insert: writes attempts as a delivery does.
    :param shown: the ledger as messages name it.
    :raises ValueError: if the table takes a key twice, or does not keep what is written.
    """
    trial = connection.begin_nested()
    attempt = Attempt(
        attempt=0, owner=secrets.token_hex(16), **IDENTITY | {"file_id": secrets.token_hex(16)}, name=_ALL_KINDS
    )
    insert(connection, [attempt])
    attempt.settle(Verdict(Outcome.UPLOADED, _ALL_KINDS, "", _ALL_KINDS))
    attempt.stamp_settled(0.0)
    row = row_of(attempt)
    # By the whole key: MySQL locks what it looks at, and others open the ledger at the same moment.
    mine = sa.and_(*(table.c[field] == row[field] for field in KEY))
    said = {name: row[name] for name in SAID}
    done = connection.execute(sa.update(table).where(mine).values(said))
    found = connection.execute(sa.select(*(table.c[field] for field in FIELDS)).where(mine)).all()
    if done.rowcount != 1 or [tuple(one) for one in found] != [tuple(row.values())]:
        raise ValueError(
            f"The ledger cannot be kept in {shown}: it does not keep what is written. Remove triggers, rules "
            f"and policies from its table, and let the database, the table and the connection keep every character "
            f"of Unicode (UTF8; MySQL: utf8mb4, and as charset in the connection's extra)."
        )
    # In all but the key another's: a key that holds more, as of a table in partitions, would take it.
    others = replace(attempt, owner=secrets.token_hex(16), claimed_at=timestamp(0.0), settled_at=None, name="b")
    others = replace(others, uploaded_at=None, size=1, file_type="b", dag_id="b", run_id="b", request="b")
    try:
        with connection.begin_nested():
            insert(connection, [others])
    except IntegrityError:
        trial.rollback()
    else:
        raise ValueError(
            f"The ledger cannot be kept in {shown}: its table takes a key twice, so two tasks could send one "
            f"file. Give it back its primary key ({', '.join(KEY)}), or create another ledger and import this one."
        )
