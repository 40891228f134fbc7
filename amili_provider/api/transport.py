"""How connections are made: TLS, proxies, time-outs, and what httpx must not do by itself."""

from __future__ import annotations

import functools
import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any

import httpx

from amili_provider.connection.fields import label as field_label
from amili_provider.connection.proxies import environment_proxy
from amili_provider.connection.settings import AmiliSettings
from amili_provider.exceptions import AmiliArgumentError

WRITE_STALL_SECONDS = 60.0
"""How long the other end may take no data before the request is given up."""


def http_options(
    settings: AmiliSettings,
    kind: type[httpx.HTTPTransport | httpx.AsyncHTTPTransport],
    *,
    limits: httpx.Limits,
    verify: ssl.SSLContext,
    transport: Any,
) -> dict[str, Any]:
    """
    Return the arguments of an httpx client: the one place that decides by which way an address is reached.

    :param settings: the connection.
    :param kind: how the client sends.
    :param limits: of its connections.
    :param verify: the TLS settings.
    :param transport: sends instead, for tests.
    :raises AmiliArgumentError: if the environment names a proxy that cannot be used; the connection's was checked.
    """
    options: dict[str, Any] = {
        "limits": limits,
        "verify": verify,
        "transport": transport,
        # Its reading of the environment raises errors of its own, with the beginning of a password in them.
        "trust_env": False,
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
    elif transport is None:
        options["mounts"] = {
            url: kind(proxy=proxy, limits=limits, verify=verify, trust_env=False)
            for url in (settings.base_url, settings.auth_url)
            if url is not None and (proxy := _environment_proxy(url, settings)) is not None
        }
    return options


def _environment_proxy(url: str, settings: AmiliSettings) -> str | None:
    try:
        return environment_proxy(url, "httpx")
    except ValueError as reason:
        remedy = f"Or fill in {field_label('proxy')} of connection {settings.conn_id!r}."
        raise AmiliArgumentError(f"{reason} {remedy}") from None


def proxy_setting(settings: AmiliSettings) -> str:
    """Return where the proxies that requests go through are set."""
    return field_label("proxy") if settings.proxy is not None else "HTTPS_PROXY, ALL_PROXY and NO_PROXY of this process"


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
