"""The question about unknown files, in Markdown: what a person must know to answer it, as much as fits a screen."""

from __future__ import annotations

from collections.abc import Sequence

from amili_provider.delivery.progress import shown_bytes
from amili_provider.ledger import Attempt, History
from amili_provider.receipts import one_line
from amili_provider.reports import marked

HAS_THEM = "Amili has them"
SEND_AGAIN = "Amili does not have them: send again"
LEAVE_UNKNOWN = "Leave unknown"
OPTIONS = (HAS_THEM, SEND_AGAIN, LEAVE_UNKNOWN)

MOST_ROWS = 20
_MOST_NAMES = 5
_LONGEST_NAME = 60
_IN_PART = (
    "Every name and id is in the task's receipts (XCom) and log. If Amili has some and not others, choose "
    f"*{LEAVE_UNKNOWN}*, settle each with the DAG `amili_ledger` or the command `amili-ledger settle`, and clear the "
    "task."
)
_REASON = (
    "The first two answers need a reason, which is kept in the ledger with your name; without one you are asked again."
)
_TABLE = ("| Request | Files | What is known |", "| --- | --- | --- |")


def subject(files: int) -> str:
    """Return the question, as the list of required actions shows it."""
    return f"Does Amili have {'this file' if files == 1 else f'these {files} files'}? The answer was lost."


def body(unknown: Sequence[History]) -> str:
    """
    Return the files and what is known of them, a row per request and reason; the largest first.

    :param unknown: what the ledger says of each file, at least of one.
    """
    groups: dict[tuple[str, str], list[Attempt]] = {}
    for history in unknown:
        groups.setdefault(_sent(history), []).append(history.told)
    largest = sorted(groups.items(), key=lambda group: -len(group[1]))
    rows = [
        f"| {marked(one_line(request, 40))} | {_files(some)} | {marked(words)} |"
        for (request, words), some in largest[:MOST_ROWS]
    ]
    more = sum(len(some) for _, some in largest[MOST_ROWS:])
    first = unknown[0].told
    opening = (
        f"{len(unknown)} file(s) were sent as client {marked(first.client_no)}, {marked(first.file_type)}, and no "
        "answer says whether Amili took them. They are not sent again unasked: that could invoice a debtor twice. "
        "Look them up at Amili, and answer for **all** of them."
    )
    table = "\n".join([*_TABLE, *rows])
    unnamed = [f"and {more} more file(s), in {len(largest) - MOST_ROWS} more row(s)"] if more else []
    return "\n\n".join([opening, table, *unnamed, _IN_PART, _REASON])


def _sent(known: History) -> tuple[str, str]:
    """Return with which request a file was sent last, and what is known of that."""
    last = known.last_unknown
    assert last is not None  # only what the ledger calls unknown is asked about
    times = f"; sent {len(known.unknown)} times without an answer" if len(known.unknown) > 1 else ""
    return last.request or "?", f"{last.in_short()}{times}"


def _files(attempts: Sequence[Attempt]) -> str:
    names = [marked(one_line(a.name, _LONGEST_NAME)) for a in attempts[:_MOST_NAMES]]
    if len(attempts) == 1:
        return f"{names[0]} ({shown_bytes(attempts[0].size)})"
    more = f" and {len(attempts) - _MOST_NAMES} more" if len(attempts) > _MOST_NAMES else ""
    return f"{len(attempts)} files, {shown_bytes(sum(a.size for a in attempts))}: {', '.join(names)}{more}"
