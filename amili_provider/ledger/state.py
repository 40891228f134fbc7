"""
The state of a file, from all of its attempts; and the claims that it allows. No store, no clock.

An accepted attempt wins. Else a live claim means that somebody may be sending this very moment. Else any attempt
without a known end leaves the file unknown, also if a later attempt was refused: until it is resolved, nobody knows
whether Amili has the file. Else the file is free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger.attempts import Attempt, same_name
from amili_provider.receipts import Outcome


class LedgerState(StrEnum):
    """Whether a file may be sent."""

    FREE = "free"
    UPLOADED = "uploaded"
    IN_FLIGHT = "in_flight"
    UNKNOWN = "unknown"


class Disregard(StrEnum):
    """
    Which attempts older than this chain of attempts the user asked to disregard; never live claims.

    A chain is one task run with Airflow's own retries; clearing the task begins another. So a retry does not
    repeat what the user asked for once.
    """

    NOTHING = "nothing"
    UNKNOWN = "unknown"
    """Those whose outcome is not known (``if_unknown="resend"``)."""
    EVERYTHING = "everything"
    """Those that were accepted, too (``force``)."""


@dataclass(frozen=True, slots=True)
class History:
    """
    What the ledger says of one file.

    :param file_id: who the file is.
    :param state: whether it may be sent.
    :param attempts: all of them, in their order.
    :param deciding: the attempt that makes the file what it is; None if it is free.
    :param unknown: numbers of the attempts whose outcome is not known, whether set aside or not.
    :param accepted: numbers of the attempts that were accepted, without those set aside.
    """

    file_id: str
    state: LedgerState
    attempts: tuple[Attempt, ...] = ()
    deciding: Attempt | None = None
    unknown: tuple[int, ...] = ()
    accepted: tuple[int, ...] = ()

    @property
    def next_attempt(self) -> int:
        """The number that the next attempt has."""
        return self.attempts[-1].attempt + 1 if self.attempts else 1

    @property
    def open(self) -> tuple[int, ...]:
        """
        Numbers of the attempts whose outcome is still to be settled.

        Of an unknown file all unknown ones. Of an accepted file those that were sent once more (``force``), since it
        may have arrived twice, and those under a name that nothing was accepted under.
        """
        if self.state is LedgerState.UPLOADED:
            accepted = [a for a in self.attempts if a.attempt in self.accepted]
            return tuple(
                a.attempt
                for a in self.attempts
                if a.attempt in self.unknown
                and (a.attempt > accepted[0].attempt or not any(same_name(a.name, one.name) for one in accepted))
            )
        return self.unknown if self.state is LedgerState.UNKNOWN else ()

    @property
    def times_accepted(self) -> int:
        """How many attempts were accepted, set aside or not."""
        return sum(a.outcome is Outcome.UPLOADED for a in self.attempts)

    @property
    def last_unknown(self) -> Attempt | None:
        """The newest attempt whose outcome is not known."""
        return next((a for a in reversed(self.attempts) if a.attempt in self.unknown), None)

    @property
    def unknown_names(self) -> list[str]:
        """The names under which it was sent without a known outcome; no name is the same as another."""
        names: list[str] = []
        for attempt in self.attempts:
            if attempt.attempt in self.unknown and not any(same_name(attempt.name, name) for name in names):
                names.append(attempt.name)
        return names

    @property
    def told(self) -> Attempt:
        """The attempt that tells most of the file: the last unknown one, if its entry can be read."""
        return max(self.attempts, key=lambda a: (bool(a.name), a.attempt in self.unknown, a.attempt))

    def accepted_elsewhere(self, name: str) -> Attempt | None:
        """
        Return the first attempt that was accepted, if none was accepted under *name*; without those set aside.

        :param name: as given to Amili.
        """
        accepted = [a for a in self.attempts if a.attempt in self.accepted]
        return accepted[0] if accepted and not any(same_name(a.name, name) for a in accepted) else None

    def in_short(self) -> str:
        """Return what came of the attempt that decides, for the message of a file: Amili's words first."""
        return self.describe() if self.deciding is None else self.deciding.in_short() + self._others()

    def describe(self) -> str:
        """Return what is known of the file, for a message."""
        if self.deciding is None:
            return "the ledger has no accepted, running or unresolved attempt"
        return self.deciding.describe() + self._others()

    def _others(self) -> str:
        others = len(self.unknown) - 1 if self.state is LedgerState.UNKNOWN else 0
        return f", and {others} more of the same kind" if others > 0 else ""


def history(
    file_id: str,
    attempts: Sequence[Attempt],
    *,
    now: float,
    chain: str | None = None,
    disregard: Disregard = Disregard.NOTHING,
) -> History:
    """
    Return what *attempts*, in their order, mean together.

    :param file_id: who the file is.
    :param attempts: every attempt at it.
    :param now: the store's time, seconds since the epoch.
    :param chain: the asking run's chain of attempts.
    :param disregard: which attempts of other chains do not count.
    """
    if not attempts:
        return History(file_id, LedgerState.FREE)
    resolved = {n for a in attempts if a.has_end for n in a.resolves}
    uploaded = [a for a in attempts if a.outcome is Outcome.UPLOADED]
    live = [a for a in attempts if a.is_live(now)]
    unknown = [a for a in attempts if not a.has_end and not a.is_live(now) and a.attempt not in resolved]
    unresolved = tuple(a.attempt for a in unknown)
    mine = {a.attempt for a in attempts if chain and a.chain == chain}
    if disregard is Disregard.EVERYTHING:
        # That one of the chain's own attempts arrived may be written by somebody else.
        uploaded = [a for a in uploaded if a.attempt in mine or not mine.isdisjoint(a.resolves)]
    if disregard is not Disregard.NOTHING:
        unknown = [a for a in unknown if a.attempt in mine]
    accepted = tuple(a.attempt for a in uploaded)
    for state, deciding in (
        (LedgerState.UPLOADED, uploaded),
        (LedgerState.IN_FLIGHT, live),
        (LedgerState.UNKNOWN, unknown),
    ):
        if deciding:
            return History(file_id, state, tuple(attempts), deciding[0], unresolved, accepted)
    return History(file_id, LedgerState.FREE, tuple(attempts), None, unresolved, accepted)


@dataclass(frozen=True, slots=True)
class Claim:
    """
    An attempt that is ours.

    :param attempt: as it was written.
    :param release_by: until when the request's tail may be released, by
        :func:`~amili_provider.ledger.ledger.boot_seconds`.
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
