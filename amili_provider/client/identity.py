"""From settings to what both clients share: the vocabulary of answers and the proof of who we are."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx

from amili_provider.auth import TOKEN_TIMEOUT_SECONDS, BearerAuth, ClientCredentialsAuth, OnToken
from amili_provider.client.addressing import USER_AGENT
from amili_provider.connection_form import AmiliSettings, field_label
from amili_provider.models import Vocabulary

_SHORTEST_SECRET = 8
"""What is shorter may be a part of any word, so that taking it out would change what an answer says."""


def vocabulary_of(settings: AmiliSettings) -> Vocabulary:
    """Return which words mean accepted, refused or pending for this connection."""
    words = Vocabulary()
    return Vocabulary(
        accepted=words.accepted if settings.accepted_results is None else settings.accepted_results,
        refused=settings.refused_results or (),
        pending=words.pending if settings.pending_results is None else settings.pending_results,
    )


def without_secrets(content: bytes, request: httpx.Request, settings: AmiliSettings) -> bytes:
    """
    Return an answer's body without the token and the secret of its request.

    A server that tells what it was sent would have them in receipts, ledger and messages.
    """
    token = request.headers.get("authorization", "").rpartition(" ")[2]
    for secret in (token, settings.client_secret, settings.access_token):
        if secret is not None and len(secret) >= _SHORTEST_SECRET:
            content = content.replace(secret.encode(), b"***")
    return content


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
