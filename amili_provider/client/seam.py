"""
The one seam where httpx's errors become ours.

httpx's own texts are left behind: they may repeat a header or what the other end sent.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

import httpx

from amili_provider.auth import is_token_request
from amili_provider.client import addressing
from amili_provider.client.connecting import proxy_setting
from amili_provider.client.in_flight import InFlight
from amili_provider.client.reading import AnswerUnusable
from amili_provider.connection_form import AmiliSettings, field_label
from amili_provider.models import one_line

_TRANSPORT_ERRORS = (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL)
"""What httpx raises while a request runs; anything else comes from the body and is none of our business."""
_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)
"""Errors after which not a byte of the request can have arrived."""


class NoAnswer(Exception):  # noqa: N818 - not an error yet: the caller knows whether a file was on its way
    """
    A request ended without a complete answer.

    :param words: what broke.
    :param never_sent: whether it is certain that the other end cannot have the whole request.
    """

    def __init__(self, words: str, *, never_sent: bool) -> None:
        super().__init__(words)
        self.never_sent = never_sent


@contextlib.contextmanager
def translated(flight: InFlight, settings: AmiliSettings) -> Iterator[None]:
    """
    Turn httpx's errors into :class:`NoAnswer`; let everything else through.

    :raises NoAnswer: if the request ended without a complete answer.
    """
    try:
        yield
    except AnswerUnusable as reason:
        raise NoAnswer(str(reason), never_sent=False) from None
    except TimeoutError:
        # The bound on a whole exchange of the client that does not block.
        flight.overdue = True
        raise NoAnswer(what_failed(None, flight, settings), never_sent=False) from None
    except _TRANSPORT_ERRORS as error:
        words = what_failed(error, flight, settings)
        request = request_of(error)
        for_token = request is not None and is_token_request(request)
        if for_token:
            words = f"no token, since {words}"
        raise NoAnswer(words, never_sent=for_token or isinstance(error, _NEVER_SENT)) from None


def what_failed(error: Exception | None, flight: InFlight, settings: AmiliSettings) -> str:
    """Return in words what broke, and what to look at."""
    request = request_of(error)
    target = request.url.host if request is not None else ""
    for_token = request is not None and is_token_request(request)
    peer = "{}:{}".format(*flight.peer) if flight.peer else target or settings.base_url
    if flight.overdue or isinstance(error, httpx.ReadTimeout):
        see = "" if for_token else f"; see {field_label('answer_timeout')}"
        return f"{peer} did not answer completely in time{see}"
    if isinstance(error, httpx.ProxyError):
        return (
            f"the proxy {peer} refused to pass the request on ({one_line(error, 60)}); check {proxy_setting(settings)}"
        )
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        look = f"{field_label('environment')}, {field_label('host')} and {field_label('port')}"
        if for_token:
            look = f"{field_label('environment')} and {field_label('auth_url')}"
        if request is not None and flight.peer not in (None, addressing.origin(request.url)[1:]):
            peer, look = f"the proxy {peer}", proxy_setting(settings)
        return _no_connection(error, peer, target, look, settings)
    if isinstance(error, httpx.WriteTimeout):
        return f"{peer} stopped taking data"
    return f"the connection to {peer} ended before a whole answer was there"


def _no_connection(error: Exception, where: str, target: str, look: str, settings: AmiliSettings) -> str:
    if isinstance(error, httpx.ConnectTimeout):
        return f"no connection to {where} within {settings.connect_timeout:g} s; check {look}"
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = one_line(cause.verify_message, 120)
            return f"the certificate of {target} is not trusted ({reason}); check {field_label('ca_file')}"
        for kind, words in _CAUSES.items():
            if isinstance(cause, kind):
                return f"{where} {words}; check {look}"
    return f"no connection to {where}; check {look}"


_CAUSES: dict[type[Exception], str] = {
    ssl.SSLError: "does not speak TLS as expected",
    socket.gaierror: "has a name that is not known here",
    ConnectionRefusedError: "refuses connections",
}


def request_of(error: Exception | None) -> httpx.Request | None:
    """Return the request that an error of httpx is about, if it says so."""
    try:
        return error.request if isinstance(error, httpx.HTTPError) else None
    except RuntimeError:
        return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
