"""How a filter becomes conditions of SQL: each is one range of an index, and none overlaps another."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from amili_provider.ledger.attempts import is_file_id
from amili_provider.receipts import Outcome
from amili_provider.ui.filters import KINDS, Filter, Key

Clause = Any
_OUTCOMES = (Outcome.UPLOADED, Outcome.REJECTED, Outcome.NOT_SENT, Outcome.UNKNOWN, None)
_ENDED = ("delivered", "rejected", "not_sent")
"""Kinds that an attempt's outcome alone tells."""
_HASH = re.compile(r"[0-9a-fA-F]{6,64}")


@dataclass(frozen=True, slots=True)
class Conditions:
    """
    What is asked of one ledger's table.

    :param table: the table.
    :param environment: of the connection to Amili.
    :param dialect: the database's name for SQLAlchemy.
    :param now: the time, as the ledger writes it.
    :param clients: returns the client numbers that occur.
    """

    table: sa.Table
    environment: str
    dialect: str
    now: str
    clients: Callable[[], Sequence[str]]

    def parts(self, wanted: Filter, cut: str | None) -> list[Clause]:
        """
        Return the conditions of what matches, one for each range of an index; none overlaps another.

        :param wanted: what.
        :param cut: the time to which the search goes back; None if it looks at all.
        """
        columns = self.table.c
        narrowed = self._narrowed(wanted)
        if wanted.one_run:
            return [sa.and_(narrowed, self._any_kind(wanted))]
        kinds = self._kinds(wanted, columns.outcome)
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

    def by_kind(self, wanted: Filter, cut: str | None) -> Iterator[tuple[str, Clause]]:
        """Yield the conditions of :meth:`parts`, each with its kind."""
        kinds = KINDS if wanted.kind is None else (wanted.kind,)
        for kind in kinds[: KINDS.index("delivered")] if wanted.undelivered else kinds:
            for part in self.parts(replace(wanted, kind=kind), cut):
                yield kind, part

    def ranges(self, wanted: Filter, after: Key | None = None) -> list[Clause]:
        """
        Return the ranges of the index by outcome in which all that matches is, and perhaps more.

        :param wanted: what.
        :param after: only what comes after this row.
        """
        columns = self.table.c
        bounds = [columns.environment == self.environment]
        if wanted.client_no is not None:
            bounds.append(columns.client_no == wanted.client_no)
        bounds += self._days(wanted)
        if after is not None:
            bounds.append(columns.claimed_at <= after[0])
        outcomes: Sequence[Outcome | None] = _OUTCOMES[1:] if wanted.undelivered else _OUTCOMES
        if wanted.kind in _ENDED:
            outcomes = [_outcome(wanted.kind)]
        elif wanted.kind is not None:
            outcomes = (Outcome.UNKNOWN, None)
        return [sa.and_(*bounds, _is(columns.outcome, one)) for one in outcomes]

    def later_than(self, key: Key) -> Clause:
        """Return whether a row comes after the one of *key*."""
        columns = self.table.c
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

    def _any_kind(self, wanted: Filter) -> Clause:
        """Return the condition of the kind as one that no database takes its index by outcome for."""
        return sa.or_(*self._kinds(wanted, sa.func.coalesce(self.table.c.outcome, "")))

    def _kinds(self, wanted: Filter, outcome: Any) -> list[Clause]:
        """Return when an attempt is of the kind, or of any, one condition for each range of the index by outcome."""
        columns, kind = self.table.c, wanted.kind
        if kind is None:
            return [_is(outcome, one) for one in (_OUTCOMES[1:] if wanted.undelivered else _OUTCOMES)]
        if kind in _ENDED:
            return [_is(outcome, _outcome(kind))]
        if kind == "being_sent":
            return [sa.and_(_is(outcome, None), columns.expires_at > self.now)]
        settled = self._settled()
        settled = settled if kind == "settled" else sa.not_(settled)
        return [
            sa.and_(_is(outcome, Outcome.UNKNOWN), settled),
            sa.and_(_is(outcome, None), columns.expires_at <= self.now, settled),
        ]

    def _settled(self) -> Clause:
        """Return whether an attempt without a known outcome is not to be settled any more; as ``History.open`` does."""
        mine, other = self.table.c, self.table.alias()
        number = sa.cast(mine.attempt, sa.String(20))

        def one_more(condition: Clause) -> Clause:
            there = self._at_the_same_file(other).where(other.c.attempt != mine.attempt, condition)
            return there.exists()

        accepted = _is(other.c.outcome, Outcome.UPLOADED)
        resolves = sa.and_(
            other.c.outcome.in_([Outcome.UPLOADED.value, Outcome.REJECTED.value, Outcome.NOT_SENT.value]),
            (sa.literal(",") + other.c.resolves + ",").like(sa.literal("%,") + number + ",%"),
        )
        same_name = sa.or_(other.c.name == "", mine.name == "", sa.func.lower(other.c.name) == sa.func.lower(mine.name))
        sent_once_more = one_more(sa.and_(accepted, other.c.attempt < mine.attempt))
        live = sa.and_(other.c.outcome.is_(None), other.c.expires_at > self.now)
        decided = sa.or_(one_more(sa.and_(accepted, same_name)), sa.and_(sa.not_(one_more(accepted)), one_more(live)))
        return sa.or_(one_more(resolves), sa.and_(sa.not_(sent_once_more), decided))

    def _delivered(self) -> Clause:
        """Return whether an attempt at the same file delivered it."""
        other = self.table.alias()
        accepted = self._at_the_same_file(other).where(_is(other.c.outcome, Outcome.UPLOADED))
        # Not as EXISTS: PostgreSQL would join all that was ever delivered.
        return accepted.limit(1).scalar_subquery().is_not(None)

    def _at_the_same_file(self, other: Any) -> Any:
        mine = self.table.c
        key = (other.c[name] == mine[name] for name in ("environment", "client_no", "file_id"))
        return sa.select(sa.literal(1)).select_from(other).where(*key).correlate(self.table)

    def _narrowed(self, wanted: Filter) -> Clause:
        """Return all conditions but that of the kind."""
        columns = self.table.c
        exact = ("client_no", "file_type", "dag_id", "run_id", "task_id", "map_index")
        environment = sa.func.coalesce(columns.environment, "") if wanted.one_run else columns.environment
        found: list[Clause] = [environment == self.environment]
        found += [columns[name] == value for name in exact if (value := getattr(wanted, name)) is not None]
        found += self._days(wanted)
        if wanted.dags is not None:
            found.append(columns.dag_id.in_(sorted(wanted.dags)))
        if wanted.undelivered:
            found.append(sa.not_(self._delivered()))
        if wanted.text:
            found.append(self._has(wanted.text))
        return sa.and_(*found)

    def _days(self, wanted: Filter) -> list[Clause]:
        claimed_at = self.table.c.claimed_at
        found: list[Clause] = [claimed_at >= wanted.since] if wanted.since else []
        if wanted.until:
            found.append(claimed_at < f"{wanted.until}U")  # 'T' comes before it, and every time of the day
        return found

    def _has(self, text: str) -> Clause:
        columns = self.table.c
        part = "%" + text.replace("!", "!!").replace("%", "!%").replace("_", "!_") + "%"
        if self.dialect == "sqlite" and text.isascii():
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


def _outcome(kind: str) -> Outcome:
    return Outcome.UPLOADED if kind == "delivered" else Outcome(kind)


def _is(column: Any, outcome: Outcome | None) -> Clause:
    if outcome is not None:
        return column == outcome.value
    return column.is_(None) if isinstance(column, sa.Column) else column == ""
