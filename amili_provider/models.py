"""
What the API says, and the questions we ask of it.

One vocabulary decides which words mean accepted, refused or pending; the operator and the sensors share it.
Answers are read leniently (unknown fields, numbers as strings) and judged strictly.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import from_json

LONGEST_SHOWN = 300
"""Characters of Amili's words that are shown at most."""

DEFAULT_ACCEPTED = ("PROCESSED/CREATED",)
"""Documented: "POST (upload) one or more OS files", example answer."""
DEFAULT_REFUSED = ("FAILED", "REJECTED", "ERROR", "INVALID", "BATCH-REJECTED")
"""Assumed, but for FAILED and BATCH-REJECTED, which the auto-postings page names."""
DEFAULT_PENDING = ("QUEUED", "PENDING", "RECEIVED", "PROCESSING")
"""Assumed, but for QUEUED, which the Collection API names."""


class Outcome(StrEnum):
    """What became of one file; the field ``outcome`` of a receipt."""

    UPLOADED = "uploaded"
    ALREADY_UPLOADED = "already_uploaded"
    LEFT = "left"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    NOT_SENT = "not_sent"

    @property
    def delivered(self) -> bool:
        """Whether Amili has accepted the file, now or earlier."""
        return self in (Outcome.UPLOADED, Outcome.ALREADY_UPLOADED)

    @property
    def failed(self) -> bool:
        """Whether the task must not be green."""
        return self in (Outcome.REJECTED, Outcome.UNKNOWN, Outcome.NOT_SENT)


_ELEVEN_DIGITS = re.compile(r"(?<!\d)\d{11}(?!\d)")


def one_line(words: Any, longest: int = LONGEST_SHOWN) -> str:
    """
    Return somebody else's words as one safe line.

    Control and invisible characters become spaces, runs of exactly eleven digits (Norwegian national ids) are
    masked, and at most *longest* characters are kept.

    :param words: text from outside; anything else is shown through ``str``.
    :param longest: characters kept at most.
    """
    # Cut before the costly part (an answer may hold megabytes), but late enough that no masked number is halved.
    text = str(words)[: longest * 4 + 64]
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(c) in _UNSHOWN else c for c in text)
    text = _ELEVEN_DIGITS.sub("***********", " ".join(text.split()))
    return text if len(text) <= longest else text[: longest - 1] + "…"


_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def _word(value: Any) -> str:
    return str(value).strip().casefold() if value is not None else ""


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
    :param refused: the same; refused wins over accepted.
    :param pending: the same; for the sensor only.
    """

    accepted: tuple[str, ...] = DEFAULT_ACCEPTED
    refused: tuple[str, ...] = DEFAULT_REFUSED
    pending: tuple[str, ...] = DEFAULT_PENDING

    @staticmethod
    def _matches(entries: Iterable[str], status: str, result: str) -> bool:
        for entry in entries:
            first, slash, second = _word(entry).partition("/")
            if slash:
                if (first.strip(), second.strip()) == (status, result):
                    return True
            elif first and first in (status, result):
                return True
        return False

    def meaning(self, status: Any, result: Any) -> Meaning:
        """Return what *status* and *result* mean together."""
        words = _word(status), _word(result)
        if self._matches(self.refused, *words):
            return Meaning.REFUSED
        if self._matches(self.accepted, *words):
            return Meaning.ACCEPTED
        if self._matches(self.pending, *words):
            return Meaning.PENDING
        return Meaning.UNCLEAR


class _Answer(BaseModel):
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


class FileResult(_Answer):
    """Amili's result for one file, at upload or asked for later."""

    file_id: str = Field(alias="fileId")
    """The caller's own id, echoed."""

    @field_validator("file_id", mode="before")
    @classmethod
    def _id_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class UploadAnswer(_Answer):
    """The answer to ``POST /clients/{clientno}/files``: status, result and message for the whole and per file."""

    files: tuple[FileResult, ...] = ()
    """The entries that could be read; others count as missing."""
    unreadable: int = 0
    """How many entries of ``files`` could not be read."""
    complaint: str | None = None
    """Why ``files`` as a whole could not be read."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What one answer says of one file.

    :param outcome: uploaded, rejected or unknown.
    :param status: Amili's status, as one safe line.
    :param result: Amili's result, as one safe line.
    :param message: Amili's message, or ours where Amili said nothing that can be understood.
    :param per_file: whether Amili named this very file.
    """

    outcome: Outcome
    status: str | None = None
    result: str | None = None
    message: str | None = None
    per_file: bool = False


class UnreadableAnswer(ValueError):  # noqa: N818
    """The body is not a JSON object."""


def read_json_object(body: bytes) -> dict[str, Any]:
    """
    Return *body* as a JSON object.

    :raises UnreadableAnswer: if it is empty, not JSON, or JSON of another type.
    """
    if not body.strip():
        raise UnreadableAnswer("the answer is empty")
    try:
        data = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise UnreadableAnswer("the answer is not JSON") from None
    if not isinstance(data, dict):
        raise UnreadableAnswer("the answer is JSON, but not an object")
    return data


def read_upload_answer(body: bytes) -> UploadAnswer:
    """
    Read the answer to an upload, leniently.

    :raises UnreadableAnswer: if *body* is not a JSON object.
    """
    data = read_json_object(body)
    whole = _Answer.model_validate({k: data.get(k) for k in ("status", "result", "message")})
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
    return UploadAnswer(**whole.model_dump(), files=tuple(files), unreadable=unreadable, complaint=complaint)


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


def judge_upload(answer: UploadAnswer, file_ids: Sequence[str], vocabulary: Vocabulary) -> dict[str, Verdict]:
    """
    Return what *answer* says of each of *file_ids*: accepted, refused, or unknown. Never more than it says.

    :param answer: the answer, as read.
    :param file_ids: every id that was in the request.
    :param vocabulary: which words mean what.
    """
    by_id: dict[str, list[FileResult]] = {}
    for entry in answer.files:
        by_id.setdefault(_word(entry.file_id), []).append(entry)
    # Thousands of files share a handful of words.
    meaning_of, shown = functools.cache(vocabulary.meaning), functools.cache(_shown)
    whole_refused = meaning_of(answer.status, answer.result) is Meaning.REFUSED
    return {
        file_id: _judge_one(by_id.get(_word(file_id), []), answer, meaning_of, shown, whole_refused=whole_refused)
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


@dataclass(slots=True)
class Receipt:
    """
    What became of one file: one entry of the task's XCom.

    Fields are the public interface; :meth:`as_dict` gives plain JSON in their order.
    """

    name: str
    source: str
    client_no: str
    file_type: str
    size: int | None = None
    file_id: str | None = None
    sha256: str | None = None
    outcome: Outcome = Outcome.NOT_SENT
    status: str | None = None
    result: str | None = None
    message: str | None = None
    uploaded_at: str | None = None
    unwritten: bool = field(default=False, repr=False)
    """Whether the ledger could not be told of the outcome, so that the next run finds it unknown. Not published."""
    passing: bool = field(default=False, repr=False)
    """Of a file not sent: whether the cause may pass by itself, so that a retry of the task helps. Not published."""

    def as_dict(self) -> dict[str, Any]:
        """Return the published fields in their documented order, as plain JSON."""
        return {
            "file_id": self.file_id,
            "name": self.name,
            "source": self.source,
            "size": self.size,
            "sha256": self.sha256,
            "client_no": self.client_no,
            "file_type": self.file_type,
            "outcome": str(self.outcome),
            "status": self.status,
            "result": self.result,
            "message": self.message,
            "uploaded_at": self.uploaded_at,
        }
