"""Adopt: record files as delivered without sending them, because they were delivered by other means."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from amili_provider.ledger.claims import ClaimFacts, ClaimLost, RunFacts
from amili_provider.ledger.ledger import Ledger
from amili_provider.ledger.records import Origin
from amili_provider.ledger.standing import Standing, State
from amili_provider.ledger.ways_out import ByHand, said
from amili_provider.ledger.workers import Workers
from amili_provider.models import Outcome, Verdict, escaped
from amili_provider.storage.listing import StorageFile, list_files

_READ_BYTES = 1024 * 1024
_READERS = 4


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
    who, why, file_type = said("Who says so", who), said("How you know", why), said("File type", file_type)
    files = list_files(source, source_conn_id, max_files=max_files)
    one = partial(_adopt_one, ledger, file_type=file_type, who=who, why=why, dry_run=dry_run, run=run or ByHand())
    workers = Workers(min(_READERS, ledger.folder.concurrency))
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
    facts = ClaimFacts(
        file_type=file_type,
        name=escaped(file.name),
        source=file.url,
        size=file.size,
        sha256=sha256,
        run=run,
        request="adopted",
    )
    verdict = Verdict(Outcome.UPLOADED, message="Adopted: delivered by other means, somebody says.")
    if not dry_run:
        # Also of what is known already: a ledger of an older version does not know its sizes.
        ledger.first_of_size(file.size)
    standing = _look_up(ledger, facts)
    while standing.state in (State.FREE, State.UNKNOWN) and not dry_run:
        try:
            ledger.resolve(standing, verdict, facts, origin=Origin.ADOPTED, settled_by=who, reason=why)
        except ClaimLost:
            # The same bytes under another name, or a delivery at this very moment.
            standing = _look_up(ledger, facts)
        else:
            break
    outcome = {State.UPLOADED: "already_uploaded", State.IN_FLIGHT: "in_flight"}.get(
        standing.state, "would_be_adopted" if dry_run else "adopted"
    )
    return Adopted(file.url, standing.file_id, outcome, standing.describe() if standing.deciding else "")


def _look_up(ledger: Ledger, facts: ClaimFacts) -> Standing:
    """Return what the ledger says of a file; of bytes that were delivered under other names, of its own name."""
    standing = ledger.look_up(ledger.file_id(facts.file_type, facts.sha256), name=facts.name)
    if standing.accepted_elsewhere(facts.name) is None:
        return standing
    return ledger.look_up(ledger.file_id(facts.file_type, facts.sha256, facts.name))
