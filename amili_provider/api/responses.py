"""Answers of Amili: read within bounds, and the verdicts and results that are found in them."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import httpx
from pydantic import ValidationError

from amili_provider.api.results import (
    FileResult,
    Meaning,
    UnreadableAnswer,
    Vocabulary,
    parse_verdicts,
    read_json,
    read_json_object,
    read_upload_answer,
    what_instead_of_json,
)
from amili_provider.api.upload import takes_something
from amili_provider.exceptions import AmiliResponseError
from amili_provider.receipts import Outcome, Verdict, one_line

LARGEST_ANSWER_BYTES = 8 * 1024 * 1024
"""Of an answer, unpacked."""


class ResponseUnusable(Exception):  # noqa: N818 - not an error yet: the caller knows whether a file was on its way
    """The answer is too large, or packed in a way that was not asked for."""


class Unpacking:
    """
    Gathers the raw bytes of an answer, unpacked if they are packed, up to a bound.

    :param encoding: the header ``Content-Encoding``. None was asked for, but some gateways pack nevertheless.
    :param largest: bytes after unpacking.
    """

    def __init__(self, encoding: str, largest: int = LARGEST_ANSWER_BYTES) -> None:
        encoding = encoding.strip().casefold()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise ResponseUnusable("the answer is packed in a way that was not asked for")
        self._packed = encoding not in ("", "identity")
        self._member: Any = None
        """What unpacks the part that is being read: gzip may come in several, one after another (RFC 1952)."""
        self._largest = largest
        self._pieces: list[bytes] = []
        self._length = 0

    def add(self, raw: bytes) -> None:
        """Take raw bytes."""
        while raw:
            room = self._largest - self._length
            piece, raw = self._unpacked(raw, room + 1) if self._packed else (raw, b"")
            if len(piece) > room:
                raise ResponseUnusable(f"the answer is larger than {_shown_bytes(self._largest)}")
            self._pieces.append(piece)
            self._length += len(piece)

    def _unpacked(self, raw: bytes, most: int) -> tuple[bytes, bytes]:
        """Return what *raw* holds, and what is left of it behind the end of its member."""
        if self._member is None:
            # 32: recognise the headers of gzip and zlib by themselves.
            self._member = zlib.decompressobj(32 + zlib.MAX_WBITS)
        try:
            piece = self._member.decompress(raw, most)
        except zlib.error:
            raise ResponseUnusable("the answer cannot be unpacked") from None
        left = self._member.unused_data
        if self._member.eof:
            self._member = None
        return piece, left

    def content(self) -> bytes:
        """Return what was gathered."""
        if self._member is not None:
            raise ResponseUnusable("the answer cannot be unpacked")
        return b"".join(self._pieces)


def _shown_bytes(count: int) -> str:
    return f"{count >> 20} MiB" if count >> 20 else f"{count >> 10} KiB"


def read_response(response: httpx.Response, largest: int = LARGEST_ANSWER_BYTES, *, code_decides: bool) -> bytes:
    """
    Read the body of an answer.

    :param response: the answer, not read yet.
    :param largest: bytes after unpacking.
    :param code_decides: whether the body is only wanted for its message: then what cannot be read is left out.
    :raises ResponseUnusable: if it is too large or cannot be unpacked.
    :raises httpx.HTTPError: if it ends early.
    """
    try:
        unpacking = Unpacking(response.headers.get("content-encoding", ""), largest)
        for raw in response.iter_raw():
            unpacking.add(raw)
        return unpacking.content()
    except (ResponseUnusable, httpx.HTTPError):
        if code_decides:
            return b""
        raise


async def aread_response(response: httpx.Response, largest: int = LARGEST_ANSWER_BYTES, *, code_decides: bool) -> bytes:
    """Read the body of an answer without blocking; see :func:`read_response`."""
    try:
        unpacking = Unpacking(response.headers.get("content-encoding", ""), largest)
        async for raw in response.aiter_raw():
            unpacking.add(raw)
        return unpacking.content()
    except (ResponseUnusable, httpx.HTTPError):
        if code_decides:
            return b""
        raise


def take_body(response: httpx.Response, largest: int = LARGEST_ANSWER_BYTES, *, code_decides: bool) -> bytes:
    """
    Read the body of an answer within an auth flow, and leave it unpacked where httpx reads it later.

    httpx itself unpacks what it likes, and knows no bound. Parameters and errors are those of :func:`read_response`.
    """
    with contextlib.closing(_aside(response)) as aside:
        return _left(response, read_response(aside, largest, code_decides=code_decides))


async def atake_body(response: httpx.Response, largest: int = LARGEST_ANSWER_BYTES, *, code_decides: bool) -> bytes:
    """Read the body of an answer without blocking; see :func:`take_body`."""
    async with contextlib.aclosing(_aside(response)) as aside:
        return _left(response, await aread_response(aside, largest, code_decides=code_decides))


def _aside(response: httpx.Response) -> httpx.Response:
    return httpx.Response(response.status_code, headers=response.headers, stream=response.stream)


def _left(response: httpx.Response, content: bytes) -> bytes:
    response.headers.pop("content-encoding", None)
    response.stream = httpx.ByteStream(content)
    return content


NOT_FOUND = 404
NOTHING_YET = (202, 204, NOT_FOUND)
"""Answers to a question for a file's result that mean "not yet"."""


@dataclass(frozen=True, slots=True)
class Response:
    """
    What came back.

    :param status_code: the HTTP status.
    :param headers: with names in lower case.
    :param content: the body; never shown, since it may hold personal data.
    """

    status_code: int
    headers: Mapping[str, str] = field(repr=False)
    content: bytes = field(repr=False)

    def json(self) -> Any:
        """
        Return the body as JSON.

        :raises AmiliResponseError: if it is not JSON.
        """
        try:
            return read_json(self.content)
        except ValueError:
            raise AmiliResponseError(
                f"Amili's answer ({self.status_code}) is {what_instead_of_json(self.content)}.",
                status_code=self.status_code,
            ) from None

    @property
    def in_amilis_words(self) -> bool:
        """Whether this is Amili's answer: its words are a JSON object, which a gateway's page is not."""
        try:
            read_json_object(self.content)
        except UnreadableAnswer:
            return False
        return True


class RefusedBy(StrEnum):
    """Who refused an upload as a whole, taking none of its files."""

    AMILI = "Amili"
    GATEWAY = "what stands before Amili"


@dataclass(frozen=True, slots=True)
class UploadReply:
    """
    An answer to an upload that is about its files.

    :param status_code: the HTTP status.
    :param body: the body; never shown.
    :param refused_by: who refused the request and took none of its files; None if the body says of each file what
        became of it, or fails to.
    :param words: the answer in a sentence, if it is a refusal.
    :param message: Amili's own words, if it refused.
    """

    status_code: int
    body: bytes = field(repr=False)
    refused_by: RefusedBy | None = None
    words: str = ""
    message: str = ""

    def verdicts(self, file_ids: Sequence[str], vocabulary: Vocabulary) -> dict[str, Verdict]:
        """
        Return what the answer says of each file, and nothing that it does not say.

        :param file_ids: every id that was in the request. Of a refusal, only those that it names have a verdict.
        :param vocabulary: which words mean what.
        """
        if self.refused_by is RefusedBy.GATEWAY:
            return {}
        try:
            answer = read_upload_answer(self.body)
        except UnreadableAnswer as reason:
            note = f"Amili's answer is {self.status_code}, but {reason}: it says nothing of the files. {_WHOSE_PAGE}"
            return {file_id: Verdict(Outcome.UNKNOWN, message=note) for file_id in file_ids}
        verdicts = parse_verdicts(answer, file_ids, vocabulary)
        return verdicts if self.refused_by is None else {i: v for i, v in verdicts.items() if v.per_file}

    @property
    def refusal(self) -> Verdict:
        """What a refusal means for a file that it does not name; a gateway's is no word of Amili about any file."""
        if self.refused_by is RefusedBy.GATEWAY:
            return Verdict(Outcome.NOT_SENT, message=one_line(self.words))
        return Verdict(Outcome.REJECTED, status=str(self.status_code), message=self.message)


_WHOSE_PAGE = "A log-in page, a gateway or a proxy may have answered in Amili's place."


@dataclass(frozen=True, slots=True)
class Asked:
    """
    What the result endpoint says of one file.

    :param result: None if there is none yet.
    :param not_found: whether it says that Amili does not know the file: 404, in Amili's words.
    :param status_code: the HTTP status.
    """

    result: FileResult | None
    not_found: bool
    status_code: int


def asked_about(answer: Response, file_id: str, vocabulary: Vocabulary) -> Asked:
    """
    Return what an answer to the question for the result of a file says.

    :raises AmiliResponseError: if the answer is of no such shape, or contradicts itself.
    """
    # That it repeats the id it was asked for says nothing of it.
    not_found = (
        answer.status_code == NOT_FOUND and answer.in_amilis_words and not takes_something(answer.content, vocabulary)
    )
    return Asked(file_result_in(answer, file_id, vocabulary), not_found, answer.status_code)


def file_result_in(answer: Response, file_id: str, vocabulary: Vocabulary) -> FileResult | None:
    """
    Return the result of one file in an answer: an object, an object with ``files``, or a list.

    The endpoint's shape is assumed, so the reading is lenient; but only an entry that names the file counts.

    :raises AmiliResponseError: if the answer is of no such shape, or contradicts itself.
    """
    if answer.status_code in NOTHING_YET:
        return None
    data = answer.json()
    whole_refused = False
    if isinstance(data, dict) and isinstance(data.get("files"), list):
        entries = [data, *data["files"]] if data.get("fileId") else data["files"]
        whole_refused = vocabulary.meaning(data.get("status"), data.get("result")) is Meaning.REFUSED
    elif isinstance(data, list):
        entries = data
    elif isinstance(data, dict) and "fileId" in data:
        entries = [data]
    else:
        raise AmiliResponseError(
            f"The answer to a question for the result of file {file_id} holds no result. The endpoint is an "
            "assumption: see 'Result path' (extra 'result_path').",
            status_code=answer.status_code,
        )
    wanted = file_id.strip().casefold()
    found: list[FileResult] = []
    for entry in entries:
        try:
            result = FileResult.model_validate(entry)
        except ValidationError:
            continue
        if result.file_id.strip().casefold() == wanted and result not in found:
            found.append(result)
    if len(found) > 1:
        raise AmiliResponseError(
            f"The answer holds {len(found)} different results of file {file_id}.",
            status_code=answer.status_code,
        )
    if found and whole_refused and vocabulary.meaning(found[0].status, found[0].result) is Meaning.ACCEPTED:
        raise AmiliResponseError(
            f"The answer as a whole refuses, and accepts file {file_id}: it contradicts itself.",
            status_code=answer.status_code,
        )
    return found[0] if found else None
