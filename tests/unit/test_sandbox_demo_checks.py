"""The demo is green only if everything it promises holds."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from amili_provider.sandbox.demo.checking import check
from amili_provider.sandbox.demo.invoices import LARGE_BYTES, REASON, Day, Invoices, make_day
from amili_provider.sandbox.records import Upload


@pytest.fixture(name="day", scope="module")
def _day() -> Day:
    """Return a day of files."""
    return make_day(date(2025, 3, 1), large=False)


def accepted(files: list[Invoices]) -> list[Upload]:
    """Return what a sandbox has on record if it accepted these."""
    return [
        Upload(n, 1, "2218", f.sha256(), "T", f.name, f.size, f.sha256(), 0.0, 0, None)
        for n, f in enumerate(files, start=1)
    ]


def receipts(day: Day, others: str, **outcomes: str) -> list[dict[str, Any]]:
    """Return receipts with one outcome but for the special files."""
    special = {day.refused.name: outcomes.get("refused", others), day.copy.name: outcomes.get("copy", others)}
    return [{"name": f.name, "outcome": special.get(f.name, others), "message": REASON} for f in day.files]


def first_run(day: Day) -> list[dict[str, Any]]:
    """Return the receipts of a first run that went well."""
    return receipts(day, "uploaded", refused="rejected", copy="duplicate")


def second_run(day: Day) -> list[dict[str, Any]]:
    """Return the receipts of a second run that went well."""
    return [r for r in receipts(day, "already_uploaded", refused="uploaded") if r["name"] != day.copy.name]


def verdict(
    day: Day, files: list[Invoices], first: Any = None, second: Any = None, accepted_first: int = 238
) -> list[bool]:
    """Return what was found right."""
    found = check(day, accepted(files), accepted_first, first or first_run(day), second or second_run(day))
    return [right for right, _ in found]


def arrived(day: Day) -> list[Invoices]:
    """Return the files that arrive if all goes well, the corrected one last."""
    return [f for f in day.files if f not in (day.refused, day.copy)] + [day.corrected]


def test_all_is_well_only_if_all_is_well(day: Day) -> None:
    """What was sent arrived, once, and the receipts tell the same story."""
    assert verdict(day, arrived(day)) == [True] * 5


def test_each_deviation_is_noticed(day: Day) -> None:
    """A file lost, changed, sent twice, or a receipt that tells another story."""
    well = arrived(day)
    changed = Invoices(well[0].name, well[0].content[:-1] + b"?")
    assert verdict(day, well[1:])[0] is False
    assert verdict(day, [changed, *well[1:]])[0] is False
    assert verdict(day, [*well, day.refused])[0] is False
    assert verdict(day, [*well, well[0]])[1] is False
    assert verdict(day, well, first=receipts(day, "uploaded", copy="duplicate"))[2] is False
    assert verdict(day, well, first=receipts(day, "uploaded", refused="rejected"))[3] is False
    assert verdict(day, well, first=receipts(day, "uploaded", refused="rejected", copy="already_uploaded"))[3] is False
    assert verdict(day, well, second=receipts(day, "uploaded"))[4] is False
    assert verdict(day, well, accepted_first=239)[4] is False


def test_a_day_is_made_up_the_same_every_time(day: Day) -> None:
    """The same day has the same files; its names and contents differ, but for the copy."""
    again = make_day(date(2025, 3, 1), large=True)
    assert again.files[:-1] == day.files
    assert LARGE_BYTES * 0.99 < again.files[-1].size <= LARGE_BYTES
    assert len({f.name for f in again.files}) == len(again.files)
    assert len({f.sha256() for f in again.files}) == len(again.files) - 1
    assert day.copy.content == day.original.content
    assert day.refused.content.endswith(day.corrected.content)
