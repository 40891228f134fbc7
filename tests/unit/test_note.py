"""The note on the DAG run, which Airflow has from 3.4 on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from amili_provider.operators import note
from amili_provider.receipts import Outcome, Receipt

RECEIPTS = [
    Receipt(name=f"{number}.csv", source=f"s3://b/{number}.csv", client_no="2218", file_type="T", outcome=outcome)
    for number, outcome in enumerate([*[Outcome.UPLOADED] * 3, Outcome.REJECTED, Outcome.UNKNOWN])
]
LOG = logging.getLogger(__name__)


@pytest.fixture(name="noted")
def _noted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Write a note onto a run that has one or none, and return what Airflow was told."""

    def noted(before: str = "", receipts: list[Receipt] = RECEIPTS, **ti: Any) -> list[str]:
        notes: list[str] = []
        monkeypatch.setattr(note, "_note_now", lambda _ti: before)
        instance = SimpleNamespace(**{"map_index": -1, "update_dagrun_note": notes.append, **ti})
        note.note_on_run({"ti": instance}, "upload", receipts, LOG)
        return notes

    return noted


Noted = Callable[..., list[str]]
MINE = "upload: 1 unknown, 1 rejected, 3 uploaded"


def test_the_note_has_the_numbers_what_went_wrong_first(noted: Noted) -> None:
    """One line, without a name of a file."""
    assert noted() == [MINE]


def test_lines_of_others_stay_and_the_own_one_is_replaced(noted: Noted) -> None:
    """A retry writes its line anew; what a person or another task wrote is kept."""
    before = "asked Amili, kari\nupload: 5 not_sent\nothers: 1 uploaded"
    assert noted(before) == [f"asked Amili, kari\nothers: 1 uploaded\n{MINE}"]


def test_a_note_without_room_stays_as_it_is(noted: Noted, caplog: pytest.LogCaptureFixture) -> None:
    """A person's words are worth more than numbers that the log has, too."""
    room = 1000 - len(f"\n{MINE}")
    assert noted("x" * room) == [f"{'x' * room}\n{MINE}"]
    with caplog.at_level(logging.INFO):
        assert noted("x" * (room + 1)) == []
    assert "no room for one more line" in caplog.text


def test_where_there_is_no_note_to_write_nothing_happens(noted: Noted, caplog: pytest.LogCaptureFixture) -> None:
    """Older Airflow, a mapped task, a run without files, no task instance: no note; a note that fails is a warning."""
    assert noted(map_index=3) == []
    assert noted(receipts=[]) == []
    note.note_on_run({"ti": SimpleNamespace(map_index=-1)}, "upload", RECEIPTS, LOG)
    note.note_on_run({}, "upload", RECEIPTS, LOG)

    def refuse(_note: str) -> None:
        raise RuntimeError("422")

    assert noted(update_dagrun_note=refuse) == []
    assert "could not be written: RuntimeError: 422" in caplog.text
