"""A connection of type ``amili`` as frozen settings; a wrong or incomplete one is one clear sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from amili_provider.connection.addresses import (
    ENVIRONMENTS,
    Address,
    checked_proxy,
    identity_of,
    read_base_url,
    read_host,
)
from amili_provider.connection.fields import FIELDS, MOST_FILES_PER_REQUEST, default, label
from amili_provider.connection.form import known_extras
from amili_provider.connection.values import (
    as_bool,
    as_count,
    as_seconds,
    as_statuses,
    as_text,
    as_words,
    checked_client_no,
    checked_result_path,
)

_SECRET = {"client_secret", *(field.name for field in FIELDS if (field.schema or {}).get("format") == "password")}


@dataclass(frozen=True, slots=True, repr=False)
class AmiliSettings:
    """
    Everything a connection says, checked.

    :param base_url: of the API, without a slash at its end.
    :param auth_url: base URL of the token service; None with a ready-made token.
    :param environment: who is at the other end: ``production``, ``staging``, else host, port and base path. Part of
        file ids.
    :param conn_id: for messages.
    """

    base_url: str
    auth_url: str | None
    environment: str
    client_id: str | None = None
    client_secret: str | None = None
    access_token: str | None = None
    scope: str | None = None
    client_no: str | None = None
    user_id: str | None = None
    ledger: str | None = None
    ledger_conn_id: str | None = None
    connect_timeout: float = default("connect_timeout")
    answer_timeout: float = default("answer_timeout")
    verify: bool = default("verify")
    ca_file: str | None = None
    proxy: str | None = None
    allow_http: bool = default("allow_http")
    max_request_bytes: int = default("max_request_bytes")
    max_files_per_request: int = default("max_files_per_request")
    result_path: str = default("result_path")
    accepted_results: tuple[str, ...] | None = None
    refused_results: tuple[str, ...] | None = None
    pending_results: tuple[str, ...] | None = None
    isolate_refused: bool = default("isolate_refused")
    not_taken_statuses: tuple[int, ...] = as_statuses(default("not_taken_statuses"), "not_taken_statuses")
    conn_id: str = "amili_default"

    @property
    def proxy_passwords(self) -> set[str]:
        """The password in the proxy's URL, as it is written there and as it is meant, to be masked in logs."""
        written = urlsplit(self.proxy).password if self.proxy else None
        return {written, unquote(written)} if written else set()

    def __repr__(self) -> str:
        shown = []
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.name in ("proxy", "ledger") and value is not None:
                value = _without_credentials(value)
            elif f.name in _SECRET and value is not None:
                value = "***"
            shown.append(f"{f.name}={value!r}")
        return f"AmiliSettings({', '.join(shown)})"


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2]))


def settings_from(
    conn_id: str,
    *,
    login: str | None,
    password: str | None,
    host: str | None,
    port: int | str | None,
    schema: str | None,
    extra: Mapping[str, Any],
) -> AmiliSettings:
    """
    Read a connection.

    :param conn_id: for messages.
    :param login: client id.
    :param password: client secret.
    :param host: host of one's own, with or without a scheme.
    :param port: its port.
    :param schema: its base path; exactly ``http`` or ``https`` is taken for the scheme.
    :param extra: the connection's extra, parsed.
    :raises ValueError: one sentence that names the field as the form labels it.
    """
    try:
        known = known_extras(extra, conn_id)
        credentials = _credentials(login, password, known.get("access_token"))
        return _read(conn_id, read_host(host, port, schema), credentials, known)
    except ValueError as reason:
        raise ValueError(f"Connection {conn_id!r}: {reason}") from None


def _read(
    conn_id: str,
    address: Address | None,
    credentials: tuple[str | None, str | None, str | None],
    extra: dict[str, Any],
) -> AmiliSettings:
    def text(name: str) -> str | None:
        return as_text(extra.get(name), label(name))

    def boolean(name: str) -> bool:
        return as_bool(extra[name], label(name)) if name in extra else bool(default(name))

    allow_http = boolean("allow_http")
    environment = _environment(text("environment"), address)
    address = address or ENVIRONMENTS[environment].api
    address.check_scheme(label("host"), allow_http=allow_http)
    client_id, client_secret, access_token = credentials
    client_no = extra.get("client_no")
    words = {
        name: as_words(extra[name], label(name)) if name in extra else None
        for name in ("accepted_results", "refused_results", "pending_results")
    }
    return AmiliSettings(
        base_url=address.url,
        auth_url=None if access_token else _auth_url(text("auth_url"), environment, allow_http=allow_http),
        environment=environment,
        client_id=client_id,
        client_secret=client_secret,
        access_token=access_token,
        scope=text("scope"),
        client_no=None if client_no is None else checked_client_no(client_no, label("client_no")),
        user_id=text("user_id"),
        ledger=text("ledger"),
        ledger_conn_id=text("ledger_conn_id"),
        connect_timeout=as_seconds(extra.get("connect_timeout", default("connect_timeout")), label("connect_timeout")),
        answer_timeout=as_seconds(extra.get("answer_timeout", default("answer_timeout")), label("answer_timeout")),
        verify=boolean("verify"),
        ca_file=text("ca_file"),
        proxy=None if (proxy := text("proxy")) is None else checked_proxy(proxy, label("proxy")),
        allow_http=allow_http,
        max_request_bytes=as_count(
            extra.get("max_request_bytes", default("max_request_bytes")), label("max_request_bytes")
        ),
        max_files_per_request=as_count(
            extra.get("max_files_per_request", default("max_files_per_request")),
            label("max_files_per_request"),
            MOST_FILES_PER_REQUEST,
        ),
        result_path=checked_result_path(text("result_path") or default("result_path"), label("result_path")),
        isolate_refused=boolean("isolate_refused"),
        not_taken_statuses=as_statuses(
            extra.get("not_taken_statuses", default("not_taken_statuses")), label("not_taken_statuses")
        ),
        conn_id=conn_id,
        **words,
    )


_LONGEST_ENVIRONMENT = 255
"""Characters: files of two environments that began alike would be taken for one another."""


def _environment(named: str | None, address: Address | None) -> str:
    """Return who is at the other end. A wrong answer would put receipts of one environment under another."""
    if named is not None:
        named = named.casefold()
        if named not in ENVIRONMENTS:
            raise ValueError(f"{label('environment')} is {named!r}; choose production or staging.")
    if address is None:
        if named is None:
            raise ValueError(
                f"{label('environment')} is missing; choose production or staging, or give {label('host')} "
                "for an address of your own."
            )
        return named
    found = identity_of(address)
    if named is not None and named != found:
        raise ValueError(
            f"{label('environment')} says {named}, but {label('host')} is {address.host}; empty one of the two."
        )
    if len(found) > _LONGEST_ENVIRONMENT:
        raise ValueError(
            f"{label('host')} has {len(found)} characters with its path; the ledger keeps {_LONGEST_ENVIRONMENT}. "
            "Give Amili's address, or a gateway's, under a shorter one."
        )
    return found


def _credentials(login: Any, password: Any, token: Any) -> tuple[str | None, str | None, str | None]:
    client_id = as_text(login, label("login"))
    client_secret = password or None
    if token is not None:
        if not isinstance(token, str) or not token.strip().isascii() or not token.strip().isprintable():
            raise ValueError(f"{label('access_token')} is not a bearer token: it holds characters that none has.")
        if client_id or client_secret:
            raise ValueError(
                f"{label('access_token')} is given together with {label('login')} or {label('password')}; "
                "empty one of the two."
            )
        token = token.strip()
        return None, None, token[7:].strip() if token[:7].casefold() == "bearer " else token
    for name, value in (("login", client_id), ("password", client_secret)):
        if not value:
            raise ValueError(f"{label(name)} is missing.")
    return client_id, client_secret, None


def _auth_url(given: str | None, environment: str, *, allow_http: bool) -> str:
    if given is None:
        if environment not in ENVIRONMENTS:
            raise ValueError(f"{label('auth_url')} is missing; it is required with a host of your own.")
        return ENVIRONMENTS[environment].auth.url
    address = read_base_url(given, label("auth_url"))
    address.check_scheme(label("auth_url"), allow_http=allow_http)
    # People copy the whole address of the token call; appending /token to it again helps nobody.
    return address.url.removesuffix("/token")
