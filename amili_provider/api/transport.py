"""HTTP as both clients need it: URLs, headers, proxies, TLS, time-outs, and the waits between attempts."""

from __future__ import annotations

import functools
import random
import re
import ssl
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from amili_provider import __version__
from amili_provider.connection.addresses import environment_proxy
from amili_provider.connection.fields import label as field_label
from amili_provider.connection.settings import AmiliSettings
from amili_provider.exceptions import AmiliArgumentError, AmiliResponseError

USER_AGENT = f"airflow-provider-amili/{__version__}"
_OURS = frozenset({"authorization", "host", "content-length", "transfer-encoding", "user-agent", "accept-encoding"})
LONGEST_WAIT_SECONDS = 60.0
"""Waited inside one call at most, all waits together; longer belongs to Airflow's retries."""
LONGEST_ASKED_SECONDS = 86_400.0
"""More than a day is a mistake at the other end, and would look like a task that is never retried."""
_FIRST_BACKOFF_SECONDS = 1.0
_LONGEST_BACKOFF_SECONDS = 8.0
_DIGITS = re.compile(r"[0-9]{1,9}")
WRITE_STALL_SECONDS = 60.0
"""How long the other end may take no data before the request is given up."""


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


def asked_to_wait(headers: Mapping[str, str], now: float) -> float | None:
    """
    Return the seconds that ``Retry-After`` asks for, a day at most; None if it is missing, cannot be read, or is past.

    A date that has passed (a clock that is wrong, a page from a cache) is no invitation to come back at once.

    :param headers: an answer's headers, with names found in any case.
    :param now: seconds since the epoch, for the form with a date.
    """
    value = (headers.get("retry-after") or "").strip()
    if _DIGITS.fullmatch(value):
        return min(float(value), LONGEST_ASKED_SECONDS)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    try:
        # A date without a zone is in GMT, as every HTTP date.
        left = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(left, LONGEST_ASKED_SECONDS) if left > 0 else None


class Backoff:
    """
    The waits of one call: a bounded number of attempts, and a bound on all waits together.

    :param attempts: how often the call is tried at most.
    :param jitter: gives numbers from 0 to 1.
    """

    def __init__(self, attempts: int = 3, *, jitter: random.Random | None = None) -> None:
        self.attempts = attempts
        self.tried = 0
        self._waited = 0.0
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads load, protects nothing

    def next_wait(self, asked: float | None) -> float | None:
        """
        Count a failed attempt; return the seconds to wait before the next one, None if there is none.

        :param asked: what Amili asked for, if it did: never shortened.
        """
        self.tried += 1
        if self.tried >= self.attempts:
            return None
        wait = asked
        if wait is None:
            longest = min(_LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2 ** (self.tried - 1))
            wait = longest * (0.5 + self._jitter.random() / 2)
        if self._waited + wait > LONGEST_WAIT_SECONDS:
            return None
        self._waited += wait
        return wait


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
