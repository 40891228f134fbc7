"""
What the Deliveries page asks a ledger in a database: statements that only read, one transaction a page.

A row is an attempt. Its kind is what the rules of :mod:`amili_provider.ledger.state` make of it among all attempts at
its file: an unknown outcome that was settled since is not unknown. Every statement follows an index and has a bound, so
that a page costs the same whether the ledger holds a thousand attempts or a million.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger.attempts import FIELDS, Attempt, is_file_id, timestamp
from amili_provider.ledger.sql import SqlStore
from amili_provider.ledger.state import History, LedgerState, history
from amili_provider.ledger.table import attempt_of
from amili_provider.receipts import Outcome

KINDS = ("unknown", "rejected", "not_sent", "being_sent", "settled", "delivered")
"""What became of an attempt, the worst first; *settled*: it was unknown, and the file is decided since."""
DAYS = 60
"""Days of the strip."""
PAGE = 50
"""Rows of a page."""
BUDGET = 100_000
"""Attempts that a search looks at: a part of a name is in no index."""
_SECONDS = 20
"""A statement that takes longer is given up; PostgreSQL only."""
_CLIENTS = 500
_MANY = 1000
_OUTCOMES = (Outcome.UPLOADED, Outcome.REJECTED, Outcome.NOT_SENT, Outcome.UNKNOWN, None)
_HASH = re.compile(r"[0-9a-fA-F]{6,64}")

Key = tuple[str, str, int]
"""After which row a page begins: when it was claimed, its file id, its attempt."""
Clause = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """
    Which attempts to show; each word narrows it.

    :param client_no: of this client.
    :param text: a part of the name or source, in any case; or the beginning of a hash; or a file id.
    :param since: claimed on this day (``YYYY-MM-DD``, UTC) or later.
    :param until: claimed on this day or earlier.
    :param kind: one of :data:`KINDS`.
    :param file_type: of exactly this type.
    :param dag_id: by this DAG.
    :param run_id: by this run.
    :param task_id: by this task.
    :param map_index: by this of the mapped tasks.
    :param dags: only of these DAGs, since the reader may not read others; None for everything.
    """

    client_no: str | None = None
    text: str | None = None
    since: str | None = None
    until: str | None = None
    kind: str | None = None
    file_type: str | None = None
    dag_id: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    map_index: int | None = None
    dags: frozenset[str] | None = None

    @property
    def one_run(self) -> bool:
        """Whether it is about one run, which is few attempts and has an index of its own."""
        return bool(self.dag_id and self.run_id)

    @property
    def looks_at_rows(self) -> bool:
        """Whether the attempts themselves must be looked at, since an index does not hold what is asked for."""
        words = (self.text, self.file_type, self.dag_id, self.run_id, self.task_id, self.dags)
        return not self.one_run and any(word is not None for word in words)

    @property
    def narrows(self) -> bool:
        """Whether it is about less than everything of a client."""
        return any((self.text, self.since, self.until, self.kind, self.file_type, self.dag_id, self.run_id))


@dataclass(frozen=True, slots=True)
class Row:
    """
    An attempt, and what it is now.

    :param attempt: the attempt.
    :param kind: one of :data:`KINDS`.
    :param file: what all attempts at its file mean together; of an attempt that delivered it, what this one means.
    """

    attempt: Attempt
    kind: str
    file: History

    @property
    def key(self) -> Key:
        """Its place in the order."""
        return self.attempt.claimed_at, self.attempt.file_id, self.attempt.attempt

    @property
    def delivered_since(self) -> bool:
        """Whether this attempt did not deliver the file, but another did."""
        return self.kind != "delivered" and self.file.state is LedgerState.UPLOADED


@dataclass(frozen=True, slots=True)
class Page:
    """
    Rows, the newest first.

    :param rows: the rows.
    :param following: the key after which there are more; None at the end.
    :param cut: the time to which the search went back, if older attempts were not looked at.
    """

    rows: Sequence[Row]
    following: Key | None = None
    cut: str | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """
    How many attempts of each kind there are, and of how many bytes.

    :param counts: attempts by kind.
    :param sizes: bytes by kind.
    :param cut: the time to which attempts were counted, if older ones were not.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    cut: str | None = None


class Deliveries:
    """
    A ledger in a database, to be asked within a ``with`` block: one connection, which cannot write.

    :param store: open; a login that may only SELECT suffices.
    :param environment: of the connection to Amili.
    :param clock: seconds since the epoch.
    """

    def __init__(self, store: SqlStore, environment: str, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._table = store.table
        self._environment = environment
        self._clock = clock
        self._now = clock()
        self._dialect = store.engine.dialect.name
        self._connection: sa.engine.Connection | None = None

    def __enter__(self) -> Self:
        self._now = self._clock()
        try:
            self._connection = self._store.engine.connect()
            for statement in _READ_ONLY.get(self._dialect, ()):
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

    def clients(self) -> list[str]:
        """Return the client numbers that occur, the first few hundred."""
        columns = self._table.c
        found: list[str] = []
        while len(found) < _CLIENTS:
            # From one to the next through the key, never through all rows.
            further = (columns.client_no > found[-1],) if found else ()
            wanted = sa.and_(columns.environment == self._environment, *further)
            (number,) = self._rows(sa.select(sa.func.min(columns.client_no)).where(wanted))[0]
            if number is None:
                break
            found.append(number)
        return found

    def strip(self, wanted: Filter, last: date, days: int = DAYS) -> dict[str, Totals]:
        """
        Return what became of the attempts of each day, by day (UTC); a day without any is there, too.

        :param wanted: of whose client, and who asks; its other words do not count.
        :param last: the last day.
        :param days: how many.
        """
        first = last - timedelta(days=days - 1)
        mine = Filter(client_no=wanted.client_no, dags=wanted.dags)
        cut = self.cut(replace(mine, since=str(first), until=str(last)))
        found: dict[str, dict[str, int]] = {str(first + timedelta(days=n)): {} for n in range(days)}
        claimed_at = self._table.c.claimed_at
        # A range of the index for each day is five times faster than a group by a part of each time; and without bytes,
        # whose sum would look at the attempts themselves.
        each = sa.union_all(*(sa.select(sa.literal(day).label("day")) for day in found if day >= (cut or "")[:10]))
        of_days = each.cte("days")
        on_it = (claimed_at >= of_days.c.day, claimed_at < of_days.c.day + "U")
        parts = []
        for kind, part in self._by_kind(mine, None):
            counted = sa.select(sa.func.count()).select_from(self._table).where(part, *on_it).correlate(of_days)
            number = counted.scalar_subquery().label("number")
            parts.append(sa.select(of_days.c.day, sa.literal(kind).label("kind"), number))
        for day, kind, number in self._rows(sa.union_all(*parts)):
            if number:
                found[day][kind] = found[day].get(kind, 0) + number
        return {day: Totals(counts) for day, counts in found.items()}

    def totals(self, wanted: Filter, page: Page | None = None) -> Totals:
        """
        Return the numbers of what *wanted* matches, as far back as :data:`BUDGET` attempts.

        :param wanted: which.
        :param page: its first page, if that is known: nothing is asked if it holds all.
        """
        if page is not None and page.following is None:
            counted = [(row.kind, 1, row.attempt.size) for row in page.rows]
            cut = page.cut
        else:
            cut = None if wanted.one_run else self._back(wanted)
            size = sa.func.sum(self._table.c.size)
            parts = [
                sa.select(sa.literal(kind).label("kind"), sa.func.count(), size).where(part)
                for kind, part in self._by_kind(wanted, cut)
            ]
            counted = [tuple(row) for row in self._rows(sa.union_all(*parts))]
        counts: dict[str, int] = {}
        sizes: dict[str, int] = {}
        for kind, number, its_size in counted:
            if number:
                counts[kind] = counts.get(kind, 0) + number
                sizes[kind] = sizes.get(kind, 0) + int(its_size or 0)
        return Totals(counts, sizes, cut)

    def page(self, wanted: Filter, after: Key | None = None, size: int = PAGE) -> Page:
        """
        Return the newest rows that match.

        :param wanted: which.
        :param after: only what comes after this row.
        :param size: how many at most.
        """
        return self._page(wanted, after, size, self.cut(wanted, after))

    def _page(self, wanted: Filter, after: Key | None, size: int, cut: str | None) -> Page:
        columns = self._table.c
        order = [columns[name].desc() for name in ("claimed_at", "file_id", "attempt")]
        later = () if after is None else (_after(columns, after),)
        parts = [
            sa.select(*(columns[name] for name in FIELDS)).where(part, *later).order_by(*order).limit(size + 1)
            for part in self._parts(wanted, cut)
        ]
        found = sorted(map(attempt_of, self._together(parts)), key=_key, reverse=True)
        rows = self._told(found[:size])
        more = len(found) > size
        return Page(rows, rows[-1].key if more else None, cut)

    def rows(self, wanted: Filter) -> Iterator[Row]:
        """Yield all rows that match, the newest first, but what a search does not go back to; see :meth:`cut`."""
        cut = self.cut(wanted)
        after: Key | None = None
        while True:
            page = self._page(wanted, after, _MANY, cut)
            yield from page.rows
            after = page.following
            if after is None:
                return

    def file(self, file_id: str, client_no: str | None = None) -> list[History]:
        """Return what is known of a file, for each client that has attempts at it: one, unless ids were made up."""
        numbers = [client_no] if client_no else self.clients()
        known = self._attempts([(number, file_id) for number in numbers])
        return [history(file_id, attempts, now=self._now) for attempts in known.values()]

    def task(self, wanted: Filter, most: int) -> list[Row]:
        """
        Return the rows of a task instance, the worst first, *most* at most.

        :param wanted: which: a DAG, a run and a task.
        :param most: how many.
        """
        found: list[Row] = []
        for kind in KINDS:
            if len(found) < most:
                found += self._page(replace(wanted, kind=kind), None, most - len(found), None).rows
        return found

    # Statements

    def _parts(self, wanted: Filter, cut: str | None) -> list[Clause]:
        """Return the conditions of what matches, one for each range of an index; none overlaps another."""
        columns = self._table.c
        narrowed = self._narrowed(wanted)
        if wanted.one_run:
            return [sa.and_(narrowed, self._any_kind(wanted))]
        kinds = self._kinds(wanted.kind, columns.outcome)
        if cut is None:
            return [sa.and_(narrowed, kind) for kind in kinds]
        parts = [sa.and_(narrowed, kind, columns.claimed_at >= cut) for kind in kinds]
        if wanted.text:
            # A whole name, or an id, is in an index: these are found however old they are.
            exactly = [columns.name == wanted.text]
            if is_file_id(wanted.text.lower()):
                exactly.append(columns.file_id == wanted.text.lower())
            numbers = [wanted.client_no] if wanted.client_no else self.clients()
            older = sa.and_(narrowed, columns.claimed_at < cut, columns.client_no.in_(numbers), self._any_kind(wanted))
            parts += [sa.and_(older, one) for one in exactly]
        return parts

    def _any_kind(self, wanted: Filter) -> Clause:
        """Return the condition of the kind as one that no database takes its index by outcome for."""
        return sa.or_(*self._kinds(wanted.kind, sa.func.coalesce(self._table.c.outcome, "")))

    def _kinds(self, kind: str | None, outcome: Any) -> list[Clause]:
        """Return when an attempt is of *kind*, or of any, one condition for each range of the index by outcome."""
        columns = self._table.c
        now = timestamp(self._now)
        if kind is None:
            return [_is(outcome, one) for one in _OUTCOMES]
        if kind in ("delivered", "rejected", "not_sent"):
            return [_is(outcome, Outcome.UPLOADED if kind == "delivered" else Outcome(kind))]
        if kind == "being_sent":
            return [sa.and_(_is(outcome, None), columns.expires_at > now)]
        settled = self._settled(now)
        settled = settled if kind == "settled" else sa.not_(settled)
        return [
            sa.and_(_is(outcome, Outcome.UNKNOWN), settled),
            sa.and_(_is(outcome, None), columns.expires_at <= now, settled),
        ]

    def _settled(self, now: str) -> Clause:
        """Return whether a file is decided, of which an attempt's outcome is unknown; as ``state.history`` does."""
        mine, other = self._table.c, self._table.alias()
        number = sa.cast(mine.attempt, sa.String(20))
        decided = (
            sa.select(sa.literal(1))
            .select_from(other)
            .where(
                other.c.environment == mine.environment,
                other.c.client_no == mine.client_no,
                other.c.file_id == mine.file_id,
                other.c.attempt != mine.attempt,
                sa.or_(
                    _is(other.c.outcome, Outcome.UPLOADED),
                    sa.and_(other.c.outcome.is_(None), other.c.expires_at > now),
                    sa.and_(
                        other.c.outcome.in_([Outcome.REJECTED.value, Outcome.NOT_SENT.value]),
                        (sa.literal(",") + other.c.resolves + ",").like(sa.literal("%,") + number + ",%"),
                    ),
                ),
            )
        )
        return decided.correlate(mine.environment.table).exists()

    def _narrowed(self, wanted: Filter) -> Clause:
        """Return all conditions but that of the kind."""
        columns = self._table.c
        exact = ("client_no", "file_type", "dag_id", "run_id", "task_id", "map_index")
        environment = sa.func.coalesce(columns.environment, "") if wanted.one_run else columns.environment
        found: list[Clause] = [environment == self._environment]
        found += [columns[name] == value for name in exact if (value := getattr(wanted, name)) is not None]
        if wanted.since:
            found.append(columns.claimed_at >= wanted.since)
        if wanted.until:
            found.append(columns.claimed_at < f"{wanted.until}U")  # 'T' comes before it, and every time of the day
        if wanted.dags is not None:
            found.append(columns.dag_id.in_(sorted(wanted.dags)))
        if wanted.text:
            found.append(self._has(wanted.text))
        return sa.and_(*found)

    def _has(self, text: str) -> Clause:
        columns = self._table.c
        part = "%" + text.replace("!", "!!").replace("%", "!%").replace("_", "!_") + "%"
        if self._dialect == "sqlite" and text.isascii():
            # Its own LIKE knows no case of ASCII letters, and calls no function of Python's for each row.
            found: list[Clause] = [columns[name].like(part, escape="!") for name in ("name", "source")]
        else:
            like = sa.func.lower(part)
            found = [sa.func.lower(columns[name]).like(like, escape="!") for name in ("name", "source")]
        if _HASH.fullmatch(text):
            found.append(columns.sha256.like(f"{text.lower()}%"))
        if is_file_id(text.lower()):
            found.append(columns.file_id == text.lower())
        return sa.or_(*found)

    def cut(self, wanted: Filter, after: Key | None = None) -> str | None:
        """
        Return the time to which a search goes back: :data:`BUDGET` attempts; None if it looks at all that it must.

        :param wanted: what is searched.
        :param after: only what comes after this row.
        """
        return self._back(wanted, after) if wanted.looks_at_rows else None

    def _back(self, wanted: Filter, after: Key | None = None) -> str | None:
        """Return the time of the attempt that is :data:`BUDGET` attempts back in what an index holds, if any is."""
        columns = self._table.c
        bounds = [columns.environment == self._environment]
        if wanted.client_no is not None:
            bounds.append(columns.client_no == wanted.client_no)
        if wanted.since:
            bounds.append(columns.claimed_at >= wanted.since)
        if wanted.until:
            bounds.append(columns.claimed_at < f"{wanted.until}U")
        if after is not None:
            bounds.append(columns.claimed_at <= after[0])
        outcomes: Sequence[Outcome | None] = _OUTCOMES
        if wanted.kind in ("delivered", "rejected", "not_sent"):
            outcomes = [Outcome.UPLOADED if wanted.kind == "delivered" else Outcome(wanted.kind)]
        elif wanted.kind is not None:
            outcomes = (Outcome.UNKNOWN, None)
        parts = [
            sa.select(columns.claimed_at)
            .where(*bounds, _is(columns.outcome, one))
            .order_by(columns.claimed_at.desc())
            .offset(BUDGET)
            .limit(1)
            for one in outcomes
        ]
        return max((row[0] for row in self._together(parts)), default=None)

    def _by_kind(self, wanted: Filter, cut: str | None) -> Iterator[tuple[str, Clause]]:
        """Yield the conditions of what matches, each with its kind; none overlaps another."""
        for kind in KINDS if wanted.kind is None else (wanted.kind,):
            for part in self._parts(replace(wanted, kind=kind), cut):
                yield kind, part

    def _told(self, attempts: Sequence[Attempt]) -> list[Row]:
        """Return attempts with what all attempts at their files mean together."""
        # What delivered its file needs no other attempt to tell what it is: most do.
        known = self._attempts([(a.client_no, a.file_id) for a in attempts if a.outcome is not Outcome.UPLOADED])
        # One reading of a file, however many attempts at it are told.
        files = {key: history(key[1], its, now=self._now) for key, its in known.items()}
        rows = []
        for attempt in attempts:
            file = files.get((attempt.client_no, attempt.file_id))
            file = file or history(attempt.file_id, [attempt], now=self._now)
            rows.append(Row(attempt, kind_of(attempt, file, self._now), file))
        return rows

    def _attempts(self, files: Sequence[tuple[str, str]]) -> dict[tuple[str, str], list[Attempt]]:
        columns = self._table.c
        ids: dict[str, set[str]] = {}
        for number, file_id in files:
            ids.setdefault(number, set()).add(file_id)
        found: dict[tuple[str, str], list[Attempt]] = {}
        for number, some in ids.items():
            wanted = (columns.environment == self._environment, columns.client_no == number)
            statement = (
                sa.select(*(columns[name] for name in FIELDS))
                .where(*wanted, columns.file_id.in_(sorted(some)))
                .order_by(columns.file_id, columns.attempt)
            )
            for attempt in map(attempt_of, self._rows(statement)):
                found.setdefault((number, attempt.file_id), []).append(attempt)
        return found

    def _together(self, parts: Sequence[Any]) -> Sequence[Any]:
        """Return the rows of all statements; each keeps its order and its limit."""
        if len(parts) == 1:
            return self._rows(parts[0])
        return self._rows(sa.union_all(*(sa.select(*one.c) for one in (part.subquery() for part in parts))))

    def _rows(self, statement: Any) -> Sequence[Any]:
        assert self._connection is not None, "used outside its with block"
        try:
            return self._connection.execute(statement).all()
        except (SQLAlchemyError, OSError, UnicodeError) as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: Exception) -> AmiliLedgerUnavailable:
        # Not the driver's words: they may hold the statement's values, and name hosts to who may only look at a run.
        return AmiliLedgerUnavailable(
            f"The ledger {self._store.shown} cannot be read: {type(getattr(error, 'orig', None) or error).__name__}."
        )


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


def kind_of(attempt: Attempt, file: History, now: float) -> str:
    """
    Return what an attempt is now, one of :data:`KINDS`.

    :param attempt: the attempt.
    :param file: what all attempts at its file mean together.
    :param now: seconds since the epoch.
    """
    if attempt.outcome is Outcome.UPLOADED:
        return "delivered"
    if attempt.has_end:
        return str(attempt.outcome)
    if attempt.is_live(now):
        return "being_sent"
    return "unknown" if file.state is LedgerState.UNKNOWN and attempt.attempt in file.unknown else "settled"


def _is(column: Any, outcome: Outcome | None) -> Clause:
    if outcome is not None:
        return column == outcome.value
    return column.is_(None) if isinstance(column, sa.Column) else column == ""


def _after(columns: Any, key: Key) -> Clause:
    at, file_id, number = key
    # The first condition is the others' own; it alone is a range of the index.
    return sa.and_(
        columns.claimed_at <= at,
        sa.or_(
            columns.claimed_at < at,
            columns.file_id < file_id,
            sa.and_(columns.file_id == file_id, columns.attempt < number),
        ),
    )


def _key(attempt: Attempt) -> Key:
    return attempt.claimed_at, attempt.file_id, attempt.attempt
