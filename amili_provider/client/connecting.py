"""How connections are made: TLS, proxies, time-outs, and what httpx must not do by itself."""

from __future__ import annotations

import functools
import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any

import httpx

from amili_provider.connection_form import AmiliSettings, field_label

WRITE_STALL_SECONDS = 60.0
"""How long the other end may take no data before the request is given up."""


def http_options(settings: AmiliSettings) -> dict[str, Any]:
    """Return the arguments that both kinds of httpx client share."""
    options: dict[str, Any] = {
        "timeout": httpx.Timeout(
            connect=settings.connect_timeout,
            read=settings.answer_timeout,
            write=WRITE_STALL_SECONDS,
            pool=None,
        ),
        "follow_redirects": False,
        # A jar that keeps nothing: requests are independent of one another.
        "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    }
    if settings.proxy is not None:
        options["proxy"] = settings.proxy
    else:
        # Proxies of the environment are not for this machine's own addresses, whatever NO_PROXY says.
        options["mounts"] = dict.fromkeys(("all://localhost", "all://127.0.0.1", "all://[::1]"))
    return options


def set_location_aside(response: httpx.Response) -> None:
    """Hide where a redirect leads from httpx, which would look at it and may raise before we see the status."""
    if "location" in response.headers:
        response.extensions["location"] = response.headers.pop("location")


async def aset_location_aside(response: httpx.Response) -> None:
    """Do the same for the client that does not block."""
    set_location_aside(response)


def plain_headers(response: httpx.Response) -> dict[str, str]:
    """Return an answer's headers with names in lower case."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    if "location" in response.extensions:
        headers["location"] = response.extensions["location"]
    return headers


def ssl_context(settings: AmiliSettings) -> ssl.SSLContext:
    """
    Return the TLS settings, one object per process for each choice: making one takes some 20 ms and 0.8 MiB.

    :raises ValueError: if the CA file cannot be read.
    """
    try:
        changed = Path(settings.ca_file).stat().st_mtime_ns if settings.ca_file else 0
        return _ssl_context(settings.verify, settings.ca_file, changed)
    except OSError as error:  # ssl.SSLError is one too
        raise ValueError(
            f"Connection {settings.conn_id!r}: {field_label('ca_file')} is {settings.ca_file!r}, which cannot be read "
            f"as certificates ({type(error).__name__})."
        ) from None


@functools.lru_cache(maxsize=8)
def _ssl_context(verify: bool, ca_file: str | None, _changed: int) -> ssl.SSLContext:
    if verify and ca_file:
        return ssl.create_default_context(cafile=ca_file)
    return httpx.create_ssl_context(verify=verify)
