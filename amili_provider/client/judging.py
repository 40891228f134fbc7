"""What a status means for us: an answer to hand on, an error that may pass, or a refusal. Design: errors by class."""
# ruff: noqa: PLR2004 - status codes are their own names

from __future__ import annotations

import httpx

from amili_provider.client.answers import Answer, UploadReply
from amili_provider.connection_form import AmiliSettings, field_label
from amili_provider.exceptions import (
    AmiliAuthenticationError,
    AmiliConnectionError,
    AmiliError,
    AmiliOutcomeUnknown,
    AmiliRequestError,
)
from amili_provider.models import one_line, read_message
from amili_provider.waiting import asked_to_wait


def decided_by_code(answer: Answer) -> bool:
    """Return whether the status alone says that nothing was accepted, whatever the body says or lacks."""
    return answer.status_code in (401, 403, 404, 429) or _redirects(answer) or _unavailable_for_a_while(answer)


def judged(
    answer: Answer,
    what: str,
    settings: AmiliSettings,
    now: float,
    *,
    writes: bool,
    accepted: tuple[int, ...] = (),
) -> Answer:
    """
    Return *answer* if it is a success.

    :param writes: whether the request may have changed something.
    :param accepted: statuses other than 2xx that are an answer.
    :raises AmiliError: if it is not.
    """
    status = answer.status_code
    if 200 <= status < 300 or status in accepted:
        return answer
    if status == 429 or _unavailable_for_a_while(answer):
        raise _come_back(answer, what, now)
    if status >= 500 or status == 408:
        if not writes:
            raise _come_back(answer, what, now)
        raise AmiliOutcomeUnknown(f"{what}: Amili answered {status}; it may have carried it out nevertheless.")
    raise _refusal(answer, what, settings)


def judged_upload(answer: Answer, what: str, settings: AmiliSettings, now: float, *, released: bool) -> UploadReply:
    """
    Return an answer to an upload that only its content can explain.

    :param released: whether Amili had the whole request when it answered.
    :raises AmiliError: if the code alone decides.
    """
    status = answer.status_code
    if status in (401, 403, 404) or _redirects(answer):
        raise _refusal(answer, what, settings)
    if status == 429 or _unavailable_for_a_while(answer):
        raise _come_back(answer, what, now)
    if not released:
        if status >= 500 or status == 408:
            raise _come_back(answer, what, now)
        if status < 300:
            raise AmiliConnectionError(
                f"{what}: an answer {status} came before everything was sent; nothing can have been accepted.",
                status_code=status,
            )
    elif status == 408:
        raise AmiliOutcomeUnknown(f"{what}: everything was sent, but the answer is 408, a time-out on Amili's side.")
    return UploadReply(status, answer.content)


def _redirects(answer: Answer) -> bool:
    return 300 <= answer.status_code < 400


def _unavailable_for_a_while(answer: Answer) -> bool:
    # A 503 that says when to come back was answered by something that did not take the request.
    return answer.status_code == 503 and asked_to_wait(answer.headers, 0.0) is not None


def _come_back(answer: Answer, what: str, now: float) -> AmiliConnectionError:
    """Return the error for an answer after which nothing was accepted and another attempt may help."""
    return AmiliConnectionError(
        f"{what}: Amili answered {answer.status_code}, {read_message(answer.content)}. Nothing was accepted; this may "
        "pass by itself.",
        retry_after=asked_to_wait(answer.headers, now),
        status_code=answer.status_code,
    )


def _refusal(answer: Answer, what: str, settings: AmiliSettings) -> AmiliError:
    """Return the error for an answer that refuses the whole request."""
    status, said = answer.status_code, read_message(answer.content)
    came = f"{what}: Amili answered {status}, {said}."
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
            f"{came} Check the file type and the client number, or ask Amili to allow them for {field_label('login')}: "
            "access to upload is configured per client and file type.",
            status_code=status,
        )
    if 300 <= status < 400:
        to = answer.headers.get("location", "")
        host = one_line(httpx.URL(to).host, 80) if _is_url(to) else ""
        return AmiliRequestError(
            f"{came} It redirects{f' to {host}' if host else ''}, which is not followed: the token would go along. "
            f"Check {field_label('host')} and {field_label('schema')}.",
            status_code=status,
            answer=said,
        )
    remedy = (
        f" Check the client number, {field_label('environment')} and {field_label('schema')}." if status == 404 else ""
    )
    return AmiliRequestError(came + remedy, status_code=status, answer=said)


def _is_url(text: str) -> bool:
    try:
        httpx.URL(text)
    except (httpx.InvalidURL, TypeError, ValueError):
        return False
    return True
