"""Sending, and sending again: ``Exchange`` for the client of tasks; ``AmiliAsyncClient``, the client of triggers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from amili_provider.api.auth import BearerAuth, ClientCredentialsAuth, OnToken, auth_of, without_secrets
from amili_provider.api.errors import NoResponse, check_status, decided_by_code, translate_errors
from amili_provider.api.in_flight import Body, InFlight
from amili_provider.api.responses import (
    NOTHING_YET,
    Asked,
    Response,
    ResponseUnusable,
    aread_response,
    asked_about,
    read_response,
)
from amili_provider.api.results import FileResult, vocabulary_of
from amili_provider.api.transport import (
    Backoff,
    aset_location_aside,
    batch_path,
    headers_for,
    http_options,
    plain_headers,
    result_path,
    set_location_aside,
    ssl_context,
    url_of,
)
from amili_provider.connection.settings import AmiliSettings
from amili_provider.connection.values import checked_client_no
from amili_provider.exceptions import AmiliConnectionError

T = TypeVar("T")
LARGE_BYTES = 32 * 1024
"""An answer that takes longer to read than an event loop may be held up."""


class Exchange:
    """
    Sends requests, tries again, and can be told to stop. Safe to use from many threads at once.

    :param settings: the connection.
    :param auth: signs the requests.
    :param sleep: waits; None waits so that :meth:`abort` ends it.
    :param transport: an httpx transport, for tests.
    :param attempts: how often a request is tried at most.
    """

    def __init__(
        self,
        settings: AmiliSettings,
        auth: BearerAuth | ClientCredentialsAuth,
        *,
        sleep: Callable[[float], object] | None,
        transport: Any,
        attempts: int,
    ) -> None:
        self.auth = auth
        self._settings = settings
        self._stopped = threading.Event()
        self._sleep = sleep or self._stopped.wait
        self._attempts = attempts
        self._flights: set[InFlight] = set()
        self._flights_lock = threading.Lock()
        self._http = httpx.Client(
            **http_options(
                settings,
                httpx.HTTPTransport,
                # A kept connection that the other end closes in this moment is the commonest answer that never comes.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
                verify=ssl_context(settings),
                transport=transport,
            ),
            event_hooks={"response": [set_location_aside]},
        )

    def close(self) -> None:
        """Close what is open."""
        self._http.close()

    def abort(self) -> None:
        """End all requests in flight; later ones are not begun."""
        self._stopped.set()
        with self._flights_lock:
            for flight in self._flights:
                flight.cut()

    def persist(self, once: Callable[[], T]) -> T:
        """Try until it succeeds, fails for good, or patience ends."""
        backoff = Backoff(self._attempts)
        while True:
            if self._stopped.is_set():
                raise AmiliConnectionError("The client was told to stop; nothing was sent.")
            try:
                return once()
            except AmiliConnectionError as error:
                wait = None if self._stopped.is_set() else backoff.next_wait(error.retry_after)
                if wait is None:
                    if backoff.tried > 1:
                        error.message += f" Tried {backoff.tried} times."
                    raise
            self._sleep(wait)

    def sign_in(self, auth: ClientCredentialsAuth) -> None:
        """
        Run the part of the auth flow that gets a token, without a request of its own.

        :raises NoResponse: if the token service does not answer.
        """
        flight = self.flight()
        request = self._http.build_request("GET", self._settings.base_url, extensions=self._extensions(flight))
        with self._on_its_way(flight), contextlib.closing(auth.sync_auth_flow(request)) as flow:
            step = next(flow)
            while step is not request:
                with contextlib.closing(self._http.send(step, auth=None, stream=True)) as response:
                    step = flow.send(response)

    def flight(self, body: Body | None = None) -> InFlight:
        """Return what will know of one request while it runs."""
        return InFlight(body, connect_seconds=self._settings.connect_timeout)

    def _extensions(self, flight: InFlight) -> dict[str, Any]:
        return {
            "trace": flight.trace,
            "overdue": lambda: flight.overdue,
            "answer_seconds": self._settings.answer_timeout,
        }

    def exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        flight: InFlight | None = None,
        *,
        content: Any = None,
        params: Mapping[str, Any] | None = None,
        takes: Callable[[bytes], bool] | None = None,
    ) -> Response:
        """
        Send one request, with a token, and read its whole answer.

        :param takes: whether the body of a 401 could mean that something was taken: then nothing is sent again.
        :raises NoResponse: if there is none.
        """
        flight = flight or self.flight()
        request = self._http.build_request(
            method, url, params=params, content=content, headers=headers, extensions=self._extensions(flight)
        )
        request.extensions["takes"] = takes
        with self._on_its_way(flight), contextlib.ExitStack() as afterwards:
            # httpx's answer holds the request, and what is in these the body.
            afterwards.callback(request.extensions.clear)
            r = afterwards.enter_context(contextlib.closing(self._http.send(request, auth=self.auth, stream=True)))
            answer = Response(r.status_code, plain_headers(r), b"")
            code_decides = decided_by_code(r.status_code, upload=isinstance(content, InFlight))
            content = read_response(r, code_decides=code_decides)
            if flight.overdue and not code_decides:
                # An answer without a length ends where the connection ends: here we ended it ourselves.
                raise ResponseUnusable("the answer did not end in time")
            return Response(answer.status_code, answer.headers, without_secrets(content, r.request, self._settings))

    @contextlib.contextmanager
    def _on_its_way(self, flight: InFlight) -> Iterator[None]:
        """Keep *flight* where :meth:`abort` finds it, and let none of httpx's errors out."""
        with self._flights_lock:
            self._flights.add(flight)
            if self._stopped.is_set():
                flight.cut()
        try:
            with translate_errors(flight, self._settings):
                yield
        finally:
            flight.done()
            with self._flights_lock:
                self._flights.discard(flight)


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
        url, backoff = url_of(self.settings, path), Backoff(self._attempts)
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
        return await self.get(batch_path(checked_client_no(client_no, "client_no"), batch_uuid))

    async def get_file_result(self, client_no: str, file_id: str) -> FileResult | None:
        """
        Ask for the result of one file, at the path that the connection assumes.

        :returns: None if there is no result yet.
        """
        return (await self.ask_for_result(client_no, file_id)).result

    async def ask_for_result(self, client_no: str, file_id: str) -> Asked:
        """Ask as :meth:`get_file_result` does, and tell why there is no result yet."""
        number = checked_client_no(client_no, "client_no")
        path = result_path(self.settings, number, file_id)
        answer = await self.get(path, accepted=NOTHING_YET)
        return await self.apart(answer.content, lambda: asked_about(answer, file_id, self.vocabulary))

    async def apart(self, content: bytes, work: Callable[[], T]) -> T:
        """Do *work* on an answer here, or in a thread if it is so large that all others would wait."""
        return await asyncio.to_thread(work) if len(content) > LARGE_BYTES else work()

    async def _once(self, url: str, accepted: tuple[int, ...]) -> Response:
        what = f"GET {httpx.URL(url).path}"
        flight = InFlight(connect_seconds=self.settings.connect_timeout)
        request = self._http.build_request("GET", url, headers=headers_for(), extensions={"trace": flight.atrace})
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

        def judged() -> Response:
            body = without_secrets(content, response.request, self.settings)
            whole = Response(answer.status_code, answer.headers, body)
            return check_status(whole, what, self.settings, self._clock(), writes=False, accepted=accepted)

        return await self.apart(content, judged)
