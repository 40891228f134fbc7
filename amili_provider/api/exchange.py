"""How the blocking client sends: one connection per request, every one of them known and bounded."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import httpx

from amili_provider.api.auth import BearerAuth, ClientCredentialsAuth, without_secrets
from amili_provider.api.errors import decided_by_code, translate_errors
from amili_provider.api.in_flight import Body, InFlight
from amili_provider.api.responses import Response, ResponseUnusable, read_response
from amili_provider.api.retry import Backoff
from amili_provider.api.transport import http_options, plain_headers, set_location_aside, ssl_context
from amili_provider.connection.settings import AmiliSettings
from amili_provider.exceptions import AmiliConnectionError

T = TypeVar("T")


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

        :raises NoAnswer: if the token service does not answer.
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
        :raises NoAnswer: if there is none.
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
