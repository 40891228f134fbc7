"""What people read of a delivery: in a mail, a chat, a spreadsheet, and in the message of a failed task."""

from __future__ import annotations

import csv
import html.parser
import io
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from amili_provider.delivery.report import failure
from amili_provider.exceptions import AmiliError, AmiliFilesMissing, AmiliUploadRejected
from amili_provider.receipts import Outcome, Receipt
from amili_provider.report_lines import LOG_WIDTH, LONGEST_CLASS, MOST_LINES, groups, laid_out
from amili_provider.reports import MAIL_WIDTH, delivery_report
from tests.readme import ROOT

_ID = "0123456789abcdef0123456789abcdef"
_FOLDER = "s3://invoices/outbound/2026-11-22"
FORMATS = ("text", "markdown", "html", "csv")


def _receipt(name: str, outcome: str = "rejected", message: str | None = "no such debtor", **more: Any) -> Any:
    facts: dict[str, Any] = {
        "file_id": _ID,
        "name": name,
        "source": f"{_FOLDER}/{name}",
        "size": 3,
        "sha256": "ab" * 32,
        "client_no": "2218",
        "file_type": "InvoiciaFormatDocFile",
        "outcome": outcome,
        "status": None,
        "result": None,
        "message": message,
        "uploaded_at": None,
        "request": "#1" if outcome == "unknown" else None,
    }
    return {**facts, **more}


def _message(*receipts: Any, missing: Sequence[str] = ()) -> str:
    """Return what a task fails with."""
    kept = [Receipt(**{**fields, "outcome": Outcome(fields["outcome"])}) for fields in receipts]
    error = failure(kept, halt=None, has_ledger=True, missing=missing, source=_FOLDER)
    assert error is not None
    return str(error)


# The message of a failed task


def test_a_message_says_what_to_do_then_the_name_with_amilis_words_then_the_path() -> None:
    """In this order, since a screen ends somewhere."""
    said = _message(_receipt("bad.csv", status="FAILED", result="REJECTED"), _receipt("good.csv", "uploaded", None))
    assert said.splitlines() == [
        "1 of 2 file(s) not delivered to Amili: 1 rejected, 1 uploaded",
        "(client 2218, InvoiciaFormatDocFile)",
        "Correct the rejected files, in Amili's words below, put them at their source, and run again.",
        "rejected (1):",
        "  bad.csv: no such debtor [FAILED/REJECTED]",
        f"    {_FOLDER}/bad.csv",
    ]


def test_the_guide_shows_a_message_as_it_is() -> None:
    """What the operator's page shows is what a task says."""
    lost = _receipt("february.csv", "unknown", "Amili answered 500: Internal error", request="5f3a91c2-3")
    bad = _receipt("march.csv", message="row 14: no such debtor", status="FAILED", result="REJECTED")
    fine = [_receipt(f"{n}.csv", "uploaded") for n in range(400)]
    said = _message({**lost, "file_id": "9f2c5e1a0b7d4c83a6e4f1d2c3b4a596"}, bad, *fine)
    assert f"```\n{said}\n```" in (ROOT / "docs/operator.md").read_text(encoding="utf-8")


def _many(outcome: str, number: int = 400, **more: Any) -> list[Any]:
    return [_receipt(f"{outcome}{n:04}.csv", outcome, **{"message": "equal words", **more}) for n in range(number)]


@pytest.mark.parametrize(
    "receipts",
    [
        _many("rejected"),
        _many("unknown"),
        _many("not_sent"),
        [_receipt(f"{n}.csv", message=f"row {n}: no such debtor") for n in range(400)],
        [_receipt(f"{n}.csv", "unknown", request=f"#{n}") for n in range(400)],
        [_receipt("n" * 255, message="long " * 59, source="s3://" + "deep/" * 200) for _ in range(3)],
        [
            _receipt(f"{outcome}{n}" * 20, outcome, message=f"{n} long" * 40)
            for outcome in ("rejected", "unknown", "not_sent")
            for n in range(50)
        ],
    ],
    ids=["refused", "unknown", "not sent", "each for its own reason", "each request lost", "long", "all at once"],
)
def test_a_message_fits_a_screen(receipts: list[Any]) -> None:
    """Twenty lines, each as wide as Airflow's log view; only a path may be wider, and it stands alone."""
    lines = _message(*receipts).splitlines()
    assert len(lines) <= MOST_LINES
    assert all(len(line) <= LOG_WIDTH or line.strip().startswith(("s3://", "in s3://")) for line in lines)
    for outcome in {receipt["outcome"] for receipt in receipts}:
        assert any(line.startswith(f"{outcome} (") for line in lines), f"{outcome} is not told"


def test_a_message_of_everything_at_once_fits_a_screen() -> None:
    """Every outcome, an outcome that the ledger was not told of, and missing files: each has its line."""
    unwritten = [{**one, "unwritten": True} for one in _many("uploaded")]
    lines = _message(
        *_many("rejected"), *_many("unknown"), *_many("not_sent"), *unwritten, missing=["No file is named 'x'."] * 9
    ).splitlines()
    assert len(lines) <= MOST_LINES
    for title in ("unknown (400):", "rejected (400):", "not_sent (400):", "delivered, but not written to the ledger"):
        assert any(line.startswith(title) for line in lines), title
    assert lines[-2:] == ["and 6 more are missing", f"Looked for among the files that match {_FOLDER}"]


def test_equal_reasons_are_told_once_with_their_number() -> None:
    """Four hundred files that were refused in the same words are one line, and nobody is left uncounted."""
    lines = _message(*_many("rejected"), _receipt("other.csv", message="wrong currency")).splitlines()
    assert sum("equal words" in line for line in lines) == 1
    assert any("(400 files): equal words" in line for line in lines)
    assert f"    in {_FOLDER}/" in lines
    assert "  other.csv: wrong currency" in lines
    named = sum(line.count(".csv") for line in lines if not line.startswith("    "))
    assert lines[-1] == f"and {401 - named} more: see the receipts"


def test_words_that_name_their_file_are_equal_too() -> None:
    """What a storage says of each file differs in the file only."""
    some = [
        _receipt(f"inv{n}.csv", "not_sent", f"Cannot open {_FOLDER}/inv{n}.csv: permission denied") for n in range(3)
    ]
    (group,) = groups(some)
    assert group.words == "Cannot open this file: permission denied"
    (group,) = groups([_receipt(f"inv{n}.csv", "not_sent", f"'inv{n}.csv' is no name") for n in range(3)])
    assert group.words == "'…' is no name"


def test_unknown_files_are_named_with_what_settles_them() -> None:
    """Id and request of each, as many as there is room for, and a word about the others."""
    lines = _message(*_many("unknown", 3)).splitlines()
    for number in range(3):
        assert f"    unknown000{number}.csv: file_id {_ID}, request #1" in lines
    one = _message(_receipt("lost.csv", "unknown", "Amili answered 500: oops")).splitlines()
    assert one[-3:] == [
        "  lost.csv: Amili answered 500: oops",
        f"    {_FOLDER}/lost.csv",
        f"    file_id {_ID}, request #1",
    ]
    assert _message(*_many("unknown")).splitlines()[-1].endswith(" more: see the receipts")


def test_a_message_of_one_line_is_laid_out_by_sentences() -> None:
    """What to do begins a line, no path is broken, and beside the error's class there is less room."""
    path = f"{_FOLDER}/{'deep/' * 20}*.csv"
    lines = laid_out(f"No files match {path}. Is the day right? If there may be none, say so in the DAG.").splitlines()
    assert lines == [
        "No files match",
        f"{path}.",
        "Is the day right?",
        "If there may be none, say so in the DAG.",
    ]
    long = laid_out("word " * 50)
    assert all(len(line) <= LOG_WIDTH for line in long.splitlines())
    assert len(LONGEST_CLASS) + len(long.splitlines()[0]) <= LOG_WIDTH
    assert laid_out(long) == long
    assert laid_out("Short. Clear.") == "Short. Clear."


def test_who_has_asked_is_not_sent_to_ask_again() -> None:
    """After a check that found nothing, what is left is a person at Amili, or resend."""
    asked = _receipt("lost.csv", "unknown", "Sent before, outcome unknown. Asked now: no such file; before: …")
    said = _message(asked)
    assert "if_unknown='resend'" in said
    assert "'check'" not in said
    assert "'check'" in _message(asked, _receipt("other.csv", "unknown", "no answer"))


# Reports


def test_a_plain_report() -> None:
    """As it is mailed: numbers, what to do, what went wrong with its reason, then what went well."""
    report = delivery_report(
        [
            _receipt("fine.csv", "uploaded", "File uploaded"),
            _receipt("bad.csv", status="FAILED", result="REJECTED"),
            _receipt("lost.csv", "unknown", "the answer does not name this file"),
        ]
    )
    lines = report.splitlines()
    assert lines[:2] == [
        "2 of 3 file(s) not delivered to Amili: 1 unknown, 1 rejected, 1 uploaded",
        "(client 2218, InvoiciaFormatDocFile)",
    ]
    assert [line for line in lines if line.endswith(":")] == ["unknown (1):", "rejected (1):", "uploaded (1):"]
    assert lines.index("  lost.csv: the answer does not name this file") < lines.index("  fine.csv: File uploaded")
    assert "  bad.csv: no such debtor [FAILED/REJECTED]" in lines
    assert f"    file_id {_ID}, request #1" in lines
    assert "amili_ledger" in report
    assert max(map(len, lines)) <= MAIL_WIDTH


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("receipts", "names"),
    [
        (None, []),
        ([], []),
        ([None], []),
        (_receipt("a.csv"), ["a.csv"]),
        ([_receipt("a.csv"), _receipt("b.csv", "uploaded")], ["a.csv", "b.csv"]),
        ([[_receipt("a.csv")], None, [], [_receipt("b.csv", "unknown")]], ["a.csv", "b.csv"]),
        ([{"name": "a.csv", "outcome": "of tomorrow"}], ["a.csv"]),
    ],
    ids=["None", "no files", "a failed task's", "one", "a task's", "a mapped task's", "a later version's"],
)
def test_a_report_takes_what_xcom_holds(form: Any, receipts: Any, names: list[str]) -> None:
    """A task's list, a mapped task's lists, and nothing at all."""
    report = delivery_report(receipts, form)
    assert report
    for name in names:
        assert name in report
    if form != "csv" and not names:
        assert "No files" in report


def test_what_is_no_outcome_of_today_counts_as_failed() -> None:
    """A report never calls fine what it does not know."""
    assert delivery_report([_receipt("a.csv", "of tomorrow")]).startswith("1 of 1 file(s) not delivered")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (([], "pdf"), ValueError, "format must be one of text, markdown, html, csv, not 'pdf'"),
        (("[{'name': 'a.csv'}]",), TypeError, "not text that was made of it"),
        ((7,), TypeError, "a list of receipts"),
        (([b"x"],), TypeError, "a list of receipts"),
    ],
)
def test_a_mistake_of_the_dag_is_named(arguments: tuple[Any, ...], error: type[Exception], words: str) -> None:
    """A template that printed the receipts as text is told how to pass them."""
    with pytest.raises(error, match=words):
        delivery_report(*arguments)


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_a_report_tells_what_the_error_of_the_task_knows(form: Any) -> None:
    """What is missing is in no receipt; what both know is told once, and a remedy in the DAG is not for accounting."""
    missing = AmiliFilesMissing("No files match x. Say if_no_files='skip'.", missing=["No files match x."])
    report = delivery_report([], form, missing)
    assert "No files match x" in report
    assert "if_no_files" not in report
    assert "no receipts" not in report
    some = delivery_report(
        [_receipt("a.csv", "uploaded")], form, AmiliFilesMissing("…", missing=["No file matches b."])
    )
    assert some.index("No file matches b") < some.index("1 file")
    assert "ledger is away" in delivery_report(None, form, AmiliError("The ledger is away."))
    rejected = AmiliUploadRejected("one line\nanother")
    assert delivery_report([_receipt("a.csv")], form, rejected) == delivery_report([_receipt("a.csv")], form)


class _Cells(html.parser.HTMLParser):
    """Reads the text of a page, and which tags it has."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, _attributes: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


_NASTY = [
    "<script>alert(1)</script>.csv",
    "a|b`c`*d*_e_[f](http://g).csv",
    "=cmd|' /C calc'!A0",
    " +1",
    "\t-1",
    "@SUM(1)",
    "\N{FULLWIDTH EQUALS SIGN}1+1",
    'quoted "name", with comma.csv',
]


def test_html_holds_no_tag_but_its_own() -> None:
    """Names and Amili's words come from outside; what they say is shown as it is."""
    page = _Cells(delivery_report([_receipt(name, message="<b>&amp;") for name in _NASTY[:1]], "html"))
    assert page.tags == {"p", "strong", "table", "tr", "th", "td"}
    assert {_NASTY[0], "<b>&amp;"} <= set(page.texts)


def test_markdown_is_marked_by_nothing_from_outside() -> None:
    """Every character that would make a link, a column or a style of a name is escaped."""
    rows = delivery_report([_receipt(_NASTY[1])], "markdown").splitlines()
    (row,) = [line for line in rows if "2026-11-22" in line]
    assert r"a\|b\`c\`\*d\*\_e\_\[f\]\(http\://g\).csv" in row
    assert row.replace(r"\|", "").count("|") == 6
    assert all(line.replace(r"\|", "").count("|") == 6 for line in rows if line.startswith("|"))


def test_no_cell_of_a_csv_is_a_formula() -> None:
    """A spreadsheet computes what begins like a formula; every file has its row, and every value comes back."""
    report = delivery_report([_receipt(name, "uploaded") for name in _NASTY] + [_receipt("last.csv")], "csv")
    rows = list(csv.DictReader(io.StringIO(report, newline="")))
    assert rows[0]["name"] == "last.csv"
    assert [row["name"].removeprefix("'") for row in rows[1:]] == _NASTY
    assert [row["name"].startswith("'") for row in rows[1:]] == [False, False, True, True, True, True, True, False]
    assert rows[0]["size"] == "3"
    # Some spreadsheets, as those set to Norwegian, part cells at semicolons.
    hidden = delivery_report([_receipt("x;=1+cmd|' !A0;.csv", "uploaded")], "csv").splitlines()[1]
    assert not [cell for cell in hidden.split(";") if cell.lstrip().startswith(("=", "+", "-", "@"))]


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_a_report_of_a_huge_run_is_bounded(form: Any) -> None:
    """Ten thousand reasons are no mail; the number of what is not shown is, and a file nobody knows of is."""
    many = [_receipt(f"{n}.csv", message=f"row {n}") for n in range(10_000)]
    report = delivery_report([*many, _receipt("lost.csv", "unknown", "no answer")], form)
    assert len(report) < 60_000
    assert "lost.csv" in report
    assert "more: see the receipts" in report


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_a_report_forges_no_line(form: Any) -> None:
    """A line break or an escape code in a name is no line of the report."""
    report = delivery_report([_receipt("a.csv\nuploaded (1):\x1b[2K", message="x\r\ny\u202e")], form)
    assert not any(line.startswith("uploaded (1)") for line in report.splitlines())
    assert report.replace("\n", "").isprintable()


def test_the_import_is_cheap() -> None:
    """A DAG file may import it: neither HTTP, nor pydantic, nor Airflow comes with it."""
    code = (
        "import sys, amili_provider.reports; print([m for m in ('httpx', 'pydantic', 'airflow') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "[]"
