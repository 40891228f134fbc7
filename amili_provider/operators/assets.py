"""What a delivery tells to the assets that the user declared as outlets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amili_provider.receipts import Outcome, Receipt

MOST_FILE_IDS = 100
"""File ids in an event at most: events are rows of the metadata database."""


def event_extra(receipts: Sequence[Receipt]) -> dict[str, Any]:
    """
    Return what an asset event says of a delivery: counts, bytes, and the ids of the first files.

    :param receipts: of a task that succeeded.
    """
    delivered = [r for r in receipts if r.outcome.delivered]
    uploaded = [r for r in delivered if r.outcome is Outcome.UPLOADED]
    return {
        "amili": {
            "client_no": receipts[0].client_no if receipts else None,
            "file_type": receipts[0].file_type if receipts else None,
            "files_uploaded": len(uploaded),
            "bytes_uploaded": sum(r.size or 0 for r in uploaded),
            "files_already_uploaded": len(delivered) - len(uploaded),
            "file_ids": [r.file_id for r in delivered[:MOST_FILE_IDS]],
            "file_ids_cut": len(delivered) > MOST_FILE_IDS,
        }
    }


def fill_outlet_events(context: Any, outlets: Sequence[Any] | None, receipts: Sequence[Receipt]) -> None:
    """
    Write :func:`event_extra` into the event of each asset among *outlets*.

    :param context: Airflow's context; one without ``outlet_events`` is left as it is.
    :param outlets: the task's outlets.
    :param receipts: of a task that succeeded and delivered something.
    """
    events = context.get("outlet_events")
    if events is None or not outlets:
        return
    extra = event_extra(receipts)
    for outlet in outlets:
        # Assets (datasets before Airflow 3) have a URI; aliases and references are for their users to fill.
        if getattr(outlet, "uri", None):
            events[outlet].extra.update(extra)
