"""The client of tasks: blocking, safe to use from many threads at once."""

from __future__ import annotations

import json as json_module
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from amili_provider.api.auth import ClientCredentialsAuth, OnToken, auth_of
from amili_provider.api.errors import NoResponse, check_status, check_upload
from amili_provider.api.exchange import Exchange
from amili_provider.api.in_flight import Body
from amili_provider.api.responses import NOTHING_YET, Asked, Response, UploadReply, asked_about
from amili_provider.api.results import FileResult, vocabulary_of
from amili_provider.api.transport import batch_path, files_path, headers_for, next_page, result_path, url_of
from amili_provider.api.upload import takes_something
from amili_provider.connection.settings import AmiliSettings
from amili_provider.connection.values import as_count, checked_client_no
from amili_provider.exceptions import AmiliConnectionError, AmiliOutcomeUnknown, AmiliResponseError

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
MOST_PAGES = 10_000
"""Of one list. Amili's own lists end after 10,000 entries (page "Get a list of customers")."""


class AmiliClient:
    """
    Talks to the API of Amili. A context manager; :meth:`close` it otherwise.

    Every request has a connection of its own: a kept one that the other end closes in the same moment is the
    commonest cause of an answer that never comes.

    :param settings: the connection.
    :param clock: seconds since the epoch.
    :param sleep: waits; None waits so that :meth:`abort` ends it.
    :param transport: an httpx transport, for tests.
    :param on_token: called with every new token before it is used, in the thread that got it.
    :param attempts: how often a request is tried at most where nothing was accepted.
    """

    def __init__(
        self,
        settings: AmiliSettings,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] | None = None,
        transport: Any = None,
        on_token: OnToken | None = None,
        attempts: int = 3,
    ) -> None:
        self.settings = settings
        self.vocabulary = vocabulary_of(settings)
        self._clock = clock
        self._exchange = Exchange(
            settings, auth_of(settings, clock, on_token), sleep=sleep, transport=transport, attempts=attempts
        )

    def __repr__(self) -> str:
        return f"AmiliClient({self.settings.base_url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open."""
        self._exchange.close()

    def abort(self) -> None:
        """End all requests in flight, from another thread; later ones are not begun."""
        self._exchange.abort()

    # What the API can do.

    def post_files(self, client_no: str, body: Body) -> UploadReply:
        """
        Upload files: ``POST /clients/{clientno}/files``.

        Tried again, from the start of the body, only where nothing can have been accepted. What the body raises
        while it is read ends the request and comes out unchanged.

        :param client_no: the client number.
        :param body: what to send; it says whether its last bytes were released.
        :returns: an answer about the files (200, 201, 207, or a 4xx that accepts some by name), or a refusal of all.
        :raises AmiliConnectionError: nothing was accepted, and another attempt may help.
        :raises AmiliAuthenticationError: 401 after one renewal of the token, or 403 in Amili's words.
        :raises AmiliRequestError: 404 in Amili's words, or a redirect before all was sent.
        :raises AmiliOutcomeUnknown: all was sent, but no complete answer came, or one that does not tell what was
            taken: a redirect, 202, 204, 408, 409, 5xx.
        """
        path = files_path(checked_client_no(client_no, "client_no"))
        url, what = url_of(self.settings, path), f"POST {path}"
        headers = headers_for({"Content-Type": "application/json"})
        headers["Content-Length"] = str(body.content_length)

        def once() -> UploadReply:
            flight = self._exchange.flight(body)

            def takes(content: bytes) -> bool:
                return flight.released and takes_something(content, self.vocabulary, body.named)

            try:
                answer = self._exchange.exchange("POST", url, headers, flight, content=flight, takes=takes)
            except NoResponse as failure:
                if flight.released and not failure.never_sent:
                    raise AmiliOutcomeUnknown(
                        f"{what}: everything was sent, but {failure}. Amili may have accepted the files."
                    ) from None
                raise AmiliConnectionError(f"{what}: {failure}. Nothing was accepted.") from None
            now, released = self._clock(), flight.released
            return check_upload(answer, what, self.settings, self.vocabulary, now, released=released, named=body.named)

        return self._exchange.persist(once)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """
        Call any other endpoint.

        Reading (GET, HEAD, OPTIONS) is tried again after failures that may pass; writing only where nothing can
        have been accepted.

        :param method: the HTTP method.
        :param path: the path below the base URL, for example ``/clients/2218/customers``.
        :param params: query parameters.
        :param json: sent as the JSON body.
        :param headers: more headers, for example ``Accept-Language``.
        :returns: an answer with status 2xx.
        :raises AmiliConnectionError: nothing was accepted, and another attempt may help.
        :raises AmiliAuthenticationError: 401 after one renewal of the token, or 403.
        :raises AmiliRequestError: any other 4xx, or reading met a redirect.
        :raises AmiliOutcomeUnknown: something was written, but no complete answer came, or a redirect or a 5xx.
        """
        url = url_of(self.settings, path)
        return self._call(method.upper(), url, params=params, json=json, headers=headers)

    def paginate(
        self, path: str, *, params: Mapping[str, Any] | None = None, max_pages: int = MOST_PAGES
    ) -> Iterator[dict[str, Any]]:
        """
        Read a list page by page, following ``summary.nextPage`` on the same scheme, host and port only.

        Source: "Get a list of customers".

        :param path: the path of the list.
        :param params: query parameters of the first page; later ones come from Amili.
        :param max_pages: pages that are read at most.
        :returns: the pages, as Amili sends them.
        :raises AmiliResponseError: if a page is not a JSON object, leads elsewhere, or leads back, or if the last page
            that may be read names another one.
        """
        max_pages = as_count(max_pages, "max_pages")
        first = url_of(self.settings, path)
        # It may be named again, with its parameters.
        seen = {str(httpx.URL(first, params=params))} if params else set()
        url: str | None = first
        while url is not None:
            seen.add(url)
            page = self._call("GET", url, params=params).json()
            params = None
            if not isinstance(page, dict):
                raise AmiliResponseError(f"GET {path}: the answer is JSON, but not an object with a page in it.")
            yield page
            url = next_page(self.settings, url, page)
            if url in seen:
                raise AmiliResponseError(f"GET {path}: summary.nextPage leads back to a page that was read already.")
            max_pages -= 1
            if url is not None and not max_pages:
                raise AmiliResponseError(
                    f"GET {path}: the last of the pages that may be read names another one. If the list is that long, "
                    "raise max_pages."
                )

    def get_batch(self, client_no: str, batch_uuid: str) -> Response:
        """Ask for a batch: 200, 202 (still working) or 206 (partly done). Source: "GET one batch"."""
        return self.request("GET", batch_path(checked_client_no(client_no, "client_no"), batch_uuid))

    def get_file_result(self, client_no: str, file_id: str) -> FileResult | None:
        """
        Ask for the result of one file, at the path that the connection assumes.

        :returns: None if there is no result yet.
        """
        return self.ask_for_result(client_no, file_id).result

    def ask_for_result(self, client_no: str, file_id: str) -> Asked:
        """Ask as :meth:`get_file_result` does, and tell "not yet" from "there is no such file"."""
        number = checked_client_no(client_no, "client_no")
        url = url_of(self.settings, result_path(self.settings, number, file_id))
        return asked_about(self._call("GET", url, accepted=NOTHING_YET), file_id, self.vocabulary)

    def sign_in(self) -> float | None:
        """
        Get a token now if none is held, so that wrong credentials show before anything is read.

        :returns: for how many seconds it is valid; None with a ready-made token.
        """
        auth = self._exchange.auth
        if not isinstance(auth, ClientCredentialsAuth):
            return None

        def once() -> None:
            try:
                self._exchange.sign_in(auth)
            except NoResponse as failure:
                raise AmiliConnectionError(f"Signing in: {failure}.") from None

        self._exchange.persist(once)
        return auth.seconds_left

    # How it is done.

    def _call(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        accepted: tuple[int, ...] = (),
    ) -> Response:
        writes, what = method not in _READING, f"{method} {httpx.URL(url).path}"
        sent_headers = headers_for(headers)
        content = None
        if json is not None:
            content = json_module.dumps(json).encode()
            sent_headers["Content-Type"] = "application/json"

        def once() -> Response:
            try:
                answer = self._exchange.exchange(method, url, sent_headers, content=content, params=params)
            except NoResponse as failure:
                if writes and not failure.never_sent:
                    raise AmiliOutcomeUnknown(f"{what}: {failure}. Amili may have carried it out.") from None
                raise AmiliConnectionError(f"{what}: {failure}.") from None
            return check_status(answer, what, self.settings, self._clock(), writes=writes, accepted=accepted)

        return self._exchange.persist(once)
