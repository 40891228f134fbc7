"""How the page shows what it found: its templates, their words, and the strip of days."""

from __future__ import annotations

from collections.abc import Mapping
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
from amili_provider.ui.answers import Totals

HERE = Path(__file__).parent
LABELS = {
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
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True, slots=True)
class Day:
    """
    One day of the strip, as it is drawn.

    :param day: ``YYYY-MM-DD``.
    :param x: where it begins.
    :param height: of its bar.
    :param totals: its numbers.
    :param weekend: whether it is a Saturday or a Sunday.
    :param month: the month's name, on its first day and on the strip's.
    :param chosen: whether the list is about it.
    """

    day: str
    x: int
    height: float
    totals: Totals
    weekend: bool
    month: str
    chosen: bool

    @property
    def told(self) -> str:
        """The day in words."""
        counts = self.totals.counts
        said = [f"{counts[kind]:,} {LABELS[kind].lower()}" for kind in _IN_WORDS if counts.get(kind)]
        return f"{date.fromisoformat(self.day):%A, %-d %B %Y}: {', '.join(said) or 'nothing was sent'}"


_IN_WORDS = ("delivered", "rejected", "unknown", "settled", "not_sent", "being_sent")


def drawn(strip: Mapping[str, Totals], since: str | None, until: str | None) -> list[Day]:
    """
    Return the days of the strip as they are drawn.

    :param strip: numbers by day.
    :param since: the first day that the list is about.
    :param until: the last.
    """
    most = max((totals.counts.get("delivered", 0) for totals in strip.values()), default=0)
    days = []
    for number, (day, totals) in enumerate(strip.items()):
        when = date.fromisoformat(day)
        delivered = totals.counts.get("delivered", 0)
        # By the root: a day of ten files is still seen beside one of ten thousand.
        height = max(3.0, _TALLEST * sqrt(delivered / most)) if delivered else 0.0
        month = f"{when:%b}" if when.day == 1 or (number == 0 and when.day < 25) else ""  # noqa: PLR2004 - room for it
        chosen = bool(since or until) and (since or "") <= day <= (until or "9")
        days.append(Day(day, number * _STEP, round(height, 1), totals, when.weekday() > 4, month, chosen))  # noqa: PLR2004 - Friday
    return days


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
