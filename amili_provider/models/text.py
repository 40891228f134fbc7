"""Words from outside, as one safe line."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

LONGEST_SHOWN = 300
"""Characters of Amili's words that are shown at most."""

_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_ELEVEN_DIGITS = re.compile(r"(?<!\d)\d{11}(?!\d)")


def one_line(words: Any, longest: int = LONGEST_SHOWN) -> str:
    """
    Return somebody else's words as one safe line.

    Control and invisible characters become spaces, runs of exactly eleven digits (Norwegian national ids) are
    masked, and at most *longest* characters are kept.

    :param words: text from outside; anything else is shown through ``str``.
    :param longest: characters kept at most.
    """
    # Cut before the costly part (an answer may hold megabytes), but late enough that no masked number is halved.
    text = str(words)[: longest * 4 + 64]
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(c) in _UNSHOWN else c for c in text)
    text = _ELEVEN_DIGITS.sub("***********", " ".join(text.split()))
    return text if len(text) <= longest else text[: longest - 1] + "…"
