"""Claims on files: what they say, and what can become of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger.records import LedgerReceipt
from amili_provider.ledger.standing import Standing

WRITING_SECONDS = 30.0
"""How long writing a request's claims may take."""
SETTLE_WITHIN_SECONDS = 60.0
"""How long an outcome is tried to be written."""
CLOCKS_SECONDS = 30.0
"""How much the clocks of workers may differ."""
MARGIN_SECONDS = WRITING_SECONDS + SETTLE_WITHIN_SECONDS + CLOCKS_SECONDS
"""How much longer than the answer may take a claim lives: it outlives every bound of its owner."""


class RunFacts(Protocol):
    """Which task run claims; an empty text is "not known"."""

    @property
    def chain(self) -> str:
        """The attempts of Airflow that belong together."""

    @property
    def dag_id(self) -> str:
        """Which DAG."""

    @property
    def run_id(self) -> str:
        """Which run of it."""

    @property
    def task_id(self) -> str:
        """Which task."""

    @property
    def map_index(self) -> int:
        """Which of the mapped tasks, -1 if it is not mapped."""

    @property
    def try_number(self) -> int:
        """Which try of Airflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimFacts:
    """
    What a claim says of its file and its task.

    :param file_type: as given to Amili.
    :param name: as given to Amili.
    :param source: where the file is, without secrets.
    :param size: bytes.
    :param sha256: hash of the content.
    :param run: which task run claims.
    :param request: which request of the task, to find it in the log.
    """

    file_type: str
    name: str
    source: str
    size: int
    sha256: str
    run: RunFacts
    request: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """
    An attempt that is ours.

    :param receipt: as it was written.
    :param release_by: until when the request's tail may be released, seconds since the epoch.
    """

    receipt: LedgerReceipt
    release_by: float

    @property
    def file_id(self) -> str:
        """Who the file is."""
        return self.receipt.file_id


class ClaimLost(Exception):  # noqa: N818 - not a failure, but news about somebody else
    """
    Somebody else has the attempt, so nothing may be released.

    What was claimed together with it stays ours: of tasks that claim the same files at the same moment each has some,
    and if all gave theirs back, nobody would send.

    :param standings: what the ledger says now of the files that could not be claimed, by file id.
    :param claims: the others of the request; to be used or settled by the caller.
    """

    def __init__(self, standings: dict[str, Standing], claims: Sequence[Claim] = ()) -> None:
        super().__init__("; ".join(f"{i}: {s.describe()}" for i, s in standings.items()))
        self.standings = standings
        self.claims = tuple(claims)


class SettlingFailed(AmiliLedgerUnavailable):
    """
    Outcomes could not be written within the bounded time: nothing more may be sent, and a retry cannot help.

    :param claims: the claims whose outcome is not in the ledger; they become unknown when they expire.
    """

    def __init__(self, message: str = "", *, claims: list[Claim] | None = None) -> None:
        super().__init__(message)
        self.claims = claims or []
