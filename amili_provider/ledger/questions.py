"""
Questions: what people ask a ledger, and what is asked of Amili about files whose outcome is unknown.

Was this file sent, what is unknown, how much went out each day: rows are plain JSON. Unlike a delivery, these may read
much of the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from amili_provider.api.results import Meaning
from amili_provider.exceptions import AmiliAuthenticationError, AmiliConnectionError, AmiliError
from amili_provider.ledger.attempts import Attempt, ClaimFacts, Origin, Run
from amili_provider.ledger.ledger import Ledger
from amili_provider.ledger.state import ClaimLost, History, LedgerState, history
from amili_provider.ledger.stores import LedgerStore, Query
from amili_provider.receipts import Outcome, Verdict, one_line

if TYPE_CHECKING:
    from amili_provider.api.client import AmiliClient


Row = dict[str, Any]
Key = tuple[str, str, str]
"""Environment, client number and file id."""
MOST_FOUND = 1000
"""Attempts that :func:`find` returns at most."""
_FINAL = {Meaning.ACCEPTED: Outcome.UPLOADED, Meaning.REFUSED: Outcome.REJECTED}


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


@dataclass(frozen=True, slots=True)
class Told:
    """
    What Amili tells of a file.

    :param verdict: uploaded or rejected, if that is final and is about what was asked; else None.
    :param why: why there is no verdict, as a sentence without its full stop.
    :param not_found: whether Amili does not know the file.
    """

    verdict: Verdict | None = None
    why: str = ""
    not_found: bool = False


def ask_amili(client: AmiliClient, client_no: str, known: History) -> Told:
    """
    Ask for the result of a file.

    An acceptance is not believed if the bytes were sent under several names without an answer: it may be about either.
    A refusal is not believed if an earlier attempt was refused, or several are unknown: all attempts at a file have
    one id at Amili, which may tell the first of two answers, or the last.

    :param client: to ask with.
    :param client_no: Amili's client number.
    :param known: what the ledger says of the file.
    :raises AmiliError: if Amili gives no answer that can be read.
    """
    asked = client.ask_for_result(client_no, known.file_id)
    found = asked.result
    if asked.not_found:
        return Told(why="Amili's result endpoint does not know the file", not_found=True)
    if found is None:
        return Told(why=f"the answer of the result endpoint, {asked.status_code}, says nothing of the file")
    outcome = _FINAL.get(client.vocabulary.meaning(found.status, found.result))
    words = f"Amili's result endpoint says {one_line(f'{found.status}/{found.result}')}, which"
    if outcome is None:
        return Told(why=f"{words} is not final")
    if outcome is Outcome.UPLOADED and len(names := known.unknown_names) > 1:
        shown = " or ".join(f"'{one_line(name, 60)}'" for name in names)
        return Told(why=f"{words} does not tell whether it arrived as {shown}. Ask Amili")
    refused_before = any(attempt.outcome is Outcome.REJECTED for attempt in known.attempts)
    if outcome is Outcome.REJECTED and (refused_before or len(known.unknown) > 1):
        return Told(why=f"{words} may be about an earlier attempt. Ask Amili")
    return Told(Verdict(outcome, found.status, found.result, found.message, per_file=True))


def check(ledger: Ledger, client: AmiliClient, run: Run | None = None) -> Iterator[Row]:
    """
    Ask Amili for the results of all unknown files, settle those whose result is final, and yield each.

    :param ledger: of the client and environment.
    :param client: to ask with.
    :param run: the run in which it is asked.
    :raises AmiliConnectionError: if Amili cannot be reached; what was settled before stays.
    :raises AmiliAuthenticationError: if it does not let us in.
    :raises AmiliLedgerUnavailable: if the ledger cannot be read or written.
    """
    rows = unknown(ledger.store, environment=ledger.environment, client_no=ledger.client_no)
    for row in rows:
        known = ledger.look_up([row["file_id"]])[row["file_id"]]
        outcome, note = "unknown", "changed at this moment"
        if known.state is LedgerState.UPLOADED and known.open:
            note = "Amili has accepted it once: its result says nothing of the other time, so settle it"
        elif known.state is LedgerState.UNKNOWN:
            try:
                told = ask_amili(client, ledger.client_no, known)
            except (AmiliConnectionError, AmiliAuthenticationError):
                raise
            except AmiliError as error:
                note = str(error)
            else:
                note = told.why
                if told.verdict is not None:
                    try:
                        ledger.resolve(known, told.verdict, facts_of(known.told, run or Run(), "result asked"))
                        words = "/".join(w for w in (told.verdict.status, told.verdict.result) if w)
                        outcome, note = str(told.verdict.outcome), f"{words}: {told.verdict.message or ''}".rstrip(": ")
                    except ClaimLost as lost:
                        note = f"changed at this moment: {lost}"
        yield {"file_id": row["file_id"], "name": row["name"], "outcome": outcome, "note": one_line(note)}


def facts_of(told: Attempt, run: Run, request: str = "settled by hand") -> ClaimFacts:
    """Return what an attempt that settles another says of its file, and which run found out."""
    fields = {name: getattr(told, name) for name in ("file_type", "name", "source", "size", "sha256")}
    return ClaimFacts(**fields, run=run, request=request)
