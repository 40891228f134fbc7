"""Amili's words: read leniently, judged strictly. A file that is not clearly accepted or refused is unknown."""

from __future__ import annotations

import functools
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import from_json

from amili_provider.connection.settings import AmiliSettings
from amili_provider.receipts import Outcome, Verdict, one_line

DEFAULT_ACCEPTED = ("PROCESSED/CREATED",)
"""Documented: "POST (upload) one or more OS files", example answer."""
ALWAYS_REFUSED = ("FAILED", "REJECTED", "ERROR", "INVALID", "BATCH-REJECTED")
"""Assumed, but for FAILED and BATCH-REJECTED, which the auto-postings page names. Nothing takes one of them away."""
DEFAULT_PENDING = ("QUEUED", "PENDING", "RECEIVED", "PROCESSING")
"""Assumed, but for QUEUED, which the Collection API names."""
DONE_WORDS = frozenset({"processed", "created", "success"})
"""Each by itself says that something was done. Assumed: two are an upload's, SUCCESS is the Collection API's."""
MOST_VALUES = 200_000
"""Of an answer: forty for each of the 5,000 files that a request may hold. As objects, the few bytes of a value become
a hundred."""
_CONTENT = re.compile(r"(?<![A-Za-z0-9+/])(?=[0-9a-z+/]*[A-Z])(?=[0-9A-Z+/]*[a-z])[A-Za-z0-9+/]{64,}={0,2}")
"""Base64, in the alphabet that we send. Ids and hashes have letters of one case; names hold dots and dashes."""
_IN_PART = frozenset({"partial", "partially", "partly"})
"""Assumed: PARTIAL is what the Collection API calls a batch that failed in part."""


def word(value: Any) -> str:
    """Return *value* as it is compared: without case, and without blanks around it."""
    return str(value).strip().casefold() if value is not None else ""


def without_content(words: str) -> str:
    """Return Amili's *words* without what may be a file's content, from an answer that tells what was sent."""
    return _CONTENT.sub("***", words)


def says_in_part(*words: str) -> bool:
    """Return whether one of *words*, as :func:`word` gives them, says "in part", as ``PARTIALLY_PROCESSED`` does."""
    return any(not _IN_PART.isdisjoint(re.split(r"[^a-z]+", one)) for one in words)


class Meaning(StrEnum):
    """What Amili's words mean."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    PENDING = "pending"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """
    Which words of Amili mean accepted, refused or pending. Values are compared without case (page "About").

    :param accepted: entries ``STATUS/RESULT`` (both must match) or ``WORD`` (status or result matches).
    :param refused: the same, besides :data:`ALWAYS_REFUSED`; refused wins over accepted.
    :param pending: the same; for the sensor only.
    """

    accepted: tuple[str, ...] = DEFAULT_ACCEPTED
    refused: tuple[str, ...] = ()
    pending: tuple[str, ...] = DEFAULT_PENDING

    @property
    def refused_words(self) -> frozenset[str]:
        """The single words that refuse, as :func:`word` gives them."""
        return frozenset(word(entry) for entry in (*ALWAYS_REFUSED, *self.refused) if "/" not in entry)

    @staticmethod
    def _matches(entries: Iterable[str], status: str, result: str) -> bool:
        for entry in entries:
            first, slash, second = word(entry).partition("/")
            if slash:
                if (first.strip(), second.strip()) == (status, result):
                    return True
            elif first and first in (status, result):
                return True
        return False

    def meaning(self, status: Any, result: Any) -> Meaning:
        """Return what *status* and *result* mean together."""
        words = word(status), word(result)
        if self._matches((*ALWAYS_REFUSED, *self.refused), *words):
            return Meaning.REFUSED
        if self._matches(self.accepted, *words):
            return Meaning.ACCEPTED
        if self._matches(self.pending, *words):
            return Meaning.PENDING
        return Meaning.UNCLEAR


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
        if value is None:
            return None
        return without_content(value) if isinstance(value, str) else one_line(without_content(str(value)))


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
        if _holds_too_much(body):
            return f"JSON of more than {MOST_VALUES:,} values, which is not read"
        return "not JSON that can be read (broken, or a name stands twice in it)"
    return "a page (HTML or XML), not JSON" if body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") else "not JSON"


def read_json(body: bytes) -> Any:
    """
    Return *body* as JSON.

    :raises ValueError: if it is not JSON (RFC 8259), or holds more than :data:`MOST_VALUES`; or if an object in it has
        a name twice, in whatever case: then it says two things.
    """
    if _holds_too_much(body):
        raise ValueError("too many values")
    data = from_json(body, allow_inf_nan=False)
    json.loads(body, object_pairs_hook=_names_differ)
    return data


def _holds_too_much(body: bytes) -> bool:
    """Count what every value begins or ends with, before anything is built of it."""
    return sum(map(body.count, (b"{", b"[", b","))) > MOST_VALUES


def _names_differ(pairs: list[tuple[str, Any]]) -> None:
    if len({plain_name(name) for name, _ in pairs}) < len(pairs):
        raise ValueError("a name stands twice in one object")


def plain_name(name: str) -> str:
    """Return the name of a value as it is compared: without case, and without blanks around it."""
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
            yield {plain_name(name): inner for name, inner in value.items()}
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
            return one_line(without_content(data[key]))
    return "the answer has no message"


def parse_verdicts(answer: UploadAnswer, file_ids: Sequence[str], vocabulary: Vocabulary) -> dict[str, Verdict]:
    """
    Return what *answer* says of each of *file_ids*: accepted, refused, or unknown. Never more than it says.

    :param answer: the answer, as read.
    :param file_ids: every id that was in the request.
    :param vocabulary: which words mean what.
    """
    by_id: dict[str, list[FileResult]] = {}
    for entry in answer.files:
        by_id.setdefault(word(entry.file_id), []).append(entry)
    # Thousands of files share a handful of words.
    meaning_of, shown = functools.cache(vocabulary.meaning), functools.cache(_shown)
    whole_refused = meaning_of(answer.status, answer.result) is Meaning.REFUSED
    return {
        file_id: _judge_one(by_id.get(word(file_id), []), answer, meaning_of, shown, whole_refused=whole_refused)
        for file_id in file_ids
    }


def _judge_one(
    entries: list[FileResult],
    answer: UploadAnswer,
    meaning_of: Callable[..., Meaning],
    shown: Callable[[str | None], str | None],
    *,
    whole_refused: bool,
) -> Verdict:
    if not entries:
        why = answer.complaint or "the answer does not name this file"
        if answer.unreadable:
            why += f" ({answer.unreadable} of its entries cannot be read)"
        said = f"; it says: {one_line(answer.message)}" if answer.message else ""
        return Verdict(
            Outcome.UNKNOWN, _shown(answer.status), _shown(answer.result), one_line(why + said), per_file=False
        )
    status, result, message = (shown(entries[0].status), shown(entries[0].result), shown(entries[0].message))
    meanings = {meaning_of(e.status, e.result) for e in entries}
    if len(meanings) > 1:
        words = ", ".join(f"{_shown(e.status)}/{_shown(e.result)}" for e in entries[:4])
        return Verdict(Outcome.UNKNOWN, status, result, f"the answer contradicts itself: {words}", per_file=True)
    meaning = meanings.pop()
    if meaning is Meaning.ACCEPTED and whole_refused:
        whole = f"{_shown(answer.status)}/{_shown(answer.result)}"
        note = f"the answer as a whole says {whole}, but the file {status}/{result}"
        return Verdict(Outcome.UNKNOWN, status, result, note, per_file=True)
    outcome = {Meaning.ACCEPTED: Outcome.UPLOADED, Meaning.REFUSED: Outcome.REJECTED}.get(meaning, Outcome.UNKNOWN)
    if outcome is Outcome.UNKNOWN:
        message = one_line(f"words that are not known: status {status!r}, result {result!r}: {message or ''}")
    return Verdict(outcome, status, result, message, per_file=True)


def _shown(value: str | None) -> str | None:
    return None if value is None else one_line(value)


def vocabulary_of(settings: AmiliSettings) -> Vocabulary:
    """Return which words mean accepted, refused or pending for this connection."""
    words = Vocabulary()
    return Vocabulary(
        accepted=words.accepted if settings.accepted_results is None else settings.accepted_results,
        refused=settings.refused_results or (),
        pending=words.pending if settings.pending_results is None else settings.pending_results,
    )
