"""Every way in which a call to Amili can fail, as one of our errors."""

# ruff: noqa: PLR2004 - status codes are their own names

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Collection, Iterator

import httpx

from amili_provider.api.in_flight import InFlight
from amili_provider.api.responses import RefusedBy, Response, ResponseUnusable, UploadReply
from amili_provider.api.results import Vocabulary, read_message
from amili_provider.api.tokens import is_token_request
from amili_provider.api.transport import asked_to_wait, origin, proxy_setting
from amili_provider.api.upload import takes_something
from amili_provider.connection.fields import label as field_label
from amili_provider.connection.settings import AmiliSettings
from amili_provider.exceptions import (
    AmiliAuthenticationError,
    AmiliConnectionError,
    AmiliError,
    AmiliOutcomeUnknown,
    AmiliRequestError,
)
from amili_provider.receipts import one_line

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


class NoResponse(Exception):  # noqa: N818 - not an error yet: the caller knows whether a file was on its way
    """
    A request ended without a complete answer.

    :param words: what broke.
    :param never_sent: whether it is certain that the other end cannot have the whole request.
    """

    def __init__(self, words: str, *, never_sent: bool) -> None:
        super().__init__(words)
        self.never_sent = never_sent


@contextlib.contextmanager
def translate_errors(flight: InFlight, settings: AmiliSettings) -> Iterator[None]:
    """
    Turn httpx's errors into :class:`NoResponse`; let everything else through.

    :raises NoResponse: if the request ended without a complete answer.
    """
    try:
        yield
    except ResponseUnusable as reason:
        raise NoResponse(str(reason), never_sent=False) from None
    except TimeoutError:
        # The bound on a whole exchange of the client that does not block.
        flight.overdue = True
        raise NoResponse(what_failed(None, flight, settings), never_sent=False) from None
    except _TRANSPORT_ERRORS as error:
        words = what_failed(error, flight, settings)
        request = request_of(error)
        for_token = request is not None and is_token_request(request)
        if for_token:
            words = f"no token, since {words}"
        raise NoResponse(words, never_sent=for_token or isinstance(error, _NEVER_SENT)) from None


def what_failed(error: Exception | None, flight: InFlight, settings: AmiliSettings) -> str:
    """Return in words what broke, and what to look at."""
    request = request_of(error)
    target = request.url.host if request is not None else ""
    for_token = request is not None and is_token_request(request)
    peer = "{}:{}".format(*flight.peer) if flight.peer else target or settings.base_url
    if flight.overdue or isinstance(error, httpx.ReadTimeout):
        see = f"check {field_label('environment')}, {field_label('host')} and {field_label('auth_url')}"
        see = see if for_token else f"see {field_label('answer_timeout')}"
        return f"{peer} did not answer completely in time; {see}"
    if isinstance(error, httpx.ProxyError):
        return (
            f"the proxy {peer} refused to pass the request on ({one_line(error, 60)}); check {proxy_setting(settings)}"
        )
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        look = f"{field_label('environment')}, {field_label('host')} and {field_label('port')}"
        if for_token:
            look = f"{field_label('environment')}, {field_label('host')} and {field_label('auth_url')}"
        if request is not None and flight.peer not in (None, origin(request.url)[1:]):
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


RESULTS = (200, 201, 207)
"""Statuses whose body says what became of each file (200 and 207 are documented, 201 is in the example's label)."""
UNDECIDED = (408, 409)
"""Of 4xx, those that do not say that nothing was taken: Amili gave up waiting, or has something like it already."""


def decided_by_code(status: int, *, upload: bool) -> bool:
    """
    Return whether the body of an answer is only wanted for its message, so that one that cannot be read is no matter.

    :param status: the HTTP status.
    :param upload: whether files were sent: then a 4xx can still accept some of them by name.
    """
    if upload and 400 <= status < 500:
        return status in (401, 429, *UNDECIDED)
    return not 200 <= status < 300


def check_status(
    answer: Response,
    what: str,
    settings: AmiliSettings,
    now: float,
    *,
    writes: bool,
    accepted: tuple[int, ...] = (),
) -> Response:
    """
    Return *answer* if it is a success.

    :param writes: whether the request may have changed something.
    :param accepted: statuses other than 2xx that are an answer.
    :raises AmiliError: if it is not.
    """
    status = answer.status_code
    if 200 <= status < 300 or status in accepted:
        return answer
    transient = status >= 500 or status in (408, 429)
    if status in settings.not_taken_statuses if writes else transient:
        raise _come_back(answer, what, now, taken="Nothing was accepted; " if writes else "")
    if writes and (transient or 300 <= status < 400):
        raise AmiliOutcomeUnknown(f"{_came(answer, what)} It may have been carried out nevertheless.")
    raise _refusal(answer, what, settings)


def check_upload(
    answer: Response,
    what: str,
    settings: AmiliSettings,
    vocabulary: Vocabulary,
    now: float,
    *,
    released: bool,
    named: Collection[str] = (),
) -> UploadReply:
    """
    Return an answer to an upload that is about its files: results, or a refusal of the request.

    :param vocabulary: which words mean what.
    :param released: whether Amili had the whole request when it answered.
    :param named: the ids and the names of the request's files.
    :raises AmiliConnectionError: nothing was taken, and another attempt may help.
    :raises AmiliAuthenticationError: 401, or 403 in Amili's words.
    :raises AmiliRequestError: 404 in Amili's words, or a redirect before everything was sent.
    :raises AmiliOutcomeUnknown: nobody can tell from the answer what was taken.
    """
    status = answer.status_code
    if released and status in RESULTS:
        return UploadReply(status, answer.content)
    in_amilis_words = answer.in_amilis_words
    takes = takes_something(answer.content, vocabulary, named)
    if status == 401 and not (released and takes):
        raise _refusal(answer, what, settings)
    refuses = 400 <= status < 500 and status not in UNDECIDED
    if not released:
        if 300 <= status < 400:
            raise _refusal(answer, what, settings)
        if not refuses or takes or status in (429, *settings.not_taken_statuses):
            raise _come_back(answer, what, now, early=True)
    elif refuses and takes:
        return UploadReply(status, answer.content)
    elif status in settings.not_taken_statuses and not takes:
        raise _come_back(answer, what, now)
    elif not refuses or status == 429:
        who = _who(answer)
        raise AmiliOutcomeUnknown(
            f"{who[0].upper()}{who[1:]} answered {status}: {read_message(answer.content)}.{_redirect(answer)} "
            "Everything was sent, so Amili may have the files."
        )
    if not in_amilis_words:
        return UploadReply(status, answer.content, RefusedBy.GATEWAY, _refused_by_gateway(answer))
    if status in (403, 404):
        raise _refusal(answer, what, settings)
    said = read_message(answer.content)
    return UploadReply(status, answer.content, RefusedBy.AMILI, f"Amili answered {status}: {said}", said)


def _came(answer: Response, what: str) -> str:
    return f"{what}: {_who(answer)} answered {answer.status_code}, {read_message(answer.content)}."


def _who(answer: Response) -> str:
    """Return who answered: a gateway is not Amili, and people must know whom to ask."""
    if answer.in_amilis_words:
        return "Amili"
    if answer.status_code in (502, 504):
        return "a gateway or proxy before Amili"
    if 400 <= answer.status_code < 500:
        return f"{RefusedBy.GATEWAY} (a gateway, firewall or proxy)"
    return "Amili, or what stands before it,"


def _refused_by_gateway(answer: Response) -> str:
    status = answer.status_code
    why = {
        404: f"no such address; check {field_label('schema')}",
        407: f"it wants a login; check {field_label('proxy')}",
        413: "the request is too large for it; have its limit raised",
    }.get(status, "ask those who run it")
    said = read_message(answer.content)
    return f"Refused by {RefusedBy.GATEWAY} (a gateway, firewall or proxy): {status}, {why}; {said}."


def _come_back(
    answer: Response, what: str, now: float, *, early: bool = False, taken: str = "Nothing was accepted; "
) -> AmiliConnectionError:
    """Return the error for an answer after which nothing was taken and another attempt may help."""
    when = "This came before everything was sent. " if early else ""
    advice = f"{taken}this may pass by itself."
    return AmiliConnectionError(
        f"{_came(answer, what)} {when}{advice[0].upper()}{advice[1:]}",
        retry_after=asked_to_wait(answer.headers, now),
        status_code=answer.status_code,
    )


def _refusal(answer: Response, what: str, settings: AmiliSettings) -> AmiliError:
    """Return the error for an answer that refuses the whole request."""
    status, came = answer.status_code, _came(answer, what)
    said = read_message(answer.content) if answer.in_amilis_words else ""
    if status == 401:
        if settings.access_token is not None:
            return AmiliAuthenticationError(
                f"{came} Check {field_label('access_token')}: it may have expired.", status_code=status
            )
        return AmiliAuthenticationError(
            f"{came} This was with a fresh token. Check that {field_label('login')} belongs to this environment.",
            status_code=status,
        )
    if status == 403:
        return AmiliAuthenticationError(
            f"{came} Check the file type and the client number, or ask Amili to allow them for the id in "
            f"{field_label('login')}: access to upload is configured per client and file type.",
            status_code=status,
        )
    remedy = _redirect(answer)
    if status == 404:
        remedy = f" Check the client number, {field_label('environment')} and {field_label('schema')}."
    return AmiliRequestError(came + remedy, status_code=status, answer=said)


def _redirect(answer: Response) -> str:
    """Return what to say of a redirect; empty if it is none."""
    if not 300 <= answer.status_code < 400:
        return ""
    to = answer.headers.get("location", "")
    host = one_line(httpx.URL(to).host, 80) if _is_url(to) else ""
    return (
        f" It redirects{f' to {host}' if host else ''}, which is not followed: the token would go along. "
        f"Check {field_label('host')} and {field_label('schema')}."
    )


def _is_url(text: str) -> bool:
    try:
        httpx.URL(text)
    except (httpx.InvalidURL, TypeError, ValueError):
        return False
    return True
