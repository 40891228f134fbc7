"""What a person reads in the log of an upload."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from amili_provider.delivery import progress
from amili_provider.delivery.progress import Progress, receipt_lines, shown_bytes, summary
from amili_provider.receipts import Outcome, Receipt


def _receipt(name: str, outcome: Outcome, size: int | None = 3, message: str | None = None) -> Receipt:
    return Receipt(
        name=name, source=f"/out/{name}", client_no="2218", file_type="T", size=size, outcome=outcome, message=message
    )


def test_what_went_wrong_is_shown_first() -> None:
    """Of many files one looks for those that need a person; the others keep their order."""
    receipts = [
        _receipt("a.csv", Outcome.UPLOADED),
        _receipt("b.csv", Outcome.REJECTED, 2048, "row 14: no such customer"),
        _receipt("c.csv", Outcome.UPLOADED, None),
    ]
    assert list(receipt_lines(receipts)) == [
        "rejected            2.0 KiB  b.csv  (row 14: no such customer)",
        "uploaded                3 B  a.csv",
        "uploaded          c.csv",
    ]


def test_an_unknown_file_is_shown_with_what_settles_it() -> None:
    """Its id, and the request that took it, stand where people look for the file."""
    receipt = _receipt("lost.csv", Outcome.UNKNOWN, 3, "no answer")
    receipt.file_id, receipt.request = "f1", "#7"
    assert list(receipt_lines([receipt])) == [
        "unknown                 3 B  lost.csv  (no answer)  file_id f1, request #7"
    ]


def test_the_log_of_a_huge_run_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cut is said."""
    monkeypatch.setattr(progress, "MOST_RECEIPTS", 2)
    lines = list(receipt_lines([_receipt(f"{n}.csv", Outcome.UPLOADED) for n in range(5)]))
    assert len(lines) == 3
    assert lines[-1] == "... and 3 more"


def test_the_summary_counts_every_outcome() -> None:
    """One line per outcome that occurs, and one for all."""
    receipts = [_receipt("a", Outcome.UPLOADED), _receipt("b", Outcome.UPLOADED), _receipt("c", Outcome.SKIPPED)]
    assert [line.split() for line in summary(receipts, 2.0).splitlines()] == [
        ["outcome", "files", "bytes"],
        ["uploaded", "2", "6", "B"],
        ["skipped", "1", "3", "B"],
        ["in", "all", "3", "9", "B", "in", "2.0", "s"],
    ]


def test_long_runs_are_told_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    """Not at every file, and not never."""
    caplog.set_level(logging.INFO)
    now = [0.0]
    told = Progress(logging.getLogger("task"), files=10, size=1024, clock=lambda: now[0])
    told.tell()
    assert caplog.messages == []
    now[0] = progress.TELL_EVERY_SECONDS
    told.tell()
    told.tell()
    assert caplog.messages == ["0 of 10 files done, 0 B of 1.0 KiB, 0 B/s"]


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 1024**5, "5120.0 TiB")]
)
def test_bytes_are_shown_as_people_read_them(size: int, shown: str) -> None:
    """In the unit that keeps the number short, as far as units go."""
    assert shown_bytes(size) == shown


def test_the_log_view_folds_the_receipts() -> None:
    """Each Airflow's log view knows the two marks, in an INFO line: checked in the page that it ships."""
    import airflow

    root = Path(airflow.__file__).parent
    pages = [*root.glob("ui/dist/assets/*.js"), *root.glob("www/static/dist/*.js")]
    text = "".join(page.read_text(encoding="utf-8", errors="replace") for page in pages)
    assert "::group::" in text or "INFO - (::|##\\[])group(::|\\])" in text
