"""
What the attempts of a file mean together: the rules of the ledger, without any storage.

An accepted attempt wins. Else a live claim means that somebody may be sending this very moment. Else any
attempt without a known end leaves the file unknown, also if a later attempt was refused: until it is
resolved, nobody knows whether Amili has the file. Else the file is free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from amili_provider.ledger.identity import same_name
from amili_provider.ledger.records import LedgerReceipt, TornReceipt
from amili_provider.models import Outcome

Attempt = LedgerReceipt | TornReceipt


class State(StrEnum):
    """Whether a file may be sent."""

    FREE = "free"
    UPLOADED = "uploaded"
    IN_FLIGHT = "in_flight"
    UNKNOWN = "unknown"


class SetAside(StrEnum):
    """
    Which receipts older than this chain of attempts the user asked to disregard; never live claims.

    A chain is one task run with Airflow's own retries; clearing the task begins another. So a retry does not
    repeat what the user asked for once.
    """

    NOTHING = "nothing"
    UNKNOWN = "unknown"
    """Those whose outcome is not known (``if_unknown="resend"``)."""
    EVERYTHING = "everything"
    """Those that were accepted, too (``force``)."""


@dataclass(frozen=True, slots=True)
class Standing:
    """
    What the ledger says of one file.

    :param file_id: who the file is.
    :param state: whether it may be sent.
    :param attempts: what was read. After an attempt that was accepted, under the name that is asked for, nothing more
        is read unless it was set aside.
    :param deciding: the attempt that makes the file what it is; None if it is free.
    :param unknown: attempts whose outcome is not known, whether set aside or not.
    """

    file_id: str
    state: State
    attempts: tuple[Attempt, ...] = ()
    deciding: Attempt | None = None
    unknown: tuple[int, ...] = ()

    @property
    def first_receipt(self) -> LedgerReceipt | None:
        """The receipt of the attempt that decides, if it can be read."""
        return self.deciding if isinstance(self.deciding, LedgerReceipt) else None

    @property
    def next_attempt(self) -> int:
        """The number that the next attempt has."""
        return len(self.attempts) + 1

    def accepted_elsewhere(self, name: str) -> LedgerReceipt | None:
        """
        Return the first attempt that was accepted, set aside or not, if none was accepted under *name*.

        :param name: as given to Amili.
        """
        accepted = [a for a in self.attempts if isinstance(a, LedgerReceipt) and a.outcome is Outcome.UPLOADED]
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
        others = len(self.unknown) - 1 if self.state is State.UNKNOWN else 0
        return f", and {others} more of the same kind" if others > 0 else ""


def judge(
    file_id: str,
    attempts: Sequence[Attempt],
    *,
    now: float,
    chain: str | None = None,
    set_aside: SetAside = SetAside.NOTHING,
) -> Standing:
    """
    Return what *attempts*, in their order, mean together.

    :param file_id: who the file is.
    :param attempts: every attempt that was found.
    :param now: seconds since the epoch.
    :param chain: the asking run's chain of attempts.
    :param set_aside: which attempts of other chains do not count.
    """
    resolved = {n for a in attempts if _has_end(a) for n in getattr(a, "resolves", ())}
    uploaded = [a for a in attempts if _is_accepted(a)]
    live = [a for a in attempts if _is_live(a, now)]
    unknown = [a for a in attempts if not _has_end(a) and not _is_live(a, now) and a.attempt not in resolved]
    unresolved = tuple(a.attempt for a in unknown)
    if set_aside is SetAside.EVERYTHING:
        uploaded = [a for a in uploaded if _belongs(a, chain)]
    if set_aside is not SetAside.NOTHING:
        # A receipt torn before its chain was written was torn while it was made, before the request's tail.
        unknown = [a for a in unknown if _belongs(a, chain)]
    for state, deciding in ((State.UPLOADED, uploaded), (State.IN_FLIGHT, live), (State.UNKNOWN, unknown)):
        if deciding:
            return Standing(file_id, state, tuple(attempts), deciding[0], unresolved)
    return Standing(file_id, State.FREE, tuple(attempts), None, unresolved)


def _is_accepted(attempt: Attempt) -> bool:
    return isinstance(attempt, LedgerReceipt) and attempt.outcome is Outcome.UPLOADED


def _is_live(attempt: Attempt, now: float) -> bool:
    return isinstance(attempt, LedgerReceipt) and attempt.is_live(now)


def _has_end(attempt: Attempt) -> bool:
    """Return whether it is known what became of an attempt."""
    return isinstance(attempt, LedgerReceipt) and attempt.outcome not in (None, Outcome.UNKNOWN)


def _belongs(attempt: Attempt, chain: str | None) -> bool:
    return bool(chain) and attempt.chain == chain
