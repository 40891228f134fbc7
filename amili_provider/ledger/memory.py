"""The ledger in memory: for tests, and for whoever wants to see the rules at work; it is gone with its process."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger.attempts import Attempt, AttemptState, timestamp
from amili_provider.ledger.stores import Found, Identity, Query


class MemoryStore:
    """
    The honest twin of the other stores.

    :param clock: seconds since the epoch.
    """

    shown = "memory"
    places: Sequence[tuple[str, str]] = ()

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._attempts: dict[tuple[str, str, str, int], Attempt] = {}
        self._identity: Identity | None = None

    def create(self) -> tuple[Identity, bool]:
        """Create it; see :meth:`~amili_provider.ledger.stores.LedgerStore.create`."""
        with self._lock:
            new = self._identity is None
            self._identity = self._identity or Identity(secrets.token_hex(16), timestamp(self._clock()))
            return self._identity, new

    def open(self, *, read_only: bool = False) -> Identity:  # noqa: ARG002 - every process may write its memory
        """Return who it is."""
        if self._identity is None:
            raise AmiliLedgerUnavailable("The ledger in memory does not exist. Create it, in this process.")
        return self._identity

    def look_up(self, environment: str, client_no: str, file_ids: Sequence[str]) -> Found:
        """Return the attempts of files of one client."""
        with self._lock:
            found: dict[str, list[Attempt]] = {}
            for file_id in file_ids:
                number = 1
                while (attempt := self._attempts.get((environment, client_no, file_id, number))) is not None:
                    found.setdefault(file_id, []).append(replace(attempt))
                    number += 1
            return Found(self._clock(), found)

    def claim(self, attempts: Sequence[Attempt], seconds: float) -> AbstractSet[str]:
        """Write new attempts; see :meth:`~amili_provider.ledger.stores.LedgerStore.claim`."""
        with self._lock:
            taken = set()
            for attempt in attempts:
                other = self._attempts.get(_key(attempt))
                if other is not None and other.owner != attempt.owner:
                    taken.add(attempt.file_id)
                    continue
                attempt.stamp(self._clock(), seconds)
                self._attempts[_key(attempt)] = replace(attempt)
            return taken

    def settle(self, attempts: Sequence[Attempt]) -> None:
        """Write outcomes; see :meth:`~amili_provider.ledger.stores.LedgerStore.settle`."""
        with self._lock:
            for attempt in attempts:
                mine = self._attempts.get(_key(attempt))
                if mine is None or mine.owner != attempt.owner:
                    raise AmiliLedgerUnavailable(f"The ledger in memory has no claim of ours on {attempt.file_id}.")
            for attempt in attempts:
                if self._attempts[_key(attempt)].state is AttemptState.CLAIMED:
                    attempt.stamp_settled(self._clock())
                    self._attempts[_key(attempt)] = replace(attempt)

    def has_size(self, environment: str, client_no: str, size: int) -> bool:
        """Return whether any attempt at a file of *size* bytes was made."""
        with self._lock:
            return any(k[:2] == (environment, client_no) and a.size == size for k, a in self._attempts.items())

    def history(self, query: Query) -> Iterator[Attempt]:
        """Yield attempts, the newest first."""
        with self._lock:
            found = [replace(a) for a in self._attempts.values() if query.matches(a)]
        yield from sorted(found, key=lambda a: (a.claimed_at, a.file_id, a.attempt), reverse=True)

    def restore(self, attempts: Sequence[Attempt]) -> AbstractSet[tuple[str, int]]:
        """Write attempts as they are; see :meth:`~amili_provider.ledger.stores.LedgerStore.restore`."""
        with self._lock:
            taken = {(a.file_id, a.attempt) for a in attempts if _key(a) in self._attempts}
            self._attempts |= {_key(a): replace(a) for a in attempts if _key(a) not in self._attempts}
            return taken

    def close(self) -> None:
        """Nothing to close."""


def _key(attempt: Attempt) -> tuple[str, str, str, int]:
    return attempt.environment, attempt.client_no, attempt.file_id, attempt.attempt
