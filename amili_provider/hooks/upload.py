"""The hook's own upload: a few files from this machine or as bytes, no ledger; each answer is judged."""

from __future__ import annotations

import hashlib
import os
import unicodedata
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amili_provider.api.upload import READ_BLOCK_BYTES, Content, PartUnreadable, UploadBody, UploadPart
from amili_provider.exceptions import (
    AmiliDeliveryFailed,
    AmiliError,
    AmiliOutcomeUnknown,
    AmiliRequestError,
    AmiliStorageError,
    AmiliUploadRejected,
)
from amili_provider.receipts import Outcome, Receipt, escaped

if TYPE_CHECKING:
    from amili_provider.api.client import AmiliClient
    from amili_provider.api.responses import UploadReply
    from amili_provider.api.results import Vocabulary


FileToUpload = str | os.PathLike[str] | tuple[str, bytes]


class BytesContent:
    """
    Content that is in memory anyway.

    :param data: the content.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def blocks(self, block_bytes: int) -> Iterator[bytes | memoryview]:
        """Yield the content from its start."""
        view = memoryview(self._data)
        for start in range(0, self.size, block_bytes):
            yield view[start : start + block_bytes]

    def check_unchanged(self) -> None:
        """Bytes do not change."""


class PathContent:
    """
    A local file, read in place on every iteration.

    :param path: the file.
    :raises OSError: if it is not there or may not be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as opened:
            self._state = _state(os.fstat(opened.fileno()))
        self.size = self._state[1]

    def blocks(self, block_bytes: int) -> Iterator[bytes | memoryview]:
        """Yield the content from its start."""
        with self._path.open("rb") as opened:
            if _state(os.fstat(opened.fileno())) != self._state:
                raise AmiliStorageError(f"{escaped(str(self._path))} was changed since the upload began.")
            while block := opened.read(block_bytes):
                yield block

    def check_unchanged(self) -> None:
        """Raise :class:`AmiliStorageError` if the file was written to meanwhile."""
        if _state(self._path.stat()) != self._state:
            raise AmiliStorageError(f"{escaped(str(self._path))} was changed while it was being sent.")


def _state(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class HandedOver:
    """
    One file as it was handed to the hook.

    :param part: as it is sent.
    :param source: where it came from, for its receipt.
    """

    part: UploadPart
    source: str


def _content(given: Path | bytes) -> Content:
    return PathContent(given) if isinstance(given, Path) else BytesContent(given)


def handed_over(files: Iterable[FileToUpload], file_type: str) -> list[HandedOver]:
    """
    Read what was handed to the hook.

    :param files: paths, or pairs of name and bytes.
    :param file_type: for Amili.
    :raises ValueError: for anything else, or two files of one name.
    """
    if isinstance(files, (str, bytes, os.PathLike)):
        raise ValueError("files is one path; write a list, for example ['invoices.csv'].")  # noqa: TRY004
    taken = []
    for file in files:
        if isinstance(file, (str, os.PathLike)):
            path = Path(file)
            name, source, content = path.name, escaped(str(path)), _content(path)
        elif isinstance(file, tuple) and len(file) == 2 and isinstance(file[0], str) and isinstance(file[1], bytes):  # noqa: PLR2004
            name, source, content = file[0], escaped(file[0]), _content(file[1])
        else:
            raise ValueError(f"files holds a {type(file).__name__}; write paths, or pairs of a name and bytes.")
        name = unicodedata.normalize("NFC", name)
        if not name.strip() or not name.isprintable() or "/" in name or "\\" in name:
            raise ValueError(f"{name!r} is not a file name; write it without slashes and invisible characters.")
        taken.append(HandedOver(UploadPart(uuid.uuid4().hex, name, file_type, content), source))
    names = [f.part.name for f in taken]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(f"files holds {twice[0]!r} twice; Amili could not tell them apart.")
    return taken


def packed(files: list[HandedOver], max_bytes: int, max_files: int) -> Iterator[list[HandedOver]]:
    """Yield requests of at most *max_files* files and *max_bytes* encoded bytes; a larger file goes alone."""
    request: list[HandedOver] = []
    size = 0
    for file in files:
        encoded = file.part.encoded_bytes
        if request and (len(request) == max_files or size + encoded > max_bytes):
            yield request
            request, size = [], 0
        request.append(file)
        size += encoded
    if request:
        yield request


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
    verdicts = reply.verdicts([str(receipt.file_id) for receipt in receipts], vocabulary)
    for receipt in receipts:
        said = verdicts.get(str(receipt.file_id), reply.refusal)
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
