"""Authentication: a bearer token on every request, as ``httpx.Auth`` flows that do no I/O of their own."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
import json
import re
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from typing import Any
from urllib.parse import quote_plus

import httpx

from amili_provider.api.responses import take_body
from amili_provider.api.results import read_json
from amili_provider.api.tokens import TOKEN_TIMEOUT_SECONDS, Token, TokenService, atoken_answer, token_answer
from amili_provider.api.transport import USER_AGENT
from amili_provider.connection.fields import label as field_label
from amili_provider.connection.settings import AmiliSettings
from amili_provider.exceptions import AmiliConnectionError, AmiliPermanentError

_UNAUTHORIZED = 401

OnToken = Callable[[str], Awaitable[None] | None]


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
        self.service = TokenService(
            auth_url,
            client_id,
            client_secret,
            scope=scope,
            user_agent=user_agent,
            field_names=field_names,
            clock=clock,
            timeout=timeout,
        )
        self._clock = clock
        self._on_token = on_token
        self._token: Token | None = None
        self._turn = threading.Lock()
        self._async_turn = asyncio.Lock()
        self._failures = 0
        self._refusal: AmiliPermanentError | None = None

    def __repr__(self) -> str:
        return f"ClientCredentialsAuth({self.service!r})"

    @property
    def seconds_left(self) -> float | None:
        """For how long the token that is held is still valid; None if there is none."""
        return None if self._token is None else max(0.0, self._token.expires_at - self._clock())

    # The flows. What they decide is in the plain methods below; they differ only in how they wait for their turn.

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Put a token on the request; on 401 renew it and send the request once more, if it took nothing."""
        token = self._usable()
        if token is None:
            token = yield from self._renewed(request, refused=None)
        response = yield self._signed(request, token)
        if response.status_code == _UNAUTHORIZED and not _takes(request, response):
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
                    asking = self.service.ask(request)
                    response = yield asking
                    token = self.service.read(response, token_answer(response, asking))
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
                            asking = self.service.ask(request)
                            response = yield asking
                            token = self.service.read(response, await atoken_answer(response))
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


def _takes(request: httpx.Request, response: httpx.Response) -> bool:
    """Return whether a 401 could mean that something of its request was taken; only an upload's body is looked at."""
    takes = request.extensions.get("takes")
    if takes is None:
        _drop_body(response).close()
        return False
    return bool(takes(take_body(response, code_decides=True)))


def _drop_body(response: httpx.Response) -> Any:
    """Take the body away from a 401, which httpx would otherwise read whole, and return it to be closed."""
    body, response.stream = response.stream, httpx.ByteStream(b"")
    return body


_SHORTEST_SECRET = 8
"""What is shorter may be a part of any word, so that taking it out would change what an answer says."""


def without_secrets(content: bytes, request: httpx.Request, settings: AmiliSettings) -> bytes:
    """
    Return an answer's body without the token and the secret of its request.

    A server that tells what it was sent would have them in receipts, ledger and messages.
    """
    token = request.headers.get("authorization", "").rpartition(" ")[2]
    secrets = [s for s in (token, settings.client_secret, settings.access_token) if s and len(s) >= _SHORTEST_SECRET]
    # As they are, and as the form of a token request spells them; its reader may write %2b for %2B.
    forms = [quote_plus(s) for s in secrets]
    lower = [re.sub("%..", lambda escape: escape[0].lower(), form) for form in forms]
    secrets = [*dict.fromkeys((*secrets, *forms, *lower))]
    for secret in secrets:
        content = content.replace(secret.encode(), b"***")
    if b"\\" not in content:
        return content
    # A writer of JSON may spell any character as an escape, so that a secret only shows in what is read of it.
    try:
        read = text = json.dumps(read_json(content), ensure_ascii=False)
    except ValueError:
        return content  # of which no words are taken
    for secret in secrets:
        text = text.replace(json.dumps(secret, ensure_ascii=False)[1:-1], "***")
    return content if text == read else text.encode()


def auth_of(
    settings: AmiliSettings, clock: Callable[[], float] = time.time, on_token: OnToken | None = None
) -> BearerAuth | ClientCredentialsAuth:
    """
    Return how requests are signed for this connection. Clients may share one, and so a token.

    :param settings: the connection.
    :param clock: seconds since the epoch.
    :param on_token: called with every new token before it is used.
    """
    if settings.access_token is not None:
        return BearerAuth(settings.access_token)
    if settings.auth_url is None or settings.client_id is None or settings.client_secret is None:
        raise ValueError(
            f"Connection {settings.conn_id!r} has neither {field_label('access_token')} nor {field_label('login')}, "
            f"{field_label('password')} and {field_label('auth_url')}."
        )
    return ClientCredentialsAuth(
        settings.auth_url,
        settings.client_id,
        settings.client_secret,
        scope=settings.scope,
        user_agent=USER_AGENT,
        field_names=field_label,
        clock=clock,
        on_token=on_token,
        timeout=min(TOKEN_TIMEOUT_SECONDS, settings.answer_timeout),
    )
