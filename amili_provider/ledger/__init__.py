"""What was accepted before, kept on storage: see :mod:`amili_provider.ledger.ledger`."""

from __future__ import annotations

from amili_provider.ledger.claims import Claim, ClaimFacts, ClaimLost, SettlingFailed
from amili_provider.ledger.ledger import Ledger
from amili_provider.ledger.records import LedgerReceipt, Origin, TornReceipt
from amili_provider.ledger.standing import SetAside, Standing, State

__all__ = [
    "Claim",
    "ClaimFacts",
    "ClaimLost",
    "Ledger",
    "LedgerReceipt",
    "Origin",
    "SetAside",
    "SettlingFailed",
    "Standing",
    "State",
    "TornReceipt",
]
