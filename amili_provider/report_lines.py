"""Receipts as lines of text: grouped, named and wrapped; and what each outcome asks of a person."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

LOG_WIDTH = 92
"""Characters that Airflow's log view shows of a line of an error, in a window 1,400 pixels wide; it wraps nothing."""
LONGEST_CLASS = "AmiliAuthenticationError: "
"""Airflow's log view writes the error's class before the first line of the message."""
MOST_LINES = 20
"""Lines of an error's message at most."""

_ORDER = ("unknown", "rejected", "duplicate", "not_sent", "uploaded", "already_uploaded", "skipped")
_FINE = frozenset({"uploaded", "already_uploaded", "skipped"})
_SETTLE = (
    "settle them: amili-ledger settle arrived (or not-arrived) --request ID --reason 'how you know', or the DAG "
    "'amili_ledger' (documentation: The ledger)"
)
WHAT_TO_DO = {
    "unknown": (
        f"Ask Amili whether it has the unknown files, and {_SETTLE}. Or set the operator's if_unknown='check' (asks, "
        "never sends), 'resend' (asks, sends only where Amili answers 404) or 'ask' (a person): "
        "documentation: Unknown outcomes. They were sent and the answer was lost: sending them unasked could invoice "
        "somebody twice."
    ),
    "asked": (
        "Amili was asked for the unknown files, and gave no final answer. Ask a person there whether it has them, and "
        f"{_SETTLE}; or set the operator's if_unknown='resend', which sends what Amili answers with 404 "
        "(documentation: Unknown outcomes)."
    ),
    "rejected": "Correct the rejected files, in Amili's words below, put them at their source, and run again.",
    "duplicate": (
        "Duplicates hold bytes that Amili accepted under another name. If it is the same delivery once more, or "
        "file_name was changed since: run again with if_duplicate='skip', and they count as delivered. If it is "
        "another: if_duplicate='send' sends each of them. If it is wrong: correct the file, or its name, at the source."
    ),
    "not_sent": "Files that were not sent stay where they are: mend what the message says and run again.",
}
ASKED = "Asked now: "
"""What the message of an unknown file has in it, if Amili was asked for its result in this run."""
GONE = "it was listed, and is gone now"
"""What the message of a file says that was not there any more when it was to be read."""
_SENTENCE = re.compile(r"(?<=[.!?]) (?=[A-Z0-9])")
_NAMES_SHOWN = 60
_LONGEST_NAME = 100
_LONGEST_PATH = 2_000

ReceiptFields = Mapping[str, Any]


# Facts


class Group(NamedTuple):
    """
    Files with one outcome for one reason.

    :param outcome: the outcome, as in receipts.
    :param words: the reason, in Amili's words where there are any, as one safe line.
    :param receipts: the files.
    """

    outcome: str
    words: str
    receipts: list[ReceiptFields]

    @property
    def shown(self) -> list[str]:
        """The names of the first files, as many as a line has room for."""
        shown = [_line(self.receipts[0].get("name"), _LONGEST_NAME)]
        for receipt in self.receipts[1:]:
            name = _line(receipt.get("name"), _LONGEST_NAME)
            if sum(map(len, shown)) + len(name) > _NAMES_SHOWN:
                break
            shown.append(name)
        return shown

    @property
    def names(self) -> str:
        """Those names, and how many files there are."""
        shown, number = self.shown, len(self.receipts)
        return ", ".join(shown) + (f", … ({number} files)" if len(shown) < number else "")

    @property
    def place(self) -> str:
        """The path of the file, or the folder that the files have in common."""
        sources = [str(r.get("source") or "") for r in self.receipts]
        if len(sources) == 1:
            return _line(sources[0], _LONGEST_PATH)
        steps = zip(*(source.split("/")[:-1] for source in sources), strict=False)
        folder = "/".join(same[0] for same in itertools.takewhile(lambda step: len(set(step)) == 1, steps))
        return "" if not folder or folder.endswith((":", ":/")) else _line(f"in {folder}/", _LONGEST_PATH)


def groups(receipts: Iterable[ReceiptFields]) -> list[Group]:
    """Return files by outcome and reason, the largest group of each outcome first."""
    found: dict[tuple[Any, ...], list[ReceiptFields]] = {}
    for receipt in receipts:
        found.setdefault(_key(receipt), []).append(receipt)
    return sorted(
        (Group(_outcome(some[0]), _reason(some[0], impersonal=len(some) > 1), some) for some in found.values()),
        key=lambda group: (_rank(group.outcome), -len(group.receipts)),
    )


def headline(receipts: Sequence[ReceiptFields], width: int = LOG_WIDTH) -> list[str]:
    """Return the numbers of a run, and for whom they are, in one line or two."""
    if not receipts:
        return ["No files, and no receipts."]
    counts = Counter(map(_outcome, receipts))
    failed = sum(number for outcome, number in counts.items() if outcome not in _FINE)
    so = f"{failed} of {len(receipts)} file(s) not delivered to Amili" if failed else f"{len(receipts)} file(s)"
    numbers = f"{so}: {in_numbers(receipts)}"
    targets = sorted(
        {f"client {_line(r['client_no'])}, {_line(r.get('file_type'))}" for r in receipts if r.get("client_no")}
    )
    more = f" and {len(targets) - 3} more" if len(targets) > 3 else ""  # noqa: PLR2004 - enough for a line
    target = f"({'; '.join(targets[:3])}{more})"
    if not targets:
        return [numbers]
    return [f"{numbers} {target}"] if len(numbers) + len(target) < width else [numbers, target]


def advice(receipts: Iterable[ReceiptFields]) -> list[str]:
    """Return what to do about the outcomes that occur."""
    occurring = {_outcome(r) if not was_asked(r) else "asked" for r in receipts}
    return [words for outcome, words in WHAT_TO_DO.items() if outcome in occurring]


def was_asked(receipt: ReceiptFields) -> bool:
    """Return whether a file is unknown although Amili was asked for it in this run."""
    return _outcome(receipt) == "unknown" and ASKED in str(receipt.get("message") or "")


def _outcome(receipt: ReceiptFields) -> str:
    return str(receipt.get("outcome") or "no outcome")


def _rank(outcome: str) -> tuple[int, str]:
    """What went wrong comes first, and first of it what a person must decide."""
    known = _ORDER.index(outcome) if outcome in _ORDER else _ORDER.index("uploaded") - 1
    return known, outcome


def _key(receipt: ReceiptFields) -> tuple[Any, ...]:
    # A group of unknown files is settled together, so it is of one request.
    together = receipt.get("request") if _outcome(receipt) == "unknown" else None
    return _outcome(receipt), receipt.get("client_no"), _reason(receipt, impersonal=True), together


def _reason(receipt: ReceiptFields, *, impersonal: bool) -> str:
    """Return why, in words that do not repeat the file's path; *impersonal* ones are the same for each file."""
    said = "/".join(str(w) for w in (receipt.get("status"), receipt.get("result")) if w)
    message, source, name = (str(receipt.get(field) or "") for field in ("message", "source", "name"))
    if source:
        message = message.replace(source, "this file")
    if impersonal and len(name) > 3:  # noqa: PLR2004 - a shorter one may be a word of the reason
        message = message.replace(name, "…")
    if message and said and said not in message:
        return f"{_line(message)} [{_line(said)}]"
    return _line(message or said or "no reason given")


def _line(words: Any, longest: int = 300) -> str:
    from amili_provider.receipts import one_line  # noqa: PLC0415 - a DAG file that imports this module stays quick

    return "" if words is None else one_line(words, longest)


# Lines


def told(
    sections: Sequence[tuple[str, Sequence[ReceiptFields]]], most: int = MOST_LINES, width: int = LOG_WIDTH
) -> list[str]:
    """
    Return lines that name files and reasons, each section under its title, and say how many files they do not name.

    :param sections: titles and receipts.
    :param most: lines at most; one for each section, and one more, are always taken.
    :param width: characters of a line; a path is never broken.
    """
    sections = [(title, some) for title, some in sections if some]
    lines: list[str] = []
    named, room = 0, most - 1
    for index, (title, some) in enumerate(sections):
        share = max(1, room // (len(sections) - index))
        part = [f"{title}:"]
        for group in groups(some) if share > 1 else ():
            block, told_of = _block(group, width, share - len(part))
            if len(part) > 1 and len(part) + len(block) > share:
                break
            part += block[: share - len(part)]
            named += told_of
        lines += part
        room -= len(part)
    unnamed = sum(len(some) for _, some in sections) - named
    return [*lines, f"and {unnamed} more: see the receipts"] if unnamed else lines


def _block(group: Group, width: int, room: int) -> tuple[list[str], int]:
    """Return the lines of a group, and how many of its files they name."""
    number, place = len(group.receipts), [f"    {group.place}"] if group.place else []
    if group.outcome != "unknown":
        return [*wrapped(f"{group.names}: {group.words}", width, "  ", "    "), *place], len(group.shown)
    who = group.names if number == 1 else f"{number} files"
    lines = [*wrapped(f"{who}: {group.words}", width, "  ", "    "), *place]
    each = [
        f"    {_ids(receipt)}" if number == 1 else f"    {_line(receipt.get('name'), _LONGEST_NAME)}: {_ids(receipt)}"
        for receipt in group.receipts[: max(1, room - len(lines))]
    ]
    return [*lines, *each], len(each)


def _ids(receipt: ReceiptFields) -> str:
    """Return what a person needs to settle an unknown file."""
    said = {"file_id": receipt.get("file_id"), "request": receipt.get("request")}
    return ", ".join(f"{name} {value}" for name, value in said.items() if value)


def wrapped(text: str, width: int = LOG_WIDTH, first: str = "", others: str = "") -> list[str]:
    """Return *text* in lines of *width* characters at most, which begin with *first* and *others*; paths stay whole."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=others,
        break_on_hyphens=False,
        break_long_words="/" not in max(text.split(), key=len, default=""),
    )


def laid_out(words: str) -> str:
    """
    Return a message as Airflow's log view shows it without scrolling.

    If it does not fit into one line, each sentence begins a line, so that what to do is found.

    :param words: a message; one that has lines already is left as it is.
    """
    if "\n" in words or len(LONGEST_CLASS) + len(words) <= LOG_WIDTH:
        return words
    first, *others = _SENTENCE.split(words)
    lines = wrapped(first, first=" " * len(LONGEST_CLASS)) + [line for words in others for line in wrapped(words)]
    return "\n".join(lines).lstrip()


@contextmanager
def laid_out_errors() -> Iterator[None]:
    """Lay out the message of an error that ends a task: ours, and one about a missing file or a wrong argument."""
    from amili_provider.exceptions import AmiliError  # noqa: PLC0415 - it brings Airflow, and this module is cheap

    try:
        yield
    except (AmiliError, OSError, ValueError) as error:
        if isinstance(error, AmiliError):
            error.message = laid_out(error.message)
        if len(error.args) == 1:  # the system's own have a number and a path
            error.args = (laid_out(str(error.args[0])),)
        raise


def by_outcome(receipts: Iterable[ReceiptFields]) -> dict[str, list[ReceiptFields]]:
    """Return the receipts of each outcome, what went wrong first."""
    found: dict[str, list[ReceiptFields]] = {}
    for receipt in sorted(receipts, key=lambda r: _rank(_outcome(r))):
        found.setdefault(_outcome(receipt), []).append(receipt)
    return found


def in_numbers(receipts: Iterable[ReceiptFields]) -> str:
    """Return how many files have each outcome, what went wrong first: ``1 rejected, 412 uploaded``."""
    counts = Counter(map(_outcome, receipts))
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in sorted(counts, key=_rank))
