"""
The run: reading ahead, asking the ledger, packing and sending overlap, within one bound on memory.

One coordinator, the task's own thread, decides everything; reader and sender threads only do and report. Nothing
needs a lock: they put events in a queue, and an item belongs to one of them or to the coordinator.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from amili_provider.api.client import AmiliClient
from amili_provider.delivery.item import EarlyStop, Item, Result, Sent, as_follower, in_a_dry_run, not_sent, unknown
from amili_provider.delivery.ledger_session import LedgerSession
from amili_provider.delivery.options import STREAM_BYTES, Options
from amili_provider.delivery.progress import Progress, Telemetry, warn_of_duplicates
from amili_provider.delivery.reader import MOST_READERS, Lines, Packer, Reader, Readers
from amili_provider.delivery.sender import Sender
from amili_provider.receipts import Outcome, Receipt
from amili_provider.storage.content import StoredContent
from amili_provider.storage.files import STREAM_MEMORY_BYTES
from amili_provider.workers import Workers

FILES_PER_READ = 100
"""Small files read by one job at most; a job costs the coordinator more than a small file does."""
BYTES_PER_READ = 1024 * 1024
GRACE_SECONDS = 2.0
"""How long a stopped run waits for answers that are on their way."""
SETTLE_SECONDS = 1.5
"""How long it then waits for its cut requests to be settled: Airflow kills five seconds after its signal."""
BREAK_SECONDS = 0.5
"""How long it then waits for readers, which send nothing."""
_TAKEN = (Outcome.UPLOADED, Outcome.REJECTED, Outcome.UNKNOWN)
"""Outcomes of files that a request may have taken to Amili."""
UNREACHABLE_REQUESTS = 3
"""After so many requests in a row that did not reach Amili, each tried several times, the rest is not tried."""


class Pipeline:
    """
    Delivers items.

    :param options: how.
    :param client: to whom.
    :param session: where claims and outcomes are written.
    :param log: the task's logger.
    :param telemetry: measures its requests.
    """

    def __init__(
        self,
        options: Options,
        client: AmiliClient,
        session: LedgerSession,
        *,
        log: logging.Logger,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._telemetry = telemetry
        self._options = options
        self._client = client
        self._session = session
        self._log = log
        self._stop = threading.Event()
        self._reader = Reader(options, session, stop=self._stop)
        self._sender = Sender(options, client, session, stop=self._stop, log=log)
        self._packer = Packer(options)
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._leaders: dict[str, Item] = {}
        """The file that is sent, by the hash of its content."""
        self._warned_of: list[Receipt] = []
        self._todo: deque[Item] = deque()
        self._reading = self._sending = 0
        self._readers = Readers()
        self._streams = 0
        self._held_bytes = 0
        self._unreachable = 0
        self.halt: EarlyStop | None = None
        """Why not everything was tried, if so."""
        self.abandoned = False
        """Whether a stopped run has left threads behind that wait for a storage or ledger that does not answer."""

    def run(self, items: Iterable[Item]) -> None:
        """
        Deliver *items*: when this returns or raises, each has its final receipt.

        An exception that is raised in this thread meanwhile (a time-out of the task, Ctrl-C) stops the run: what
        has not been sent is not sent, answers on their way are waited for a moment, and what is known is settled.
        """
        self._todo.extend(items)
        everything = list(self._todo)
        self._reader.expect(everything)
        self._lines = Lines(everything)
        self._progress = Progress(self._log, files=len(self._todo), size=sum(i.file.size for i in self._todo))
        readers, senders = Workers("amili-read"), Workers("amili-send")
        try:
            self._loop(readers, senders)
        except BaseException:
            self._end_early()
            raise
        finally:
            try:
                self._end(readers, senders)
            finally:
                try:
                    self._settle_rest(everything)
                finally:  # once more: a second exception may have struck in between
                    self._settle_rest(everything)
                warn_of_duplicates(self._log, self._warned_of)

    def _end(self, readers: Workers, senders: Workers) -> None:
        """
        End the threads, also where a second exception strikes meanwhile.

        In a stopped run a thread that waits for a storage is left to itself: it can send nothing any more, since the
        stop is asked for before a tail is released, and what it was about to do is in its items' results.
        """
        stopped = self.abandoned = self._stop.is_set()
        try:
            if stopped:
                self._client.abort()
        finally:
            senders_ended = senders.end(SETTLE_SECONDS if stopped else None)
            self.abandoned = not (readers.end(BREAK_SECONDS if stopped else None) and senders_ended)

    def _settle_rest(self, items: Sequence[Item]) -> None:
        """
        Give what has no final receipt its own.

        An exception in this thread can strike between a sender's word and the receipts, and a sender can take longer to
        settle than a stopped run waits.
        """
        stopped = not_sent(
            self.halt.reason if self.halt else "The run ended before this file was sent.", transient=True
        )
        following = {id(follower) for item in items for follower in item.followers}
        for item in items:
            if not item.done and id(item) not in following:
                self._finish(item, item.result or stopped)
        for item in items:
            self._finish_followers(item)
        for item in items:
            if not item.done:
                self._finish(item, stopped)
            self._release(item)

    def _loop(self, readers: Workers, senders: Workers) -> None:
        while True:
            self._start_reads(readers)
            self._start_sends(senders)
            if not self._reading and not self._sending:
                break
            self._next_event()

    def _next_event(self, timeout: float = 5.0) -> None:
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            pass
        else:
            event()
        self._progress.tell()

    # Reading ahead

    def _start_reads(self, readers: Workers) -> None:
        if self.halt:
            while self._todo:
                self._finish(self._todo.popleft(), not_sent(self.halt.reason, transient=self.halt.transient))
            return
        while self._todo and self._reading < self._readers.number and self._has_room(self._todo[0]):
            if self._reader.streams(self._todo[0]):
                self._readers.on_stream()
            job = [self._take()]
            wanted = min(FILES_PER_READ, max(1, len(self._todo) // MOST_READERS))
            size = job[0].held_bytes
            while (
                len(job) < wanted
                and self._todo
                and not self._reader.streams(self._todo[0])
                and size + self._todo[0].file.size <= BYTES_PER_READ
                and self._has_room(self._todo[0])
            ):
                job.append(self._take())
                size += job[-1].held_bytes
            self._reading += 1
            readers.give(partial(self._reader_job, job), self._reading)

    def _has_room(self, item: Item) -> bool:
        if not self._held_bytes:
            return True
        if self._reader.streams(item) and self._streams > self._options.max_concurrent_requests:
            # One more than can be sent at once, so that the next is at hand; it also bounds spool and descriptors.
            return False
        return self._held_bytes + self._cost(item) <= self._options.max_memory_bytes

    def _cost(self, item: Item) -> int:
        """Return the memory that *item* takes while it is read."""
        if not self._reader.streams(item):
            return max(item.file.size, 1)
        return STREAM_BYTES if item.file.local_path is not None else STREAM_MEMORY_BYTES

    def _take(self) -> Item:
        item = self._todo.popleft()
        item.held_bytes = self._cost(item)
        self._held_bytes += item.held_bytes
        self._streams += self._reader.streams(item)
        return item

    def _reader_job(self, job: list[Item]) -> None:
        began = time.monotonic()
        try:
            outcomes, slow = self._reader.read(job)
        except BaseException as error:  # noqa: BLE001 - the coordinator waits for this job, whatever happened to it
            outcomes, slow = [(item, not_sent(error)) for item in job], False
        self._events.put(lambda: self._on_read(outcomes, began, slow=slow))

    def _on_read(self, outcomes: list[tuple[Item, Result | None]], began: float, *, slow: bool) -> None:
        self._reading -= 1
        self._readers.on_read(began, slow=slow)
        for item, result in outcomes:
            for one, its_result in self._lines.read(item, result):
                self._take_in(one, its_result)

    def _take_in(self, item: Item, result: Result | None) -> None:
        """Decide what is to be done with a file that was read."""
        leader = None if item.alone else self._leaders.get(item.receipt.sha256 or "")
        delivered = result is not None and result.outcome.delivered
        one_identity = leader is not None and leader.file_id == item.receipt.file_id
        if leader is not None and not delivered and (one_identity or self._options.if_duplicate != "send"):
            # Whatever else the ledger said of it: that may have been about its leader.
            self._release(item)
            item.receipt.file_id = leader.file_id
            leader.followers += (item,)
            if leader.done:
                self._finish_followers(leader)
        elif result is not None:
            self._finish(item, result)
        elif self.halt:
            self._finish(item, not_sent(self.halt.reason, transient=self.halt.transient))
        else:
            if item.receipt.sha256 is not None:
                self._leaders.setdefault(item.receipt.sha256, item)
            if self._options.dry_run:
                self._finish(item, in_a_dry_run(None))
                return
            if self._reader.streams(item) and not isinstance(item.content, StoredContent):
                # Spooled or in place: from here on it takes what sending takes.
                self._held_bytes -= item.held_bytes - STREAM_BYTES
                item.held_bytes = STREAM_BYTES
            self._packer.add(item)

    # Sending

    def _start_sends(self, senders: Workers) -> None:
        if self.halt:
            for item in self._packer.drain():
                self._finish(item, not_sent(self.halt.reason, transient=self.halt.transient))
        while self._sending < self._options.max_concurrent_requests:
            # A batch that is not full waits for more files as long as more can come.
            batch = self._packer.next_batch(even_if_not_full=not self._reading)
            if batch is None:
                break
            self._sending += 1
            senders.give(partial(self._sender_job, batch), self._sending)

    def _sender_job(self, batch: list[Item]) -> None:
        try:
            sent = self._sender.send(batch)
        except BaseException as error:  # noqa: BLE001 - see below
            # A bug. The coordinator must hear of it, and nobody knows how far the request came.
            self._log.exception("Sending failed unexpectedly")
            reason = f"{type(error).__name__} while sending"
            sent = Sent({item: unknown(reason) for item in batch}, halt=EarlyStop(reason, transient=False, error=error))
        for item in batch:
            item.result = sent.results[item]
        self._events.put(lambda: self._on_sent(batch, sent))

    def _on_sent(self, batch: list[Item], sent: Sent) -> None:
        self._sending -= 1
        for item in batch:
            self._finish(item, sent.results[item])
        self._progress.request(batch, sent)
        if self._telemetry is not None:
            for post in sent.posts:
                self._telemetry.request(post)
        self._unreachable = self._unreachable + 1 if sent.unreachable else 0
        halt = sent.halt
        if halt is None and self._unreachable >= UNREACHABLE_REQUESTS:
            halt = EarlyStop(f"Not tried: {self._unreachable} requests in a row did not reach Amili.", transient=True)
        if halt is not None and (self.halt is None or (self.halt.transient and not halt.transient)):
            self.halt = halt

    # Ending

    def _finish(self, item: Item, result: Result) -> None:
        """Write the final receipt of *item* and of those that follow it, and give back what they hold."""
        receipt, verdict = item.receipt, result.verdict
        receipt.outcome = verdict.outcome
        receipt.status, receipt.result, receipt.message = verdict.status, verdict.result, verdict.message
        receipt.uploaded_at = result.at if verdict.outcome.delivered else None
        receipt.request = item.request if verdict.outcome in _TAKEN else None
        receipt.transient, receipt.unwritten, receipt.gone = result.transient, result.unwritten, result.gone
        item.refused_itself = result.refused_itself
        item.refused_by_name = result.refused_itself and verdict.per_file
        item.done = True
        self._release(item)
        if result.warned_of:
            self._warned_of.append(receipt)
        self._progress.finished(item)
        self._finish_followers(item)

    def _finish_followers(self, leader: Item) -> None:
        followers, leader.followers = leader.followers, ()
        for follower in followers:
            result = as_follower(leader, self._options)
            if result is not None:
                self._finish(follower, result)
                continue
            follower.alone = True
            self._todo.appendleft(follower)

    def _release(self, item: Item) -> None:
        if item.held_bytes:
            self._streams -= self._reader.streams(item)
            self._held_bytes -= item.held_bytes
            item.held_bytes = 0
        if not self.abandoned:
            item.close()

    def _end_early(self) -> None:
        """Stop promptly: nothing more is sent, answers on their way get a moment, and what is known is settled."""
        self._stop.set()
        self.halt = EarlyStop("The run was stopped before this file was sent.", transient=True)
        deadline = time.monotonic() + GRACE_SECONDS
        while (self._reading or self._sending) and time.monotonic() < deadline:
            self._next_event(timeout=0.1)
        stopped = not_sent(self.halt.reason, transient=True)
        for item in [*self._todo, *self._packer.drain()]:
            self._finish(item, stopped)
        self._todo.clear()
