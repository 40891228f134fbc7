"""From a connection's id to a client, without blocking the event loop that all triggers share."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
from airflow.providers.common.compat.sdk import mask_secret

from amili_provider.connection.settings import AmiliSettings, settings_from
from amili_provider.connection.values import as_words, checked_result_path
from amili_provider.hooks.amili import missing_connection, short_extras

if TYPE_CHECKING:
    from amili_provider.api.exchange import AmiliAsyncClient
    from amili_provider.triggers.amili import AmiliTrigger


LONGEST_ANSWER_SECONDS = 60.0
"""For the answer to one question: ``answer_timeout`` is made for uploads, which take longer."""
MOST_IN_FLIGHT = 8
"""Requests of one wait at the same time."""

_auths: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakValueDictionary[tuple[Any, ...], Any]] = WeakKeyDictionary()
"""Who we are, per event loop and credentials: a thousand waits of one connection share one token."""


def overridden(settings: AmiliSettings, trigger: AmiliTrigger) -> AmiliSettings:
    """
    Return *settings* with what a sensor says instead of the connection; its refused words come beside the connection's.

    :raises ValueError: naming the argument that is wrong.
    """
    changed: dict[str, Any] = {
        name: as_words(value, name)
        for name in ("accepted_results", "refused_results", "pending_results")
        if (value := getattr(trigger, name)) is not None
    }
    if trigger.result_path is not None:
        changed["result_path"] = checked_result_path(trigger.result_path, "result_path")
    if "refused_results" in changed:
        changed["refused_results"] += settings.refused_results or ()
    return dataclasses.replace(settings, **changed) if changed else settings


def for_questions(settings: AmiliSettings) -> AmiliSettings:
    """Return *settings* with the time-out of a question."""
    bound = min(settings.answer_timeout, LONGEST_ANSWER_SECONDS)
    return dataclasses.replace(settings, answer_timeout=bound)


async def asettings(conn_id: str) -> AmiliSettings:
    """
    Return the settings of a connection, fetched without blocking.

    :raises ValueError: if the connection is wrong or incomplete.
    :raises AmiliArgumentError: if there is no such connection.
    """
    try:
        with short_extras():
            connection = await get_async_connection(conn_id)
            extra = await get_async_extra_dejson(connection)
    except Exception as error:
        if (missing := missing_connection(error, conn_id)) is not None:
            raise missing from None
        raise
    settings = settings_from(
        conn_id,
        login=connection.login,
        password=connection.password,
        host=connection.host,
        port=connection.port,
        schema=connection.schema,
        extra=extra,
    )
    for password in settings.proxy_passwords:
        await amask(password)
    return settings


async def amask(secret: str) -> None:
    """Have a token masked in logs; telling the supervisor may take a while, so not on the event loop."""
    await asyncio.to_thread(mask_secret, secret)


@asynccontextmanager
async def aclient(settings: AmiliSettings, questions: int) -> AsyncIterator[AmiliAsyncClient]:
    """
    Give a client that asks each question once, and close it in every ending.

    :param settings: the connection.
    :param questions: how many there are per poll.
    :raises AmiliArgumentError: if the environment names a proxy that cannot be used.
    """
    tls = await asyncio.to_thread(_made_ready, settings)
    from amili_provider.api import exchange  # imported in the thread above

    opened = exchange.AmiliAsyncClient(
        for_questions(settings),
        verify=tls,
        auth=_shared_auth(settings),
        attempts=1,
        # A few questions leave no connection open until the next poll; many of them share a few.
        keep_alive=0 if questions <= MOST_IN_FLIGHT else MOST_IN_FLIGHT,
    )
    try:
        yield opened
    finally:
        await opened.aclose()


def _made_ready(settings: AmiliSettings) -> Any:
    """
    Import the client, and return the TLS settings. To be run in a thread, since each part may take long.

    The first import of the HTTP library takes up to 200 ms; its first request on an event loop would import another
    100 ms of its own library for events, which a rehearsal here brings forward; reading certificates takes 20 ms.
    """
    from amili_provider.api import exchange, transport

    exchange.rehearse()
    return transport.ssl_context(settings)


def _shared_auth(settings: AmiliSettings) -> Any:
    auths = _auths.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
    identity = (
        settings.auth_url,
        settings.client_id,
        settings.client_secret,
        settings.access_token,
        settings.scope,
        settings.verify,
        settings.ca_file,
        settings.proxy,
    )
    auth = auths.get(identity)
    if auth is None:
        from amili_provider.api.auth import auth_of

        auth = auths[identity] = auth_of(settings, on_token=amask)
    return auth
