"""How far a search goes back: a part of a name is in no index, so it looks at so many attempts and no more."""

from __future__ import annotations

import sqlalchemy as sa

from amili_provider.ui.conditions import Conditions
from amili_provider.ui.filters import Filter, Key
from amili_provider.ui.reading import Reading

BUDGET = 100_000
"""Attempts that a search looks at."""


def cut_of(reading: Reading, conditions: Conditions, wanted: Filter, after: Key | None = None) -> str | None:
    """
    Return the time of the attempt that is :data:`BUDGET` attempts back in what an index holds; None if none is.

    :param reading: the ledger's database.
    :param conditions: those of its table.
    :param wanted: what is searched.
    :param after: only what comes after this row.
    """
    claimed_at = conditions.table.c.claimed_at
    parts = [
        sa.select(claimed_at).where(one).order_by(claimed_at.desc()).offset(BUDGET).limit(1)
        for one in conditions.ranges(wanted, after)
    ]
    return max((row[0] for row in reading.together(parts)), default=None)
