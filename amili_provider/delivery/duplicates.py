"""
Equal bytes under another name: next month's file can honestly hold the same, and a file exported twice does, too.

Only a person knows which, and says so with ``if_duplicate``. Who such a file is, is the rule of
:mod:`amili_provider.ledger.attempts`; here is what becomes of it.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

from amili_provider.delivery.item import Item, Result, in_a_dry_run
from amili_provider.delivery.options import Options
from amili_provider.ledger.attempts import timestamp
from amili_provider.receipts import Outcome, Verdict, one_line

_LONGEST_NAME = 80


class Accepted(Protocol):
    """What has to be known of the file that Amili accepted: its receipt, of this run or from the ledger."""

    @property
    def name(self) -> str:
        """What Amili got."""

    @property
    def source(self) -> str:
        """Where it was."""

    @property
    def status(self) -> str | None:
        """Amili's status."""

    @property
    def result(self) -> str | None:
        """Amili's result."""

    @property
    def uploaded_at(self) -> str | None:
        """When Amili had accepted it."""


def not_sent_twice(accepted: Accepted, options: Options, *, run: str) -> Result:
    """
    Return what becomes of a file whose bytes Amili accepted under another name, and which is not to be sent as well.

    :param accepted: the one that Amili has.
    :param options: whose ``if_duplicate`` is ``fail`` or ``skip``.
    :param run: which run delivered that one, in words.
    """
    day = (accepted.uploaded_at or "")[:10] or "an unknown day"
    words = (
        f"Amili accepted the same bytes as '{one_line(accepted.name, _LONGEST_NAME)}' on {day} ({run}); "
        f"not sent again on {timestamp(time.time())[:10]}"
    )
    where = f" The first was {accepted.source}."
    if options.if_duplicate == "skip":
        message = one_line(f"{words}, because if_duplicate='skip'.{where}")
        verdict = Verdict(Outcome.ALREADY_UPLOADED, accepted.status, accepted.result, message)
        return Result(verdict, at=accepted.uploaded_at, warned_of=True)
    return Result(Verdict(Outcome.DUPLICATE, message=one_line(f"{words}.{where}")))


def as_follower(leader: Item, options: Options) -> Result | None:
    """
    Return what becomes of a file whose bytes another file of the run holds, once that has its receipt.

    :param leader: the first of the listing with these bytes.
    :param options: how to deliver.
    :returns: None if the file is to be looked up for itself: the bytes are accepted, so it has an identity of its own.
    """
    receipt = leader.receipt
    would_be_sent = options.dry_run and receipt.outcome is Outcome.SKIPPED
    if receipt.outcome is Outcome.UPLOADED or would_be_sent:
        if options.if_duplicate == "send":
            return in_a_dry_run(None) if would_be_sent else None
        result = replace(not_sent_twice(receipt, options, run="in this run"), unwritten=receipt.unwritten)
        return in_a_dry_run(result) if would_be_sent else result
    if receipt.outcome in (Outcome.ALREADY_UPLOADED, Outcome.DUPLICATE):
        return None
    verdict = Verdict(receipt.outcome, receipt.status, receipt.result, receipt.message, per_file=leader.refused_by_name)
    return Result(
        verdict, transient=receipt.transient, refused_itself=leader.refused_itself, unwritten=receipt.unwritten
    )


class Lines:
    """
    Hands on what was read: files of one size in the order of the listing, since only they can hold the same bytes.

    So of equal bytes the first of the listing is sent, however readers overtake one another.

    :param items: what will be read, in the order of the listing.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        going = list(items)
        sizes = Counter(item.file.size for item in going)
        self._expected: dict[int, deque[Item]] = {size: deque() for size, number in sizes.items() if number > 1}
        for item in going:
            if item.file.size in self._expected:
                self._expected[item.file.size].append(item)
        self._read: dict[Item, Result | None] = {}

    def read(self, item: Item, result: Result | None) -> Iterator[tuple[Item, Result | None]]:
        """
        Take one file that was read, and yield those whose turn it is.

        :param item: the file.
        :param result: what becomes of it, or None if it is to be sent.
        """
        line = self._expected.get(item.file.size)
        if not line or item.alone:
            yield item, result
            return
        self._read[item] = result
        while line and line[0] in self._read:
            first = line.popleft()
            yield first, self._read.pop(first)
