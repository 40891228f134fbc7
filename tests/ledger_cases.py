"""What the tests of the ledger share: a run, facts of a file, a clock, attempts, and a ledger in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

from amili_provider.ledger import Attempt, ClaimFacts, Ledger
from amili_provider.ledger.attempts import Run
from amili_provider.ledger.stores import LedgerStore, MemoryStore
from amili_provider.receipts import Outcome, Verdict

FILE_TYPE = "InvoiciaFormatDocFile"
ACCEPTED = Verdict(Outcome.UPLOADED, "PROCESSED", "CREATED", "Batch is processed", per_file=True)
REFUSED = Verdict(Outcome.REJECTED, "FAILED", "REJECTED", "Wrong layout", per_file=True)
LOST = Verdict(Outcome.UNKNOWN, message="The connection ended before the answer.")
NOT_SENT = Verdict(Outcome.NOT_SENT, message="Nothing of the request was accepted.")


RUN = Run(dag_id="etl", run_id="2026-11-22", task_id="upload", chain="etl/2026-11-22/upload/-1/2")


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
        run=run or RUN,
        request="#1",
    )


def other_run(number: int = 2, **changes: Any) -> Run:
    """Return a run of another chain of attempts."""
    return replace(RUN, chain=f"etl/run-{number}/upload/-1/2", run_id=f"run-{number}", **changes)


def file_id_of(ledger: Ledger, claim: ClaimFacts) -> str:
    """Return the identity of the file that *claim* is about."""
    return ledger.file_id(claim.file_type, claim.sha256)


def an_attempt(content: bytes | str = b"invoice 1", *, owner: str = "a" * 32, number: int = 1, **more: Any) -> Attempt:
    """Return an attempt at a file with *content*, as a task makes it."""
    data = content.encode() if isinstance(content, str) else content
    usual: dict[str, Any] = {
        "environment": "staging",
        "client_no": "10042",
        "file_id": hashlib.sha256(b"id of " + data).hexdigest()[:32],
        "chain": RUN.chain,
        "file_type": FILE_TYPE,
        "name": "invoice.csv",
        "source": "s3://invoices/invoice.csv",
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "dag_id": RUN.dag_id,
        "run_id": RUN.run_id,
        "task_id": RUN.task_id,
        "host": "worker-1",
        "request": "#1",
    }
    return Attempt(attempt=number, owner=owner, **(usual | more))


def ledger_over(store: LedgerStore, clock: Clock, **settings: Any) -> Ledger:
    """Return a ledger over an open *store*."""
    usual: dict[str, Any] = {"environment": "staging", "client_no": "10042", "answer_timeout": 600.0}
    return Ledger(store, clock=clock, sleep=clock.sleep, **(usual | settings))


def memory_ledger(clock: Clock, **settings: Any) -> Ledger:
    """Return a new ledger in memory whose store has the same *clock*."""
    store = MemoryStore(clock=clock)
    store.create()
    return ledger_over(store, clock, **settings)
