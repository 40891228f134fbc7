"""Copy a ledger to another storage: every receipt whole, nothing overwritten."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from amili_provider.ledger import identity
from amili_provider.ledger.folders import Folder
from amili_provider.ledger.records import LedgerReceipt, parse
from amili_provider.ledger.sizes import first_of_size
from amili_provider.ledger.workers import Workers


@dataclass(frozen=True, slots=True)
class Copied:
    """
    What a copy of a ledger did.

    :param copied: receipts written, and read back.
    :param same: receipts that were there already.
    :param differing: receipts that are there with other content; they were left as they are.
    :param live: claims that are not settled yet; they were not copied.
    """

    copied: int = 0
    same: int = 0
    differing: list[str] = field(default_factory=list)
    live: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether the copy can take the ledger's place."""
        return not self.differing and not self.live

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def copy_ledger(origin: Folder, target: Folder, *, clock: Callable[[], float] = time.time) -> Copied:
    """
    Copy every receipt to another folder, whole, and read it back. Nothing that differs is overwritten.

    Pause the DAGs that use the ledger meanwhile: a claim that is live is not copied, because its outcome is yet to
    come. Copying again goes on where it ended.

    :param origin: the ledger.
    :param target: where to.
    :param clock: seconds since the epoch.
    :raises AmiliLedgerUnavailable: if one cannot be read or the other not be written.
    """
    workers = Workers(min(origin.concurrency, target.concurrency))
    try:
        results = list(workers.in_order(partial(_copy_one, origin, target, clock()), _receipts(origin)))
    finally:
        workers.close()
    by_kind: dict[str, list[str]] = {"copied": [], "same": [], "differing": [], "live": []}
    for kind, name in results:
        by_kind[kind].append(name)
    return Copied(len(by_kind["copied"]), len(by_kind["same"]), sorted(by_kind["differing"]), sorted(by_kind["live"]))


def _receipts(folder: Folder) -> Iterator[re.Match[str]]:
    for name in folder.names():
        if match := identity.RECEIPT_NAME.fullmatch(name):
            yield match


def _copy_one(origin: Folder, target: Folder, now: float, receipt: re.Match[str]) -> tuple[str, str]:
    name, file_id, attempt = receipt[0], receipt["id"], int(receipt["n"])
    data = origin.read(name)
    read = parse(data, file_id=file_id, attempt=attempt)
    if isinstance(read, LedgerReceipt) and read.is_live(now):
        return "live", name
    if isinstance(read, LedgerReceipt):
        first_of_size(target, receipt["folder"], read.size)
    try:
        there = target.read(name)
    except FileNotFoundError:
        try:
            target.create(name, data)
            target.confirm(name, data)
        except FileExistsError:
            return "differing", name
        return "copied", name
    return ("same" if there == data else "differing"), name
