"""How long to wait before the next attempt: what Amili asks for (RFC 9110 section 10.2.3), or a jittered back-off."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

LONGEST_WAIT_SECONDS = 60.0
"""Waited inside one call at most, all waits together; longer belongs to Airflow's retries."""
LONGEST_ASKED_SECONDS = 86_400.0
"""More than a day is a mistake at the other end, and would look like a task that is never retried."""
_FIRST_BACKOFF_SECONDS = 1.0
_LONGEST_BACKOFF_SECONDS = 8.0
_DIGITS = re.compile(r"[0-9]{1,9}")


def asked_to_wait(headers: Mapping[str, str], now: float) -> float | None:
    """
    Return the seconds that ``Retry-After`` asks for, a day at most; None if it is missing, cannot be read, or is past.

    A date that has passed (a clock that is wrong, a page from a cache) is no invitation to come back at once.

    :param headers: an answer's headers, with names found in any case.
    :param now: seconds since the epoch, for the form with a date.
    """
    value = (headers.get("retry-after") or "").strip()
    if _DIGITS.fullmatch(value):
        return min(float(value), LONGEST_ASKED_SECONDS)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    try:
        # A date without a zone is in GMT, as every HTTP date.
        left = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(left, LONGEST_ASKED_SECONDS) if left > 0 else None


class Backoff:
    """
    The waits of one call: a bounded number of attempts, and a bound on all waits together.

    :param attempts: how often the call is tried at most.
    :param jitter: gives numbers from 0 to 1.
    """

    def __init__(self, attempts: int = 3, *, jitter: random.Random | None = None) -> None:
        self.attempts = attempts
        self.tried = 0
        self._waited = 0.0
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads load, protects nothing

    def next_wait(self, asked: float | None) -> float | None:
        """
        Count a failed attempt; return the seconds to wait before the next one, None if there is none.

        :param asked: what Amili asked for, if it did: never shortened.
        """
        self.tried += 1
        if self.tried >= self.attempts:
            return None
        wait = asked
        if wait is None:
            longest = min(_LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2 ** (self.tried - 1))
            wait = longest * (0.5 + self._jitter.random() / 2)
        if self._waited + wait > LONGEST_WAIT_SECONDS:
            return None
        self._waited += wait
        return wait
