"""Reports of an upload for people: in a mail, a chat, a file, or a task's failure."""

from __future__ import annotations

import csv
import html
import io
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from amili_provider.report_lines import (
    _LONGEST_PATH,
    LOG_WIDTH,
    Group,
    ReceiptFields,
    _ids,
    _line,
    advice,
    by_outcome,
    groups,
    headline,
    told,
    wrapped,
)

MOST_ROWS = 50
"""Reasons in a report at most; a CSV has a row for every file."""
MAIL_WIDTH = 76
"""Characters of a line of a plain mail."""
_FIELDS = (
    "outcome", "name", "status", "result", "message", "source", "size", "sha256", "file_id", "request", "client_no",
    "file_type", "uploaded_at",
)  # fmt: skip
_INNER = re.compile(r"(?<!^)([;\t|]\s*)(?=[=+\-@])")
"""Where some spreadsheets begin another cell, which would be a formula."""
_FORMULA = ("=", "+", "-", "@")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~&@:$]|(?<=www)\.)", re.IGNORECASE)


def delivery_report(
    receipts: Iterable[Any] | None,
    format: Literal["text", "markdown", "html", "csv"] = "text",  # noqa: A002 - the word that people look for
    error: object = None,
) -> str:
    """
    Return what became of files, for any mail, chat or notifier: what went wrong first, in Amili's words.

    A headline with the number of files of each outcome (the first line, good as a subject), what to do, and a table of
    outcome, files, reason and place; equal reasons are one row, and at most 50 rows are shown. A CSV has no headline,
    and a row for every file. What comes from outside is escaped for the format; in a CSV, text that a spreadsheet
    would take for a formula begins with an apostrophe.

    Register it as a macro of the DAG, ``user_defined_macros={"delivery_report": delivery_report}``, and a notifier's
    template can say ``{{ delivery_report(ti.xcom_pull(task_ids=ti.task_id), 'html') }}``.

    :param receipts: the XCom of an upload: a list of receipts. Also lists of such lists, as a mapped upload has, and
        None, as a task has that failed before it listed anything.
    :param format: ``text`` (plain, lines that fit a mail), ``markdown`` (with a table as GitHub and others draw it),
        ``html`` (a fragment with styles of its own) or ``csv`` (RFC 4180).
    :param error: what the task failed with, in a callback's template ``exception``: what is missing is told in its
        words, and where there are no receipts, what it says. A CSV has receipts only.
    :returns: the report; never empty.
    :raises ValueError: for another format.
    :raises TypeError: for receipts that were printed as text.
    """
    found = list(_flat(receipts))
    if format == "csv":
        return _csv(found)
    writers = {"text": _text, "markdown": _markdown, "html": _html}
    if format not in writers:
        raise ValueError(f"format must be one of {', '.join([*writers, 'csv'])}, not {format!r}.")
    return writers[format](found, _told_by(error, found))


def _told_by(error: object, receipts: Sequence[ReceiptFields]) -> list[str]:
    """Return what the error of a task tells that its receipts do not."""
    if missing := getattr(error, "missing", None):
        return [_line(sentence) for sentence in missing]
    return [] if error is None or receipts else [_line(error, _LONGEST_PATH)]


def _flat(receipts: Any) -> Iterator[ReceiptFields]:
    if receipts is None:
        return
    if isinstance(receipts, Mapping):
        yield receipts
    elif isinstance(receipts, str | bytes) or not isinstance(receipts, Iterable):
        raise TypeError(
            "receipts must be the XCom of an upload, a list of receipts, and not text that was made of it: pass the "
            "list itself, for example delivery_report(ti.xcom_pull(task_ids='upload'))."
        )
    else:
        for one in receipts:
            yield from _flat(one)


# Formats


def _head(receipts: list[ReceiptFields], said: list[str], width: int) -> list[str]:
    """Return the numbers, after what the error says; that there are no receipts is of no use beside it."""
    return [*said, *(headline(receipts, width) if receipts or not said else [])]


def _text(receipts: list[ReceiptFields], said: list[str]) -> str:
    lines = [line for words in _head(receipts, said, MAIL_WIDTH) for line in wrapped(words, MAIL_WIDTH)]
    for words in advice(receipts):
        lines += ["", *wrapped(words, MAIL_WIDTH)]
    sections = [(f"{outcome} ({len(some)})", some) for outcome, some in by_outcome(receipts).items()]
    if sections:
        lines += ["", *told(sections, most=4 * MOST_ROWS, width=MAIL_WIDTH)]
    return "\n".join(lines) + "\n"


_COLUMNS = ("Outcome", "File", "Reason", "Where", "To settle it")


def _rows(receipts: Sequence[ReceiptFields]) -> tuple[list[tuple[str, ...]], str]:
    """Return the rows of a table, and a sentence about what is not in it."""
    found = groups(receipts)
    rows = [_row(group) for group in found[:MOST_ROWS]]
    more = sum(len(group.receipts) for group in found[MOST_ROWS:])
    return rows, f"and {more} more: see the receipts" if more else ""


def _row(group: Group) -> tuple[str, ...]:
    settling = group.receipts[: len(group.shown)] if group.outcome == "unknown" else ()
    return group.outcome, group.names, group.words, group.place, "; ".join(map(_ids, settling))


def _markdown(receipts: list[ReceiptFields], said: list[str]) -> str:
    rows, more = _rows(receipts)
    lines = [
        f"**{marked(' '.join(_head(receipts, said, LOG_WIDTH)))}**",
        *(f"\n{marked(words)}" for words in advice(receipts)),
    ]
    if rows:
        lines += ["", f"| {' | '.join(_COLUMNS)} |", f"|{' --- |' * len(_COLUMNS)}"]
        lines += [f"| {' | '.join(map(marked, row))} |" for row in rows]
    if more:
        lines += ["", more]
    return "\n".join(lines) + "\n"


def marked(text: str) -> str:
    """Return *text* so that Markdown shows every character of it, also in a cell of a table."""
    return _MARKDOWN.sub(r"\\\1", text)


def _html(receipts: list[ReceiptFields], said: list[str]) -> str:
    rows, more = _rows(receipts)
    cell = 'style="border: 1px solid #ccc; padding: 4px 8px; text-align: left; vertical-align: top"'
    lines = [f"<p><strong>{html.escape(' '.join(_head(receipts, said, LOG_WIDTH)))}</strong></p>"]
    lines += [f"<p>{html.escape(words)}</p>" for words in advice(receipts)]
    if rows:
        lines += ['<table style="border-collapse: collapse">', _html_row("th", cell, _COLUMNS)]
        lines += [_html_row("td", cell, row) for row in rows]
        lines.append("</table>")
    if more:
        lines.append(f"<p>{more}</p>")
    return "\n".join(lines) + "\n"


def _html_row(tag: str, style: str, cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{tag} {style}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _csv(receipts: list[ReceiptFields]) -> str:
    return as_csv(_FIELDS, itertools.chain.from_iterable(by_outcome(receipts).values()))


def as_csv(fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return *rows* as CSV (RFC 4180); text that a spreadsheet would take for a formula begins with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(fields)
    writer.writerows([_cell(row.get(field)) for field in fields] for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    """Return a value that no spreadsheet takes for a formula, whatever blanks or wide characters it begins with."""
    if isinstance(value, str):
        begins = unicodedata.normalize("NFKC", value).lstrip().startswith(_FORMULA)
        guarded = _INNER.sub(r"\1'", value)
        return f"'{guarded}" if begins else guarded
    return value
