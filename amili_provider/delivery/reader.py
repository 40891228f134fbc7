"""
From files to requests: read a job, hash, look up, put equal sizes in line, pack.

A job runs in a reader's thread and touches nothing of Airflow. Every file of it leaves with its content, or with what
becomes of it instead. A large file that nobody can have sent before leaves unread: it is hashed while it is sent, and
looked up before its request's tail.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator

from amili_provider.api.upload import base64_bytes
from amili_provider.delivery.item import Item, Result, not_sent
from amili_provider.delivery.ledger_session import LedgerSession
from amili_provider.delivery.options import Options
from amili_provider.ledger import History
from amili_provider.storage.content import HashedContent
from amili_provider.storage.files import StorageFile
from amili_provider.storage.reading import can_stay, open_content, read_content, read_small_contents

_AROUND_CONTENT_BYTES = 160
"""JSON around a file's content, its name left out."""
SLOW_SECONDS = 0.002
"""A file that took longer to read and look up was waited for."""
FEWEST_READERS, MOST_READERS = 2, 16


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


class Reader:
    """
    Reads jobs of files.

    :param options: how.
    :param session: who a file is, and whether it may be sent.
    :param stop: set when the run is to end.
    """

    def __init__(self, options: Options, session: LedgerSession, *, stop: threading.Event) -> None:
        self._options = options
        self._session = session
        self._stop = stop
        self._in_memory_bytes = options.in_memory_bytes
        self._sizes: Counter[int] = Counter()

    def expect(self, items: Iterable[Item]) -> None:
        """Take note of what will be read in this run: files of one size can hold the same bytes."""
        self._sizes.update(item.file.size for item in items if self.streams(item))

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
                self._identify(item, next(contents))
            except Exception as error:  # noqa: BLE001 - whatever a storage raises is this file's outcome, never lost
                outcomes.append((item, not_sent(error)))
            else:
                outcomes.append((item, None))
        try:
            # All at once: a ledger answers many questions as fast as one.
            found = self._session.look_up([item for item, result in outcomes if result is None and item.identified])
        except Exception as error:  # noqa: BLE001 - as above
            return [(item, result or not_sent(error)) for item, result in outcomes], True
        outcomes = [(item, result or self._consult(item, found.get(item))) for item, result in outcomes]
        return outcomes, time.monotonic() - began > SLOW_SECONDS * len(job)

    def _contents(self, job: list[Item]) -> Iterator[HashedContent | Exception]:
        """Yield the content of each file of a job, or why there is none."""
        if not self.streams(job[0]):
            yield from read_small_contents([item.file for item in job], on_bytes=self._keep_reading)
            return
        file = job[0].file
        if self._nobody_can_know(file) and can_stay(file):
            yield open_content(file)
            return
        yield read_content(
            file,
            in_memory_bytes=self._in_memory_bytes,
            on_bytes=self._keep_reading,
        )

    def _nobody_can_know(self, file: StorageFile) -> bool:
        """Return whether neither the ledger nor another file of this run can have the bytes of a large *file*."""
        return not (self._options.dry_run or self._sizes[file.size] > 1 or self._session.has_size(file.size))

    def _identify(self, item: Item, content: HashedContent | Exception) -> None:
        if isinstance(content, Exception):
            raise content
        item.content = content
        if content.sha256 is not None:
            self._session.identify(item)

    def _consult(self, item: Item, looked_up: History | None) -> Result | None:
        if not item.identified:
            return None
        try:
            return self._session.consult(item, looked_up)
        except Exception as error:  # noqa: BLE001 - as above
            return not_sent(error)

    def _keep_reading(self, _: int) -> None:
        if self._stop.is_set():
            raise InterruptedError("The run was stopped before this file was read.")


class Readers:
    """The number of reader threads, which grows once reading is seen to be waited for."""

    def __init__(self) -> None:
        self.number = FEWEST_READERS
        """Jobs that may be read at once."""
        self._slow_since: float | None = None

    def on_stream(self) -> None:
        """Take note that a large file holds its reader for long: what comes behind it must not wait."""
        self.number = MOST_READERS

    def on_read(self, began: float, *, slow: bool) -> None:
        """
        Take note of a job that was read.

        One pause of the process (its collector of garbage, a busy machine) makes every job in flight slow, and is no
        reason for more readers: only a slow job that began after another had been slow is.

        :param began: when it began, by the monotonic clock.
        :param slow: whether storage or ledger were waited for.
        """
        if not slow:
            self._slow_since = None
        elif self._slow_since is None:
            self._slow_since = time.monotonic()
        elif began >= self._slow_since:
            self.number = min(self.number * 2, MOST_READERS)


class Packer:
    """
    Packs items into batches, one batch a request.

    :param options: its bounds.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._ready: deque[list[Item]] = deque()
        self._open: list[Item] = []
        self._open_bytes = 0

    def __len__(self) -> int:
        return len(self._open) + sum(len(batch) for batch in self._ready)

    def add(self, item: Item) -> None:
        """Take *item* into the batch being packed; a file too large to share a request gets one of its own."""
        assert item.content is not None
        size = base64_bytes(item.content.size) + 6 * len(item.receipt.name) + _AROUND_CONTENT_BYTES
        limit = base64_bytes(self._options.batch_bytes)
        if item.content.size > self._options.in_memory_bytes or size > limit:
            self._ready.append([item])
            return
        if self._open and self._open_bytes + size > limit:
            self._close()
        self._open.append(item)
        self._open_bytes += size
        if len(self._open) >= self._options.max_files_per_request:
            self._close()

    def next_batch(self, *, even_if_not_full: bool) -> list[Item] | None:
        """Return the next batch, or None if there is none yet."""
        if not self._ready and even_if_not_full and self._open:
            self._close()
        return self._ready.popleft() if self._ready else None

    def drain(self) -> list[Item]:
        """Return everything that was not handed out."""
        items = [item for batch in self._ready for item in batch] + self._open
        self._ready.clear()
        self._open, self._open_bytes = [], 0
        return items

    def _close(self) -> None:
        self._ready.append(self._open)
        self._open, self._open_bytes = [], 0
