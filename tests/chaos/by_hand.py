"""What a person does with files whose outcome is unknown: look at the other side, and write down what is true."""

from __future__ import annotations

import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from amili_provider.ledger import ClaimFacts, Ledger, Origin, State
from amili_provider.ledger.records import LedgerReceipt
from amili_provider.models import Outcome, Verdict


def settle(
    *, ledger: str, url: str, client_no: str, arrived: Mapping[str, bool], answer_timeout: float, ahead: float
) -> None:
    """
    Settle files as arrived or not arrived.

    :param ledger: its folder.
    :param url: of the sandbox.
    :param client_no: whose files.
    :param arrived: for each file id whether the other side has it.
    :param answer_timeout: of the connection.
    :param ahead: seconds by which the ledger's clock runs ahead.
    """
    with Ledger.open(
        ledger, None, environment=urlsplit(url).netloc, client_no=client_no, answer_timeout=answer_timeout,
        clock=lambda: time.time() + ahead,
    ) as opened:  # fmt: skip
        for file_id, is_there in arrived.items():
            standing = opened.look_up(file_id)
            if standing.state is not State.UNKNOWN:
                continue
            first = next(a for a in standing.attempts if isinstance(a, LedgerReceipt))
            facts = ClaimFacts(
                file_type=first.file_type, name=first.name, source=first.source, size=first.size, sha256=first.sha256,
                run=first,
            )  # fmt: skip
            outcome = Outcome.UPLOADED if is_there else Outcome.NOT_SENT
            opened.resolve(standing, Verdict(outcome), facts, origin=Origin.PERSON, settled_by="chaos", reason="asked")
