"""What is to be written: receipts of one client in one environment, drafted and dated, before any storage sees them."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from dataclasses import replace

from amili_provider.ledger.claims import MARGIN_SECONDS, ClaimFacts
from amili_provider.ledger.records import SETTLING_OUTCOMES, LedgerReceipt, RecordState, timestamp
from amili_provider.ledger.standing import Standing
from amili_provider.models import Outcome, Verdict


class Drafts:
    """
    Drafts receipts.

    :param environment: ``production``, ``staging``, or host, port and base path.
    :param client_no: Amili's client number.
    :param answer_timeout: seconds that an answer may take; a claim lives so long and 60 seconds more.
    :param clock: seconds since the epoch.
    """

    def __init__(self, environment: str, client_no: str, *, answer_timeout: float, clock: Callable[[], float]) -> None:
        self._environment = environment
        self._client_no = client_no
        self._lifetime = answer_timeout + MARGIN_SECONDS
        self._clock = clock
        self._host = socket.gethostname()

    def claimed(self, standing: Standing, facts: ClaimFacts, now: float, extra: float = 0.0) -> LedgerReceipt:
        """
        Return a claim of the next attempt at a file, with an owner that nobody can guess.

        :param standing: what the ledger says of the file.
        :param facts: what the claim says.
        :param now: seconds since the epoch.
        :param extra: seconds that it lives longer than others.
        """
        return LedgerReceipt(
            file_id=standing.file_id,
            attempt=standing.next_attempt,
            chain=facts.run.chain,
            state=RecordState.CLAIMED,
            environment=self._environment,
            client_no=self._client_no,
            file_type=facts.file_type,
            name=facts.name,
            source=facts.source,
            size=facts.size,
            sha256=facts.sha256,
            claimed_at=timestamp(now),
            expires_at=timestamp(now + self._lifetime + extra),
            dag_id=facts.run.dag_id,
            run_id=facts.run.run_id,
            task_id=facts.run.task_id,
            map_index=facts.run.map_index,
            try_number=facts.run.try_number,
            host=self._host,
            request=facts.request,
            owner=secrets.token_hex(16),
        )

    def settled(self, claimed: LedgerReceipt, verdict: Verdict) -> LedgerReceipt:
        """
        Return *claimed* with its outcome.

        :param verdict: what became of the attempt.
        :raises ValueError: if that is nothing an attempt can end as.
        """
        if verdict.outcome not in SETTLING_OUTCOMES:
            raise ValueError(f"an attempt cannot end as {verdict.outcome!s}")
        now = timestamp(self._clock())
        return replace(
            claimed,
            state=RecordState.SETTLED,
            outcome=verdict.outcome,
            status=verdict.status,
            result=verdict.result,
            message=verdict.message,
            settled_at=now,
            uploaded_at=now if verdict.outcome is Outcome.UPLOADED else None,
        )
