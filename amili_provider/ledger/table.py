"""
The ledger's table, how an attempt becomes a row of it, and the transactions on it.

It has one row an attempt, a column for each field of ``Attempt``: the facts that people ask for, so that accounting can
ask with what they have. A transaction is tried again if what failed may pass: no connection, a deadlock, a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, TypeVar

import sqlalchemy as sa
import tenacity
from sqlalchemy.exc import DBAPIError, IntegrityError, NoSuchTableError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable

from amili_provider import fault_points
from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger.attempts import FIELDS, Attempt, AttemptState, Origin, check_state
from amili_provider.ledger.stores import EXACT, Query
from amili_provider.receipts import Outcome, one_line

DEFAULT_TABLE = "amili_attempts"
_LENGTHS = {
    "environment": 255, "client_no": 64, "file_id": 32, "owner": 32, "state": 16, "outcome": 16, "file_type": 255,
    "name": 255, "sha256": 64, "status": 255, "result": 255, "claimed_at": 24, "expires_at": 24, "settled_at": 24,
    "uploaded_at": 24, "dag_id": 250, "run_id": 250, "task_id": 250, "host": 255, "origin": 16, "settled_by": 255,
}  # fmt: skip
_OUR_WORDS = frozenset({
    "file_id", "owner", "state", "outcome", "origin", "sha256", "resolves",
    "claimed_at", "expires_at", "settled_at", "uploaded_at",
})  # fmt: skip
INTEGERS = {"attempt": sa.Integer, "size": sa.BigInteger, "map_index": sa.Integer, "try_number": sa.Integer}
_NULLABLE = frozenset({"outcome", "status", "result", "message", "settled_at", "uploaded_at", "settled_by", "reason"})
KEY = ("environment", "client_no", "file_id", "attempt")
_INDEXES = (
    ("size", ("environment", "client_no", "size")),
    ("outcome", ("environment", "outcome", "claimed_at", "client_no")),
    ("name", ("environment", "client_no", "name")),
    ("run", ("dag_id", "run_id", "task_id")),
)
SAID = ("state", "outcome", "status", "result", "message", "settled_at", "uploaded_at")
"""What the settling of an attempt writes."""
IDENTITY: dict[str, Any] = {"environment": "", "client_no": "", "file_id": "ledger"}
"""The key of the row that says which ledger this is; its attempt number is the format."""
_values = attrgetter(*FIELDS)
key_of = attrgetter(*KEY)
"""Returns the key of an attempt's row."""
_WORDS, _RESOLVES = [FIELDS.index(field) for field in ("state", "outcome", "origin")], FIELDS.index("resolves")
_FREE_TEXT = [
    (index, _LENGTHS.get(field, 16_000)) for index, field in enumerate(FIELDS) if field not in {*INTEGERS, *_OUR_WORDS}
]
T = TypeVar("T")


def attempts_table(name: str = DEFAULT_TABLE, schema: str | None = None) -> sa.Table:
    """
    Return the ledger's table: one row an attempt, a column for each field of ``Attempt``.

    :param name: its name.
    :param schema: its schema; None for the connection's own.
    """
    columns = [
        sa.Column(
            field,
            INTEGERS.get(field) or (_text(_LENGTHS[field]) if field in _LENGTHS else _text()),
            primary_key=field in KEY,
            nullable=field in _NULLABLE,
            autoincrement=False,
        )
        for field in FIELDS
    ]
    indexes = [sa.Index(f"{name}_{short}", *fields) for short, fields in _INDEXES]
    # Binary collation: MySQL's own would take two names that differ in case for one.
    mysql: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
    return sa.Table(name, sa.MetaData(), *columns, *indexes, schema=schema, **mysql)


def _text(length: int | None = None) -> Any:
    return sa.String(length) if length else sa.Text()


def row_of(attempt: Attempt) -> dict[str, Any]:
    """Return an attempt as its columns hold it, by their names."""
    return dict(zip(FIELDS, values_of(attempt), strict=True))


def values_of(attempt: Attempt) -> tuple[Any, ...]:
    """
    Return an attempt as its columns hold it, in their order.

    Text is made to fit its column: no longer than it, and no characters that a database refuses.
    """
    values = [*_values(attempt)]
    for index in _WORDS:
        values[index] = values[index] and values[index].value
    values[_RESOLVES] = ",".join(map(str, attempt.resolves))
    for index, length in _FREE_TEXT:
        text = values[index]
        if text and not (text.isascii() and len(text) <= length and "\x00" not in text):
            text = text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
            values[index] = text[:length]
    return tuple(values)


def attempt_of(row: Any) -> Attempt:
    """Return what a row says; of one that cannot be believed, an attempt whose outcome is not known."""
    values = dict(zip(FIELDS, row, strict=False))
    try:
        values["outcome"] = None if values["outcome"] is None else Outcome(values["outcome"])
        values["state"], values["origin"] = AttemptState(values["state"]), Origin(values["origin"])
        values["resolves"] = tuple(int(n) for n in values["resolves"].split(",") if n)
        check_state(values["state"], values["outcome"])
    except ValueError as error:
        # Changed by hand. Whether Amili has the file cannot be told from it.
        values |= {"state": AttemptState.CLAIMED, "outcome": None, "expires_at": "", "origin": Origin.DELIVERY}
        values |= {"resolves": (), "message": one_line(f"its row cannot be read: {error}")}
    return Attempt(**values)


def matching(table: sa.Table, query: Query) -> Any:
    """Return the condition that *query* is."""
    columns = table.c
    wanted = [columns.environment != ""]  # all but the row that says which ledger this is
    wanted += [columns[field] == value for field in EXACT if (value := getattr(query, field)) is not None]
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


def ddl(table: sa.Table, engine: sa.engine.Engine) -> str:
    """Return the statements that create the table and let a login use it."""
    indexes = sorted(table.indexes, key=lambda index: str(index.name))
    statements: list[Any] = [CreateTable(table), *map(CreateIndex, indexes)]
    written = [str(s.compile(dialect=engine.dialect)).strip().replace("\t", "    ") for s in statements]
    name = engine.dialect.identifier_preparer.format_table(table)
    written.append(f"GRANT SELECT, INSERT, UPDATE ON {name} TO <login of the connection>")
    return "".join(f"{statement};\n" for statement in written)


class Transactions:
    """
    Transactions of one ledger in a database.

    :param engine: of the database.
    :param options: of a connection, for one question and for a transaction that writes.
    :param shown: the ledger as messages name it, without secrets.
    :param path: SQLite's file.
    :param conn_id: the Airflow connection of a server.
    :param said: returns an error's words without secrets.
    :param sleep: how to wait between tries.
    """

    def __init__(
        self,
        engine: sa.engine.Engine,
        options: tuple[Mapping[str, Any], Mapping[str, Any]],
        *,
        shown: str,
        path: str | None,
        conn_id: str,
        said: Callable[[BaseException], str],
        sleep: Callable[[float], None],
    ) -> None:
        self._engine = engine
        self._reads, self._writes = options
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
        options = {"amili_writes": writes, **(self._writes if writes else self._reads)}
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
