"""What became of a file: its outcome, what an answer says of it, and its receipt."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """What became of one file; the field ``outcome`` of a receipt."""

    UPLOADED = "uploaded"
    ALREADY_UPLOADED = "already_uploaded"
    SKIPPED = "skipped"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    NOT_SENT = "not_sent"

    @property
    def delivered(self) -> bool:
        """Whether Amili has accepted the file, now or earlier."""
        return self in (Outcome.UPLOADED, Outcome.ALREADY_UPLOADED)

    @property
    def failed(self) -> bool:
        """Whether the task must not be green."""
        return self in (Outcome.DUPLICATE, Outcome.REJECTED, Outcome.UNKNOWN, Outcome.NOT_SENT)


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What one answer says of one file.

    :param outcome: uploaded, rejected or unknown.
    :param status: Amili's status, as one safe line.
    :param result: Amili's result, as one safe line.
    :param message: Amili's message, or ours where Amili said nothing that can be understood.
    :param per_file: whether Amili named this very file.
    """

    outcome: Outcome
    status: str | None = None
    result: str | None = None
    message: str | None = None
    per_file: bool = False


@dataclass(slots=True)
class Receipt:
    """
    What became of one file: one entry of the task's XCom.

    Fields are the public interface; :meth:`as_dict` gives plain JSON in the order below.

    :param file_id: the id that Amili got; the ledger's key of the file. None if the file was not read to its end.
    :param name: the name that Amili got; what the file is called, if it cannot be sent.
    :param source: where the file was, without secrets.
    :param size: bytes; None if the storage does not tell.
    :param sha256: hash of the content, 64 hex characters. None if the file was not read to its end.
    :param client_no: Amili's client number.
    :param file_type: as given to Amili.
    :param outcome: what became of the file.
    :param status: Amili's status.
    :param result: Amili's result.
    :param message: Amili's words, or ours.
    :param uploaded_at: when Amili had accepted it, UTC.
    :param request: which request of the task took it to Amili, as in the log and in the ledger.
    """

    name: str
    source: str
    client_no: str
    file_type: str
    size: int | None = None
    file_id: str | None = None
    sha256: str | None = None
    outcome: Outcome = Outcome.NOT_SENT
    status: str | None = None
    result: str | None = None
    message: str | None = None
    uploaded_at: str | None = None
    request: str | None = None
    """Which request of the task took it to Amili, as in the log and in the ledger; None if it was not sent."""
    unwritten: bool = field(default=False, repr=False)
    """Whether the ledger could not be told of the outcome, so that the next run finds it unknown. Not published."""
    passing: bool = field(default=False, repr=False)
    """Of a file not sent: whether the cause may pass by itself, so that a retry of the task helps. Not published."""

    def as_dict(self) -> dict[str, Any]:
        """Return the published fields in their documented order, as plain JSON."""
        return {
            "file_id": self.file_id,
            "name": self.name,
            "source": self.source,
            "size": self.size,
            "sha256": self.sha256,
            "client_no": self.client_no,
            "file_type": self.file_type,
            "outcome": str(self.outcome),
            "status": self.status,
            "result": self.result,
            "message": self.message,
            "uploaded_at": self.uploaded_at,
            "request": self.request,
        }
