"""How a run ends: green, or with the one error that says which files are not delivered and what to do."""

from __future__ import annotations

import fnmatch
import unicodedata
from collections.abc import Sequence

from amili_provider.delivery.item import EarlyStop
from amili_provider.exceptions import (
    AmiliAuthenticationError,
    AmiliDeliveryFailed,
    AmiliDeliveryIncomplete,
    AmiliDuplicateFiles,
    AmiliError,
    AmiliFilesMissing,
    AmiliOutcomeUnknown,
    AmiliRequestError,
    AmiliUploadRejected,
)
from amili_provider.receipts import Outcome, Receipt, one_line
from amili_provider.report_lines import (
    LOG_WIDTH,
    LONGEST_CLASS,
    MOST_LINES,
    WHAT_TO_DO,
    ReceiptFields,
    by_outcome,
    headline,
    told,
    was_asked,
    wrapped,
)
from amili_provider.storage.opening import Sources

_REMEDIES = {
    "unwritten": "Mend the ledger first: it was not told of files, so the next run finds them unknown.",
    "unknown": WHAT_TO_DO["unknown"],
    "asked": WHAT_TO_DO["asked"],
    "rejected": WHAT_TO_DO["rejected"],
    "duplicate": WHAT_TO_DO["duplicate"],
    "transient": (
        "The next try sends the files that could not be tried now, and repeats nothing. Where the reason below names "
        "a remedy, follow it first."
    ),
    "missing": "It may still come: Airflow looks again as often as the task's retries say, and repeats nothing.",
    "gone": (
        "A file that is gone is looked for by no later try, so Airflow does not retry this task. Find out who took the "
        "file away; put it back if it is to go; then clear the task."
    ),
    "permanent": WHAT_TO_DO["not_sent"],
    "no_ledger": (
        "Name a ledger, or run again for the files below only: without one (ledger=None) nothing remembers what was "
        "accepted, so Airflow does not retry this task, which would send the uploaded files a second time."
    ),
}
_MOST_MISSING = 3
"""Sentences about what is missing that a message has at most; the error has all of them."""


def failure(
    receipts: Sequence[Receipt],
    *,
    halt: EarlyStop | None,
    has_ledger: bool,
    missing: Sequence[str] = (),
    source: str = "",
) -> AmiliError | None:
    """
    Return the error that the task must end with, or None if every file is delivered or skipped by choice.

    The order where several kinds occur: a cause that passes (Airflow retries), what is missing among them, for it may
    still come, then unknown (an outcome that the ledger could not be told comes before all), then a wrong
    configuration, then refused, then equal bytes under another name, then what cannot be sent. A wrong configuration
    does not wait for what is missing. A file that is gone is never passed over by a retry.
    Without a ledger, unknown comes first, and nothing is retried once something was accepted, since a retry would
    send it again.

    :param receipts: all receipts of the run.
    :param halt: why not everything was tried, if so.
    :param has_ledger: whether a ledger remembers what was accepted.
    :param missing: what must be there and is not, a sentence each.
    :param source: where it should be, as people see it.
    """
    failed = [r for r in receipts if r.outcome.failed or r.unwritten]
    if not failed and not missing:
        return None
    unwritten = any(r.unwritten for r in failed)
    unknown = unwritten or any(r.outcome is Outcome.UNKNOWN for r in failed)
    rejected = any(r.outcome is Outcome.REJECTED for r in failed)
    duplicate = any(r.outcome is Outcome.DUPLICATE for r in failed)
    waiting = any(r.outcome is Outcome.NOT_SENT for r in failed)
    transient = any(r.outcome is Outcome.NOT_SENT and r.transient for r in failed)
    accepted_now = any(r.outcome is Outcome.UPLOADED for r in receipts)
    may_come = bool(missing) and (halt is None or halt.transient)
    gone = any(r.gone for r in failed)
    may_retry = (transient or may_come) and not unwritten and not gone and (has_ledger or not (unknown or accepted_now))
    no_ledger = (transient or may_come) and not may_retry and not gone and not has_ledger
    asked = {was_asked(r.as_dict()) for r in failed if r.outcome is Outcome.UNKNOWN}
    remedies = {
        "unwritten": unwritten,
        "unknown": unwritten or False in asked,
        "asked": True in asked,
        "rejected": rejected,
        "duplicate": duplicate,
        "transient": transient and may_retry,
        "missing": may_come and may_retry,
        "no_ledger": no_ledger,
        "gone": gone,
        "permanent": waiting and not gone and not may_retry and not no_ledger,
    }
    only_missing = may_retry and not transient
    told_what_to_do = [_REMEDIES[kind] for kind, applies in remedies.items() if applies]
    absence = _absence(missing, source) if missing else []
    message = _message(receipts, failed, told_what_to_do, absence, absence_first=only_missing)
    published = [r.as_dict() for r in failed]

    if only_missing:
        not_delivered = [r.as_dict() for r in receipts if not r.outcome.delivered]
        return AmiliFilesMissing(message, receipts=not_delivered, missing=list(missing))
    if may_retry:
        return AmiliDeliveryIncomplete(
            message, receipts=published, retry_after=halt.retry_after if halt is not None else None
        )
    if unknown:
        return AmiliOutcomeUnknown(message, receipts=published)
    if halt is not None and isinstance(halt.error, AmiliAuthenticationError):
        return AmiliAuthenticationError(message, status_code=halt.error.status_code, receipts=published)
    if halt is not None and isinstance(halt.error, AmiliRequestError):
        status, answer = halt.error.status_code, halt.error.answer
        return AmiliRequestError(message, status_code=status, answer=answer, receipts=published)
    if rejected:
        return AmiliUploadRejected(message, receipts=published)
    if duplicate:
        return AmiliDuplicateFiles(message, receipts=published)
    return AmiliDeliveryFailed(message, receipts=published)


def non_retryable_error(receipts: Sequence[Receipt], *, has_ledger: bool, cause: BaseException) -> AmiliError | None:
    """
    Return the error that keeps Airflow from retrying a run that ended early, or None where a retry repeats nothing.

    :param receipts: all receipts of the run.
    :param has_ledger: whether a ledger remembers what was accepted.
    :param cause: why it ended early, for example a time-out of the task.
    """
    if has_ledger or not any(r.outcome in (Outcome.UPLOADED, Outcome.UNKNOWN) for r in receipts):
        return None
    if (error := failure(receipts, halt=None, has_ledger=False)) is not None:
        return error
    sent = sum(r.outcome is Outcome.UPLOADED for r in receipts)
    why = f"{type(cause).__name__}: {one_line(cause)}".removesuffix(": ")
    return AmiliDeliveryFailed(
        f"{sent} file(s) were delivered to Amili, and then the task ended early ({why}). {_REMEDIES['no_ledger']}"
    )


def _message(
    receipts: Sequence[Receipt],
    failed: Sequence[Receipt],
    remedies: Sequence[str],
    absence: Sequence[str],
    *,
    absence_first: bool,
) -> str:
    """Say what happened and what to do, then name files and reasons; all of it fits a screen."""
    numbers = headline([r.as_dict() for r in receipts], LOG_WIDTH - len(LONGEST_CLASS)) if receipts else []
    to_do = [line for remedy in remedies for line in wrapped(remedy)]
    first, last = ([*absence, *to_do, *numbers], []) if absence_first else ([*numbers, *to_do], absence)
    sections: list[tuple[str, Sequence[ReceiptFields]]] = [
        (f"{outcome} ({len(some)})", some)
        for outcome, some in by_outcome(r.as_dict() for r in failed if r.outcome.failed).items()
    ]
    if unwritten := [r.as_dict() for r in failed if not r.outcome.failed]:
        sections.append((f"delivered, but not written to the ledger ({len(unwritten)})", unwritten))
    return "\n".join([*first, *told(sections, MOST_LINES - len(first) - len(last)), *last])


def _absence(missing: Sequence[str], source: str) -> list[str]:
    """Return lines about what must be there and is not."""
    sentences = [f"Missing: {sentence[:1].lower()}{sentence[1:]}" for sentence in missing[:_MOST_MISSING]]
    more = len(missing) - _MOST_MISSING
    return [
        *(line for sentence in sentences for line in wrapped(sentence, LOG_WIDTH - len(LONGEST_CLASS), others="  ")),
        *([f"and {more} more are missing"] if more > 0 else []),
        *wrapped(f"Looked for among the files that match {source}", others="  "),
    ]


_MOST_NAMED = 3
"""Files that a sentence names for one reason."""

Skipped = tuple[str, str]
"""A file's name, and why it is not sent."""


def nothing_there(sources: Sources, skipped: Sequence[Skipped]) -> str:
    """
    Return the sentence for a listing with nothing to deliver.

    :param sources: what was listed.
    :param skipped: the files that it found.
    """
    if not skipped:
        absent = "".join(f" {folder} does not exist." for folder in sources.missing)
        for name in sources.other_case[:1]:
            absent += f" {one_line(name, 80)} is there: patterns tell upper case from lower."
        if any("\\" in location.path for location in sources.locations):
            absent += " A backslash is a character of names there: write / between folders."
        return f"No files match {sources.shown}.{absent}"
    all_of_them = "The one file that matches" if len(skipped) == 1 else f"All {len(skipped)} files that match"
    was = "was" if len(skipped) == 1 else "were"
    return f"{all_of_them} {sources.shown} {was} skipped, so there is nothing to deliver. {_reasons(skipped)}"


def _reasons(skipped: Sequence[Skipped]) -> str:
    names: dict[str, list[str]] = {}
    for name, reason in skipped:
        names.setdefault(reason, []).append(one_line(name, 80))
    sentences = []
    for reason, having in names.items():
        more = len(having) - _MOST_NAMED
        named = ", ".join(having[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        sentences.append(f"{len(having)} file(s), {named}: {reason}")
    return " ".join(sentences)


def what_is_missing(
    expect: Sequence[str],
    min_files: int | None,
    there: Sequence[str],
    skipped: Sequence[Skipped],
    absent: Sequence[str] = (),
) -> list[str]:
    """
    Return what is missing, a sentence each.

    :param expect: patterns of base names, each of which a file must match.
    :param min_files: the least number of files.
    :param there: base names of the files that were delivered or tried.
    :param skipped: the other files of the listing. One that was skipped did not arrive.
    :param absent: folders that should have been listed, and do not exist.
    """
    sentences = [
        f"No file matches {pattern!r}{_perhaps(pattern, there, skipped)}."
        for pattern in expect
        if not any(_matches(name, pattern) for name in there)
    ]
    if min_files is not None and len(there) < min_files:
        besides = f", and {len(skipped)} that are skipped" if skipped else ""
        sentences.append(f"There are {len(there)} file(s){besides}; min_files={min_files}.")
    return sentences and [*sentences, *(f"The folder {folder} does not exist." for folder in absent)]


def _matches(name: str, pattern: str) -> bool:
    # A name may hold the signs of a pattern.
    pattern = unicodedata.normalize("NFC", pattern)
    return name == pattern or fnmatch.fnmatchcase(name, pattern)


def _perhaps(pattern: str, there: Sequence[str], skipped: Sequence[Skipped]) -> str:
    """Return what may be the file that is missing, in brackets."""
    for name, reason in skipped:
        if _matches(name, pattern):
            return f" ({one_line(name, 80)} is there, but skipped: {reason[:1].lower()}{reason[1:].rstrip('.')})"
    for name in [*there, *(name for name, _ in skipped)]:
        if _matches(name.casefold(), pattern.casefold()):
            return f" ({one_line(name, 80)} is there: upper and lower case differ)"
    return ""
