"""
Reading a job of files: read, hash, look up; and the threads that do it.

A job runs in a reader's thread and touches nothing of Airflow. Every file of it leaves with its content, or with what
becomes of it instead. A large file that nobody can have sent before leaves unread: it is hashed while it is sent, and
looked up before its request's tail.

Jobs are given by a thread in which a signal may raise an exception at any moment: Airflow's time-outs and kills do that
in the task's own. Whatever takes a lock there (an executor, a future, a condition) may keep it then, and its workers
wait for that lock for ever. A :class:`queue.SimpleQueue` has none to keep.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from amili_provider.delivery.item import Item, Result, not_sent
from amili_provider.delivery.ledger_session import LedgerSession
from amili_provider.delivery.options import Options
from amili_provider.ledger import History
from amili_provider.storage.content import HashedContent
from amili_provider.storage.files import StorageFile
from amili_provider.storage.reading import can_stay, open_content, read_content, read_small_contents

SLOW_SECONDS = 0.002
"""A file that took longer to read and look up was waited for."""
FEWEST_READERS, MOST_READERS = 2, 16


class Workers:
    """
    Threads that do jobs in the order in which they were given.

    :param name: what the threads are called, before their number.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def give(self, job: Callable[[], None], going: int) -> None:
        """
        Have *job* done, which raises nothing.

        :param going: how many jobs there are with it; so many threads there will be.
        """
        self._jobs.put(job)
        while len(self._threads) < going:
            thread = threading.Thread(target=self._work, name=f"{self._name}_{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def end(self, seconds: float | None) -> bool:
        """
        Wait until the jobs are done and the threads have ended.

        :param seconds: for how long at most; None for as long as it takes.
        :returns: whether they have. If not, they end when their job does, and hold up nothing.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            if thread.is_alive():  # else an exception came before it was started
                thread.join(None if deadline is None else max(deadline - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


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
