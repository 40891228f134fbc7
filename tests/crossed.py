"""Tables crossed with tables: each row and each column in the quick run, every pair of them with ``-m long``."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest


def crossed(rows: Iterable[Any], columns: Iterable[Any], *, always: Iterable[Any] = ()) -> list[Any]:
    """
    Return every pair of a row and a column as parameters of a test, most of them marked ``long``.

    :param rows: of the longer table.
    :param columns: of the shorter; row *i* meets column *i*, and begins again where the columns end.
    :param always: columns that every row meets.
    """
    listed, others = list(columns), set(always)
    pairs = []
    for (index, row), (place, column) in product(enumerate(rows), enumerate(listed)):
        quick = column in others or index % len(listed) == place
        pairs.append(pytest.param(row, column, marks=() if quick else pytest.mark.long))
    return pairs
