"""Answers, and what the questions of this package find in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from amili_provider.exceptions import AmiliResponseError
from amili_provider.models import FileResult

NOTHING_YET = (202, 204, 404)
"""Answers to a question for a file's result that mean "not yet"."""


@dataclass(frozen=True, slots=True)
class Answer:
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
            return from_json(self.content, allow_inf_nan=False)
        except ValueError:
            what = "empty" if not self.content.strip() else "not JSON"
            raise AmiliResponseError(
                f"Amili's answer ({self.status_code}) is {what}.", status_code=self.status_code
            ) from None


@dataclass(frozen=True, slots=True)
class UploadReply:
    """
    An answer to an upload that only its content can explain.

    :param status_code: the HTTP status.
    :param body: the body; never shown.
    """

    status_code: int
    body: bytes = field(repr=False)


def file_result_in(answer: Answer, file_id: str) -> FileResult | None:
    """
    Return the result of one file in an answer: an object, an object with ``files``, or a list.

    The endpoint's shape is assumed, so the reading is lenient; but only an entry that names the file counts.

    :raises AmiliResponseError: if the answer is of no such shape, or contradicts itself.
    """
    if answer.status_code in NOTHING_YET:
        return None
    data = answer.json()
    if isinstance(data, dict) and isinstance(data.get("files"), list):
        entries = data["files"]
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
    return found[0] if found else None
