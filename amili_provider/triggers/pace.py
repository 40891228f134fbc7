"""How long to wait: between polls, and after a poll that failed. Arithmetic; time is handed in."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

MOST_FAILURES = 10
"""A poll that fails for a passing cause is tried this often in a row: with the waits below, for six minutes."""
SHORTEST_WAIT_SECONDS = 1.0
"""Whatever the interval says: nobody is asked more often than this."""
_FIRST_FAILURE_WAIT_SECONDS = 5.0
_LONGEST_FAILURE_WAIT_SECONDS = 60.0
_JITTER = (0.02, 0.12)
"""A little slower than asked for, never faster: 60 polls an hour at 60 seconds, both ends included."""


@dataclass(frozen=True, slots=True)
class Time:
    """
    The clock, the waiting and the dice of a wait; tests hand in their own.

    :param now: seconds since the epoch.
    :param sleep: waits without blocking the event loop.
    :param dice: gives numbers from 0 to 1.
    """

    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    dice: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True)
class Pace:
    """
    The intervals between polls, as a sensor's arguments say.

    :param poke_interval: seconds.
    :param exponential_backoff: whether intervals grow with the time that has passed.
    :param max_wait: seconds; None for no bound.
    """

    poke_interval: float
    exponential_backoff: bool = False
    max_wait: float | None = None

    def interval(self, waited: float, dice: float) -> float:
        """
        Return the seconds until the next poll.

        With exponential back-off, Airflow doubles the interval with every poke, so that it is about as long
        as the wait so far. Written like this it needs no counter, and survives a restart of the triggerer.

        :param waited: seconds since the first poll.
        :param dice: from 0 to 1.
        """
        if not self.exponential_backoff:
            low, high = _JITTER
            return max(self.poke_interval, SHORTEST_WAIT_SECONDS) * (1 + low + (high - low) * dice)
        shortest = max(waited + self.poke_interval / 2, SHORTEST_WAIT_SECONDS)
        interval = shortest * (1 + dice)
        return interval if self.max_wait is None else min(interval, max(self.max_wait, SHORTEST_WAIT_SECONDS))

    def first_interval(self, waited: float, dice: float) -> float:
        """
        Return the seconds until the first poll of a trigger, whose sensor has asked before.

        After a restart the interval has passed already; then the polls of all triggers are spread over one.
        """
        left = self.interval(0.0, dice) - waited
        return left if left > 0 else max(self.poke_interval, SHORTEST_WAIT_SECONDS) * dice

    def after_failure(self, failures: int, asked: float | None, dice: float) -> float:
        """
        Return the seconds until a poll that failed is tried again.

        :param failures: in a row, 1 for the first.
        :param asked: what Amili asked for (``Retry-After``): never shortened.
        :param dice: from 0 to 1.
        """
        grown = _FIRST_FAILURE_WAIT_SECONDS * 2.0 ** (failures - 1)
        longest = max(min(self.poke_interval, _LONGEST_FAILURE_WAIT_SECONDS), SHORTEST_WAIT_SECONDS)
        return max(min(grown, longest) * (0.9 + 0.1 * dice), SHORTEST_WAIT_SECONDS, asked or 0.0)
