"""
The records of a run: a file on its way, a request, what became of them; when a run stops early; equal bytes.

Next month's file can honestly hold the same bytes under another name, and a file exported twice does, too. Only a
person knows which, and says so with ``if_duplicate``. Who such a file is, is the rule of
:mod:`amili_provider.ledger.attempts`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Protocol

from amili_provider.delivery.options import Options
from amili_provider.exceptions import AmiliPermanentError
from amili_provider.ledger import History
from amili_provider.ledger.attempts import timestamp
from amili_provider.receipts import Outcome, Receipt, Verdict, one_line
from amili_provider.storage.content import HashedContent
from amili_provider.storage.files import StorageFile

_LONGEST_NAME = 80
UNKNOWN_REQUESTS = 2
"""After so many requests whose outcome is unknown, and none of which something was accepted, the rest is not tried."""
REFUSED_FILES = 100
"""
After so many files that a gateway let through not even alone, and none that Amili accepted, a request that it refuses
is not halved any more: it is hardly about single files then, and each half would be one more request in vain.
"""


@dataclass(frozen=True, slots=True)
class Result:
    """
    What became of one file.

    :param verdict: the outcome, in Amili's words where there are any.
    :param transient: of a file not sent: whether the cause may pass by itself.
    :param refused_itself: whether a refusal names this very file, or was given to a request of this file alone.
    :param at: when the answer came, ISO 8601 in UTC.
    :param unwritten: whether the ledger could not be told of it.
    :param gone: whether it was listed, and is not there any more.
    :param warned_of: whether the log warns of it, though the task may be green.
    """

    verdict: Verdict
    transient: bool = False
    refused_itself: bool = False
    at: str | None = None
    unwritten: bool = False
    gone: bool = False
    warned_of: bool = False

    @property
    def outcome(self) -> Outcome:
        """The outcome alone."""
        return self.verdict.outcome


def not_sent(reason: str | BaseException, *, transient: bool | None = None) -> Result:
    """
    Return the result of a file that could not be tried.

    :param reason: a sentence, or the error.
    :param transient: whether a retry may help; by default what the error's class says.
    """
    if transient is None:
        # A file that is gone is not found by the next try, which would end well without it.
        transient = not isinstance(reason, AmiliPermanentError | ValueError | FileNotFoundError)
    gone = isinstance(reason, FileNotFoundError)
    return Result(Verdict(Outcome.NOT_SENT, message=_words(reason)), transient=transient, gone=gone)


def unknown(reason: str | BaseException) -> Result:
    """Return the result of a file that was sent, and whose answer is missing."""
    return Result(Verdict(Outcome.UNKNOWN, message=_words(reason)))


def in_a_dry_run(result: Result | None) -> Result:
    """Return what a dry run says of a file that a run would send (None), or give *result*."""
    note = "would be sent" if result is None else f"would be {result.outcome}: {result.verdict.message}"
    return Result(Verdict(Outcome.SKIPPED, message=one_line(f"Dry run: {note}")))


def joined(*sentences: str | None) -> str:
    """Return sentences one after the other; those of others may end without a full stop."""
    said = [s.rstrip() for s in sentences if s]
    return " ".join([*(s if s.endswith((".", "!", "?", "…")) else f"{s}." for s in said[:-1]), *said[-1:]])


def _words(reason: str | BaseException) -> str:
    text = str(reason)
    if isinstance(reason, BaseException) and not text:
        text = type(reason).__name__
    return one_line(text)


@dataclass(frozen=True, slots=True)
class EarlyStop:
    """
    Why nothing more is tried in this run.

    :param reason: a sentence for the receipts of the files that are not tried.
    :param transient: whether a retry of the task may help.
    :param error: the error to raise at the end, if it says more than the receipts.
    :param retry_after: seconds that Amili asked us to wait.
    """

    reason: str
    transient: bool
    error: BaseException | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Post:
    """
    One request, for those who measure.

    :param label: its name in log, receipts and ledger.
    :param began: seconds since the epoch.
    :param ended: likewise.
    :param files: how many it was about.
    :param size: their bytes.
    :param outcomes: what it decided; files that are sent again in parts are in none.
    """

    label: str
    began: float
    ended: float
    files: int
    size: int
    outcomes: Mapping[Outcome, int]


@dataclass(slots=True)
class Sent:
    """What one batch came to: a result per file, how it was sent, and whether the run can go on."""

    results: dict[Item, Result] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    """The requests' names, as they stand in claims and log."""
    posts: list[Post] = field(default_factory=list)
    """The same, measured."""
    seconds: float = 0.0
    halt: EarlyStop | None = None
    unreachable: bool = False
    """Whether the last request ended without reaching Amili."""


@dataclass(slots=True, eq=False)
class Item:
    """
    One listed file on its way.

    :param file: where it is.
    :param receipt: what is known of it so far; published when the task ends.
    :param index: its position in the listing.
    """

    file: StorageFile
    receipt: Receipt
    index: int = 0
    content: HashedContent | None = None
    held_bytes: int = 0
    """Memory accounted for it."""
    followers: tuple[Item, ...] = ()
    """Files of the same run with the same bytes: they wait for its outcome."""
    history: History | None = None
    """What the ledger said when it let the file pass; its claim is the next attempt."""
    alone: bool = False
    """Whether it has waited for another file with the same bytes, and is now looked up for itself."""
    request: str | None = None
    """The last request it was part of, as in the log and in the ledger."""
    result: Result | None = None
    """What became of it, as its sender said; not yet in the receipt unless it is :attr:`done`."""
    done: bool = False
    """Whether the receipt is final."""
    skipped: bool = False
    """Whether it is of a kind that the task ignores."""
    refused_by_name: bool = False
    """Whether the refusal names this very file."""
    refused_itself: bool = False
    """Whether the refusal is about this very file, not about a request that it shared: by name, or alone."""

    @property
    def file_id(self) -> str:
        """Its identity; known once it was read."""
        assert self.receipt.file_id is not None
        return self.receipt.file_id

    @property
    def identified(self) -> bool:
        """Whether :attr:`file_id` is known; a large file may be sent up to its request's tail before it is."""
        return self.receipt.file_id is not None

    def close(self) -> None:
        """Give back the content, and what only its sending needs."""
        self.history = None
        if self.content is not None:
            self.content.close()
            self.content = None


class Breaker:
    """What requests came to since Amili last accepted something. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unknown = self._refused_by_gateway = 0

    def note(self, outcomes: AbstractSet[Outcome], *, by_gateway: bool = False) -> None:
        """
        Take note of a request that has ended.

        :param outcomes: what became of its files.
        :param by_gateway: whether a gateway refused a request of one file.
        """
        with self._lock:
            if Outcome.UPLOADED in outcomes:
                self._unknown = self._refused_by_gateway = 0
            self._unknown += Outcome.UNKNOWN in outcomes and Outcome.UPLOADED not in outcomes
            self._refused_by_gateway += by_gateway

    @property
    def halt(self) -> EarlyStop | None:
        """Why nothing more is to be sent, if so."""
        if self._unknown < UNKNOWN_REQUESTS:
            return None
        return EarlyStop(
            f"Not tried: of {self._unknown} requests in a row nobody knows what Amili took. A retry sends this file.",
            transient=True,
        )

    @property
    def gateway_bars_all(self) -> bool:
        """Whether halving requests that a gateway refuses leads nowhere."""
        return self._refused_by_gateway >= REFUSED_FILES


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
