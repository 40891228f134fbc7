"""The client of triggers: it only asks, and never blocks the event loop."""

from __future__ import annotations

import asyncio
import functools
import ssl
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import httpx

from amili_provider.api import urls
from amili_provider.api.auth import BearerAuth, ClientCredentialsAuth, OnToken, auth_of, vocabulary_of, without_secrets
from amili_provider.api.errors import NoResponse, check_status, decided_by_code, translate_errors
from amili_provider.api.in_flight import InFlight
from amili_provider.api.responses import NOTHING_YET, Response, aread_response, file_result_in
from amili_provider.api.results import FileResult
from amili_provider.api.retry import Backoff
from amili_provider.api.transport import aset_location_aside, http_options, plain_headers, ssl_context
from amili_provider.connection.settings import AmiliSettings
from amili_provider.connection.values import checked_client_no
from amili_provider.exceptions import AmiliConnectionError


@functools.cache
def rehearse() -> None:
    """
    Import what the first request would import on the event loop, which takes 100 ms and more. Run this in a thread.

    httpx sends through anyio, which loads its half for asyncio when it first finds a loop of asyncio running.
    """
    import anyio.lowlevel  # noqa: PLC0415 - only the triggerer needs it before its first request
    import anyio.streams.tls  # noqa: PLC0415

    anyio.run(anyio.sleep, 0)


class AmiliAsyncClient:
    """
    Asks the API of Amili for results. An asynchronous context manager; :meth:`aclose` it otherwise.

    :param settings: the connection.
    :param verify: the TLS settings of :func:`~amili_provider.api.transport.ssl_context`, made in a thread: making them
        here would block the event loop.
    :param clock: seconds since the epoch.
    :param sleep: waits without blocking.
    :param transport: an asynchronous httpx transport, for tests.
    :param on_token: called with every new token before it is used; what it returns is awaited if it can be.
    :param attempts: how often a question is asked at most.
    :param auth: how requests are signed, from :func:`~amili_provider.api.auth.auth_of`, to share one token among many
        clients of one event loop; None makes one of this client's own, and *on_token* counts.
    :param keep_alive: how many connections are kept for the next question; those of 0 leave no socket open.
    """

    def __init__(
        self,
        settings: AmiliSettings,
        *,
        verify: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
        transport: Any = None,
        on_token: OnToken | None = None,
        attempts: int = 3,
        auth: BearerAuth | ClientCredentialsAuth | None = None,
        keep_alive: int = 4,
    ) -> None:
        self.settings = settings
        self.vocabulary = vocabulary_of(settings)
        self._clock = clock
        self._sleep = sleep
        self._attempts = attempts
        self._auth = auth_of(settings, clock, on_token) if auth is None else auth
        self._http = httpx.AsyncClient(
            **http_options(
                settings,
                httpx.AsyncHTTPTransport,
                # Shorter than any server keeps one, so that a question seldom meets a connection just closed.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=keep_alive, keepalive_expiry=5.0),
                verify=ssl_context(settings) if verify is None else verify,
                transport=transport,
            ),
            event_hooks={"response": [aset_location_aside]},
        )

    def __repr__(self) -> str:
        return f"AmiliAsyncClient({self.settings.base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close what is open."""
        await self._http.aclose()

    async def get(self, path: str, *, accepted: tuple[int, ...] = ()) -> Response:
        """
        Ask at a path below the base URL; tried again after failures that may pass.

        :param path: the path.
        :param accepted: statuses other than 2xx that are an answer.
        :raises AmiliConnectionError: no answer, but another attempt may help.
        :raises AmiliAuthenticationError: 401 after one renewal of the token, or 403.
        :raises AmiliRequestError: any other 3xx or 4xx.
        """
        url, backoff = urls.url_of(self.settings, path), Backoff(self._attempts)
        while True:
            try:
                return await self._once(url, accepted)
            except AmiliConnectionError as error:
                wait = backoff.next_wait(error.retry_after)
                if wait is None:
                    if backoff.tried > 1:
                        error.message += f" Tried {backoff.tried} times."
                    raise
            await self._sleep(wait)

    async def get_batch(self, client_no: str, batch_uuid: str) -> Response:
        """Ask for a batch: 200, 202 (still working) or 206 (partly done). Source: "GET one batch"."""
        return await self.get(urls.batch_path(checked_client_no(client_no, "client_no"), batch_uuid))

    async def get_file_result(self, client_no: str, file_id: str) -> FileResult | None:
        """
        Ask for the result of one file, at the path that the connection assumes.

        :returns: None if there is no result yet.
        """
        number = checked_client_no(client_no, "client_no")
        path = urls.result_path(self.settings, number, file_id)
        return file_result_in(await self.get(path, accepted=NOTHING_YET), file_id, self.vocabulary)

    async def _once(self, url: str, accepted: tuple[int, ...]) -> Response:
        what = f"GET {httpx.URL(url).path}"
        flight = InFlight(connect_seconds=self.settings.connect_timeout)
        request = self._http.build_request("GET", url, headers=urls.headers_for(), extensions={"trace": flight.atrace})
        bound = self.settings.connect_timeout + self.settings.answer_timeout
        try:
            with translate_errors(flight, self.settings):
                async with asyncio.timeout(bound):
                    response = await self._http.send(request, auth=self._auth, stream=True)
                    try:
                        answer = Response(response.status_code, plain_headers(response), b"")
                        content = await aread_response(
                            response, code_decides=decided_by_code(answer.status_code, upload=False)
                        )
                    finally:
                        await response.aclose()
        except NoResponse as failure:
            raise AmiliConnectionError(f"{what}: {failure}.") from None
        answer = Response(answer.status_code, answer.headers, without_secrets(content, response.request, self.settings))
        return check_status(answer, what, self.settings, self._clock(), writes=False, accepted=accepted)
