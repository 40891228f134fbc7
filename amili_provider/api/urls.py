"""URLs and headers of requests, and nothing that leads elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from amili_provider import __version__
from amili_provider.connection.fields import label as field_label
from amili_provider.connection.settings import AmiliSettings
from amili_provider.exceptions import AmiliResponseError

USER_AGENT = f"airflow-provider-amili/{__version__}"
_OURS = frozenset({"authorization", "host", "content-length", "transfer-encoding", "user-agent", "accept-encoding"})


def url_of(settings: AmiliSettings, path: str) -> str:
    """
    Return the URL of a path below the base URL.

    :raises ValueError: for a whole URL, or a path that climbs out.
    """
    bare = path.partition("?")[0]
    if "://" in bare or path.startswith("//") or not path.strip() or "\\" in bare:
        raise ValueError(f"path is {path!r}; write a path below the base URL, for example '/clients/2218/customers'.")
    if any(step in (".", "..") for step in bare.split("/")) or "#" in path or not path.isprintable():
        raise ValueError(f"path is {path!r}; write it without '.', '..', '#' and line breaks.")
    return f"{settings.base_url}/{path.lstrip('/')}"


def files_path(client_no: str) -> str:
    """Return the path of the upload endpoint."""
    return f"/clients/{quote(client_no, safe='')}/files"


def batch_path(client_no: str, batch_uuid: str) -> str:
    """Return the path of one batch."""
    return f"/clients/{quote(client_no, safe='')}/batches/{quote(str(batch_uuid), safe='')}"


def result_path(settings: AmiliSettings, client_no: str, file_id: str) -> str:
    """Return the path of one file's result, as the connection has it."""
    return settings.result_path.format(clientno=quote(client_no, safe=""), fileid=quote(file_id, safe=""))


def headers_for(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """
    Return the headers of a request.

    :param given: the caller's.
    :raises ValueError: for a header that is not the caller's to set.
    """
    headers = {"User-Agent": USER_AGENT, "Accept": "application/json", "Accept-Encoding": "identity"}
    for name, value in (given or {}).items():
        if name.casefold() in _OURS:
            raise ValueError(f"headers holds {name!r}, which the client sets itself; leave it out.")
        headers[name] = value
    return headers


def next_page(settings: AmiliSettings, current: str, page: Any) -> str | None:
    """
    Return the URL of the page after *page*, None if it is the last one.

    :raises AmiliResponseError: if it is not at the same scheme, host and port: the token would go along.
    """
    summary = page.get("summary") if isinstance(page, dict) else None
    link = summary.get("nextPage") if isinstance(summary, dict) else None
    if link is None or link == "":
        return None
    try:
        url = httpx.URL(current).join(link) if isinstance(link, str) else None
    except (httpx.InvalidURL, ValueError):
        url = None
    base = httpx.URL(settings.base_url)
    if url is None or url.userinfo or origin(url) != origin(base):
        raise AmiliResponseError(
            "The answer's summary.nextPage leads away from the scheme, host and port of this connection, so it is "
            f"not followed. If Amili is behind a gateway, check {field_label('host')}."
        )
    return str(url)


def origin(url: httpx.URL) -> tuple[str, str, int | None]:
    """Return scheme, host and the port in effect."""
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)
