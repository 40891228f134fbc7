"""The token service, and what can be asked of the API besides uploading."""

from __future__ import annotations

import math
import secrets
from urllib.parse import parse_qsl

from amili_provider.sandbox.exchange import Answer, Exchange
from amili_provider.sandbox.records import Upload, as_utc
from amili_provider.sandbox.results import CREATED, FAILED, NO_BATCH, NO_SUCH_BATCH, UNKNOWN, Step
from amili_provider.sandbox.uploading import shown_client_no

_LONGEST_FORM = 64 * 1024
_DEFAULT_PAGE, _SMALLEST_PAGE, _LARGEST_PAGE, _RAISED_PAGE = 100, 5, 1000, 10
_MAXIMUM_COUNT = 10_000


async def token(exchange: Exchange) -> Answer:
    """``POST /token``: client credentials as a form."""
    form = b""
    async for chunk in exchange.chunks():
        form += chunk
        if len(form) > _LONGEST_FORM:
            return Answer(413, {"error": "invalid_request"})
    await exchange.body_was_read()
    if not exchange.request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return Answer(400, {"error": "invalid_request", "error_description": "Use application/x-www-form-urlencoded"})
    status, body = exchange.sandbox.tokens.grant(dict(parse_qsl(form.decode("utf-8", "replace"))))
    return Answer(status, body, {"cache-control": "no-store"})


async def list_files(exchange: Exchange) -> Answer:
    """``GET /clients/{clientno}/files``: what was accepted, in pages."""
    await exchange.body_was_read()
    client_no, url = exchange.request.path_params["clientno"], exchange.request.url
    if client_no not in exchange.sandbox.rules.clients:
        return Answer(404, {"message": "No such client"})
    query = exchange.request.query_params
    try:
        page_no, size = int(query.get("pageno", "1")), int(query.get("pagesize", str(_DEFAULT_PAGE)))
        maximum = min(int(query.get("maximumcount", str(_MAXIMUM_COUNT))), _MAXIMUM_COUNT)
    except ValueError:
        return Answer(400, {"message": "pageno, pagesize and maximumcount are numbers"})
    size = min(size, _LARGEST_PAGE) if size >= _SMALLEST_PAGE else _RAISED_PAGE
    known = [u for u in exchange.sandbox.uploads if u.client_no == client_no][: max(maximum, 0)]
    pages = max(1, math.ceil(len(known) / size))
    query_id = query.get("query") or secrets.token_urlsafe(16)

    def page_url(number: int) -> str:
        return str(url.replace(query=f"query={query_id}&pageno={number}&pagesize={size}"))

    page = known[(page_no - 1) * size : page_no * size] if page_no >= 1 else []
    summary = {
        "pageNo": page_no,
        "currentPageSize": len(page),
        "pageSizeLimit": size,
        "totalPages": pages,
        "totalCount": len(known),
        "maximumCount": maximum,
        "lastPage": page_url(pages),
        "queryId": query_id,
    }
    if page_no < pages:
        summary["nextPage"] = page_url(page_no + 1)
    return Answer(200, {"summary": summary, "files": [_listed(u) for u in page]})


def _listed(upload: Upload) -> dict[str, object]:
    return {
        "clientNo": shown_client_no(upload.client_no),
        "fileId": upload.file_id,
        "type": upload.file_type,
        "name": upload.name,
        "size": upload.size,
        "sha256": upload.sha256,
        "uploadedAt": as_utc(upload.accepted_at),
        "status": CREATED.status,
        "result": CREATED.result,
    }


async def file_result(exchange: Exchange) -> Answer:
    """``GET /clients/{clientno}/files/{fileid}``: what became of one file, or what its script says."""
    await exchange.body_was_read()
    sandbox, parameters = exchange.sandbox, exchange.request.path_params
    client_no, file_id = parameters["clientno"], parameters["fileid"]
    if client_no not in sandbox.rules.clients:
        return Answer(404, {"message": "No such client"})
    if not sandbox.knows_uploads:
        return _about({}, UNKNOWN)
    step = sandbox.results.next(file_id)
    if step is None:
        known = sandbox.records.find(client_no, file_id)
        if known is None:
            return _about({}, UNKNOWN)
        step = CREATED if isinstance(known, Upload) else Step(FAILED.status, FAILED.result, known.message)
    return _about({"clientNo": shown_client_no(client_no), "fileId": file_id}, step)


async def batch(exchange: Exchange) -> Answer:
    """``GET /clients/{clientno}/batches/{batchuuid}``: by script only."""
    await exchange.body_was_read()
    parameters = exchange.request.path_params
    client_no, uuid = parameters["clientno"], parameters["batchuuid"]
    if client_no not in exchange.sandbox.rules.clients:
        return Answer(404, {"message": "No such client"})
    step = None if uuid == NO_BATCH else exchange.sandbox.batches.next(uuid)
    return _about({"clientNo": shown_client_no(client_no), "batchUuid": uuid}, step or NO_SUCH_BATCH)


def _about(identity: dict[str, object], step: Step) -> Answer:
    if step.http >= 400:  # noqa: PLR2004 - RFC 9110: from here on it is an error
        return Answer(step.http, {"message": step.message})
    return Answer(step.http, {**identity, "status": step.status, "result": step.result, "message": step.message})


async def health(exchange: Exchange) -> Answer:
    """``GET /health``."""
    await exchange.body_was_read()
    return Answer(200, {"status": "UP"})


async def nothing_here(exchange: Exchange) -> Answer:
    """Whatever else is asked of the API."""
    await exchange.body_was_read()
    return Answer(404, {"message": "No such resource"})
