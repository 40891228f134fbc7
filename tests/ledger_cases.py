"""What the tests of the ledger share: a run, facts of a file, a clock, and a ledger in a folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from amili_provider.ledger import ClaimFacts, Ledger
from amili_provider.ledger.folders import Folder
from amili_provider.ledger.local_folder import LocalFolder
from amili_provider.models import Outcome, Verdict

FILE_TYPE = "InvoiciaFormatDocFile"
ACCEPTED = Verdict(Outcome.UPLOADED, "PROCESSED", "CREATED", "Batch is processed", per_file=True)
REFUSED = Verdict(Outcome.REJECTED, "FAILED", "REJECTED", "Wrong layout", per_file=True)
LOST = Verdict(Outcome.UNKNOWN, message="The connection ended before the answer.")
NOT_SENT = Verdict(Outcome.NOT_SENT, message="Nothing of the request was accepted.")


@dataclass(frozen=True)
class Run:
    """One task run, as the delivery describes it."""

    chain: str = "etl/2026-11-22/upload/-1/2"
    dag_id: str = "etl"
    run_id: str = "2026-11-22"
    task_id: str = "upload"
    map_index: int = -1
    try_number: int = 1


@dataclass
class Clock:
    """A clock that moves when it is told to; sleeping moves it."""

    now: float = 1_795_000_000.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let *seconds* pass at once."""
        self.slept.append(seconds)
        self.now += seconds


def facts(content: bytes = b"invoice 1", *, name: str = "invoice.csv", run: Run | None = None) -> ClaimFacts:
    """Return what a claim says of a file with *content*."""
    return ClaimFacts(
        file_type=FILE_TYPE,
        name=name,
        source=f"s3://invoices/{name}",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        run=run or Run(),
        request="#1",
    )


def other_run(number: int = 2, **changes: Any) -> Run:
    """Return a run of another chain of attempts."""
    return replace(Run(), chain=f"etl/run-{number}/upload/-1/2", run_id=f"run-{number}", **changes)


def file_id_of(ledger: Ledger, claim: ClaimFacts) -> str:
    """Return the identity of the file that *claim* is about."""
    return ledger.file_id(claim.file_type, claim.sha256)


def ledger_over(folder: Folder, clock: Clock, **settings: Any) -> Ledger:
    """Return a ledger over a probed *folder*."""
    usual: dict[str, Any] = {"environment": "staging", "client_no": "10042", "answer_timeout": 600.0}
    return Ledger(folder, clock=clock, sleep=clock.sleep, **(usual | settings))


def local_ledger(path: Path, clock: Clock, **settings: Any) -> Ledger:
    """Return a ledger in the local folder *path*."""
    folder = LocalFolder(str(path), path.as_uri(), sleep=clock.sleep)
    folder.probe()
    return ledger_over(folder, clock, **settings)
