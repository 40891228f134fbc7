"""
The token service: what is asked, and what its answers mean.

Source: "Example Workflow", token request of the client-credentials kind. Nothing of the answers gets into a message,
since they may repeat what was sent.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from amili_provider.api.responses import ResponseUnusable, atake_body, take_body
from amili_provider.api.results import read_json
from amili_provider.api.transport import asked_to_wait
from amili_provider.exceptions import (
    AmiliAuthenticationError,
    AmiliConnectionError,
    AmiliRequestError,
    AmiliResponseError,
)

TOKEN_TIMEOUT_SECONDS = 15.0
"""For each step of the token request, and for its whole answer."""
EARLY_SECONDS = 120.0
"""A token is renewed this long before it expires, or after four fifths of its life if that is later."""
UNKNOWN_LIFETIME_SECONDS = 300.0
_LARGEST_TOKEN_ANSWER = 64 * 1024
_GIVEN = (200, 201)
"""Statuses that come with a token."""


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


class TokenService:
    """
    Asks for tokens and reads them. It does no I/O: whoever runs the flow sends what :meth:`ask` returns.

    :param auth_url: base URL of the token service.
    :param client_id: as assigned by Amili.
    :param client_secret: as assigned by Amili.
    :param scope: sent if given.
    :param user_agent: of the client that runs the flow.
    :param field_names: how messages name the fields ``login``, ``password``, ``auth_url`` and ``scope``.
    :param clock: seconds since the epoch.
    :param timeout: seconds for each step of the token request, and for its whole answer.
    """

    def __init__(
        self,
        auth_url: str,
        client_id: str,
        client_secret: str,
        *,
        scope: str | None,
        user_agent: str,
        field_names: Callable[[str], str],
        clock: Callable[[], float],
        timeout: float,
    ) -> None:
        self.url = f"{auth_url.rstrip('/')}/token"
        self.timeout = timeout
        self._client_id = client_id
        self._client_secret = client_secret
        self._scope = scope
        self._user_agent = user_agent
        self._name = field_names
        self._clock = clock

    def __repr__(self) -> str:
        return f"TokenService({self.url!r}, {self._client_id!r}, ***)"

    def ask(self, request: httpx.Request) -> httpx.Request:
        """Return a request for a token, on behalf of *request*, and watched like it."""
        form = {
            "grant_type": "client_credentials",
            "client_id": self._client_id,
            "client_secret": self._client_secret,
        }
        if self._scope:
            form["scope"] = self._scope
        extensions: dict[str, Any] = {
            # Without this, httpx would give a request that comes from an auth flow no time-out at all.
            "timeout": dict.fromkeys(("connect", "read", "write", "pool"), self.timeout),
            "answer_seconds": self.timeout,
            "amili_token": True,
        }
        # The client watches this request too: what it reports, and whether it cut it off.
        extensions.update({k: request.extensions[k] for k in ("trace", "overdue") if k in request.extensions})
        headers = {
            "User-Agent": self._user_agent,
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
        return httpx.Request("POST", self.url, data=form, headers=headers, extensions=extensions)

    def read(self, response: httpx.Response, content: bytes) -> Token:
        """
        Return the token in an answer.

        :param response: the answer.
        :param content: its body, unpacked.
        :raises AmiliError: if there is none; the message names the field to check and repeats nothing of the answer.
        """
        self._check_status(response, content)
        try:
            answer = read_json(content)
        except ValueError:
            answer = None
        value = answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable() or " " in value:
            raise AmiliResponseError(
                f"The token service at {self.url} answered {response.status_code}, but not with a token. "
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

    def _check_status(self, response: httpx.Response, content: bytes) -> None:
        status = response.status_code
        if status in _GIVEN:
            return
        where = f"The token service at {self.url} answered {status}"
        client_id, secret, scope, url = (self._name(n) for n in ("login", "password", "scope", "auth_url"))
        if status in (429, 408) or status >= 500:  # noqa: PLR2004 - the server's own trouble
            raise AmiliConnectionError(
                f"{where}; no token, so nothing was sent. This may pass by itself.",
                retry_after=asked_to_wait(response.headers, self._clock()),
                status_code=status,
            )
        if status in (400, 401, 403):
            hint = f"check {client_id} and {secret}"
            code = _error_code(content)
            if code == "invalid_scope":
                hint = f"check {scope}"
            elif status == 403 or code == "unauthorized_client":  # noqa: PLR2004
                hint = f"ask Amili whether {client_id} is allowed to get tokens here, and check {url}"
            elif status == 400 and code != "invalid_client":  # noqa: PLR2004
                hint += f", then {scope} and {url}" if self._scope else f", then {url}"
            raise AmiliAuthenticationError(f"{where}: no token; {hint}.", status_code=status)
        raise AmiliRequestError(f"{where}, which no token service does; check {url}.", status_code=status)


def token_answer(response: httpx.Response, request: httpx.Request) -> bytes:
    """
    Read the token service's answer to *request*, within its bound.

    :raises AmiliResponseError: if it is too large, or packed in a way that was not asked for.
    :raises httpx.HTTPError: if it ends early.
    """
    with _in_our_words(response):
        content = take_body(response, _LARGEST_TOKEN_ANSWER, code_decides=response.status_code not in _GIVEN)
    overdue = request.extensions.get("overdue")
    if overdue is not None and overdue():
        # An answer without a length ends where the connection ends, also when the client ended it.
        raise httpx.ReadTimeout("", request=request)
    return content


async def atoken_answer(response: httpx.Response) -> bytes:
    """Read the token service's answer without blocking; see :func:`token_answer`."""
    with _in_our_words(response):
        return await atake_body(response, _LARGEST_TOKEN_ANSWER, code_decides=response.status_code not in _GIVEN)


@contextlib.contextmanager
def _in_our_words(response: httpx.Response) -> Iterator[None]:
    try:
        yield
    except ResponseUnusable as reason:
        raise AmiliResponseError(
            f"The token service answered {response.status_code}, but {reason}.", status_code=response.status_code
        ) from None


def _number(value: Any) -> float | None:
    """Return a number that may come as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _error_code(content: bytes) -> str:
    """Return the error code of RFC 6749 section 5.2, only to choose our own words by."""
    try:
        answer = read_json(content)
    except ValueError:
        return ""
    code = answer.get("error") if isinstance(answer, dict) else None
    return code if isinstance(code, str) else ""
