"""Words from outside, as one safe line."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

LONGEST_SHOWN = 300
"""Characters of Amili's words that are shown at most."""

_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_DAY, _MONTH = r"(?:[04][1-9]|[1256]\d|[37][01])", r"(?:[048][1-9]|[159][0-2])"
"""Of birth. The day is 40 more in a D-number, the month 40 or 80 more in an auxiliary or a made-up number."""
_YEAR = r"(?:19|20(?=0))?\d\d"
"""Four digits only where it can be a year of birth: what follows a date of this year is rather an amount."""
_NATIONAL_ID = re.compile(
    rf"(?<!\d)(?:{_DAY}{_MONTH}\d\d|(?<!\d{{4}}[-./_]){_DAY}([ ./_-]){_MONTH}\1{_YEAR})"
    # Five digits, which some write as three and two. With decimals after them they are an amount.
    r" ?[-./_\u2010-\u2015\u2212]? ?\d{3} ?\d\d(?!\d|[.,]\d\d?(?!\d|[ ./_-]\d))"
    # Without gaps, any eleven digits.
    r"|(?<!\d)\d{11}(?!\d)"
)
_IN_NUMBERS = "0123456789 \t\r\n\xa0./_-\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
_LIKE_AN_ESCAPE = re.compile(r"\\(?=[xuU])")
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U(00(?:0[0-9a-f]|10)[0-9a-f]{4}))")
_BYTES = 0xDC00
"""What Python adds to a byte of a name that is not UTF-8, to keep it in text (PEP 383)."""


def one_line(words: Any, longest: int = LONGEST_SHOWN) -> str:
    """
    Return somebody else's words as one safe line.

    Control and invisible characters become spaces, what may be a Norwegian national id is masked, and at most *longest*
    characters are kept. Ids are eleven digits in a row, or a date of birth and five digits with blanks, dots, hyphens,
    slashes or underscores between; a number of another kind that looks the same is masked with them.

    :param words: text from outside; anything else is shown through ``str``.
    :param longest: characters kept at most.
    """
    text = str(words)
    # Cut before the costly part, since an answer may hold megabytes; but no number in half, which would not be masked.
    if len(text) > (most := longest * 4 + 64):
        text = text[:most].rstrip(_IN_NUMBERS)
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(c) in _UNSHOWN else c for c in text)
    text = _NATIONAL_ID.sub("*" * 11, " ".join(text.split()))
    return text if len(text) <= longest else text[: longest - 1] + "…"


def escaped(text: str) -> str:
    r"""
    Return a name or path as one safe line from which :func:`unescaped` makes the same again.

    A character that cannot be seen is written ``\u00ad`` (one of ASCII ``\x0a``), a byte that is not UTF-8 ``\xe6``,
    and a backslash that could be read as the beginning of one of these ``\x5c``. Everything else stays as it is.

    :param text: as the storage has it.
    """
    if "\\" in text:
        text = _LIKE_AN_ESCAPE.sub(r"\\x5c", text)
    if text.isprintable():
        return text
    return "".join(_escape(c) if unicodedata.category(c) in _UNSHOWN else c for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0x80 <= code - _BYTES <= 0xFF:  # noqa: PLR2004 - the bytes that are not ASCII
        code -= _BYTES
    elif code > 0x7F:  # noqa: PLR2004 - the end of ASCII
        return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004
    return f"\\x{code:02x}"


def unescaped(text: str) -> str:
    """
    Return the name or path that :func:`escaped` was given.

    :param text: what it returned.
    """
    return _ESCAPE.sub(_character, text)


def _character(found: re.Match[str]) -> str:
    code = int(found[1] or found[2] or found[3], 16)
    return chr(code + _BYTES if found[1] and code > 0x7F else code)  # noqa: PLR2004
