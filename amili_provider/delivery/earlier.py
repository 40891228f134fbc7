"""
The receipts of an upload in two parts: before a person was asked, and after the answer.

The second part lists the source again. Files of the first that were moved meanwhile are not found, and those that are
found were accepted "before": so what the first part says stays true of what it delivered, and of what is gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from amili_provider.receipts import Outcome, Receipt

_NOT_MOVED = re.compile(r" ?Not moved yet: .*$")
"""What the first part says of a file that the second part moves."""


def restore(earlier: Iterable[Receipt], now: Iterable[Receipt]) -> None:
    """
    Write into receipts of the second part what the first part knows better: what it delivered stays delivered.

    :param earlier: the first part's.
    :param now: the second part's, as far as it came; changed in place.
    """
    known = {(receipt.source, receipt.file_id): receipt for receipt in earlier if receipt.outcome.delivered}
    for receipt in now:
        # Of what was not read in the second part it is not known whether it is the same file.
        first = known.get((receipt.source, receipt.file_id))
        if first is None:
            continue
        if first.outcome is Outcome.UPLOADED or not receipt.outcome.delivered:
            for name in ("file_id", "sha256", "size", "outcome", "status", "result", "uploaded_at", "request"):
                setattr(receipt, name, getattr(first, name))
            receipt.message = _NOT_MOVED.sub("", first.message or "") or None
            receipt.transient = False


def no_longer_listed(earlier: Sequence[Receipt], now: Iterable[Receipt]) -> list[Receipt]:
    """Return the receipts of the first part that the second part does not stand for: its files are gone, or others."""
    if not earlier:
        return []
    found = {(receipt.source, receipt.file_id) for receipt in now}
    sources, ids = {source for source, _ in found}, {file_id for _, file_id in found}

    def stands(receipt: Receipt) -> bool:
        if receipt.gone:
            return receipt.file_id not in ids
        elsewhere = receipt.outcome.delivered and (receipt.source, receipt.file_id) not in found
        return receipt.source not in sources or elsewhere

    return [receipt for receipt in earlier if stands(receipt)]


def receipt_from(fields: object) -> Receipt:
    """
    Return the receipt that :meth:`~amili_provider.receipts.Receipt.as_dict` made *fields* of.

    :raises ValueError: if they are none.
    """
    if not isinstance(fields, dict):
        raise ValueError(f"a receipt is an object, not {type(fields).__name__}")  # noqa: TRY004 - of what was kept
    try:
        return Receipt(**{**fields, "outcome": Outcome(fields["outcome"])})
    except (TypeError, KeyError) as error:
        raise ValueError(f"this is no receipt: {error}") from None
