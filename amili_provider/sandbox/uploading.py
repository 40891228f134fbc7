"""``POST /clients/{clientno}/files``: one or more files, in one JSON body that is never held in memory."""

from __future__ import annotations

import re
from typing import Any, Self

from amili_provider.sandbox.body import MalformedJson, TooMuchText, UploadBody
from amili_provider.sandbox.content import ReceivedContent
from amili_provider.sandbox.exchange import Answer, Exchange, GoneError
from amili_provider.sandbox.records import Arrival

_LONGEST_NAME = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class RefusedError(Exception):
    """The request as a whole is refused."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Contents:
    """The contents that arrive with one request; what is not accepted leaves the disk with it."""

    def __init__(self, exchange: Exchange) -> None:
        self._records = exchange.sandbox.records
        self._all: list[ReceivedContent] = []

    def open(self) -> ReceivedContent:
        content = ReceivedContent(self._records.next_part())
        self._all.append(content)
        return content

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for content in self._all:
            content.discard_handle()
            if content.path is not None:
                content.path.unlink(missing_ok=True)


async def upload(exchange: Exchange) -> Answer:
    """Receive files; nothing is accepted unless the whole body arrived and was understood."""
    client_no = exchange.request.path_params["clientno"]
    try:
        _check_head(exchange, client_no)
        with _Contents(exchange) as contents:
            body = await _read(exchange, UploadBody(contents.open))
            await exchange.body_was_read()
            return _take(exchange, _checked_files(exchange, client_no, body))
    except RefusedError as refused:
        return _refusal(client_no, refused)


def _refusal(client_no: str, refused: RefusedError) -> Answer:
    body = {
        "status": "FAILED",
        "result": "INVALID",
        "message": str(refused),
        "clientNo": shown_client_no(client_no),
    }
    return Answer(refused.status, body)


def shown_client_no(client_no: str) -> int | str:
    """Return the client number as Amili shows it: a number where it is one."""
    return int(client_no) if client_no.isdecimal() and client_no.isascii() else client_no


def _check_head(exchange: Exchange, client_no: str) -> None:
    rules, request = exchange.sandbox.rules, exchange.request
    if client_no not in rules.clients:
        raise RefusedError(404, "No such client")
    if not rules.clients[client_no]:
        raise RefusedError(403, "Upload of files is not configured for this client")
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
    if content_type != "application/json":
        raise RefusedError(415, "Content-Type must be application/json")
    if (exchange.record.content_length or 0) > rules.max_body_bytes:
        raise RefusedError(413, f"The request is larger than {rules.max_body_bytes} bytes")


async def _read(exchange: Exchange, reader: UploadBody) -> Any:
    most = exchange.sandbox.rules.max_body_bytes
    try:
        async for chunk in exchange.chunks():
            if exchange.record.body_bytes > most:
                raise RefusedError(413, f"The request is larger than {most} bytes")
            reader.feed(chunk)
        return reader.close()
    except MalformedJson as error:
        raise RefusedError(400, f"Malformed JSON: {error}") from None
    except TooMuchText as error:
        raise RefusedError(413, str(error)) from None


def _checked_files(exchange: Exchange, client_no: str, body: Any) -> list[Arrival]:
    rules = exchange.sandbox.rules
    if not isinstance(body, dict) or not isinstance(body.get("files"), list) or not body["files"]:
        raise RefusedError(422, "The body must be an object with a list 'files' that is not empty")
    metadata = body.get("metadata", {})
    if not isinstance(metadata, dict) or not isinstance(metadata.get("userId", ""), str):
        raise RefusedError(422, "'metadata' must be an object with a text 'userId'")
    if len(body["files"]) > rules.max_files:
        raise RefusedError(413, f"More than {rules.max_files} files in one request")
    number = exchange.record.number
    files = [Arrival(number, client_no, *_checked_file(entry, f"files[{n}]")) for n, entry in enumerate(body["files"])]
    seen: set[str] = set()
    for n, file in enumerate(files):
        if file.file_id.casefold() in seen:
            raise RefusedError(422, f"files[{n}]: duplicate fileId in this request")
        seen.add(file.file_id.casefold())
        if not rules.allows(client_no, file.file_type):
            raise RefusedError(403, f"files[{n}]: file type not configured for this client")
        if file.content.size > rules.max_file_bytes:
            raise RefusedError(413, f"files[{n}]: larger than {rules.max_file_bytes} bytes")
        if rules.poisoned(file.content.head):
            raise RefusedError(rules.poison_status, "A file of this request cannot be processed")
    return files


def _checked_file(entry: Any, where: str) -> tuple[str, str, str, ReceivedContent]:
    if not isinstance(entry, dict):
        raise RefusedError(422, f"{where}: must be an object")
    for key in ("fileId", "type", "name"):
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            raise RefusedError(422, f"{where}: '{key}' is missing or empty")
    content, name = entry.get("content"), entry["name"]
    if not isinstance(content, ReceivedContent):
        raise RefusedError(422, f"{where}: 'content' is missing or not text")
    if content.problem:
        raise RefusedError(422, f"{where}: 'content' is {content.problem}")
    if len(name) > _LONGEST_NAME or "/" in name or "\\" in name or _CONTROL.search(name):
        raise RefusedError(422, f"{where}: 'name' must be a file name of at most {_LONGEST_NAME} characters")
    return entry["fileId"], entry["type"], name, content


def _take(exchange: Exchange, files: list[Arrival]) -> Answer:
    if exchange.outdated:
        raise GoneError
    records, rules = exchange.sandbox.records, exchange.sandbox.rules
    results, refused = [], 0
    for file in files:
        reason = rules.refusal(file.name, file.content.head)
        if reason is None:
            records.accept(file)
            words = {"status": "PROCESSED", "result": "CREATED", "message": "File uploaded"}
        else:
            records.refuse(file, reason)
            words = {"status": "FAILED", "result": "REJECTED", "message": reason}
            refused += 1
        results.append({"fileId": file.file_id, **words})
    accepted = len(files) - refused
    whole = {"status": "PROCESSED", "result": "CREATED", "message": "File(s) uploaded"}
    if refused:
        whole = {
            "status": "PROCESSED" if accepted else "FAILED",
            "result": "PARTIAL" if accepted else "REJECTED",
            "message": f"{accepted} of {len(files)} file(s) uploaded",
        }
    body = {**whole, "clientNo": shown_client_no(files[0].client_no), "files": results}
    return Answer(207 if refused else 200, body)
