"""How the page shows what it found: its templates, their words, and the strip of days."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import sqrt
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from amili_provider.ledger.attempts import Attempt
from amili_provider.ledger.state import History, LedgerState
from amili_provider.receipts import Outcome
from amili_provider.ui.answers import Strip, Totals
from amili_provider.ui.filters import NOT_DELIVERED

HERE = Path(__file__).parent
LABELS = {
    NOT_DELIVERED: "Not delivered",
    "delivered": "Delivered",
    "rejected": "Rejected",
    "unknown": "Unknown",
    "not_sent": "Not sent",
    "being_sent": "Being sent",
    "settled": "Unknown, settled since",
    # of receipts only
    "uploaded": "Delivered",
    "already_uploaded": "Delivered earlier",
    "duplicate": "Duplicate",
    "skipped": "Skipped",
}
"""What the page calls each kind of an attempt, and each outcome of a receipt."""
STATES = {
    LedgerState.UPLOADED: ("delivered", "Amili has accepted this file."),
    LedgerState.IN_FLIGHT: ("being_sent", "A task may be sending this file at this moment."),
    LedgerState.UNKNOWN: (
        "unknown",
        (
            "This file was sent, and the answer was lost. Ask Amili whether it has it, and settle it with the DAG "
            "amili_ledger or the command amili-ledger settle."
        ),
    ),
    LedgerState.FREE: ("not_sent", "Amili has not accepted this file. It is sent when a task finds it again."),
}
_REFUSED = ("rejected", "Amili has refused this file. Unchanged, it is sent once more when a task finds it again.")
_STEP, _BAR, _TALLEST = 14, 10, 46
_FRIDAY, _LAST_WEEK = 4, 22
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True, slots=True)
class Day:
    """
    One day of the strip, as it is drawn.

    :param day: its date.
    :param x: where it begins.
    :param height: of its bar.
    :param totals: its numbers.
    :param before: whether it is before the ledger's first attempt.
    :param counted: whether its attempts were counted.
    :param over: whether it has ended.
    :param chosen: whether the list is about it.
    """

    day: date
    x: int
    height: float
    totals: Totals
    before: bool
    counted: bool
    over: bool
    chosen: bool

    @property
    def weekend(self) -> bool:
        """Whether it is a Saturday or a Sunday."""
        return self.day.weekday() > _FRIDAY

    @property
    def week(self) -> str:
        """Its number in the month, on Mondays."""
        return f"{self.day.day}" if self.day.weekday() == 0 else ""

    @property
    def month(self) -> str:
        """The month's name, on its first day; and on the strip's, if there is room for it."""
        room = self.x == 0 and self.day.day < _LAST_WEEK
        return f"{self.day:%B}" if self.day.day == 1 or room else ""

    @property
    def undecided(self) -> bool:
        """Whether it is not said to have had a delivery or none, since what was unknown on it was settled later."""
        return not self.height and bool(self.totals.counts.get("settled"))

    @property
    def without(self) -> bool:
        """Whether nothing that was sent on it is delivered, of a day that the ledger knows."""
        return not (self.height or self.undecided or self.before) and self.counted

    @property
    def named(self) -> str:
        """The day as a person writes it."""
        return f"{self.day:%A, %-d %B %Y}"

    @property
    def told(self) -> str:
        """The day in words."""
        if self.before:
            said = "before the ledger"
        elif not self.counted:
            said = "not counted, there are too many deliveries since"
        else:
            counts = dict(self.totals.counts) | dict(self.totals.files)
            words = [f"{counts[kind]:,} {LABELS[kind].lower()}" for kind in _IN_WORDS if counts.get(kind)]
            said = ", ".join(words) or ("nothing was sent" if self.over else "nothing was sent yet")
        return f"{self.named}: {said}"


@dataclass(frozen=True, slots=True)
class Drawn:
    """
    The strip of days, as it is drawn.

    :param days: the days.
    """

    days: Sequence[Day]

    @property
    def weekdays_without(self) -> list[Day]:
        """The weekdays without a delivery, the newest first; today is not over."""
        return [day for day in reversed(self.days) if day.without and day.over and not day.weekend]

    @property
    def begins(self) -> Day | None:
        """The day of the ledger's first attempt, if it is one of these but the first."""
        return next((day for day in self.days if not day.before), None) if self.days[0].before else None

    @property
    def not_sent(self) -> bool:
        """Whether any day has files that were not sent."""
        return any(day.totals.counts.get("not_sent") for day in self.days)

    @property
    def undecided(self) -> bool:
        """Whether there is such a day."""
        return any(day.undecided for day in self.days)


_IN_WORDS = ("delivered", "rejected", "unknown", "settled", "not_sent", "being_sent")


def drawn(strip: Strip, today: str, since: str | None = None, until: str | None = None) -> Drawn:
    """
    Return the days of the strip as they are drawn.

    :param strip: numbers by day.
    :param today: the day that is not over, ``YYYY-MM-DD``.
    :param since: the first day that the list is about.
    :param until: the last.
    """
    most = max((totals.counts.get("delivered", 0) for totals in strip.days.values()), default=0)
    days = []
    for number, (day, totals) in enumerate(strip.days.items()):
        delivered = totals.counts.get("delivered", 0)
        # By the root: a day of ten files is still seen beside one of ten thousand.
        height = max(3.0, _TALLEST * sqrt(delivered / most)) if delivered else 0.0
        chosen = bool(since or until) and (since or "") <= day <= (until or "9")
        before = strip.first is None or day < strip.first[:10]
        counted = strip.cut is None or day >= strip.cut[:10]
        days.append(
            Day(date.fromisoformat(day), number * _STEP, round(height, 1), totals, before, counted, day < today, chosen)
        )
    return Drawn(days)


def state_of(file: History) -> tuple[str, str]:
    """Return what a file is now, as a badge calls it, and in a sentence."""
    refused = file.state is LedgerState.FREE and file.attempts[-1].outcome is Outcome.REJECTED
    return _REFUSED if refused else STATES[file.state]


def size_of(number: int | None) -> str:
    """Return a number of bytes as a person reads it."""
    if number is None:
        return ""
    value, unit = float(number), _UNITS[0]
    for unit in _UNITS:  # noqa: B007 - the one that fits is used below
        if value < 1000:  # noqa: PLR2004 - a kilobyte
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"  # noqa: PLR2004 - three digits


def moment(written: str | None) -> str:
    """Return a time of the ledger as a person reads it: to the second, UTC."""
    return (written or "")[:19].replace("T", " ")


def words_of(said: Any) -> str:
    """Return Amili's words about an attempt, or those of a receipt: status, result, message."""
    get = said.get if isinstance(said, Mapping) else lambda name: getattr(said, name)
    words = "/".join(str(word) for word in (get("status"), get("result")) if word)
    return ": ".join(str(part) for part in (words, get("message")) if part)


def run_path(attempt: Attempt) -> str:
    """Return where Airflow shows an attempt's DAG run, below its own address."""
    return f"dags/{quote(attempt.dag_id, safe='')}/runs/{quote(attempt.run_id, safe='')}"


def task_path(attempt: Attempt) -> str:
    """Return where Airflow shows the log of an attempt's task, below its own address."""
    mapped = f"/mapped/{attempt.map_index}" if attempt.map_index >= 0 else ""
    return f"{run_path(attempt)}/tasks/{quote(attempt.task_id, safe='')}{mapped}?try_number={attempt.try_number}"


def templates() -> jinja2.Environment:
    """Return the page's templates: what they are given is text, never HTML."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "size": size_of, "moment": moment, "words": words_of, "run_path": run_path, "task_path": task_path,
        "number": "{:,}".format,
    }  # fmt: skip
    found.globals |= {"LABELS": LABELS, "STEP": _STEP, "BAR": _BAR, "TALLEST": _TALLEST}
    return found
