"""The hook's own upload: a few files, no ledger, every answer judged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from amili_provider.api.responses import RefusedBy
from amili_provider.api.upload import READ_BLOCK_BYTES, PartUnreadable, UploadBody
from amili_provider.exceptions import (
    AmiliDeliveryFailed,
    AmiliError,
    AmiliOutcomeUnknown,
    AmiliRequestError,
    AmiliUploadRejected,
)
from amili_provider.hooks.files import FileToUpload, HandedOver, handed_over, packed
from amili_provider.receipts import Outcome, Receipt, Verdict

if TYPE_CHECKING:
    from amili_provider.api.client import AmiliClient
    from amili_provider.api.responses import UploadReply
    from amili_provider.api.results import Vocabulary

_NAMED = 10
"""Files that a message names."""


def upload(
    client: AmiliClient, files: Iterable[FileToUpload], file_type: str, client_no: str, user_id: str | None
) -> list[dict[str, Any]]:
    """Send *files* and return their receipts; see :meth:`~amili_provider.hooks.amili.AmiliHook.upload_files`."""
    if not isinstance(file_type, str) or not file_type.strip() or not file_type.isprintable():
        raise ValueError("file_type is empty or holds invisible characters; write for example InvoiciaFormatDocFile.")
    taken = handed_over(files, file_type.strip())
    receipts = {f.part.file_id: _receipt(f, client_no) for f in taken}
    cause: Exception | None = None
    settings = client.settings
    for request in packed(taken, settings.max_request_bytes, settings.max_files_per_request):
        mine = [receipts[f.part.file_id] for f in request]
        try:
            body = UploadBody([f.part for f in request], user_id=user_id)
            reply = client.post_files(client_no, body)
        except PartUnreadable as error:
            cause = error.cause
        except AmiliError as error:
            cause = error
            if isinstance(error, AmiliOutcomeUnknown):
                for receipt in mine:
                    receipt.outcome, receipt.message = Outcome.UNKNOWN, error.message
        else:
            _settle(mine, reply, client.vocabulary)
            outcomes = {receipt.outcome for receipt in mine}
            if Outcome.NOT_SENT in outcomes:
                cause = AmiliRequestError(reply.words, status_code=reply.status_code)
            elif outcomes == {Outcome.UNKNOWN}:
                # Nothing more is sent to somebody whose answers cannot be understood.
                break
        if cause is not None:
            break
    return _report(list(receipts.values()), cause)


def _receipt(file: HandedOver, client_no: str) -> Receipt:
    part = file.part
    digest = hashlib.sha256()
    for block in part.content.blocks(READ_BLOCK_BYTES):
        digest.update(block)
    return Receipt(
        name=part.name,
        source=file.source,
        client_no=client_no,
        file_type=part.file_type,
        size=part.content.size,
        file_id=part.file_id,
        sha256=digest.hexdigest(),
        message="not tried",
    )


def _settle(receipts: Sequence[Receipt], reply: UploadReply, vocabulary: Vocabulary) -> None:
    """Write what the answer says into the receipts; a code without readable results is never a success."""
    # What a refusal does not name, it refuses all the same; a gateway's is no word about a file.
    verdict = Verdict(Outcome.REJECTED, status=str(reply.status_code), message=reply.words)
    if reply.refused_by is RefusedBy.GATEWAY:
        verdict = Verdict(Outcome.NOT_SENT, message=reply.words)
    verdicts = reply.verdicts([str(receipt.file_id) for receipt in receipts], vocabulary)
    for receipt in receipts:
        said = verdicts.get(str(receipt.file_id), verdict)
        receipt.outcome, receipt.status = said.outcome, said.status
        receipt.result, receipt.message = said.result, said.message
        if said.outcome is Outcome.UPLOADED:
            receipt.uploaded_at = datetime.now(UTC).isoformat(timespec="seconds")


def _report(receipts: list[Receipt], cause: Exception | None) -> list[dict[str, Any]]:
    """Return the receipts if all files were accepted; raise what is worst otherwise."""
    published = [receipt.as_dict() for receipt in receipts]
    for outcome, kind, remedy in (
        (Outcome.UNKNOWN, AmiliOutcomeUnknown, "Ask Amili about them before anything is sent again."),
        (Outcome.REJECTED, AmiliUploadRejected, "Correct them and send only them."),
    ):
        found = [receipt for receipt in receipts if receipt.outcome is outcome]
        if found:
            listed = "; ".join(f"{r.name}: {r.message or r.status}" for r in found[:_NAMED])
            more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            raise kind(
                f"{len(found)} of {len(receipts)} file(s) {outcome}: {listed}{more}. {remedy}", receipts=published
            ) from cause
    if cause is None:
        return published
    accepted = sum(receipt.outcome is Outcome.UPLOADED for receipt in receipts)
    if accepted:
        raise AmiliDeliveryFailed(
            f"{accepted} of {len(receipts)} file(s) were uploaded; the others were not sent: {cause} Send only those.",
            receipts=published,
        ) from cause
    raise cause
