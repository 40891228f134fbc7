"""
Questions that people ask a ledger: was this file sent, what is unknown, how much went out each day.

Rows are plain JSON. Unlike a delivery, these may read much of the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from itertools import islice
from typing import Any

from amili_provider.ledger.attempts import Attempt, Origin
from amili_provider.ledger.state import History, LedgerState, history
from amili_provider.ledger.stores import LedgerStore, Query
from amili_provider.receipts import Outcome

Row = dict[str, Any]
Key = tuple[str, str, str]
"""Environment, client number and file id."""
MOST_FOUND = 1000
"""Attempts that :func:`find` returns at most."""


def find(
    store: LedgerStore,
    text: str,
    *,
    since: str | None = None,
    until: str | None = None,
    environment: str | None = None,
    client_no: str | None = None,
) -> list[Row]:
    """
    Return what became of files, an attempt a row, the newest first; :data:`MOST_FOUND` at most.

    :param store: open.
    :param text: a part of the name or source, in any case; or the beginning of a hash; or a file id.
    :param since: first day (UTC) on which it was accepted, or else tried, ``YYYY-MM-DD``.
    :param until: last day.
    :param environment: only of this one.
    :param client_no: only of this client.
    :raises ValueError: if *text* is empty, or a day is none.
    :raises AmiliLedgerUnavailable: if the ledger cannot be read.
    """
    if not text.strip():
        raise ValueError("Name what to find: a part of a file's name or path, the beginning of its hash, or its id.")
    first, last = _day(since), _day(until)
    query = Query(environment=environment, client_no=client_no, text=text.strip(), since=_day_before(first))
    shown = ((attempt, when_of(attempt)[:10]) for attempt in store.history(query))
    wanted = (attempt for attempt, day in shown if (not first or day >= first) and (not last or day <= last))
    found = list(islice(wanted, MOST_FOUND))
    known = histories(store, [a for a in found if not a.has_end])
    return [_found(attempt, known.get(key_of(attempt))) for attempt in found]


def _found(attempt: Attempt, known: History | None) -> Row:
    became = "adopted" if attempt.origin is Origin.ADOPTED else str(attempt.outcome or "")
    if not attempt.has_end:
        live = known is not None and known.state is LedgerState.IN_FLIGHT and known.deciding == attempt
        settled = known is not None and not live and attempt.attempt not in known.unknown
        became = "being sent" if live else "unknown, settled since" if settled else "unknown"
    row = {"name": attempt.name, "outcome": became, "when": when_of(attempt)}
    fields = (
        "client_no", "file_type", "status", "result", "message", "source", "size", "sha256", "file_id", "attempt",
        "dag_id", "run_id", "request", "settled_by", "reason",
    )  # fmt: skip
    return row | {name: getattr(attempt, name) for name in fields}


def unknown(store: LedgerStore, *, environment: str | None = None, client_no: str | None = None) -> list[Row]:
    """
    Return the files whose outcome is unknown, the oldest first.

    :param store: open.
    :param environment: only of this one.
    :param client_no: only of this client.
    :raises AmiliLedgerUnavailable: if the ledger cannot be read.
    """
    found = store.history(Query(environment=environment, client_no=client_no, unsettled=True))
    rows = []
    for (_, number, file_id), known in histories(store, found).items():
        if known.open:
            told = known.told
            row: Row = {"file_id": file_id, "name": told.name, "since": told.claimed_at, "client_no": number}
            for name in ("file_type", "source", "size", "dag_id", "run_id", "request"):
                row[name] = getattr(told, name)
            rows.append(row | {"known": "; ".join(a.describe() for a in known.attempts if a.attempt in known.open)})
    return sorted(rows, key=lambda row: (row["since"], row["file_id"]))


def report(
    store: LedgerStore,
    *,
    since: str | None = None,
    until: str | None = None,
    environment: str | None = None,
    client_no: str | None = None,
    clock: Callable[[], float] = time.time,
) -> list[Row]:
    """
    Return the numbers of files per day (UTC), client and file type: uploaded, rejected, unknown, adopted, and bytes.

    A file counts on the day on which Amili accepted it, else on the day of its attempt. Bytes are those uploaded.

    :param store: open.
    :param since: first day, ``YYYY-MM-DD``.
    :param until: last day.
    :param environment: only of this one.
    :param client_no: only of this client.
    :param clock: seconds since the epoch.
    :raises ValueError: if a day is none.
    :raises AmiliLedgerUnavailable: if the ledger cannot be read.
    """
    first, last = (_day(day) for day in (since, until))
    query = Query(environment=environment, client_no=client_no, since=_day_before(first))
    counted: dict[tuple[str, str, str], dict[str, Any]] = {}
    resolved: set[tuple[Key, int]] = set()
    for attempt in store.history(query):  # the newest first: what resolves comes before what it resolves
        if attempt.has_end:
            resolved.update((key_of(attempt), number) for number in attempt.resolves)
        elif (key_of(attempt), attempt.attempt) in resolved or attempt.is_live(clock()):
            continue
        became = "adopted" if attempt.origin is Origin.ADOPTED else str(attempt.outcome or Outcome.UNKNOWN)
        day = when_of(attempt)[:10]
        if became == "not_sent" or (first and day < first) or (last and day > last):
            continue
        row = counted.setdefault((day, attempt.client_no, attempt.file_type), {"bytes": 0})
        # A retry that is refused, or lost, once more is the same file.
        row.setdefault(became, set()).add((key_of(attempt), attempt.attempt if became == "uploaded" else 0))
        row["bytes"] += attempt.size if became == "uploaded" else 0
    return [
        {"day": day, "client_no": number, "file_type": file_type}
        | {became: len(row.get(became, ())) for became in ("uploaded", "rejected", "unknown", "adopted")}
        | {"bytes": row["bytes"]}
        for (day, number, file_type), row in sorted(counted.items())
    ]


def _day(day: str | None) -> str | None:
    if not day or not day.strip():
        return None
    try:
        return date.fromisoformat(day.strip()).isoformat()
    except ValueError:
        raise ValueError(f"{day[:40]!r} is no day. Write it as 2026-11-22.") from None


def _day_before(day: str | None) -> str | None:
    """Return from when on to read: an attempt before midnight may end after it; a later one has its day in the past."""
    return (date.fromisoformat(day) - timedelta(days=1)).isoformat() if day else None


def when_of(attempt: Attempt) -> str:
    """Return the time on whose day an attempt counts: when Amili accepted the file, else when it was tried."""
    return attempt.uploaded_at or attempt.claimed_at


def key_of(attempt: Attempt) -> Key:
    """Return of which file an attempt is."""
    return attempt.environment, attempt.client_no, attempt.file_id


def histories(store: LedgerStore, attempts: Iterable[Attempt]) -> dict[Key, History]:
    """Return what all attempts at the files of *attempts* mean together."""
    clients: dict[tuple[str, str], dict[str, None]] = {}
    for attempt in attempts:
        clients.setdefault((attempt.environment, attempt.client_no), {})[attempt.file_id] = None
    known = {}
    for client, ids in clients.items():
        found = store.look_up(*client, list(ids))
        known.update({(*client, i): history(i, found.attempts.get(i, ()), now=found.now) for i in ids})
    return known
