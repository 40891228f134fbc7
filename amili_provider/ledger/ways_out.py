"""
The ways out of what a program cannot know: what people do with a ledger.

List the files whose outcome is unknown, settle one after looking at the other side, adopt files that were delivered
by other means, copy a ledger. ``example_dags/amili_ledger.py`` offers each as a form in Airflow's UI. Unlike a
delivery, these may list the ledger, and cost as much as it holds.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
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
from amili_provider.storage.listing import StorageFile, list_files

_RECEIPT = re.compile(r"(?P<folder>[^/]+/[^/]+)/(?P<xx>[0-9a-f]{2})/(?P<id>(?P=xx)[0-9a-f]{30})\.(?P<n>[1-9]\d*)\.json")
_FILE_ID = re.compile(r"[0-9a-f]{32}")
_READ_BYTES = 1024 * 1024


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
        match = _RECEIPT.fullmatch(name)
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
    who, why, file_id = _said("who", who), _said("why", why), file_id.strip().lower()
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


def _said(name: str, value: str) -> str:
    if not value or not value.strip():
        raise ValueError(f"{name} is empty. The ledger is an accounting trail: say {name}, in a few words.")
    return value.strip()


@dataclass(frozen=True, slots=True)
class Adopted:
    """
    What became of one file that was to be adopted.

    :param source: where it is.
    :param file_id: who it is.
    :param outcome: ``adopted``, ``already_uploaded``, ``in_flight``, or ``would_be_adopted`` in a dry run.
    :param note: more about it.
    """

    source: str
    file_id: str
    outcome: str
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def adopt(
    ledger: Ledger,
    source: str | Sequence[str],
    source_conn_id: str | None = None,
    *,
    file_type: str,
    who: str,
    why: str,
    dry_run: bool = False,
    max_files: int = 100_000,
    run: RunFacts | None = None,
) -> list[Adopted]:
    """
    Record all files that match as delivered, without sending them. Only from the task's own thread.

    For the first day of an installation that delivered by other means: what is adopted is never sent.

    :param ledger: of the client and environment.
    :param source: files, folders or patterns, as for the upload operator.
    :param source_conn_id: the storage's connection.
    :param file_type: as they were delivered.
    :param who: who says that they were delivered.
    :param why: how they know.
    :param dry_run: read and hash, but write nothing.
    :param max_files: more than this is an error.
    :param run: the run in which they say it.
    :raises AmiliStorageError: if the storage cannot be listed or a file not be read; what was adopted before stays.
    :raises AmiliLedgerUnavailable: if it cannot be written.
    """
    who, why, file_type = _said("who", who), _said("why", why), _said("file_type", file_type)
    files = list_files(source, source_conn_id, max_files=max_files)
    one = partial(_adopt_one, ledger, file_type=file_type, who=who, why=why, dry_run=dry_run, run=run or ByHand())
    workers = Workers(min(4, ledger.folder.concurrency))
    try:
        return list(workers.in_order(one, files))
    finally:
        workers.close()


def _adopt_one(
    ledger: Ledger, file: StorageFile, *, file_type: str, who: str, why: str, dry_run: bool, run: RunFacts
) -> Adopted:
    digest = hashlib.sha256()
    with file.open() as stream:
        while block := stream.read(_READ_BYTES):
            digest.update(block)
    sha256 = digest.hexdigest()
    file_id = ledger.file_id(file_type, sha256)
    standing = ledger.look_up(file_id)
    facts = ClaimFacts(
        file_type=file_type,
        name=file.name,
        source=file.url,
        size=file.size,
        sha256=sha256,
        run=run,
        request="adopted",
    )
    verdict = Verdict(Outcome.UPLOADED, message="Adopted: delivered by other means, somebody says.")
    if standing.state in (State.FREE, State.UNKNOWN) and not dry_run:
        try:
            ledger.resolve(standing, verdict, facts, origin=Origin.ADOPTED, settled_by=who, reason=why)
        except ClaimLost as lost:
            # The same bytes under another name, or a delivery at this very moment.
            standing = lost.standings[file_id]
    outcome = {State.UPLOADED: "already_uploaded", State.IN_FLIGHT: "in_flight"}.get(
        standing.state, "would_be_adopted" if dry_run else "adopted"
    )
    return Adopted(file.url, file_id, outcome, standing.describe() if standing.deciding else "")


@dataclass(frozen=True, slots=True)
class Copied:
    """
    What a copy of a ledger did.

    :param copied: receipts written, and read back.
    :param same: receipts that were there already.
    :param differing: receipts that are there with other content; they were left as they are.
    :param live: claims that are not settled yet; they were not copied.
    """

    copied: int = 0
    same: int = 0
    differing: list[str] = field(default_factory=list)
    live: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether the copy can take the ledger's place."""
        return not self.differing and not self.live

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def copy_ledger(origin: Folder, target: Folder, *, clock: Callable[[], float] = time.time) -> Copied:
    """
    Copy every receipt to another folder, whole, and read it back. Nothing that differs is overwritten.

    Pause the DAGs that use the ledger meanwhile: a claim that is live is not copied, because its outcome is yet to
    come. Copying again goes on where it ended.

    :param origin: the ledger.
    :param target: where to.
    :param clock: seconds since the epoch.
    :raises AmiliLedgerUnavailable: if one cannot be read or the other not be written.
    """
    workers = Workers(min(origin.concurrency, target.concurrency))
    try:
        results = list(workers.in_order(partial(_copy_one, origin, target, clock()), _receipts(origin)))
    finally:
        workers.close()
    by_kind: dict[str, list[str]] = {"copied": [], "same": [], "differing": [], "live": []}
    for kind, name in results:
        by_kind[kind].append(name)
    return Copied(len(by_kind["copied"]), len(by_kind["same"]), sorted(by_kind["differing"]), sorted(by_kind["live"]))


def _receipts(folder: Folder) -> Iterator[tuple[str, str, int]]:
    for name in folder.names():
        if match := _RECEIPT.fullmatch(name):
            yield name, match["id"], int(match["n"])


def _copy_one(origin: Folder, target: Folder, now: float, receipt: tuple[str, str, int]) -> tuple[str, str]:
    name, file_id, attempt = receipt
    data = origin.read(name)
    read = parse(data, file_id=file_id, attempt=attempt)
    if isinstance(read, LedgerReceipt) and read.is_live(now):
        return "live", name
    try:
        there = target.read(name)
    except FileNotFoundError:
        try:
            target.create(name, data)
            target.confirm(name, data)
        except FileExistsError:
            return "differing", name
        return "copied", name
    return ("same" if there == data else "differing"), name
