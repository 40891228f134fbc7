"""
What a wait asks Amili, and what the answers mean: one reading for poke, reschedule and triggers.

"GET one batch" documents 200, 202 and 206 as codes, and no body. A word of refusal in the body overrides a 200; no word
makes another code a success, and a word that nobody knows is no acceptance.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from amili_provider.api.responses import NOT_FOUND, Asked, Response
from amili_provider.api.results import (
    DONE_WORDS,
    Meaning,
    Vocabulary,
    everything_in,
    says_in_part,
    without_content,
    word,
)
from amili_provider.exceptions import AmiliError, AmiliRequestError, AmiliResponseError
from amili_provider.receipts import one_line

Key = tuple[str, str]
"""A client number, and a file's id or a batch's uuid."""
_WORKING, _PARTLY = 202, 206


@dataclass(frozen=True, slots=True)
class ResultStatus:
    """
    What Amili says of one file or batch.

    :param meaning: pending and unclear are not final.
    :param status: its words, each as one safe line.
    """

    meaning: Meaning
    status: str | None = None
    result: str | None = None
    message: str | None = None

    @property
    def words(self) -> str:
        """The words, for messages."""
        shown = [w for w in ("/".join(w for w in (self.status, self.result) if w), self.message) if w]
        return ": ".join(shown) or "nothing that is known"


class Question(NamedTuple):
    """
    How something is asked for, and what the answer means.

    :param fetch: asks once, with the client of tasks; or with that of triggers, and then the answer is awaited.
    :param read: reads the answer.
    """

    fetch: Callable[[Any, Key], Any]
    read: Callable[[Any], ResultStatus]


def about_files(vocabulary: Vocabulary) -> Question:
    """Return the question for the result of a file."""

    def read(asked: Asked) -> ResultStatus:
        found = asked.result
        if found is None:
            return ResultStatus(Meaning.PENDING, message=f"no result yet, {asked.status_code}")
        meaning = vocabulary.meaning(found.status, found.result)
        return ResultStatus(meaning, _shown(found.status), _shown(found.result), _shown(found.message))

    return Question(lambda client, key: client.ask_for_result(*key), read)


def about_batches(vocabulary: Vocabulary, if_partial: str) -> Question:
    """
    Return the question for a batch.

    :param if_partial: what a batch that is done in part means: ``wait``, ``fail`` or ``succeed``.
    """
    partly = {"wait": Meaning.PENDING, "fail": Meaning.REFUSED, "succeed": Meaning.ACCEPTED}[if_partial]
    return Question(lambda client, key: client.get_batch(*key), lambda answer: batch_status(answer, vocabulary, partly))


def batch_status(answer: Response, vocabulary: Vocabulary, partly: Meaning) -> ResultStatus:
    """
    Return what an answer says of a batch.

    :param answer: 200, 202 or 206.
    :param vocabulary: which words mean refused or pending.
    :param partly: what "done in part" means.
    :raises AmiliResponseError: for another code, or a 200 or 206 that is not a readable answer.
    """
    code = answer.status_code
    if code == _WORKING:
        return ResultStatus(Meaning.PENDING, message="202, still being processed")
    if code not in (200, _PARTLY):
        raise AmiliResponseError(f"Amili answered {code} about a batch, which says nothing.", status_code=code)
    data = answer.json()
    tops = data if isinstance(data, list) else [data]
    if not tops or not all(isinstance(top, dict) for top in tops):
        raise AmiliResponseError("The answer about a batch is JSON, but not an object.", status_code=code)
    meaning_of = functools.cache(functools.partial(_meaning, vocabulary))
    first: dict[Meaning, dict[str, Any]] = {}
    partial = None
    for part in _parts(tops, vocabulary):
        # Some answers repeat their own code as a number, which is no word.
        words = tuple("" if part.get(name) == code else word(_plain(part, name)) for name in ("status", "result"))
        if any(words):
            first.setdefault(meaning_of(words), part)
            partial = partial or (part if says_in_part(*words) else None)
    if Meaning.REFUSED in first:
        return _said(Meaning.REFUSED, first[Meaning.REFUSED])
    if code == _PARTLY:
        return _said(partly, tops[0], "206, processed in part")
    if partial is not None:
        return _said(partly, partial)
    for meaning in (Meaning.PENDING, Meaning.UNCLEAR):
        if meaning in first:
            return _said(meaning, first[meaning])
    return _said(Meaning.ACCEPTED, tops[0], "200, processed")


def _parts(data: Any, vocabulary: Vocabulary) -> Iterator[dict[str, Any]]:
    """
    Yield every object in an answer, outer ones first, and words that stand anywhere else, as parts of their own.

    The body is not documented, so no list or object is taken for one that holds no words: a refusal counts wherever it
    stands, as the name of something that is there, too (``{"FAILED": 3}``).
    """
    refused = vocabulary.refused_words
    for value in everything_in(data):
        if isinstance(value, str) and word(value) in refused:
            yield {"status": value}
        elif isinstance(value, dict):
            yield value
            yield from ({"status": name} for name, inner in value.items() if inner and name in refused)
            for name in ("status", "result"):
                if isinstance(value.get(name), (list, dict)):
                    yield from ({"status": text} for text in everything_in(value[name]) if isinstance(text, str))


def _meaning(vocabulary: Vocabulary, words: tuple[str, ...]) -> Meaning:
    found = vocabulary.meaning(*words)
    return Meaning.ACCEPTED if found is Meaning.UNCLEAR and DONE_WORDS.issuperset(filter(None, words)) else found


def _said(meaning: Meaning, entry: dict[str, Any], otherwise: str | None = None) -> ResultStatus:
    status, result, message = (_shown(_plain(entry, name)) for name in ("status", "result", "message"))
    return ResultStatus(meaning, status, result, message or otherwise)


def _plain(part: dict[str, Any], name: str) -> Any:
    """Return a value of a part; None for a list or an object, whose words are looked for in it, and never shown."""
    value = part.get(name)
    return None if isinstance(value, (list, dict)) else value


def _shown(value: Any) -> str | None:
    return None if value is None else one_line(without_content(str(value)))


def is_doubtful(error: AmiliError) -> bool:
    """
    Return whether an error that ends other calls is looked at twice here.

    An answer that cannot be read may be a gateway's page of one bad minute; a batch that is not found may have
    been given its uuid a moment ago. (A file that is not found has no result yet: that is no error at all.)
    """
    return isinstance(error, AmiliResponseError) or (
        isinstance(error, AmiliRequestError) and error.status_code == NOT_FOUND
    )
