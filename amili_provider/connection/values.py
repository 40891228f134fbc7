"""Checks of single values, with messages that say what was given and what to write instead."""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections.abc import Iterable
from typing import Any

_TRUE = frozenset({"true", "1", "yes"})
_FALSE = frozenset({"false", "0", "no", "", "none"})
_LONGEST_CLIENT_NO = 64
LONGEST_SECONDS = 24 * 60 * 60
"""Of a time-out. Systems take no time-outs of years, and find out in the middle of a request."""
_FAILURE = re.compile("[45][0-9][0-9]")


def is_unprintable(text: str) -> bool:
    """Return whether *text* holds control, invisible or line-breaking characters."""
    return any(unicodedata.category(c)[0] == "C" or unicodedata.category(c) in ("Zl", "Zp") for c in text)


def as_bool(value: Any, name: str) -> bool:
    """
    Return *value* as a boolean; templates and URIs give text.

    :param value: a boolean, or true/false/1/0/yes/no/''/none in any case.
    :param name: how messages name the argument.
    :raises ValueError: for anything else.
    """
    if isinstance(value, bool):
        return value
    if value is None:
        return False
    if isinstance(value, (str, int)):
        word = str(value).strip().casefold()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
    raise ValueError(f"{name} is {_shown(value)}; write true or false (or 1, 0, yes, no, none).")


def checked_client_no(value: Any, where: str) -> str:
    """
    Return a client number as it stands in URLs and receipts.

    :param value: text or an integer; plain spaces around it are dropped.
    :param where: how messages name the argument.
    :raises ValueError: for anything that cannot be a client number.
    """
    remedy = "write the client number that Amili gave you, for example 2218"
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"{where} is {_shown(value)}; {remedy}.")  # noqa: TRY004 - one kind for all wrong arguments
    number = value.strip(" ")
    if not number or number.casefold() == "none":
        raise ValueError(f"{where} is empty; {remedy}.")
    # A slash, a question mark or '..' would turn one client's URL into another's.
    forbidden = set("/\\?#%")
    if number in (".", "..") or is_unprintable(number) or any(c in forbidden or c.isspace() for c in number):
        raise ValueError(
            f"{where} is {_shown(value)}, with a character that no client number has (slash, space, line break, "
            f"...); {remedy}."
        )
    if len(number) > _LONGEST_CLIENT_NO:
        raise ValueError(f"{where} is longer than {_LONGEST_CLIENT_NO} characters; {remedy}.")
    return number


def as_text(value: Any, name: str) -> str | None:
    """Return *value* as text without spaces around it; None if it is empty. Numbers count as text."""
    if value is None or isinstance(value, bool | float):
        if value is None:
            return None
        raise ValueError(f"{name} is {_shown(value)}; write text.")
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"{name} is {_shown(value)}; write text.")  # noqa: TRY004 - one kind for all wrong arguments
    text = value.strip()
    if is_unprintable(text):
        raise ValueError(f"{name} holds a line break or another invisible character; write it on one line.")
    return text or None


def as_seconds(value: Any, name: str) -> float:
    """Return *value* as a number of seconds above 0, and of at most :data:`LONGEST_SECONDS`."""
    try:
        seconds = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 < seconds <= LONGEST_SECONDS:
        raise ValueError(
            f"{name} is {_shown(value)}; write a number of seconds above 0 and up to {LONGEST_SECONDS} (a day), for "
            "example 30."
        )
    return seconds


def as_count(value: Any, name: str, most: float = math.inf) -> int:
    """Return *value* as a positive whole number of at most *most*."""
    try:
        count = int(str(value).strip()) if not isinstance(value, bool | float) else int(value)
    except (ValueError, OverflowError):
        count = 0
    if count < 1 or (isinstance(value, float) and value != count) or isinstance(value, bool):
        raise ValueError(f"{name} is {_shown(value)}; write a whole number of at least 1.")
    if count > most:
        raise ValueError(f"{name} is {_shown(value)}; write a whole number of at most {most}.")
    return count


def as_statuses(value: Any, name: str) -> tuple[int, ...]:
    """Return HTTP statuses of failures that are given as a number, a list, or separated by commas; ``none`` is none."""
    entries = value if isinstance(value, (list, tuple)) else str(value).split(",")
    texts = [str(entry).strip() for entry in entries]
    if [text.casefold() for text in texts] == ["none"]:
        return ()
    if not all(_FAILURE.fullmatch(text) for text in texts):
        raise ValueError(
            f"{name} is {_shown(value)}; write statuses from 400 to 599 separated by commas, for example 429, 503, or "
            "none."
        )
    return tuple(sorted({int(text) for text in texts}))


def as_words(value: Any, name: str) -> tuple[str, ...]:
    """Return words that are given as a list or separated by commas."""
    if isinstance(value, str):
        entries: Iterable[Any] = value.split(",")
    elif isinstance(value, (list, tuple)):
        entries = value
    else:
        entries = (None,)
    words = []
    for entry in entries:
        if not isinstance(entry, str) or is_unprintable(entry):
            raise ValueError(f"{name} is {_shown(value)}; write words separated by commas, for example FAILED, ERROR.")
        parts = [part.strip() for part in entry.split("/")]
        if parts == [""]:
            continue
        if len(parts) > 2 or not all(parts):  # noqa: PLR2004 - a status and a result
            raise ValueError(f"{name} holds {_shown(entry)}; write STATUS/RESULT, for example PROCESSED/CREATED.")
        words.append("/".join(parts))
    if not words:
        raise ValueError(f"{name} holds no word; leave it empty for the default.")
    return tuple(words)


def checked_result_path(value: Any, name: str) -> str:
    """
    Return a path below the base URL with ``{fileid}``, and perhaps ``{clientno}``, in it.

    :raises ValueError: for anything else.
    """
    path = as_text(value, name) or ""
    try:
        parsed = list(string.Formatter().parse(path))
    except ValueError:
        parsed = []
    fields = {field for _, field, _, _ in parsed if field is not None}
    plain = not any(specification or conversion for _, _, specification, conversion in parsed)
    sane = path.startswith("/") and not path.startswith("//") and path.isprintable()
    sane = sane and not any(c in path for c in ("{{", "}}", " ", "#", "\\"))
    sane = sane and {".", ".."}.isdisjoint(path.partition("?")[0].split("/"))
    if not (sane and plain and "fileid" in fields and fields <= {"clientno", "fileid"}):
        raise ValueError(
            f"{name} is {_shown(value)}; write a path such as /clients/{{clientno}}/files/{{fileid}}, with {{fileid}} "
            "and at most {clientno} in it."
        )
    return path


def _shown(value: Any) -> str:
    """Return a wrong value as messages show it: short, on one line. Callers never pass a secret."""
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"  # noqa: PLR2004 - long enough to be recognised
