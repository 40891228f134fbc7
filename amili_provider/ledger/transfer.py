"""Export a ledger and import it into another, of whatever kind: every attempt whole, nothing overwritten."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from amili_provider.ledger.attempts import FORMAT, Attempt, AttemptState, attempt_from, timestamp
from amili_provider.ledger.questions import histories, key_of
from amili_provider.ledger.state import LedgerState
from amili_provider.ledger.stores import LedgerStore, Query

_TOGETHER = 500
_NAMED = 5
_SAME = ("owner", "state", "outcome", "settled_at", "resolves")
"""What is equal in two entries of one attempt: a ledger may keep a long name or message shorter than another."""


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
    who = store.open()
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
    if not ended or number != read:
        raise ValueError(
            f"The export is not whole: it ends after {read} attempt(s), before its last line, which counts them. Those "
            f"that it has are imported; export again, and import the whole."
        )
    return done


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
        return attempt_from(entry)
    except ValueError as error:
        raise ValueError(f"Line {number} is no attempt of a ledger: {error}.") from None


def _write(store: LedgerStore, attempts: Sequence[Attempt], done: Imported) -> None:
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
        if all(getattr(there.get(key), name, None) == getattr(attempt, name) for name in _SAME):
            done.same += 1
        else:
            done.differing.append(f"{attempt.file_id}.{attempt.attempt}")
