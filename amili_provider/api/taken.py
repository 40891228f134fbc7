"""Whether an answer could mean that a file of its request was taken, whatever its status code. In doubt, it could."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Any

from amili_provider.api.results import (
    DONE_WORDS,
    Meaning,
    Vocabulary,
    begins_like_json,
    everything_in,
    plain_name,
    read_json,
    says_in_part,
    word,
)

_DONE = DONE_WORDS | {"accepted"}


def takes_something(body: bytes, vocabulary: Vocabulary, named: Collection[str] = ()) -> bool:
    """
    Return whether an answer could mean that some file of its request was taken, whatever its status code.

    Only words of refusal, and no words at all, say that nothing was. Of files that such an answer does not name nobody
    knows what became of them. What begins like JSON and cannot be read may be Amili's, too.

    :param body: the answer.
    :param vocabulary: which words mean what.
    :param named: the ids and the names of the request's files. Sentences that mention one are not looked at.
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
    return (
        _says_taken(whole, vocabulary)
        or any(_says_taken(part, vocabulary) or _names_unrefused(part, vocabulary) for part in inner)
        or _stands_unrefused(data, frozenset(map(word, named)), vocabulary)
    )


def _says_taken(part: dict[str, Any], vocabulary: Vocabulary) -> bool:
    words = word(part.get("status")), word(part.get("result"))
    meaning = vocabulary.meaning(*words)
    if meaning is Meaning.UNCLEAR:
        named = part.get("fileid") is not None and any(w and not w.isdecimal() for w in words)
        return named or says_in_part(*words) or not _DONE.isdisjoint(words)
    return meaning is not Meaning.REFUSED


def _names_unrefused(part: dict[str, Any], vocabulary: Vocabulary) -> bool:
    return part.get("fileid") is not None and not _refuses(part, vocabulary)


def _refuses(said: Any, vocabulary: Vocabulary) -> bool:
    """Return whether *said* refuses: an object by its words, a text like ``FAILED`` or ``PROCESSED/FAILED`` itself."""
    words: tuple[Any, Any] = None, None
    if isinstance(said, dict):
        part = {plain_name(name): inner for name, inner in said.items()}
        words = part.get("status"), part.get("result")
    elif isinstance(said, str):
        status, _, result = said.partition("/")
        words = status, result
    return vocabulary.meaning(*words) is Meaning.REFUSED


def _stands_unrefused(data: Any, named: frozenset[str], vocabulary: Vocabulary) -> bool:
    """
    Return whether one of *named*, or a word that takes, stands anywhere as a name or a value, and nothing refuses it.

    What refuses a value: the words of its object, or the name over it or over its list, as in ``{"rejected": [...]}``.
    What refuses a name: what is said under it, or the name over its object. An object's ``status``, ``result`` and
    ``fileId`` are judged together elsewhere.
    """
    refusing = vocabulary.refused_words
    queue = deque([(data, False)])
    while queue:
        value, refused = queue.popleft()
        if isinstance(value, list):
            queue.extend((inner, refused) for inner in value)
        elif isinstance(value, dict):
            refuses = refused or _refuses(value, vocabulary)
            for name, inner in ((plain_name(name), inner) for name, inner in value.items()):
                if name in named and not (refused or _refuses(inner, vocabulary)):
                    return True
                if name in _DONE and inner and not isinstance(inner, str):
                    return True
                over = name.removesuffix("s") in refusing
                if isinstance(inner, (list, dict)):
                    queue.append((inner, over))
                elif name not in ("status", "result", "fileid"):
                    queue.append((inner, over or refuses))
        elif (
            isinstance(value, str) and not refused and (word(value) in named or _is_word_that_takes(value, vocabulary))
        ):
            return True
    return False


def _is_word_that_takes(value: str, vocabulary: Vocabulary) -> bool:
    status, _, result = word(value).partition("/")
    return not any(c.isspace() for c in status) and _says_taken({"status": status, "result": result}, vocabulary)
