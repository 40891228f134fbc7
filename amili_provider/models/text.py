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
