"""
What the Deliveries page asks a ledger in a database: statements that only read, one transaction a page.

A row is an attempt. Its kind is what the rules of :mod:`amili_provider.ledger.state` make of it among all attempts at
its file: an unknown outcome that was settled since is not unknown. Every statement follows an index and has a bound, so
that a page costs the same whether the ledger holds a thousand attempts or a million.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa

from amili_provider.ledger.attempts import FIELDS, Attempt, timestamp
from amili_provider.ledger.sql import SqlStore
from amili_provider.ledger.state import History, history
from amili_provider.ledger.table import attempt_of
from amili_provider.receipts import Outcome
from amili_provider.ui.answers import Page, Row, Strip, Totals, key_of, kind_of
from amili_provider.ui.conditions import Conditions
from amili_provider.ui.cut import cut_of
from amili_provider.ui.filters import KINDS, Filter, Key
from amili_provider.ui.reading import Reading

DAYS = 60
"""Days of the strip."""
PAGE = 50
"""Rows of a page."""
_CLIENTS = 500
_MANY = 1000
_ALL = "all"
_MANY_OF = ("delivered", "not_sent")
"""Kinds of which a day may have so many that they are only counted, in an index."""


class Deliveries:
    """
    A ledger in a database, to be asked within a ``with`` block: one connection, which cannot write.

    :param store: open; a login that may only SELECT suffices.
    :param environment: of the connection to Amili.
    :param clock: seconds since the epoch.
    """

    def __init__(self, store: SqlStore, environment: str, clock: Callable[[], float] = time.time) -> None:
        self._table = store.table
        self._environment = environment
        self._clock = clock
        self._reading = Reading(store)
        self._begin()

    def _begin(self) -> None:
        self._now = self._clock()
        self._conditions = Conditions(
            self._table, self._environment, self._reading.dialect, timestamp(self._now), self.clients
        )

    def __enter__(self) -> Self:
        self._begin()
        self._reading.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._reading.close()

    def clients(self) -> list[str]:
        """Return the client numbers that occur, the first few hundred."""
        columns = self._table.c
        found: list[str] = []
        while len(found) < _CLIENTS:
            # From one to the next through the key, never through all rows.
            further = (columns.client_no > found[-1],) if found else ()
            wanted = sa.and_(columns.environment == self._environment, *further)
            (number,) = self._reading.rows(sa.select(sa.func.min(columns.client_no)).where(wanted))[0]
            if number is None:
                break
            found.append(number)
        return found

    def strip(self, wanted: Filter, last: date, days: int = DAYS) -> Strip:
        """
        Return what became of the attempts of each day (UTC); a day without any is there, too.

        :param wanted: of whose client, and who asks; its other words do not count.
        :param last: the last day.
        :param days: how many.
        """
        first = last - timedelta(days=days - 1)
        mine = Filter(client_no=wanted.client_no, dags=wanted.dags)
        cut = self.cut(replace(mine, since=str(first), until=str(last)))
        every = [str(first + timedelta(days=n)) for n in range(days)]
        found: dict[str, tuple[dict[str, int], dict[str, int]]] = {day: ({}, {}) for day in every}
        counted = [day for day in every if day >= (cut or "")[:10]]
        for day, kind, attempts, files in self._reading.rows(self._by_day(mine, counted)):
            its_attempts, its_files = found[day]
            if attempts:
                its_attempts[kind] = attempts
            if attempts and kind != "not_sent":
                its_files[kind] = attempts if kind == "delivered" else files
        return Strip({day: Totals(*numbers) for day, numbers in found.items()}, self._first(), cut)

    def _by_day(self, wanted: Filter, days: Sequence[str]) -> Any:
        """Return the statement for each day's attempts and files by kind; of some, files are not counted."""
        claimed_at = self._table.c.claimed_at
        # A range of the index for each day is five times faster than a group by a part of each time; and without bytes,
        # whose sum would look at the attempts themselves. What else there is is less, and may be looked at.
        of_days = sa.union_all(*(sa.select(sa.literal(day).label("day")) for day in days)).cte("days")
        on_it = (claimed_at >= of_days.c.day, claimed_at < of_days.c.day + "U")
        parts, others = [], []
        for kind, part in self._conditions.by_kind(wanted, None):
            its = sa.literal(kind).label("kind")
            if kind in _MANY_OF:
                counted = sa.select(sa.func.count()).select_from(self._table).where(part, *on_it).correlate(of_days)
                parts.append(sa.select(of_days.c.day, its, counted.scalar_subquery().label("attempts"), sa.literal(0)))
            else:
                day = sa.func.substr(claimed_at, 1, 10).label("day")
                between = (claimed_at >= days[0], claimed_at < f"{days[-1]}U")
                others.append(sa.select(day, its, self._file()).where(part, *between))
        each = sa.union_all(*others).subquery()
        numbers = (sa.func.count(), sa.func.count(each.c.file.distinct()))
        return sa.union_all(*parts, sa.select(each.c.day, each.c.kind, *numbers).group_by(each.c.day, each.c.kind))

    def _first(self) -> str | None:
        claimed_at = self._table.c.claimed_at
        firsts = [sa.select(sa.func.min(claimed_at)).where(one) for one in self._conditions.ranges(Filter())]
        return min((at for (at,) in self._reading.together(firsts) if at), default=None)

    def _file(self) -> Any:
        """Return a column that tells files apart; an id has always as many characters."""
        return self._table.c.client_no.concat(self._table.c.file_id).label("file")

    def totals(self, wanted: Filter, page: Page | None = None) -> Totals:
        """
        Return the numbers of what *wanted* matches, as far back as a search goes.

        :param wanted: which.
        :param page: its first page, if that is known: nothing is asked if it holds all.
        """
        if page is not None and page.following is None:
            return Totals.of(page)
        cut = None if wanted.one_run else self._back(wanted)
        size, file = self._table.c.size, self._file()
        parts = (
            sa.select(sa.literal(kind).label("kind"), size, file).where(part)
            for kind, part in self._conditions.by_kind(wanted, cut)
        )
        # Named, so that it is looked for once.
        found = sa.union_all(*parts).cte("found")
        one_each = sa.select(found.c.file).distinct().subquery()
        of_kind, count, bytes_ = found.c.kind, sa.func.count, sa.func.sum(found.c.size)
        numbers = sa.union_all(
            sa.select(sa.literal("delivered"), count(), sa.literal(0), bytes_).where(of_kind == "delivered"),
            sa.select(of_kind, count(), count(found.c.file.distinct()), bytes_)
            .where(of_kind != "delivered")
            .group_by(of_kind),
            sa.select(sa.literal(_ALL), sa.literal(0), count(), sa.literal(0)).select_from(one_each),
        )
        told = {row[0]: row[1:] for row in self._reading.rows(numbers)}
        _, all_files, _ = told.pop(_ALL)
        counts = {kind: attempts for kind, (attempts, _, _) in told.items() if attempts}
        files = {kind: counts[kind] if kind == "delivered" else told[kind][1] for kind in counts}
        sizes = {kind: int(told[kind][2]) for kind in counts}
        return Totals(counts, files, all_files, sizes, cut)

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
        later = () if after is None else (self._conditions.later_than(after),)
        parts = [
            sa.select(*(columns[name] for name in FIELDS)).where(part, *later).order_by(*order).limit(size + 1)
            for part in self._conditions.parts(wanted, cut)
        ]
        found = sorted(map(attempt_of, self._reading.together(parts)), key=key_of, reverse=True)
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

    def cut(self, wanted: Filter, after: Key | None = None) -> str | None:
        """
        Return the time to which a search goes back; None if it looks at all that it must.

        :param wanted: what is searched.
        :param after: only what comes after this row.
        """
        return self._back(wanted, after) if wanted.looks_at_rows else None

    def _back(self, wanted: Filter, after: Key | None = None) -> str | None:
        return cut_of(self._reading, self._conditions, wanted, after)

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
            for attempt in map(attempt_of, self._reading.rows(statement)):
                found.setdefault((number, attempt.file_id), []).append(attempt)
        return found
