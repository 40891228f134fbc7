"""How Amili, and what stands before it, answered lately: when to send no more, and when to halve no more."""

from __future__ import annotations

import threading
from collections.abc import Set as AbstractSet

from amili_provider.delivery.item import EarlyStop
from amili_provider.receipts import Outcome

UNKNOWN_REQUESTS = 2
"""After so many requests whose outcome is unknown, and none of which something was accepted, the rest is not tried."""
REFUSED_FILES = 100
"""
After so many files that a gateway let through not even alone, and none that Amili accepted, a request that it refuses
is not halved any more: it is hardly about single files then, and each half would be one more request in vain.
"""


class Breaker:
    """What requests came to since Amili last accepted something. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unknown = self._refused_by_gateway = 0

    def note(self, outcomes: AbstractSet[Outcome], *, by_gateway: bool = False) -> None:
        """
        Take note of a request that has ended.

        :param outcomes: what became of its files.
        :param by_gateway: whether a gateway refused a request of one file.
        """
        with self._lock:
            if Outcome.UPLOADED in outcomes:
                self._unknown = self._refused_by_gateway = 0
            self._unknown += Outcome.UNKNOWN in outcomes and Outcome.UPLOADED not in outcomes
            self._refused_by_gateway += by_gateway

    @property
    def halt(self) -> EarlyStop | None:
        """Why nothing more is to be sent, if so."""
        if self._unknown < UNKNOWN_REQUESTS:
            return None
        return EarlyStop(
            f"Not tried: of {self._unknown} requests in a row nobody knows what Amili took. A retry sends this file.",
            transient=True,
        )

    @property
    def gateway_bars_all(self) -> bool:
        """Whether halving requests that a gateway refuses leads nowhere."""
        return self._refused_by_gateway >= REFUSED_FILES
