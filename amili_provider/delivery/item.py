"""One file on its way; what became of the files of one request, and whether the run can go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from amili_provider.exceptions import AmiliPermanentError
from amili_provider.ledger import History
from amili_provider.receipts import Outcome, Receipt, Verdict, one_line
from amili_provider.storage.content import HashedContent
from amili_provider.storage.files import StorageFile


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
    bytes_out: int = 0
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
