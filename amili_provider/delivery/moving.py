"""Moves of settled files: delivered ones to ``archive_to``, refused ones to ``reject_to``; never the ledger's."""

from __future__ import annotations

import logging
import os.path
import posixpath
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from amili_provider import fault_points
from amili_provider.delivery.item import Item, joined
from amili_provider.delivery.options import Options
from amili_provider.exceptions import AmiliError, AmiliPermanentError
from amili_provider.ledger.stores import LedgerStore
from amili_provider.receipts import Outcome
from amili_provider.storage.locations import Location, is_pattern
from amili_provider.storage.moves import Mover

_AT_ONCE = 8
_NOT_BY_NAME = "Not moved: Amili refused the request without naming the file, and accepted no other."


class Moving:
    """
    The moves of one run. Opened before anything is sent, so that a wrong folder is not found out after the fact.

    :param options: names the folders.
    :param items: what may be moved.
    :param log: the task's logger.
    :raises ValueError: if a folder is no folder, or the source would find there what was moved.
    """

    def __init__(self, options: Options, items: Sequence[Item], *, log: logging.Logger) -> None:
        self._items = items
        self._log = log
        self._dry_run = options.dry_run
        self._expects = bool(options.expect or options.min_files)
        files = [item.file for item in items]
        self._movers: dict[str, Mover] = {}
        try:
            for parameter, url in (("archive_to", options.archive_to), ("reject_to", options.reject_to)):
                # Whose connection a folder is on is the files' to say; without any there is nothing to move.
                if url is not None and files:
                    self._movers[parameter] = Mover.open(parameter, url, options.source_conn_id, files)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connections to the folders' storages."""
        for target in self.targets:
            target.storage.close()

    @property
    def targets(self) -> list[Location]:
        """The folders."""
        return [mover.target for mover in self._movers.values()]

    def move(self, failure: AmiliError | None, *, has_ledger: bool, goes_on: bool = False) -> None:
        """
        Move what is settled and write into each receipt where its file is now, or why it stayed.

        A move that fails changes nothing about the delivery. The next run finds the file, knows it from the ledger,
        and moves it then.

        Some files stay while the task has not succeeded. A retry is given the same names and the same expectations,
        and must find delivered files that were named one by one or that are expected. And it must find the refused
        ones, or it would end well without them.

        :param failure: what the task fails with, if it does.
        :param has_ledger: whether a ledger remembers what was accepted; without one, only its move keeps a file from
            being sent again.
        :param goes_on: whether a person's answer makes it go on, which is as a retry.
        """
        wanted = [(mover, item) for item in self._items if (mover := self._mover_for(item)) is not None]
        if "reject_to" in self._movers and not self._dry_run:
            moving = {id(item) for _, item in wanted}
            for item in self._items:
                if item.receipt.outcome is Outcome.REJECTED and id(item) not in moving:
                    item.receipt.message = joined(item.receipt.message, _NOT_BY_NAME)
        if not wanted or self._dry_run:
            return
        if failure is not None:
            together = self._expects and has_ledger
            retried = goes_on or not isinstance(failure, AmiliPermanentError)
            wanted = [one for one in wanted if not _must_stay(one[1], together=together, retried=retried)]
        pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="amili-move")
        try:
            stayed = [reason for reason in pool.map(self._move_one, wanted) if reason is not None]
        except BaseException:
            # A task that is told to stop has to publish its receipts, and waits for no storage.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()
        if moved := len(wanted) - len(stayed):
            self._log.info("Moved %d file(s)", moved)
        if stayed:
            self._log.warning(
                "%d file(s) could not be moved; a run that finds them again tries again. %s", len(stayed), stayed[0]
            )

    def _mover_for(self, item: Item) -> Mover | None:
        outcome = item.receipt.outcome
        if item.receipt.unwritten:
            return None
        if outcome.delivered:
            return self._movers.get("archive_to")
        if outcome is Outcome.REJECTED and (item.refused_by_name or (item.refused_itself and self._others_accepted)):
            return self._movers.get("reject_to")
        return None

    @property
    def _others_accepted(self) -> bool:
        """Whether Amili accepted anything in this run: only then a bare 4xx for one file is about that file."""
        return any(item.receipt.outcome is Outcome.UPLOADED for item in self._items)

    def _move_one(self, wanted: tuple[Mover, Item]) -> str | None:
        """Move one file; return why it stayed, or None."""
        mover, item = wanted
        receipt = item.receipt
        assert receipt.sha256 is not None
        fault_points.reached("before move")
        moved = mover.move(item.file, file_id=item.file_id, sha256=receipt.sha256)
        fault_points.reached("moved")
        note = f"Moved to {moved.url}." if moved.url is not None else f"Not moved: {moved.reason}"
        receipt.message = joined(receipt.message, note)
        return None if moved.url is not None else moved.reason


def _must_stay(item: Item, *, together: bool, retried: bool) -> bool:
    if item.receipt.outcome.delivered:
        stays, note = together or item.file.literal, "Not moved yet: the task has to succeed first."
    else:
        stays, note = retried, "Not moved yet: the task is to be tried again, and has to find it."
    if stays:
        item.receipt.message = joined(item.receipt.message, note)
    return stays


def keep_apart(store: LedgerStore, sources: Iterable[Location] = (), folders: Iterable[Location] = ()) -> None:
    """
    Refuse a ledger that lies among the files, and files that lie in the ledger.

    :param store: the ledger's.
    :param sources: what is listed.
    :param folders: to which files are moved.
    :raises ValueError: if one of them and the ledger are not apart.
    """
    for protocol, place in store.places:
        on_it = [location for location in sources if location.protocol == protocol]
        ours = [("source", location) for location in on_it if _among(location, place)]
        for location in folders:
            path, at = (_real(p) if protocol == "file" else p for p in (location.path, place))
            if location.protocol == protocol and (_below(at, path) or _below(path, at)):
                ours.append(("folder", location))
        for what, location in ours:
            raise ValueError(
                f"The {what} {location.url} and the ledger {store.shown} lie in each other, and nothing was sent: what "
                f"the ledger remembers would be delivered, or moved away. Name another place for one of them."
            )


def _among(source: Location, place: str) -> bool:
    """Return whether *source* lists something of the ledger at *place*, or means to list around it."""
    segments = source.path.rstrip("/").split("/")
    fixed = next((i for i, s in enumerate(segments) if source.is_pattern and is_pattern(s)), len(segments))
    base = "/".join(segments[:fixed])
    if not source.storage.kind.object_store:
        real = replace(source, path=_real(base or "/").rstrip("/") + source.path[len(base) :])
        return real.finds(_real(place))
    # Around a ledger beside the other things of a bucket many sources go; a folder is made for its files.
    return _below(base, place) or (_below(place, base) and ("/" in base or source.looks_into(place)))


def _real(path: str) -> str:
    return os.path.realpath(path)


def _below(path: str, folder: str) -> bool:
    return posixpath.join(path, "").startswith(posixpath.join(folder, ""))
