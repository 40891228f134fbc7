"""The ledger: accepted files, kept in a database or a bucket; see :mod:`amili_provider.ledger.ledger`."""

from __future__ import annotations

from amili_provider.ledger.attempts import Attempt, ClaimFacts, Origin
from amili_provider.ledger.ledger import Ledger
from amili_provider.ledger.state import Claim, ClaimLost, Disregard, History, LedgerState, SettlingFailed

__all__ = [
    "Attempt",
    "Claim",
    "ClaimFacts",
    "ClaimLost",
    "Disregard",
    "History",
    "Ledger",
    "LedgerState",
    "Origin",
    "SettlingFailed",
]
