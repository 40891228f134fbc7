"""
The body of an upload; and whether an answer could mean that Amili took a file of it.

The JSON of ``POST /clients/{clientno}/files`` is a stream of known length that can be sent again. The request's last
bytes, *the tail*, are held back until :attr:`UploadBody.before_tail` returns. Until then the JSON is incomplete and
``fileId``, the last key of each file object, is missing from the last file, so nothing can have been accepted. Source
of the shape: "POST (upload) one or more OS files".
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pybase64

from amili_provider import fault_points
from amili_provider.api.in_flight import InFlight
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

READ_BLOCK_BYTES = 3 * 256 * 1024
"""Bytes of content encoded at once: a multiple of three, so that blocks of base64 can be put one after another."""
_FLUSH_BYTES = 256 * 1024
"""Small pieces are gathered up to this size, so that thousands of small files do not cost a system call each."""
_DONE = DONE_WORDS | {"accepted"}


class Content(Protocol):
    """Bytes of one file that can be read again and again."""

    @property
    def size(self) -> int:
        """Bytes."""

    def blocks(self, block_bytes: int) -> Iterable[bytes | memoryview]:
        """Yield the content from its start, in blocks of exactly *block_bytes* but for the last."""

    def check_unchanged(self) -> None:
        """
        Check that what was read just now is what was hashed.

        :raises Exception: if it is not, or if that cannot be told.
        """


@dataclass(slots=True)
class UploadPart:
    """
    One file of a request.

    :param file_id: the caller's id, echoed by Amili. Of the last file it may change, not in length, until
        :attr:`UploadBody.before_tail` has returned: it is in the tail.
    :param name: the name given to Amili.
    :param file_type: one of the OS file types that Amili configured for the client.
    :param content: its bytes.
    """

    file_id: str
    name: str
    file_type: str
    content: Content

    def opening(self) -> bytes:
        """Return what stands before the base64 text."""
        fields = json.dumps({"type": self.file_type, "name": self.name})
        return f'{fields[:-1]}, "content": "'.encode()

    def closing(self) -> bytes:
        """Return what stands after the base64 text: ``fileId`` comes last."""
        return f'", "fileId": {json.dumps(self.file_id)}}}'.encode()

    @property
    def encoded_bytes(self) -> int:
        """Bytes that this part takes in the request."""
        return len(self.opening()) + base64_bytes(self.content.size) + len(self.closing())


class PartUnreadable(Exception):  # noqa: N818 - not a failure of the request, but news about one part of it
    """
    One part could not be read, or is not what it was when it was hashed; the tail was not released.

    :param file_id: the part.
    :param cause: what its content raised.
    """

    def __init__(self, file_id: str, cause: Exception) -> None:
        super().__init__(file_id, cause)
        self.file_id = file_id
        self.cause = cause


def base64_bytes(size: int) -> int:
    """Return the length of the base64 text of *size* bytes (RFC 4648 section 4)."""
    return (size + 2) // 3 * 4


class UploadBody(Iterable[bytes]):
    """
    The body of one upload request. Every iteration yields the same bytes, from the start.

    :param parts: the files, at least one.
    :param user_id: ``metadata.userId``, left out if None.
    :param before_tail: called when all but the tail is on its way; what it raises ends the request unaccepted.
    :param before_replay: called at the start of an iteration that follows one whose tail was released. The
        sender iterates again only where nothing was accepted.
    :param on_bytes: called with the length of each chunk before it is handed out; what it raises ends the request.
    """

    def __init__(
        self,
        parts: Sequence[UploadPart],
        *,
        user_id: str | None = None,
        before_tail: Callable[[], None] | None = None,
        before_replay: Callable[[], None] | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        if not parts:
            raise ValueError("An upload needs at least one file.")
        self.parts = tuple(parts)
        self.before_tail = before_tail
        self.before_replay = before_replay
        self.on_bytes = on_bytes
        self.wire: InFlight | None = None
        """The connection, as long as the body is being sent over one."""
        self.released = False
        """Whether the tail was handed out in the last iteration, so that Amili could have accepted the files."""
        metadata = "" if user_id is None else f'"metadata": {json.dumps({"userId": user_id})}, '
        self._head = f'{{{metadata}"files": ['.encode()
        self._frames = [(part.opening(), part.closing()) for part in self.parts]
        self._tail_bytes = len(self._frames[-1][1]) + len(b"]}")
        framing = sum(len(opening) + len(closing) for opening, closing in self._frames) + 2 * (len(self.parts) - 1)
        encoded = sum(base64_bytes(part.content.size) for part in self.parts)
        self.content_length = len(self._head) + framing + encoded + len(b"]}")
        """Exact bytes of the body."""

    @property
    def named(self) -> Collection[str]:
        """The ids and the names of its files."""
        return {text for part in self.parts for text in (part.file_id, part.name)}

    def __repr__(self) -> str:
        return f"<UploadBody of {len(self.parts)} file(s), {self.content_length} bytes>"

    def __iter__(self) -> Iterator[bytes]:
        replay, self.released = self.released, False
        if replay and self.before_replay:
            self.before_replay()
        for chunk in self._gathered():
            if self.on_bytes:
                self.on_bytes(len(chunk))
            yield chunk
        if self.wire:
            self.wire.wait_until_delivered()
        for part in self.parts:
            try:
                part.content.check_unchanged()
            except Exception as error:
                raise PartUnreadable(part.file_id, error) from error
        if self.before_tail:
            self.before_tail()
        tail = self.parts[-1].closing() + b"]}"
        if len(tail) != self._tail_bytes:
            raise ValueError("the id of the last file changed in length; its request was announced with another")
        if self.wire:
            self.wire.check_connected()
        self.released = True
        fault_points.reached("before tail")
        yield tail
        fault_points.reached("after tail")

    def _gathered(self) -> Iterator[bytes]:
        """Yield everything but the tail, small pieces joined."""
        pieces, length = [self._head], len(self._head)
        for number, part in enumerate(self.parts):
            opening, closing = self._frames[number]
            pieces.append(opening)
            length += len(pieces[-1])
            for block in self._checked_blocks(part):
                pieces.append(pybase64.b64encode(block))
                length += len(pieces[-1])
                if length >= _FLUSH_BYTES:
                    yield pieces[0] if len(pieces) == 1 else b"".join(pieces)
                    pieces, length = [], 0
            if number < len(self.parts) - 1:
                pieces.append(closing + b", ")
                length += len(pieces[-1])
        if pieces:
            yield b"".join(pieces)

    @staticmethod
    def _checked_blocks(part: UploadPart) -> Iterator[bytes | memoryview]:
        """Yield the part's blocks; what is read must be as long as what was announced."""
        seen, size = 0, part.content.size
        blocks = iter(part.content.blocks(READ_BLOCK_BYTES))
        while True:
            try:
                block = next(blocks, None)
            except Exception as error:
                raise PartUnreadable(part.file_id, error) from error
            if block is None:
                break
            seen += len(block)
            if seen > size or (seen < size and len(block) != READ_BLOCK_BYTES):
                break
            yield block
        if seen != size:
            raise PartUnreadable(part.file_id, ValueError("the content is not as long as it was when it was hashed"))


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
