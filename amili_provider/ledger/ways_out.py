"""
The ways out of what a program cannot know: list the files whose outcome is unknown, settle one of them.

``example_dags/amili_ledger.py`` offers both as a form in Airflow's UI, beside :mod:`amili_provider.ledger.adoption` and
:mod:`amili_provider.ledger.copying`. Unlike a delivery, these may list the ledger, and cost as much as it holds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

from amili_provider.ledger import identity
from amili_provider.ledger.claims import ClaimFacts, ClaimLost, RunFacts
from amili_provider.ledger.folders import Folder
from amili_provider.ledger.ledger import Ledger
from amili_provider.ledger.records import LedgerReceipt, Origin, parse
from amili_provider.ledger.standing import Attempt, Standing, State, judge
from amili_provider.ledger.workers import Workers
from amili_provider.models import Outcome, Verdict

_FILE_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class ByHand:
    """
    The run of somebody who works on the ledger; what receipts say of it.

    :param dag_id: which DAG, if it is one.
    :param run_id: which run of it.
    :param task_id: which task.
    """

    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    chain: str = ""
    map_index: int = -1
    try_number: int = 1


@dataclass(frozen=True, slots=True)
class UnknownFile:
    """
    A file of which nobody knows whether Amili has it.

    :param folder: environment and client number, as the ledger's folders are called.
    :param file_id: who it is; what settles it.
    :param name: as given to Amili; empty if its receipt cannot be read.
    :param source: where it was.
    :param size: bytes.
    :param since: when it was claimed.
    :param known: everything that is known of its unknown attempts, in words.
    """

    folder: str
    file_id: str
    name: str
    source: str
    size: int | None
    since: str | None
    known: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def list_unknown(
    folder: Folder,
    *,
    environment: str | None = None,
    client_no: str | None = None,
    clock: Callable[[], float] = time.time,
) -> list[UnknownFile]:
    """
    Return the files whose outcome is unknown, the oldest first.

    :param folder: the ledger's; see :func:`amili_provider.ledger.places.open_folder`.
    :param environment: only of this one.
    :param client_no: only of this client.
    :param clock: seconds since the epoch.
    :raises AmiliLedgerUnavailable: if the ledger cannot be read.
    """
    wanted = identity.folder_of(environment or "", client_no or "").split("/")
    named = (wanted[0] if environment else None, wanted[1] if client_no else None)
    under = "/".join(wanted) if all(named) else named[0] or ""
    receipts = []
    for name in folder.names(under):
        match = identity.RECEIPT_NAME.fullmatch(name)
        if match and all(n in (None, part) for n, part in zip(named, match["folder"].split("/"), strict=True)):
            receipts.append((match["folder"], match["id"], int(match["n"]), name))
    receipts.sort()
    files = [(key, list(names)) for key, names in groupby(receipts, key=lambda receipt: receipt[:2])]
    workers = Workers(folder.concurrency)
    try:
        found = list(workers.in_order(partial(_read_file, folder, clock()), files))
    finally:
        workers.close()
    return sorted((f for f in found if f is not None), key=lambda f: (f.since or "", f.file_id))


def _read_file(
    folder: Folder, now: float, file: tuple[tuple[str, str], Sequence[tuple[str, str, int, str]]]
) -> UnknownFile | None:
    (place, file_id), names = file
    attempts: list[Attempt] = [parse(folder.read(name), file_id=file_id, attempt=n) for _, _, n, name in names]
    standing = judge(file_id, attempts, now=now)
    if standing.state is not State.UNKNOWN:
        return None
    unknown = [a for a in attempts if a.attempt in standing.unknown]
    told = _last_whole(unknown) or _last_whole(attempts)
    return UnknownFile(
        folder=place,
        file_id=file_id,
        name=told.name if told else "",
        source=told.source if told else "",
        size=told.size if told else None,
        since=told.claimed_at if told else None,
        known="; ".join(a.describe() for a in unknown),
    )


def _last_whole(attempts: Sequence[Attempt]) -> LedgerReceipt | None:
    return next((a for a in reversed(attempts) if isinstance(a, LedgerReceipt)), None)


def settle_unknown(
    ledger: Ledger, file_id: str, *, arrived: bool, who: str, why: str, run: RunFacts | None = None
) -> LedgerReceipt:
    """
    Write down what somebody found out about a file whose outcome is unknown.

    Arrived: it is never sent again. Not arrived: the next run sends it.

    :param ledger: of the file's client and environment.
    :param file_id: who the file is.
    :param arrived: whether Amili has it.
    :param who: who says so.
    :param why: how they know.
    :param run: the run in which they say it.
    :raises ValueError: if the file is not unknown, is being sent at this moment, or *who* or *why* is missing.
    :raises AmiliLedgerUnavailable: if it cannot be written.
    """
    who, why, file_id = said("Who says so", who), said("How you know", why), file_id.strip().lower()
    if not _FILE_ID.fullmatch(file_id):
        raise ValueError(f"{file_id[:80]!r} is not the id of a file: ids have 32 characters, 0 to 9 and a to f.")
    standing = ledger.look_up(file_id)
    if standing.state is not State.UNKNOWN:
        raise ValueError(
            f"File {file_id} cannot be settled in {ledger!r}: {_NOT_UNKNOWN[standing.state]} {_known(standing)}"
        )
    told = _last_whole([a for a in standing.attempts if a.attempt in standing.unknown]) or _last_whole(
        standing.attempts
    )
    facts = ClaimFacts(
        file_type=told.file_type if told else "",
        name=told.name if told else "",
        source=told.source if told else "",
        size=told.size if told else 0,
        sha256=told.sha256 if told else "",
        run=run or ByHand(),
        request="settled by hand",
    )
    verdict = (
        Verdict(Outcome.UPLOADED, message="It arrived, somebody says.")
        if arrived
        else Verdict(Outcome.NOT_SENT, message="It did not arrive, somebody says.")
    )
    try:
        return ledger.resolve(
            standing,
            verdict,
            facts,
            origin=Origin.PERSON,
            settled_by=who,
            reason=why,
            uploaded_at=told.claimed_at if told else None,
        )
    except ClaimLost as lost:
        raise ValueError(f"File {file_id} was settled by somebody else at this moment: {lost}") from None


_NOT_UNKNOWN = {
    State.FREE: "its outcome is not unknown. Check the id, the client number and the environment;",
    State.UPLOADED: "Amili has it already;",
    State.IN_FLIGHT: "it may be on its way at this moment. Wait until its claim ends;",
}


def _known(standing: Standing) -> str:
    return standing.describe() + "."


def said(name: str, value: str) -> str:
    """Return *value* without blanks around it; ValueError, by the label of the form's field, if it says nothing."""
    if not value or not value.strip():
        raise ValueError(f"'{name}' is empty. The ledger is an accounting trail: fill it in, in a few words.")
    return value.strip()
