"""
Settling files of unknown outcome: by what a person knows, or by what Amili answers.

The command ``amili-ledger`` and the form of the DAG ``amili_ledger`` are made of these. Rows are plain JSON.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from amili_provider.api.results import Meaning
from amili_provider.exceptions import AmiliAuthenticationError, AmiliConnectionError, AmiliError
from amili_provider.ledger.attempts import Attempt, ClaimFacts, Origin, Run, is_file_id
from amili_provider.ledger.ledger import Ledger
from amili_provider.ledger.questions import Row, unknown
from amili_provider.ledger.state import ClaimLost, History, LedgerState
from amili_provider.ledger.stores import Query
from amili_provider.receipts import Outcome, Verdict, one_line

if TYPE_CHECKING:
    from amili_provider.api.client import AmiliClient

_NAMED = 5
LONGEST_REASON = 1_000
_FINAL = {Meaning.ACCEPTED: Outcome.UPLOADED, Meaning.REFUSED: Outcome.REJECTED}


@dataclass(frozen=True, slots=True)
class Person:
    """
    Who says something, and how they know. Both are required: the ledger is an accounting trail.

    :param name: as they typed it.
    :param reason: how they know, in a few words.
    :param login: as whom they are logged in, for example ``Airflow user kari``.
    :param run: the run in which they say it.
    """

    name: str
    reason: str
    login: str = ""
    run: Run = field(default_factory=Run)

    def __post_init__(self) -> None:
        for what, said in (("Who says so", self.name), ("How you know", self.reason)):
            if not said or not said.strip():
                raise ValueError(f"'{what}' is empty. The ledger is an accounting trail: fill it in, in a few words.")

    @property
    def on_record(self) -> str:
        """The name, and the login beside it."""
        name = one_line(self.name, 120)
        return f"{name} ({one_line(self.login, 120)})" if self.login else name


def settle(
    ledger: Ledger,
    person: Person,
    *,
    arrived: bool,
    file_ids: Sequence[str] = (),
    request: str | None = None,
    run: tuple[str, str] | None = None,
    attempts: Mapping[str, Collection[int]] | None = None,
) -> list[Row]:
    """
    Write down whether files arrived whose outcome is unknown; all are checked before one is written.

    Arrived: they are never sent again. Not arrived: the next run sends them. Saying the same again changes nothing.
    Of a request or a run, those whose outcome is known by now stay as they are, and their rows say so.

    :param ledger: of the files' client and environment.
    :param person: who says so.
    :param arrived: whether Amili has them.
    :param file_ids: these files.
    :param request: the files of this request whose answer was lost.
    :param run: those of this DAG and run.
    :param attempts: only these of each file, by their numbers; what was made since stays unknown.
    :raises ValueError: if a named file is not unknown, or none of a request or run, or if one is being sent at this
        moment; nothing is written then.
    :raises AmiliLedgerUnavailable: if the ledger cannot be read or written.
    """
    ids = _chosen(ledger, file_ids, request, run)
    if file_ids:
        known = check_settling(ledger, ids, arrived=arrived)
        before = {i: max(known[i].attempts, key=lambda a: (bool(a.resolves), a.attempt)) for i in ids}
        left: set[str] = set()
    else:
        # Others of its attempts, with another request or in another run, are nothing that the person speaks of.
        known = ledger.look_up(ids)
        _refuse(ledger, ids, {i: _in_flight(h) for i, h in known.items() if h.state is LedgerState.IN_FLIGHT})
        before = {i: _settled_by(known[i], request, run) for i in ids}
        known = {i: _only(known[i], request, run) for i in ids}
        left = {i for i in ids if not known[i].open and (before[i].outcome is Outcome.UPLOADED) != arrived}
        if len(left) == len(ids):
            _refuse(ledger, ids, {i: f"was settled otherwise before ({before[i].describe()})" for i in ids})
    if attempts is not None:
        known |= {i: replace(h, unknown=tuple(n for n in h.unknown if n in attempts[i])) for i, h in known.items()}
    if arrived:
        _check_names(known.values())
    word = "It arrived" if arrived else "It did not arrive"
    verdict = Verdict(Outcome.UPLOADED if arrived else Outcome.NOT_SENT, message=f"{word}, a person says.")
    open_ones = [replace(known[i], unknown=known[i].open) for i in ids if known[i].open]
    try:
        ledger.resolve_all(
            [(h, verdict, facts_of(h.told, person.run), h.told.claimed_at if arrived else None) for h in open_ones],
            origin=Origin.PERSON,
            settled_by=person.on_record,
            reason=one_line(person.reason, LONGEST_REASON),
        )
    except ClaimLost as lost:
        raise ValueError(
            f"{len(lost.histories)} of {len(ids)} file(s) were changed by somebody else at this moment; the others are "
            f"settled. Say it again to see what they are now: {lost}"
        ) from None
    now, after = {h.file_id for h in open_ones}, ledger.look_up(ids)
    rows: list[Row] = []
    for i in ids:
        others = [a.request or a.run_id for a in after[i].attempts if a.attempt in after[i].open]
        note = "settled now" if i in now else "left as it is" if i in left else "settled before"
        note += f"; it stays unknown, for it was also sent with {', '.join(dict.fromkeys(others))}" if others else ""
        note += "" if i in now else f": {before[i].describe()}"
        outcome = verdict.outcome if i in now else before[i].outcome
        rows.append({"file_id": i, "name": known[i].told.name, "outcome": str(outcome), "note": note})
    return rows


def _check_names(files: Iterable[History]) -> None:
    """Raise ValueError for a file that arrived, if it was sent under several names: which of them Amili has counts."""
    for known in files:
        if known.open and len(known.unknown_names) > 1:
            sent = [a for a in known.attempts if a.attempt in known.open]
            ways = " and ".join(f"as '{one_line(a.name, 80)}' with request {a.request}" for a in sent[:_NAMED])
            raise ValueError(
                f"Nothing was settled: {known.file_id} was sent {ways}. Say which request arrived: settle it by its "
                "request instead."
            )


def check_settling(ledger: Ledger, ids: Sequence[str], *, arrived: bool) -> dict[str, History]:
    """
    Return what the ledger says of files that a person settles.

    :param ids: the files.
    :param arrived: what the person says.
    :raises ValueError: if one of them is known otherwise, or is being sent at this moment.
    """
    known = ledger.look_up(ids)
    _refuse(ledger, ids, {i: words for i in ids if (words := _refusal(known[i], arrived=arrived)) is not None})
    return known


def _refuse(ledger: Ledger, ids: Sequence[str], wrong: Mapping[str, str]) -> None:
    """Raise ValueError if some cannot be settled, with the reason of each."""
    if wrong:
        said = "; ".join(f"{i} {words}" for i, words in list(wrong.items())[:_NAMED])
        more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise ValueError(
            f"Nothing was settled: {len(wrong)} of {len(ids)} file(s) cannot be, in the ledger {ledger.shown}. "
            f"{said}{more}."
        )


def _only(known: History, request: str | None, run: tuple[str, str] | None) -> History:
    """Return *known* with those of its unknown attempts that were made by a request, or a run, if one is named."""
    chosen = tuple(
        a.attempt
        for a in known.attempts
        if a.attempt in known.unknown and request in (None, a.request) and (run is None or run == (a.dag_id, a.run_id))
    )
    return replace(known, unknown=chosen)


def _settled_by(known: History, request: str | None, run: tuple[str, str] | None) -> Attempt:
    """Return the last attempt that settles one of a request, or a run; else the one that makes the file what it is."""
    everything = replace(known, unknown=tuple(a.attempt for a in known.attempts if not a.has_end))
    meant = set(_only(everything, request, run).unknown)
    settling = [a for a in known.attempts if a.has_end and not meant.isdisjoint(a.resolves)]
    return settling[-1] if settling else known.deciding or known.attempts[-1]


def _chosen(ledger: Ledger, file_ids: Sequence[str], request: str | None, run: tuple[str, str] | None) -> list[str]:
    ids = list(dict.fromkeys(i.strip().lower() for i in file_ids if i.strip()))
    if sum(map(bool, (ids, request, run))) != 1:
        raise ValueError("Name what to settle in one way: by file ids, by a request, or by a DAG and its run.")
    if ids:
        if wrong := [i for i in ids if not is_file_id(i)]:
            raise ValueError(f"{wrong[0][:80]!r} is not the id of a file: ids have 32 characters, 0 to 9 and a to f.")
        return ids
    what = f"request {request!r}" if request else f"DAG {run[0]!r}, run {run[1]!r}" if run else ""
    dag_id, run_id = run or (None, None)
    query = Query(
        environment=ledger.environment, client_no=ledger.client_no, request=request, dag_id=dag_id, run_id=run_id
    )
    ids = list(dict.fromkeys(a.file_id for a in ledger.store.history(replace(query, unsettled=True))))
    if not ids:
        if next(ledger.store.history(query), None) is not None:
            raise ValueError(f"No file of {what} was left without an outcome.")
        raise ValueError(
            f"There is no attempt of {what} in the ledger {ledger.shown}. Check the spelling, and the client number."
        )
    return sorted(ids)


def _refusal(known: History, *, arrived: bool) -> str | None:
    """Return why a person cannot settle a file so, or None if they can, or it is settled so already."""
    if not known.attempts:
        return "is not in this ledger: check the id, the client number and the connection"
    if known.state is LedgerState.IN_FLIGHT:
        return _in_flight(known)
    if known.state is LedgerState.UPLOADED:
        return None if arrived or known.open else f"is known to be at Amili ({known.describe()})"
    last = next((a for a in reversed(known.attempts) if a.resolves), None)
    if known.state is LedgerState.FREE and (arrived or last is None):
        said = (last or known.attempts[-1]).describe()
        return f"is not unknown ({said}); the next run sends it if it is still at its source"
    return None


def _in_flight(known: History) -> str:
    return f"may be on its way at this moment: wait until its claim ends ({known.describe()})"


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
