"""Assets that a user declares as outlets of an upload, ``amili://<host>/<client number>``, and what they are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

from amili_provider.receipts import Outcome, Receipt


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """
    Check the URI of an asset.

    :param uri: as Airflow split it.
    :raises ValueError: if it does not name a host and one client number.
    """
    client_no = uri.path.strip("/")
    if not uri.netloc or not client_no or "/" in client_no:
        raise ValueError("URI format amili:// must be amili://<host>/<client number>, as in amili://api.amili.no/2218")
    return uri._replace(path=f"/{client_no}")


def convert_asset_to_openlineage(asset: Any, lineage_context: Any) -> Any:  # noqa: ARG001 - Airflow's signature
    """
    Return the dataset that an upload to this client names as its output.

    :param asset: of the form above.
    :param lineage_context: not needed.
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset

    uri = urlsplit(asset.uri)
    return Dataset(namespace=f"amili://{uri.netloc}", name=uri.path.strip("/"))


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
