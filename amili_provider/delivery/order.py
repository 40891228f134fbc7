"""What one task was asked to deliver: the operator's arguments, checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from amili_provider.connection_form import LEDGER_FROM_CONNECTION
from amili_provider.delivery.plan import (
    DEFAULT_MAX_CONCURRENT_REQUESTS,
    DEFAULT_MAX_MEMORY_BYTES,
    IfDuplicate,
    IfUnknown,
)
from amili_provider.ledger.attempts import Run


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
class Order:
    """
    What to deliver. The operator's parameters of the same names say what each means.

    :param rename: from the facts of a file to the name for Amili; None for the base name.
    :param run: which task run this is.
    """

    source: str | Sequence[str]
    file_type: str
    source_conn_id: str | None = None
    client_no: str | int | None = None
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
    max_concurrent_requests: int = DEFAULT_MAX_CONCURRENT_REQUESTS
    max_memory_bytes: int = DEFAULT_MAX_MEMORY_BYTES
    run: Run = field(default_factory=Run)
