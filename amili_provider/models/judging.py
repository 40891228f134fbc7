"""What an answer says of each file, judged strictly: what is not clearly accepted or refused is unknown."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from amili_provider.models.answers import FileResult, UploadAnswer
from amili_provider.models.outcomes import Outcome, Verdict
from amili_provider.models.text import one_line
from amili_provider.models.vocabulary import Meaning, Vocabulary, word

_IN_PART = frozenset({"partial", "partly"})
"""Of a whole request. Assumed: PARTIAL is what the Collection API calls a batch that failed in part."""


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


def takes_something(answer: UploadAnswer, vocabulary: Vocabulary) -> bool:
    """
    Return whether *answer* could mean that some file of its request was taken, whatever its status code.

    Only words of refusal, and no words at all, say that nothing was. Of files that such an answer does not name nobody
    knows what became of them.
    """
    whole = vocabulary.meaning(answer.status, answer.result)
    return (
        answer.shapeless
        or whole in (Meaning.ACCEPTED, Meaning.PENDING)
        or (whole is not Meaning.REFUSED and not _IN_PART.isdisjoint((word(answer.status), word(answer.result))))
        or any(vocabulary.meaning(e.status, e.result) is not Meaning.REFUSED for e in answer.files)
        or any(vocabulary.meaning(e.status, e.result) is Meaning.ACCEPTED for e in answer.nameless)
    )


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
