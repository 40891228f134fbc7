"""What is to be delivered and how: decided before anything is sent, constant from then on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from amili_provider.delivery.outcomes import Result
from amili_provider.ledger import History
from amili_provider.ledger.attempts import Run
from amili_provider.receipts import Receipt
from amili_provider.storage.content import HashedContent
from amili_provider.storage.files import StorageFile

IfUnknown = Literal["fail", "check", "resend", "ask"]
"""What is asked of a person is asked after the run: while it lasts, ``ask`` is as ``fail``."""
IfDuplicate = Literal["fail", "skip", "send"]

DEFAULT_MAX_CONCURRENT_REQUESTS = 4
"""Requests in flight at once."""
DEFAULT_MAX_MEMORY_BYTES = 64 * 1024 * 1024
"""Bytes of content held at once."""
STREAM_BYTES = 3 * 1024 * 1024
"""Memory that a streamed file takes while it is read or sent: two blocks, base64 text, and what the socket holds."""


@dataclass(frozen=True, slots=True)
class Plan:
    """
    How to deliver.

    :param client_no: Amili's client number.
    :param file_type: one of the OS file types that Amili configured for the client.
    :param environment: where to: part of each file's identity.
    :param user_id: ``metadata.userId``, or None.
    :param if_unknown: what to do about files whose earlier outcome is unknown.
    :param if_duplicate: what to do about files whose bytes Amili accepted under another name.
    :param force: send what was accepted before this chain of attempts again.
    :param dry_run: send nothing.
    :param max_request_bytes: encoded bytes of a request with several files; a larger file travels alone.
    :param max_files_per_request: files in a request.
    :param max_concurrent_requests: requests in flight at once.
    :param max_memory_bytes: bytes of content held at once.
    :param run: which task run this is.
    """

    client_no: str
    file_type: str
    environment: str
    user_id: str | None = None
    if_unknown: IfUnknown = "fail"
    if_duplicate: IfDuplicate = "fail"
    force: bool = False
    dry_run: bool = False
    max_request_bytes: int = 32 * 1024 * 1024
    max_files_per_request: int = 500
    max_concurrent_requests: int = DEFAULT_MAX_CONCURRENT_REQUESTS
    max_memory_bytes: int = DEFAULT_MAX_MEMORY_BYTES
    run: Run = field(default_factory=Run)

    @property
    def batch_bytes(self) -> int:
        """Bytes of content in one request of several files: every sender has one in flight and one being packed."""
        return max(1, min(self.max_request_bytes * 3 // 4, self.max_memory_bytes // (2 * self.max_concurrent_requests)))

    @property
    def in_memory_bytes(self) -> int:
        """Files up to this size are held in memory; larger ones are streamed."""
        return min(self.batch_bytes, 8 * 1024 * 1024)


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
    followers: list[Item] = field(default_factory=list)
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

    def let_go(self) -> None:
        """Give back the content, and what only its sending needs."""
        self.history = None
        if self.content is not None:
            self.content.close()
            self.content = None
