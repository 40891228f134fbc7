"""
What we send: the JSON of ``POST /clients/{clientno}/files`` as a stream of known length that can be sent again.

The request's last bytes, *the tail*, are held back until :attr:`UploadBody.before_tail` returns. Until then the
JSON is incomplete and ``fileId``, the last key of each file object, is missing from the last file, so nothing
can have been accepted. Source of the shape: "POST (upload) one or more OS files".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import pybase64

from amili_provider import fault_points
from amili_provider.api.in_flight import InFlight

READ_BLOCK_BYTES = 3 * 256 * 1024
"""Bytes of content encoded at once: a multiple of three, so that blocks of base64 can be put one after another."""
_FLUSH_BYTES = 256 * 1024
"""Small pieces are gathered up to this size, so that thousands of small files do not cost a system call each."""


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
