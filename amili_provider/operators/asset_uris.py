"""
Assets of the form ``amili://<host>/<client number>``: what a user may declare as an outlet of an upload.

Airflow finds these through the provider's metadata and imports them when a DAG names such an asset, so nothing heavy
is imported here.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, urlsplit


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
