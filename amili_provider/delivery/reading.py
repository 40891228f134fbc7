"""
Reading a job of files: read, hash, look up.

Runs in a reader's thread and touches nothing of Airflow. Every file of the job leaves with its content, or with what
becomes of it instead.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from amili_provider.delivery.books import Books
from amili_provider.delivery.outcomes import Result, not_sent
from amili_provider.delivery.plan import Item, Plan
from amili_provider.storage.contents import HashedContent, read_content, read_small_contents

SLOW_SECONDS = 0.002
"""A file that took longer to read and look up was waited for."""


class Reader:
    """
    Reads jobs of files.

    :param plan: how.
    :param books: who a file is, and whether it may be sent.
    :param stop: set when the run is to end.
    """

    def __init__(self, plan: Plan, books: Books, *, stop: threading.Event) -> None:
        self._plan = plan
        self._books = books
        self._stop = stop
        self._in_memory_bytes = plan.in_memory_bytes

    def streams(self, item: Item) -> bool:
        """Return whether *item* is too large to be held in memory."""
        return item.file.size > self._in_memory_bytes

    def read(self, job: list[Item]) -> tuple[list[tuple[Item, Result | None]], bool]:
        """
        Read, hash and look up every file of *job*.

        :param job: small files, or one that is streamed.
        :returns: for each file what becomes of it, or None if it is to be sent; and whether storage or ledger were
            waited for, so that more readers help.
        """
        outcomes: list[tuple[Item, Result | None]] = []
        began = time.monotonic()
        contents = self._contents(job)
        for item in job:
            try:
                outcomes.append((item, self._identify(item, next(contents))))
            except Exception as error:  # noqa: BLE001 - whatever a storage raises is this file's outcome, never lost
                outcomes.append((item, not_sent(error)))
        return outcomes, time.monotonic() - began > SLOW_SECONDS * len(job)

    def _contents(self, job: list[Item]) -> Iterator[HashedContent | Exception]:
        """Yield the content of each file of a job, or why there is none."""
        if not self.streams(job[0]):
            yield from read_small_contents([item.file for item in job], on_bytes=self._keep_reading)
            return
        yield read_content(
            job[0].file,
            in_memory_bytes=self._in_memory_bytes,
            spool_dir=self._plan.spool_dir,
            on_bytes=self._keep_reading,
        )

    def _identify(self, item: Item, content: HashedContent | Exception) -> Result | None:
        if isinstance(content, Exception):
            raise content
        item.content = content
        item.receipt.sha256 = content.sha256
        item.receipt.file_id = self._books.file_id(content.sha256)
        return self._books.consult(item)

    def _keep_reading(self, _: int) -> None:
        if self._stop.is_set():
            raise InterruptedError("The run was stopped before this file was read.")
