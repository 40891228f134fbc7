"""How a run ends: green, or with the one error that says which files are not delivered and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from amili_provider.delivery.outcomes import Halt
from amili_provider.exceptions import (
    AmiliAuthenticationError,
    AmiliDeliveryFailed,
    AmiliDeliveryIncomplete,
    AmiliError,
    AmiliFilesMissing,
    AmiliOutcomeUnknown,
    AmiliRequestError,
    AmiliUploadRejected,
)
from amili_provider.models import Outcome, Receipt, one_line

MOST_NAMED = 500
"""Files named in a message at most; every one is in the receipts."""

_REMEDIES = {
    "unwritten": (
        "The outcome of files could not be written to the ledger, so the task fails although it is as shown: the next "
        "run will find them unknown. Mend the ledger's storage first."
    ),
    "unknown": (
        "Unknown files were sent, but Amili's answer was lost or not understood; sending them again could invoice "
        "somebody twice, so nothing resends them on its own. Ways on: ask Amili and settle them with the DAG "
        "'amili_ledger'; or run again with if_unknown='check' (asks Amili's result endpoint, never sends) or "
        "if_unknown='resend' (asks first, then sends what Amili does not know)."
    ),
    "rejected": "Rejected files were refused by Amili in the words shown: correct them at their source and run again.",
    "passing": "The other files could not be tried now; a retry sends them and repeats nothing.",
    "missing": "What is missing may still come: a retry looks again, and repeats nothing.",
    "permanent": "Files that were not sent stay where they are: mend what the message says and run again.",
    "no_ledger": (
        "Without a ledger (ledger=None) nothing remembers what was accepted, so this task is not retried "
        "automatically: a retry would send the uploaded files a second time. Name a ledger folder, or run again for "
        "the files above only."
    ),
}


def failure(
    receipts: Sequence[Receipt],
    *,
    halt: Halt | None,
    has_ledger: bool,
    missing: Sequence[str] = (),
    source: str = "",
) -> AmiliError | None:
    """
    Return the error that the task must end with, or None if every file is delivered or skipped by choice.

    The order where several kinds occur: a cause that passes (Airflow retries), what is missing among them, for it may
    still come, then unknown (an outcome that the ledger could not be told comes before all), then a wrong
    configuration, then refused, then what cannot be sent. A wrong configuration does not wait for what is missing.
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
    waiting = any(r.outcome is Outcome.NOT_SENT for r in failed)
    passing = any(r.outcome is Outcome.NOT_SENT and r.passing for r in failed)
    accepted_now = any(r.outcome is Outcome.UPLOADED for r in receipts)
    may_come = bool(missing) and (halt is None or halt.passing)
    may_retry = (passing or may_come) and not unwritten and (has_ledger or not (unknown or accepted_now))
    no_ledger = (passing or may_come) and not may_retry and not has_ledger
    remedies = {
        "unwritten": unwritten,
        "unknown": unknown,
        "rejected": rejected,
        "passing": passing and may_retry,
        "missing": may_come and may_retry,
        "no_ledger": no_ledger,
        "permanent": waiting and not may_retry and not no_ledger,
    }
    lines = [_headline(receipts, failed), *_lines(failed)] if failed else []
    if missing:
        lines += [f"Missing among the files that match {source}:", *(f"  {sentence}" for sentence in missing)]
    message = "\n".join([*lines, *(_REMEDIES[kind] for kind, applies in remedies.items() if applies)])
    published = [r.as_dict() for r in failed]

    if may_retry and not passing:
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
    return AmiliDeliveryFailed(message, receipts=published)


def barred(receipts: Sequence[Receipt], *, has_ledger: bool, cause: BaseException) -> AmiliError | None:
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


def _headline(receipts: Sequence[Receipt], failed: Sequence[Receipt]) -> str:
    client_no, file_type = failed[0].client_no, failed[0].file_type
    number, so = sum(r.outcome.failed for r in failed), "not delivered to Amili"
    if not number:
        number, so = len(failed), "delivered to Amili, but not written to the ledger"
    return f"{number} of {len(receipts)} file(s) {so} (client {client_no}, {file_type}):"


def _lines(failed: Sequence[Receipt]) -> list[str]:
    lines = []
    for receipt in failed[:MOST_NAMED]:
        words = "/".join(w for w in (receipt.status, receipt.result) if w)
        said = ": ".join(w for w in (words, receipt.message) if w) or "no reason given"
        size = f", {receipt.size} bytes" if receipt.size is not None else ""
        lines.append(f"  {receipt.outcome}: {receipt.source}{size}: {said}")
    if len(failed) > MOST_NAMED:
        lines.append(f"  ... and {len(failed) - MOST_NAMED} more; the task's XCom has the receipt of each.")
    return lines
