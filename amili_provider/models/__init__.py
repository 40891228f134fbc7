"""What the API says, and the questions we ask of it."""

from __future__ import annotations

from amili_provider.models.answers import (
    FileResult,
    UnreadableAnswer,
    UploadAnswer,
    everything_in,
    read_json,
    read_json_object,
    read_message,
    read_upload_answer,
    what_instead_of_json,
)
from amili_provider.models.judging import judge_upload, takes_something
from amili_provider.models.outcomes import Outcome, Receipt, Verdict
from amili_provider.models.text import LONGEST_SHOWN, escaped, one_line, unescaped
from amili_provider.models.vocabulary import (
    ALWAYS_REFUSED,
    DEFAULT_ACCEPTED,
    DEFAULT_PENDING,
    DONE_WORDS,
    Meaning,
    Vocabulary,
    says_in_part,
    word,
)

__all__ = [
    "ALWAYS_REFUSED",
    "DEFAULT_ACCEPTED",
    "DEFAULT_PENDING",
    "DONE_WORDS",
    "LONGEST_SHOWN",
    "FileResult",
    "Meaning",
    "Outcome",
    "Receipt",
    "UnreadableAnswer",
    "UploadAnswer",
    "Verdict",
    "Vocabulary",
    "escaped",
    "everything_in",
    "judge_upload",
    "one_line",
    "read_json",
    "read_json_object",
    "read_message",
    "read_upload_answer",
    "says_in_part",
    "takes_something",
    "unescaped",
    "what_instead_of_json",
    "word",
]
