"""The note on the DAG run, which Airflow has from 3.4 on."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from amili_provider.operators.note import note_on_run
from amili_provider.receipts import Outcome, Receipt

RECEIPTS = [
    Receipt(name=f"{number}.csv", source=f"s3://b/{number}.csv", client_no="2218", file_type="T", outcome=outcome)
    for number, outcome in enumerate([*[Outcome.UPLOADED] * 3, Outcome.REJECTED, Outcome.UNKNOWN])
]
LOG = logging.getLogger(__name__)


def _noted(before: str | None = None, receipts: list[Receipt] = RECEIPTS, **ti: Any) -> list[str]:
    notes: list[str] = []
    instance = SimpleNamespace(**{"map_index": -1, "update_dagrun_note": notes.append, **ti})
    note_on_run({"ti": instance, "dag_run": SimpleNamespace(note=before)}, "upload", receipts, LOG)
    return notes


def test_the_note_has_the_numbers_what_went_wrong_first() -> None:
    """One line, without a name of a file."""
    assert _noted() == ["upload: 1 unknown, 1 rejected, 3 uploaded"]


def test_lines_of_others_stay_and_the_own_one_is_replaced() -> None:
    """A retry writes its line anew; what a person or another task wrote is kept, as far as there is room."""
    mine = "upload: 1 unknown, 1 rejected, 3 uploaded"
    assert _noted("asked Amili, kari\nupload: 5 not_sent\nothers: 1 uploaded") == [
        f"asked Amili, kari\nothers: 1 uploaded\n{mine}"
    ]
    assert _noted("x" * 990) == [mine]


def test_where_there_is_no_note_to_write_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    """Older Airflow, a mapped task, a run without files, no task instance: no note; a note that fails is a warning."""
    assert _noted(map_index=3) == []
    assert _noted(receipts=[]) == []
    note_on_run({"ti": SimpleNamespace(map_index=-1)}, "upload", RECEIPTS, LOG)
    note_on_run({}, "upload", RECEIPTS, LOG)

    def refuse(_note: str) -> None:
        raise RuntimeError("422")

    assert _noted(update_dagrun_note=refuse) == []
    assert "could not be written: RuntimeError: 422" in caplog.text
