"""
Who we are: a bearer token on every request, as ``httpx.Auth`` flows that do no I/O of their own.

The token requests are yielded to the client that runs the flow, so that proxy, TLS and test servers are shared.
Source: "Example Workflow", token request of the client-credentials kind. No refresh token exists: renewing is asking
again. Nothing of the token service's answers gets into a message, since they may repeat what was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
import math
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic_core import from_json

from amili_provider.exceptions import (
    AmiliAuthenticationError,
    AmiliConnectionError,
    AmiliPermanentError,
    AmiliRequestError,
    AmiliResponseError,
)
from amili_provider.waiting import asked_to_wait

TOKEN_TIMEOUT_SECONDS = 15.0
"""For each step of the token request, and for its whole answer."""
EARLY_SECONDS = 120.0
"""A token is renewed this long before it expires, or after four fifths of its life if that is later."""
UNKNOWN_LIFETIME_SECONDS = 300.0
_LARGEST_TOKEN_ANSWER = 64 * 1024
_UNAUTHORIZED = 401

OnToken = Callable[[str], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class Token:
    """
    A bearer token.

    :param value: the token; never shown.
    :param expires_at: seconds since the epoch.
    :param renew_at: from when on another one is asked for.
    """

    value: str = field(repr=False)
    expires_at: float
    renew_at: float


def is_token_request(request: httpx.Request) -> bool:
    """Return whether *request* asks for a token, so that no file can have been accepted by it."""
    return bool(request.extensions.get("amili_token"))


class BearerAuth(httpx.Auth):
    """
    A ready-made token.

    :param token: the token, without the word Bearer.
    """

    def __init__(self, token: str) -> None:
        self._token = token

    def __repr__(self) -> str:
        return "BearerAuth(***)"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Put the token on the request."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


class ClientCredentialsAuth(httpx.Auth):
    """
    A token of the client-credentials kind: cached, renewed early, and renewed once when it is refused.

    Requests in many threads, or in many tasks of one event loop, mint one token between them.

    :param auth_url: base URL of the token service.
    :param client_id: as assigned by Amili.
    :param client_secret: as assigned by Amili.
    :param scope: sent if given.
    :param user_agent: of the client that runs the flow.
    :param field_names: how messages name the fields ``login``, ``password``, ``auth_url`` and ``scope``.
    :param clock: seconds since the epoch.
    :param on_token: called with every new token before it is used, to have it masked in logs.
    :param timeout: seconds for each step of the token request, and for its whole answer.
    """

    def __init__(
        self,
        auth_url: str,
        client_id: str,
        client_secret: str,
        *,
        scope: str | None = None,
        user_agent: str = "airflow-provider-amili",
        field_names: Callable[[str], str] = repr,
        clock: Callable[[], float] = time.time,
        on_token: OnToken | None = None,
        timeout: float = TOKEN_TIMEOUT_SECONDS,
    ) -> None:
        self.token_url = f"{auth_url.rstrip('/')}/token"
        self._client_id = client_id
        self._client_secret = client_secret
        self._scope = scope
        self._user_agent = user_agent
        self._name = field_names
        self._clock = clock
        self._on_token = on_token
        self._timeout = timeout
        self._token: Token | None = None
        self._turn = threading.Lock()
        self._async_turn = asyncio.Lock()
        self._failures = 0
        self._refusal: AmiliPermanentError | None = None

    def __repr__(self) -> str:
        return f"ClientCredentialsAuth({self.token_url!r}, {self._client_id!r}, ***)"

    @property
    def seconds_left(self) -> float | None:
        """For how long the token that is held is still valid; None if there is none."""
        return None if self._token is None else max(0.0, self._token.expires_at - self._clock())

    # The flows. What they decide is in the plain methods below; they differ only in how they wait for their turn.

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Put a token on the request; on 401 renew it and send the request once more."""
        token = self._usable()
        if token is None:
            token = yield from self._renewed(request, refused=None)
        response = yield self._signed(request, token)
        if response.status_code == _UNAUTHORIZED:
            _drop_body(response).close()
            token = yield from self._renewed(request, refused=token)
            yield self._signed(request, token)

    def _renewed(
        self, request: httpx.Request, refused: Token | None
    ) -> Generator[httpx.Request, httpx.Response, Token]:
        failures_before = self._failures
        with self._turn:
            token = self._minted_meanwhile(refused, failures_before)
            if token is None:
                with self._counting_failures():
                    asking = self._token_request(request)
                    response = yield asking
                    _bound(response, asking).read()
                    token = self._read(response)
                    if self._on_token is not None:
                        self._on_token(token.value)
                    self._token = token
        return token

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Do what the other flow does, without blocking the event loop."""
        refused = None
        for _ in range(2):
            token = self._usable() if refused is None else None
            if token is None:
                failures_before = self._failures
                async with self._async_turn:
                    token = self._minted_meanwhile(refused, failures_before)
                    if token is None:
                        with self._counting_failures():
                            asking = self._token_request(request)
                            response = yield asking
                            await _bound(response, asking).aread()
                            token = self._read(response)
                            if self._on_token is not None:
                                told = self._on_token(token.value)
                                if inspect.isawaitable(told):
                                    await told
                            self._token = token
            response = yield self._signed(request, token)
            if response.status_code != _UNAUTHORIZED or refused is not None:
                return
            await _drop_body(response).aclose()
            refused = token

    # The decisions.

    def _usable(self) -> Token | None:
        token = self._token
        return token if token is not None and self._clock() < token.renew_at else None

    def _minted_meanwhile(self, refused: Token | None, failures_before: int) -> Token | None:
        """Return the token that somebody else got while we waited for our turn; share their failure likewise."""
        token = self._usable()
        if token is not None and token is not refused:
            return token
        if self._failures != failures_before:
            if self._refusal is not None:
                raise copy.copy(self._refusal)
            raise AmiliConnectionError("Another request at the same time did not get a token either.")
        return None

    @contextlib.contextmanager
    def _counting_failures(self) -> Iterator[None]:
        """Count an attempt that did not end with a token, whatever ended it; a broken connection closes the flow."""
        try:
            yield
        except BaseException as error:
            self._refusal = error if isinstance(error, AmiliPermanentError) else None
            self._failures += 1
            raise

    def _signed(self, request: httpx.Request, token: Token) -> httpx.Request:
        request.headers["Authorization"] = f"Bearer {token.value}"
        return request

    def _token_request(self, request: httpx.Request) -> httpx.Request:
        form = {
            "grant_type": "client_credentials",
            "client_id": self._client_id,
            "client_secret": self._client_secret,
        }
        if self._scope:
            form["scope"] = self._scope
        extensions: dict[str, Any] = {
            # Without this, httpx would give a request that comes from an auth flow no time-out at all.
            "timeout": dict.fromkeys(("connect", "read", "write", "pool"), self._timeout),
            "answer_seconds": self._timeout,
            "amili_token": True,
        }
        # The client watches this request too: what it reports, and whether it cut it off.
        extensions.update({k: request.extensions[k] for k in ("trace", "overdue") if k in request.extensions})
        headers = {
            "User-Agent": self._user_agent,
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
        return httpx.Request("POST", self.token_url, data=form, headers=headers, extensions=extensions)

    def _read(self, response: httpx.Response) -> Token:
        self._check_status(response)
        try:
            answer = from_json(response.content, allow_inf_nan=False)
        except ValueError:
            answer = None
        value = answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable() or " " in value:
            raise AmiliResponseError(
                f"The token service at {self.token_url} answered {response.status_code}, but not with a token. "
                f"Check {self._name('auth_url')}: is this the base URL of Amili's token service?",
                status_code=response.status_code,
            )
        now = self._clock()
        life = _number(answer.get("expires_in"))
        if life is None:
            expires_on = _number(answer.get("expires_on"))
            life = UNKNOWN_LIFETIME_SECONDS if expires_on is None else expires_on - now
        life = max(life, 0.0)
        return Token(value, now + life, now + max(life - EARLY_SECONDS, life * 0.8))

    def _check_status(self, response: httpx.Response) -> None:
        status = response.status_code
        if status in (200, 201):
            return
        where = f"The token service at {self.token_url} answered {status}"
        client_id, secret, scope, url = (self._name(n) for n in ("login", "password", "scope", "auth_url"))
        if status in (429, 408) or status >= 500:  # noqa: PLR2004 - the server's own trouble
            raise AmiliConnectionError(
                f"{where}; no token, so nothing was sent. This may pass by itself.",
                retry_after=asked_to_wait(response.headers, self._clock()),
                status_code=status,
            )
        if status in (400, 401, 403):
            hint = f"check {client_id} and {secret}"
            code = _error_code(response)
            if code == "invalid_scope":
                hint = f"check {scope}"
            elif status == 403 or code == "unauthorized_client":  # noqa: PLR2004
                hint = f"ask Amili whether {client_id} is allowed to get tokens here, and check {url}"
            elif status == 400 and code != "invalid_client":  # noqa: PLR2004
                hint += f", then {scope} and {url}" if self._scope else f", then {url}"
            raise AmiliAuthenticationError(f"{where}: no token; {hint}.", status_code=status)
        raise AmiliRequestError(f"{where}, which no token service does; check {url}.", status_code=status)


class _Bounded(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of the token service's answer, refused when it grows too large or was cut off for taking too long."""

    def __init__(self, stream: Any, request: httpx.Request) -> None:
        self._stream = stream
        self._request = request

    @staticmethod
    def _counted(seen: int) -> None:
        if seen > _LARGEST_TOKEN_ANSWER:
            raise AmiliResponseError(f"The token service answered with more than {_LARGEST_TOKEN_ANSWER} bytes.")

    def __iter__(self) -> Iterator[bytes]:
        seen = 0
        for chunk in self._stream:
            seen += len(chunk)
            self._counted(seen)
            yield chunk
        overdue = self._request.extensions.get("overdue")
        if overdue is not None and overdue():
            # An answer without a length ends where the connection ends, also when the client ended it.
            raise httpx.ReadTimeout("", request=self._request)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen = 0
        async for chunk in self._stream:
            seen += len(chunk)
            self._counted(seen)
            yield chunk

    def close(self) -> None:
        self._stream.close()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _bound(response: httpx.Response, request: httpx.Request) -> httpx.Response:
    response.stream = _Bounded(response.stream, request)
    return response


def _drop_body(response: httpx.Response) -> Any:
    """Take the body away from a 401, which httpx would otherwise read whole, and return it to be closed."""
    body, response.stream = response.stream, httpx.ByteStream(b"")
    return body


def _number(value: Any) -> float | None:
    """Return a number that may come as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _error_code(response: httpx.Response) -> str:
    """Return the error code of RFC 6749 section 5.2, only to choose our own words by."""
    try:
        answer = from_json(response.content)
    except ValueError:
        return ""
    code = answer.get("error") if isinstance(answer, dict) else None
    return code if isinstance(code, str) else ""
