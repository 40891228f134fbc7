"""The port of every ledger store, where attempts are kept and a claim is decided once; and its twin in memory."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Protocol

from amili_provider.exceptions import AmiliLedgerUnavailable
from amili_provider.ledger.attempts import Attempt, AttemptState, timestamp

EXACT = ("environment", "client_no", "dag_id", "run_id", "request")
"""Words of a query that are compared whole."""


@dataclass(frozen=True, slots=True)
class Identity:
    """
    Which ledger this is.

    :param ledger_id: 32 hex characters, drawn when it was created.
    :param created_at: when it was created, UTC.
    """

    ledger_id: str
    created_at: str

    def __str__(self) -> str:
        return f"{self.ledger_id[:8]}, created {self.created_at[:10]}"


@dataclass(frozen=True, slots=True)
class Found:
    """
    What a store answers to a look-up.

    :param now: the store's time when it looked, seconds since the epoch.
    :param attempts: the attempts of each file that has any, in their order, by file id.
    """

    now: float
    attempts: Mapping[str, Sequence[Attempt]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """
    Which attempts to read; each word narrows it.

    :param environment: of this environment.
    :param client_no: of this client.
    :param text: a part of the name or source, in any case; or the beginning of a hash; or a file id.
    :param since: claimed on this day (``YYYY-MM-DD``, UTC) or later.
    :param until: claimed on this day or earlier.
    :param file_ids: of these files.
    :param dag_id: claimed by this DAG.
    :param run_id: claimed by this run.
    :param request: claimed for this request.
    :param unsettled: only attempts that ended as unknown, or claims without an outcome.
    """

    environment: str | None = None
    client_no: str | None = None
    text: str | None = None
    since: str | None = None
    until: str | None = None
    file_ids: Sequence[str] | None = None
    dag_id: str | None = None
    run_id: str | None = None
    request: str | None = None
    unsettled: bool = False

    def matches(self, attempt: Attempt) -> bool:
        """Return whether *attempt* is one of those; for stores that cannot ask in a language of their own."""
        if any(getattr(self, field) not in (None, getattr(attempt, field)) for field in EXACT):
            return False
        if self.file_ids is not None and attempt.file_id not in self.file_ids:
            return False
        day = attempt.claimed_at[:10]
        if (self.since and day < self.since) or (self.until and day > self.until):
            return False
        if self.unsettled and attempt.has_end:
            return False
        if not self.text:
            return True
        part = self.text.lower()
        return (
            part in attempt.name.lower()
            or part in attempt.source.lower()
            or attempt.sha256.startswith(part)
            or attempt.file_id == part
        )


def another_ledger(shown: str) -> AmiliLedgerUnavailable:
    """Return the error for a ledger that changed under a run, which would not remember what is sent now."""
    return AmiliLedgerUnavailable(
        f"The ledger {shown} is not the one that was opened: it was emptied, replaced or removed meanwhile. What was "
        f"not sent yet is not sent. Put back the one that was there, before any task runs again: another one sends "
        f"once more what this one knew."
    )


class LedgerStore(Protocol):
    """
    Attempts, kept where a claim is decided once. Safe to use from several threads.

    Every method raises ``AmiliLedgerUnavailable`` if the store cannot be asked, and may be repeated: what was done
    before an answer was lost is found again by its owner.
    """

    @property
    def shown(self) -> str:
        """The store as messages and the log name it, without secrets."""

    @property
    def places(self) -> Sequence[tuple[str, str]]:
        """The scheme and path of what it keeps on a storage that can be a source: its files, or its prefix."""

    def create(self) -> tuple[Identity, bool]:
        """Create the ledger, and return who it is and whether it is new; one that is there stays as it is."""

    def open(self, *, read_only: bool = False) -> Identity:
        """
        Prove that the ledger is there, and can be read and written; return who it is.

        :param read_only: only read: a login that may not write, and a replica of a database, suffice.
        """

    def look_up(self, environment: str, client_no: str, file_ids: Sequence[str]) -> Found:
        """Return the attempts of files of one client."""

    def claim(self, attempts: Sequence[Attempt], seconds: float) -> AbstractSet[str]:
        """
        Write new attempts of one client, of one owner, no file twice, and date them.

        All that nobody else has are written together, or none. A ledger that is another one than was opened takes none.

        :param attempts: claims that live for *seconds*, or attempts that are settled already.
        :param seconds: how long the claims live.
        :returns: ids of the files whose attempt somebody else has; all others are ours.
        """

    def settle(self, attempts: Sequence[Attempt]) -> None:
        """
        Write the outcomes of attempts that are ours, and date them; all, or it raises.

        :param attempts: of one client and one owner.
        """

    def has_size(self, environment: str, client_no: str, size: int) -> bool:
        """Return whether any attempt at a file of *size* bytes was made."""

    def history(self, query: Query) -> Iterator[Attempt]:
        """Yield attempts, the newest first."""

    def restore(self, attempts: Sequence[Attempt]) -> AbstractSet[tuple[str, int]]:
        """Write attempts exactly as they are, without dating them; return file ids and numbers that are taken."""

    def close(self) -> None:
        """Close connections and end threads."""


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
