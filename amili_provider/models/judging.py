"""What an answer says of each file, judged strictly: what is not clearly accepted or refused is unknown."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from amili_provider.models.answers import FileResult, UploadAnswer, begins_like_json, everything_in, read_json
from amili_provider.models.outcomes import Outcome, Verdict
from amili_provider.models.text import one_line
from amili_provider.models.vocabulary import DONE_WORDS, Meaning, Vocabulary, says_in_part, word


def judge_upload(answer: UploadAnswer, file_ids: Sequence[str], vocabulary: Vocabulary) -> dict[str, Verdict]:
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


def takes_something(body: bytes, vocabulary: Vocabulary) -> bool:
    """
    Return whether an answer could mean that some file of its request was taken, whatever its status code.

    Only words of refusal, and no words at all, say that nothing was. Of files that such an answer does not name nobody
    knows what became of them. What begins like JSON and cannot be read may be Amili's, too.
    """
    try:
        data = read_json(body)
    except ValueError:
        return begins_like_json(body)
    if not isinstance(data, dict):
        return isinstance(data, list) and bool(data)
    files = data.get("files")
    if files is not None and not (isinstance(files, list) and all(isinstance(entry, dict) for entry in files)):
        return True
    whole, *inner = (value for value in everything_in(data) if isinstance(value, dict))
    return _says_taken(whole, vocabulary) or any(
        _says_taken(part, vocabulary) or _names_unrefused(part, vocabulary) for part in inner
    )


def _says_taken(part: dict[str, Any], vocabulary: Vocabulary) -> bool:
    words = word(part.get("status")), word(part.get("result"))
    meaning = vocabulary.meaning(*words)
    if meaning is Meaning.UNCLEAR:
        named = part.get("fileid") is not None and any(w and not w.isdecimal() for w in words)
        return named or says_in_part(*words) or not DONE_WORDS.isdisjoint(words)
    return meaning is not Meaning.REFUSED


def _names_unrefused(part: dict[str, Any], vocabulary: Vocabulary) -> bool:
    named = part.get("fileid") is not None
    return named and vocabulary.meaning(part.get("status"), part.get("result")) is not Meaning.REFUSED


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
