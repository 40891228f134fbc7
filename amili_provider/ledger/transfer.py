"""
What a ledger takes over: the attempts of another, and files that were delivered by other means.

An export holds every attempt whole; an import overwrites nothing, and goes into a ledger of whatever kind.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

from amili_provider.ledger.attempts import (
    FORMAT,
    Attempt,
    AttemptState,
    ClaimFacts,
    Origin,
    attempt_from,
    is_file_id,
    same_name,
    timestamp,
)
from amili_provider.ledger.ledger import Ledger
from amili_provider.ledger.questions import Row, histories, key_of
from amili_provider.ledger.settling import LONGEST_REASON, Person
from amili_provider.ledger.state import ClaimLost, History, LedgerState
from amili_provider.ledger.stores import LedgerStore, Query
from amili_provider.receipts import Outcome, Verdict, escaped, one_line
from amili_provider.storage.files import StorageFile
from amili_provider.storage.listing import list_files
from amili_provider.storage.opening import open_sources

_TOGETHER = 500
_NAMED = 5
_TOO_LARGE = 2**63
_SAME = ("owner", "state", "outcome", "settled_at", "resolves")
"""What is equal in two entries of one attempt: a ledger may keep a long name or message shorter than another."""
_READERS = 4
_READ_BYTES = 1024 * 1024


@dataclass(slots=True)
class Imported:
    """
    What an import did.

    :param written: attempts that are new.
    :param same: attempts that were there already.
    :param differing: attempts that are there with another owner or outcome, as ``file_id.attempt``; they were left.
    """

    written: int = 0
    same: int = 0
    differing: list[str] = field(default_factory=list)


def export(store: LedgerStore) -> Iterator[str]:
    """
    Yield a ledger as lines of JSON: which ledger it is, every attempt whole, and how many there are.

    :param store: open.
    :raises ValueError: if uploads are running, whose outcome is yet to come; what was yielded is then of no use.
    :raises AmiliLedgerUnavailable: if it cannot be read.
    """
    who = store.open(read_only=True)
    unsettled = histories(store, store.history(Query(unsettled=True)))
    live = [known.file_id for known in unsettled.values() if known.state is LedgerState.IN_FLIGHT]
    if live:
        raise _running(f"{len(live)} claim(s) are live ({', '.join(live[:_NAMED])})")
    yield _line({"ledger_id": who.ledger_id, "created_at": who.created_at, "format": FORMAT})
    number = 0
    for attempt in store.history(Query()):
        if attempt.state is AttemptState.CLAIMED and key_of(attempt) not in unsettled:
            raise _running(f"file {attempt.file_id} was claimed")
        # Of an entry that cannot be read no time is known; any in the past leaves its outcome unknown.
        claimed_at, expires_at = attempt.claimed_at or timestamp(0), attempt.expires_at or timestamp(0)
        yield _line(replace(attempt, claimed_at=claimed_at, expires_at=expires_at).as_dict())
        number += 1
    # Read twice: what is made meanwhile may come before what is yielded already.
    if sum(1 for _ in store.history(Query())) != number:
        raise _running("the ledger has changed")
    yield _line({"attempts": number})


def _running(what: str) -> ValueError:
    return ValueError(
        f"The ledger cannot be exported while uploads use it, and {what}. Pause the DAGs that use it, wait until their "
        f"claims end, and export again."
    )


def _line(entries: dict[str, Any]) -> str:
    return json.dumps(entries) + "\n"


def import_lines(store: LedgerStore, lines: Iterable[str]) -> Imported:
    """
    Write what :func:`export` yielded into another ledger; again, it changes nothing.

    :param store: open.
    :param lines: the export, whole.
    :raises ValueError: if it is not; what was written stays, and importing the whole goes on from there.
    :raises AmiliLedgerUnavailable: if it cannot be written.
    """
    done, read = Imported(), 0
    repeated: dict[tuple[str, str, str], Attempt] = {}
    entries = _entries(lines)
    if (newest := next(entries, {}).get("format")) != FORMAT:
        raise ValueError(
            f"This is no export of a ledger that can be read here: its first line names format {newest}, and this "
            f"version of the provider knows {FORMAT}."
        )
    ended = False
    while some := list(islice(entries, _TOGETHER)):
        if "attempts" in some[-1]:
            ended, number = True, some.pop()["attempts"]
        attempts = [_attempt(entry, read + index + 2) for index, entry in enumerate(some)]
        read += len(attempts)
        _write(store, attempts, done)
        for attempt in attempts:
            if attempt.attempt > 1 and attempt.attempt > getattr(repeated.get(key_of(attempt)), "attempt", 1):
                repeated[key_of(attempt)] = attempt
    if not ended or number != read:
        raise ValueError(
            f"The export is not whole: it ends after {read} attempt(s), before its last line, which counts them. Those "
            f"that it has are imported; export again, and import the whole."
        )
    _look_again(store, list(repeated.values()))
    return done


def _look_again(store: LedgerStore, attempts: Sequence[Attempt]) -> None:
    """Raise ValueError if the last attempt at a file cannot be found: a bucket is asked for one after the other."""
    lost = []
    for start in range(0, len(attempts), _TOGETHER):
        some = attempts[start : start + _TOGETHER]
        found = histories(store, some)
        lost += [a.file_id for a in some if a.attempt not in {one.attempt for one in found[key_of(a)].attempts}]
    if lost:
        raise ValueError(
            f"Attempts at {len(lost)} file(s) cannot be found again in {store.shown} ({', '.join(lost[:_NAMED])}): "
            f"earlier attempts at them were deleted where they come from. Those files could be sent twice. Keep this "
            f"ledger in a database."
        )


def _entries(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            raise ValueError(  # noqa: TRY004 - what is wrong is the file's
                f"Line {number} is no entry of an exported ledger. Export it again, and import the whole."
            )
        yield entry


def _attempt(entry: dict[str, Any], number: int) -> Attempt:
    try:
        attempt = attempt_from(entry)
    except ValueError as error:
        raise ValueError(f"Line {number} is no attempt of a ledger: {error}.") from None
    named = attempt.environment and attempt.client_no and is_file_id(attempt.file_id) and attempt.attempt > 0
    if not named or not 0 <= attempt.size < _TOO_LARGE:
        raise ValueError(f"Line {number} is no attempt of a ledger: it names no client, file, attempt and size.")
    return attempt


def _write(store: LedgerStore, attempts: Sequence[Attempt], done: Imported) -> None:
    each: dict[tuple[str, int], Attempt] = {}
    for attempt in attempts:  # a line that stands twice
        if _is_same(each.setdefault((attempt.file_id, attempt.attempt), attempt), attempt):
            continue
        done.differing.append(f"{attempt.file_id}.{attempt.attempt}")
    attempts = list(each.values())
    taken = store.restore(attempts)
    there = {
        (attempt.file_id, attempt.attempt): attempt
        for known in histories(store, [a for a in attempts if (a.file_id, a.attempt) in taken]).values()
        for attempt in known.attempts
    }
    done.written += len(attempts) - len(taken)
    for attempt in attempts:
        if (key := (attempt.file_id, attempt.attempt)) not in taken:
            continue
        if _is_same(there.get(key), attempt):
            done.same += 1
        else:
            done.differing.append(f"{attempt.file_id}.{attempt.attempt}")


def _is_same(one: Attempt | None, other: Attempt) -> bool:
    return all(getattr(one, name, None) == getattr(other, name) for name in _SAME)


def adopt(
    ledger: Ledger,
    person: Person,
    source: str | Sequence[str],
    source_conn_id: str | None = None,
    *,
    file_type: str,
    dry_run: bool = False,
    max_files: int = 100_000,
) -> list[Row]:
    """
    Record all files that match as delivered, without sending them. Only from the task's own thread.

    For the first day of an installation that delivered by other means: what is adopted is never sent.

    :param ledger: of the client and environment.
    :param person: who says that they were delivered.
    :param source: files, folders or patterns, as for the upload operator.
    :param source_conn_id: the storage's connection.
    :param file_type: as they were delivered.
    :param dry_run: read and hash, but write nothing.
    :param max_files: more than this is an error.
    :raises AmiliStorageError: if the storage cannot be listed or a file not be read; what was adopted before stays.
    :raises AmiliLedgerUnavailable: if it cannot be written.
    """
    if not file_type.strip():
        raise ValueError("'File type' is empty. Name the type as which the files were delivered.")
    one = partial(_adopt_one, ledger, person, file_type.strip(), dry_run)
    with closing(open_sources(source, source_conn_id)) as sources:
        files = list_files(sources, max_files=max_files)
        if sources.missing:
            raise FileNotFoundError(f"{', '.join(sources.missing)} does not exist. Correct the path.")
        pool = ThreadPoolExecutor(_READERS, thread_name_prefix="amili-adopt")
        try:
            return list(pool.map(one, files))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _adopt_one(ledger: Ledger, person: Person, file_type: str, dry_run: bool, file: StorageFile) -> Row:
    digest = hashlib.sha256()
    with file.open() as stream:
        while block := stream.read(_READ_BYTES):
            digest.update(block)
    facts = ClaimFacts(
        file_type=file_type,
        name=escaped(file.name),
        source=file.url,
        size=file.size,
        sha256=digest.hexdigest(),
        run=person.run,
        request="adopted",
    )
    verdict = Verdict(Outcome.UPLOADED, message="Adopted: delivered by other means, a person says.")
    known = _look_up(ledger, facts)
    while known.state in (LedgerState.FREE, LedgerState.UNKNOWN) and not dry_run:
        # The same bytes, sent under another name, are nothing that the person speaks of.
        mine = {a.attempt for a in known.attempts if same_name(a.name, facts.name)}
        try:
            ledger.resolve(
                replace(known, unknown=tuple(n for n in known.unknown if n in mine)),
                verdict,
                facts,
                origin=Origin.ADOPTED,
                settled_by=person.on_record,
                reason=one_line(person.reason, LONGEST_REASON),
            )
        except ClaimLost:
            # The same bytes under another name, or a delivery at this very moment.
            known = _look_up(ledger, facts)
        else:
            break
    outcome = {LedgerState.UPLOADED: "already_uploaded", LedgerState.IN_FLIGHT: "in_flight"}.get(
        known.state, "would_be_adopted" if dry_run else "adopted"
    )
    note = known.describe() if known.deciding else ""
    return {"source": file.url, "file_id": known.file_id, "outcome": outcome, "note": note}


def _look_up(ledger: Ledger, facts: ClaimFacts) -> History:
    """Return what the ledger says of a file; of bytes that were delivered under other names, of its own name."""
    file_id = ledger.file_id(facts.file_type, facts.sha256)
    known = ledger.look_up([file_id])[file_id]
    if known.accepted_elsewhere(facts.name) is None:
        return known
    file_id = ledger.file_id(facts.file_type, facts.sha256, facts.name)
    return ledger.look_up([file_id])[file_id]
