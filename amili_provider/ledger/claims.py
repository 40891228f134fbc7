"""Claims: attempts that are ours, and the news that they are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger.attempts import Attempt
from amili_provider.ledger.state import History


@dataclass(frozen=True, slots=True)
class Claim:
    """
    An attempt that is ours.

    :param attempt: as it was written.
    :param release_by: until when the request's tail may be released, by :func:`boot_seconds`.
    :param ends_at: from when on others take the claim for dead, at the earliest, by the same clock.
    """

    attempt: Attempt
    release_by: float
    ends_at: float

    @property
    def file_id(self) -> str:
        """Who the file is."""
        return self.attempt.file_id


class ClaimLost(Exception):  # noqa: N818 - not a failure, but news about somebody else
    """
    Somebody else has the attempt, so nothing may be released.

    What was claimed together with it stays ours: of tasks that claim the same files at the same moment each has some,
    and if all gave theirs back, nobody would send.

    :param histories: what the ledger says now of the files that could not be claimed, by file id.
    :param claims: the others of the request; to be used or settled by the caller.
    """

    def __init__(self, histories: dict[str, History], claims: Sequence[Claim] = ()) -> None:
        super().__init__("; ".join(f"{i}: {h.describe()}" for i, h in histories.items()))
        self.histories = histories
        self.claims = tuple(claims)


class SettlingFailed(AmiliLedgerUnavailable):
    """
    Outcomes could not be written within the bounded time: nothing more may be sent, and a retry cannot help.

    :param claims: the claims whose outcome may not be in the ledger; they become unknown when they expire.
    """

    def __init__(self, message: str = "", *, claims: Sequence[Claim] = ()) -> None:
        super().__init__(message)
        self.claims = list(claims)
