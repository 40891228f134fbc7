"""Which of Amili's words mean accepted, refused or pending: one vocabulary for operator and sensors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

DEFAULT_ACCEPTED = ("PROCESSED/CREATED",)
"""Documented: "POST (upload) one or more OS files", example answer."""
ALWAYS_REFUSED = ("FAILED", "REJECTED", "ERROR", "INVALID", "BATCH-REJECTED")
"""Assumed, but for FAILED and BATCH-REJECTED, which the auto-postings page names. Nothing takes one of them away."""
DEFAULT_PENDING = ("QUEUED", "PENDING", "RECEIVED", "PROCESSING")
"""Assumed, but for QUEUED, which the Collection API names."""
DONE_WORDS = frozenset({"processed", "created", "success"})
"""Each by itself says that something was done. Assumed: two are an upload's, SUCCESS is the Collection API's."""
_IN_PART = frozenset({"partial", "partially", "partly"})
"""Assumed: PARTIAL is what the Collection API calls a batch that failed in part."""


def word(value: Any) -> str:
    """Return *value* as it is compared: without case, and without blanks around it."""
    return str(value).strip().casefold() if value is not None else ""


def says_in_part(*words: str) -> bool:
    """Return whether one of *words*, as :func:`word` gives them, says "in part", as ``PARTIALLY_PROCESSED`` does."""
    return any(not _IN_PART.isdisjoint(re.split(r"[^a-z]+", one)) for one in words)


class Meaning(StrEnum):
    """What Amili's words mean."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    PENDING = "pending"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """
    Which words of Amili mean accepted, refused or pending. Values are compared without case (page "About").

    :param accepted: entries ``STATUS/RESULT`` (both must match) or ``WORD`` (status or result matches).
    :param refused: the same, besides :data:`ALWAYS_REFUSED`; refused wins over accepted.
    :param pending: the same; for the sensor only.
    """

    accepted: tuple[str, ...] = DEFAULT_ACCEPTED
    refused: tuple[str, ...] = ()
    pending: tuple[str, ...] = DEFAULT_PENDING

    @property
    def refused_words(self) -> frozenset[str]:
        """The single words that refuse, as :func:`word` gives them."""
        return frozenset(word(entry) for entry in (*ALWAYS_REFUSED, *self.refused) if "/" not in entry)

    @staticmethod
    def _matches(entries: Iterable[str], status: str, result: str) -> bool:
        for entry in entries:
            first, slash, second = word(entry).partition("/")
            if slash:
                if (first.strip(), second.strip()) == (status, result):
                    return True
            elif first and first in (status, result):
                return True
        return False

    def meaning(self, status: Any, result: Any) -> Meaning:
        """Return what *status* and *result* mean together."""
        words = word(status), word(result)
        if self._matches((*ALWAYS_REFUSED, *self.refused), *words):
            return Meaning.REFUSED
        if self._matches(self.accepted, *words):
            return Meaning.ACCEPTED
        if self._matches(self.pending, *words):
            return Meaning.PENDING
        return Meaning.UNCLEAR
