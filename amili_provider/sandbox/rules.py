"""What this sandbox lets through, and what makes it refuse on purpose."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_CLIENT_NO = "2218"
DEFAULT_FILE_TYPE = "InvoiciaFormatDocFile"

_MIB = 1024 * 1024
REFUSED_HEAD, POISON_HEAD = b"REJECT", b"POISON"
_LONGEST_REASON = 120


@dataclass
class Rules:
    """
    The rules of one sandbox.

    A file is refused with a result of its own if its content begins with ``REJECT`` (a reason may follow on
    that line: ``REJECT: no such debtor``), if its name contains ``rejected``, or if its name matches a
    pattern given to :meth:`refuse_name`. A file whose content begins with ``POISON`` spoils its whole
    request, which is answered with :attr:`poison_status` and no results per file.

    :param clients: the file types of each client number; an empty tuple is a client that may upload nothing.
    :param max_body_bytes: more in one request is 413.
    :param max_file_bytes: more in one file, decoded, is 413.
    :param max_files: more files in one request is 413.
    :param poison_status: the status of a request that holds a poisoned file.
    :param drain_bytes: how much of a body is still read after an early error, so that the caller finds the
        answer.
    """

    clients: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {DEFAULT_CLIENT_NO: (DEFAULT_FILE_TYPE,)})
    max_body_bytes: int = 4096 * _MIB
    max_file_bytes: int = 4096 * _MIB
    max_files: int = 20_000
    poison_status: int = 422
    drain_bytes: int = 64 * _MIB
    refused_names: dict[str, str] = field(default_factory=dict)

    def refuse_name(self, pattern: str, message: str = "File refused") -> None:
        """
        Refuse files whose name matches.

        :param pattern: as for :mod:`fnmatch`.
        :param message: what the result of the file says.
        """
        self.refused_names[pattern] = message

    def allows(self, client_no: str, file_type: str) -> bool:
        """Whether *client_no* may upload *file_type*; values are compared without case."""
        return file_type.casefold() in {t.casefold() for t in self.clients[client_no]}

    def refusal(self, name: str, head: bytes) -> str | None:
        """Return why the file is refused, or None."""
        if head.startswith(REFUSED_HEAD):
            line = head.splitlines()[0].decode("utf-8", "replace")
            return line[len(REFUSED_HEAD) :].lstrip(": ")[:_LONGEST_REASON] or "File refused: it asks for it"
        for pattern, message in self.refused_names.items():
            if fnmatch.fnmatchcase(name, pattern):
                return message
        return "File refused: its name says so" if "rejected" in name.casefold() else None

    def poisoned(self, head: bytes) -> bool:
        """Whether the file spoils its whole request."""
        return head.startswith(POISON_HEAD)
