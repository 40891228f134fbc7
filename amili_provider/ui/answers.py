"""What the Deliveries page's questions are answered with: rows, pages of them, and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from amili_provider.ledger.attempts import Attempt
from amili_provider.ledger.state import History, LedgerState
from amili_provider.receipts import Outcome
from amili_provider.ui.filters import Key


@dataclass(frozen=True, slots=True)
class Row:
    """
    An attempt, and what it is now.

    :param attempt: the attempt.
    :param kind: one of :data:`~amili_provider.ui.filters.KINDS`.
    :param file: what all attempts at its file mean together; of an attempt that delivered it, what this one means.
    """

    attempt: Attempt
    kind: str
    file: History

    @property
    def key(self) -> Key:
        """Its place in the order."""
        return key_of(self.attempt)

    @property
    def delivered_since(self) -> bool:
        """Whether this attempt did not deliver the file, but another did."""
        return self.kind != "delivered" and self.file.state is LedgerState.UPLOADED


@dataclass(frozen=True, slots=True)
class Page:
    """
    Rows, the newest first.

    :param rows: the rows.
    :param following: the key after which there are more; None at the end.
    :param cut: the time to which the search went back, if older attempts were not looked at.
    """

    rows: Sequence[Row]
    following: Key | None = None
    cut: str | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """
    How many attempts of each kind there are, and of how many bytes.

    :param counts: attempts by kind.
    :param sizes: bytes by kind.
    :param cut: the time to which attempts were counted, if older ones were not.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    cut: str | None = None


def key_of(attempt: Attempt) -> Key:
    """Return an attempt's place in the order."""
    return attempt.claimed_at, attempt.file_id, attempt.attempt


def kind_of(attempt: Attempt, file: History, now: float) -> str:
    """
    Return what an attempt is now, one of :data:`~amili_provider.ui.filters.KINDS`.

    :param attempt: the attempt.
    :param file: what all attempts at its file mean together.
    :param now: seconds since the epoch.
    """
    if attempt.outcome is Outcome.UPLOADED:
        return "delivered"
    if attempt.has_end:
        return str(attempt.outcome)
    if attempt.is_live(now):
        return "being_sent"
    return "unknown" if file.state is LedgerState.UNKNOWN and attempt.attempt in file.unknown else "settled"
