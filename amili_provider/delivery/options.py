"""A task's arguments, checked: one object from the operator to the request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from amili_provider.connection.fields import LEDGER_FROM_CONNECTION
from amili_provider.ledger.attempts import Run

IfUnknown = Literal["fail", "check", "resend", "ask"]
"""What is asked of a person is asked after the run: while it lasts, ``ask`` is as ``fail``."""
IfDuplicate = Literal["fail", "skip", "send"]

STREAM_BYTES = 3 * 1024 * 1024
"""Memory that a streamed file takes while it is read or sent: two blocks, base64 text, and what the socket holds."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """
    What a name template knows of a file, as ``file``.

    :param name: base name.
    :param stem: base name without its last suffix.
    :param suffix: last suffix with its dot, or empty; without what cannot be sent.
    :param path: the whole path, as it is shown.
    :param index: position in the listing, from 0.
    :param safe_name: the base name if it can be sent as it is, else ``unique_name``.
    :param unique_name: a name that can be sent and that no other file of any task has: what can be sent of the base
        name, and a mark made of the path.
    """

    name: str
    stem: str
    suffix: str
    path: str
    index: int
    safe_name: str
    unique_name: str


@dataclass(frozen=True, slots=True)
class Options:
    """
    What to deliver, and how: the operator's parameters, checked. Those of the same names say what each means.

    The last five belong to the connection and to the task, and are filled in when a run begins.

    :param client_no: Amili's client number; empty for the connection's, until a run begins.
    :param user_id: ``metadata.userId``; None for the connection's, until a run begins.
    :param rename: from the facts of a file to the name for Amili; None for the base name.
    :param environment: where to: part of each file's identity.
    :param max_request_bytes: encoded bytes of a request with several files; a larger file travels alone.
    :param max_files_per_request: files in a request.
    :param run: which task run this is.
    """

    source: str | Sequence[str]
    file_type: str
    source_conn_id: str | None = None
    client_no: str = ""
    user_id: str | None = None
    rename: Callable[[FileFacts], str] | None = None
    ignore: tuple[str, ...] = ("hidden", "temporary", "empty")
    stable_for: float = 0.0
    max_files: int = 10_000
    if_no_files: str = "fail"
    expect: tuple[str, ...] = ()
    min_files: int | None = None
    if_unknown: IfUnknown = "fail"
    if_duplicate: IfDuplicate = "fail"
    force: bool = False
    ledger: str | None = LEDGER_FROM_CONNECTION
    archive_to: str | None = None
    reject_to: str | None = None
    dry_run: bool = False
    max_concurrent_requests: int = 4
    max_memory_bytes: int = 64 * 1024 * 1024
    environment: str = ""
    max_request_bytes: int = 32 * 1024 * 1024
    max_files_per_request: int = 500
    run: Run = field(default_factory=Run)

    @property
    def batch_bytes(self) -> int:
        """Bytes of content in one request of several files: every sender has one in flight and one being packed."""
        return max(1, min(self.max_request_bytes * 3 // 4, self.max_memory_bytes // (2 * self.max_concurrent_requests)))

    @property
    def in_memory_bytes(self) -> int:
        """Files up to this size are held in memory; larger ones are streamed."""
        return min(self.batch_bytes, 8 * 1024 * 1024)
