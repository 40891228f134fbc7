"""What the Deliveries page's questions are answered with: rows, pages of them, and numbers."""

from __future__ import annotations

from collections import Counter
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
    How many attempts of each kind there are, at how many files, and of how many bytes.

    :param counts: attempts by kind.
    :param files: files by kind, as ``amili-ledger report`` counts them: each delivery, but once what went wrong again
        and again. Without a kind whose files were not counted.
    :param all_files: all files, each once; None if they were not counted.
    :param sizes: bytes by kind.
    :param cut: the time to which attempts were counted, if older ones were not.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)
    all_files: int | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    cut: str | None = None

    @classmethod
    def of(cls, page: Page) -> Totals:
        """Return the numbers of a page that holds all."""
        counts = Counter(row.kind for row in page.rows)
        files: dict[str, set[tuple[str, str]]] = {}
        sizes: Counter[str] = Counter()
        for row in page.rows:
            files.setdefault(row.kind, set()).add((row.attempt.client_no, row.attempt.file_id))
            sizes[row.kind] += row.attempt.size
        by_kind = {kind: counts[kind] if kind == "delivered" else len(some) for kind, some in files.items()}
        return cls(counts, by_kind, len(set().union(*files.values())), sizes, page.cut)


@dataclass(frozen=True, slots=True)
class Strip:
    """
    The numbers of some days.

    :param days: numbers by day, without bytes; each day is there.
    :param first: when the ledger's first attempt was claimed; None if it has none.
    :param cut: the time to which attempts were counted, if older ones were not.
    """

    days: Mapping[str, Totals]
    first: str | None = None
    cut: str | None = None

    def totals(self) -> Totals:
        """Return the numbers of all days together; a file that goes wrong on two days counts on each."""
        counts: Counter[str] = Counter()
        files: Counter[str] = Counter()
        for day in self.days.values():
            counts.update(day.counts)
            files.update(day.files)
        return Totals(counts, files, cut=self.cut)


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
    return "unknown" if attempt.attempt in file.open else "settled"
