"""The API's answers, read leniently: unknown fields are passed over, and numbers taken for text."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import from_json

from amili_provider.models.text import one_line


class Words(BaseModel):
    """Amili's words of a whole request or of one file."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True, frozen=True, hide_input_in_errors=True)

    status: str | None = None
    """For example ``PROCESSED``."""
    result: str | None = None
    """For example ``CREATED``."""
    message: str | None = None
    """Amili's own words."""

    @field_validator("status", "result", "message", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> str | None:
        # A number or an object in place of a word must not make a readable answer unreadable; it matches nothing.
        return value if value is None or isinstance(value, str) else one_line(value)


class FileResult(Words):
    """Amili's result for one file, at upload or asked for later."""

    file_id: str = Field(alias="fileId")
    """The caller's own id, echoed."""

    @field_validator("file_id", mode="before")
    @classmethod
    def _id_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class UploadAnswer(Words):
    """The answer to ``POST /clients/{clientno}/files``: status, result and message for the whole and per file."""

    files: tuple[FileResult, ...] = ()
    """The entries that could be read; others count as missing."""
    unreadable: int = 0
    """How many entries of ``files`` could not be read, those that name no file among them."""
    complaint: str | None = None
    """Why ``files`` as a whole could not be read."""


class UnreadableAnswer(ValueError):  # noqa: N818
    """The body is not a JSON object."""


def what_instead_of_json(body: bytes) -> str:
    """Return what *body* is, if it is not JSON: people know a log-in page or a gateway's by this."""
    if not body.strip():
        return "empty"
    if begins_like_json(body):
        return "not JSON that can be read (broken, or a name stands twice in it)"
    return "a page (HTML or XML), not JSON" if body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") else "not JSON"


def read_json(body: bytes) -> Any:
    """
    Return *body* as JSON.

    :raises ValueError: if it is not JSON (RFC 8259), or if an object in it has a name twice, in whatever case: then it
        says two things.
    """
    data = from_json(body, allow_inf_nan=False)
    json.loads(body, object_pairs_hook=_names_differ)
    return data


def _names_differ(pairs: list[tuple[str, Any]]) -> None:
    if len({_plain(name) for name, _ in pairs}) < len(pairs):
        raise ValueError("a name stands twice in one object")


def _plain(name: str) -> str:
    return name.strip().casefold()


def begins_like_json(body: bytes) -> bool:
    """Return whether *body* begins as an object or a list of JSON does, in any encoding, whatever follows."""
    return body.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n").startswith((b"{", b"["))


def everything_in(data: Any) -> Iterator[Any]:
    """Yield *data* and every value in it, outer ones first. The names of objects are given without case."""
    queue = deque([data])
    while queue:
        value = queue.popleft()
        if isinstance(value, dict):
            yield {_plain(name): inner for name, inner in value.items()}
            queue.extend(value.values())
        else:
            yield value
            if isinstance(value, list):
                queue.extend(value)


def read_json_object(body: bytes) -> dict[str, Any]:
    """
    Return *body* as a JSON object.

    :raises UnreadableAnswer: if it is empty, not JSON, or JSON of another type.
    """
    try:
        data = read_json(body)
    except ValueError:
        raise UnreadableAnswer(f"the answer is {what_instead_of_json(body)}") from None
    if not isinstance(data, dict):
        raise UnreadableAnswer("the answer is JSON, but not an object")
    return data


def read_upload_answer(body: bytes) -> UploadAnswer:
    """
    Read the answer to an upload, leniently.

    :raises UnreadableAnswer: if *body* is not a JSON object.
    """
    data = read_json_object(body)
    whole = Words.model_validate({k: data.get(k) for k in ("status", "result", "message")})
    entries = data.get("files")
    complaint = None
    if entries is None:
        complaint, entries = "the answer has no 'files'", []
    elif not isinstance(entries, list):
        complaint, entries = "'files' in the answer is not a list", []
    files, unreadable = [], 0
    for entry in entries:
        try:
            files.append(FileResult.model_validate(entry))
        except ValidationError:
            unreadable += 1
    return UploadAnswer(
        **whole.model_dump(),
        files=tuple(files),
        unreadable=unreadable,
        complaint=complaint,
    )


def read_message(body: bytes) -> str:
    """
    Return what an error answer says, as one safe line: its ``message`` if it has one, else nothing of its content.

    A body of another kind (an HTML page, a proxy's report) may repeat what was sent, so only its kind is told.
    """
    try:
        data = read_json_object(body)
    except UnreadableAnswer as reason:
        return str(reason)
    for key in ("message", "error_description", "error", "title", "detail"):
        if isinstance(data.get(key), str) and data[key].strip():
            return one_line(data[key])
    return "the answer has no message"
