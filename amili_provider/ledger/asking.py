"""Asking Amili's result endpoint what became of a file whose outcome is unknown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amili_provider.api.results import Meaning
from amili_provider.exceptions import AmiliAuthenticationError, AmiliConnectionError, AmiliError
from amili_provider.ledger.attempts import Attempt, ClaimFacts, Run
from amili_provider.ledger.claims import ClaimLost
from amili_provider.ledger.ledger import Ledger
from amili_provider.ledger.questions import Row, unknown
from amili_provider.ledger.state import History, LedgerState
from amili_provider.receipts import Outcome, Verdict, one_line

if TYPE_CHECKING:
    from amili_provider.api.client import AmiliClient

_FINAL = {Meaning.ACCEPTED: Outcome.UPLOADED, Meaning.REFUSED: Outcome.REJECTED}


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
