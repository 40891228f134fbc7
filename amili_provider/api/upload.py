"""
What we send: the JSON of ``POST /clients/{clientno}/files`` as a stream of known length that can be sent again.

The request's last bytes, *the tail*, are held back until :attr:`UploadBody.before_tail` returns. Until then the
JSON is incomplete and ``fileId``, the last key of each file object, is missing from the last file, so nothing
can have been accepted. Source of the shape: "POST (upload) one or more OS files".
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpcore
import pybase64

from amili_provider import fault_points
from amili_provider.api import tcp

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


class Body(Iterable[bytes], Protocol):
    """What is sent: the same bytes in each iteration; ``UploadBody`` is one."""

    content_length: int
    released: bool
    wire: Any
    """Told here before each iteration: what knows how much has reached the other end."""

    @property
    def named(self) -> Collection[str]:
        """The ids and the names of its files."""


class InFlight:
    """
    What the HTTP library tells of one request while it runs, and the means to end it from another thread.

    httpx bounds each single read; an answer that trickles in would never end. So a timer shuts the socket down.
    httpx also hides a failed write and tries to read an answer; so how much is out is asked of the body itself.

    :param body: the body of an upload, if it is one.
    :param connect_seconds: for a proxy's answer to CONNECT.
    """

    def __init__(self, body: Body | None = None, *, connect_seconds: float) -> None:
        self.overdue = False
        self.peer: tuple[str, int] | None = None
        """Host and port connected to last: the target's, or a proxy's."""
        self._body = body
        self._connect_seconds = connect_seconds
        self._begun = False
        self._unwritten = False
        self._cut = False
        self._socket: socket.socket | None = None
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[bytes]:
        if self._body is not None:
            self._begun = True
            self._body.wire = self
            yield from self._body

    def wait_until_delivered(self) -> None:
        """
        Return when all that was handed out has reached the other machine.

        :raises httpcore.WriteError: if it cannot any more. The HTTP library then looks for an answer that came early.
        """
        if self._socket is not None and not tcp.wait_until_delivered(self._socket):
            raise httpcore.WriteError("the connection ended, or was answered, before the request was complete")

    def check_connected(self) -> None:
        """
        Check that the other end is there and has not answered yet. Costs nothing.

        :raises httpcore.WriteError: if not, as above.
        """
        if self._socket is not None and tcp.speaks_or_is_gone(self._socket):
            raise httpcore.WriteError("the connection ended, or was answered, before the request was complete")

    @property
    def released(self) -> bool:
        """
        Whether the other end can have the whole request, as it was sent last.

        The body says it as soon as it hands its last bytes out. Where writing them failed, the machine did not take
        all of them, so that nobody else can have.
        """
        return self._begun and not self._unwritten and self._body is not None and self._body.released

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Take a report of the HTTP library (httpx's request extension ``trace``)."""
        if event.endswith(".connect_tcp.started"):
            self._disarm()
            self._connecting(info)
        elif event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._connected(info["return_value"])
        elif event == "http11.send_request_headers.started":
            # A token request, a proxy's CONNECT and a replay come through here too: what was out before is moot.
            self._disarm()
            self._begun = self._unwritten = self.overdue = False
        elif event == "http11.send_request_body.failed":
            self._unwritten = True
        elif event == "http11.response_closed.started":
            self._disarm()
        elif event == "http11.receive_response_headers.started":
            request = info["request"]
            connect = request.method == b"CONNECT"
            self._arm(self._connect_seconds if connect else request.extensions.get("answer_seconds"))

    async def atrace(self, event: str, info: dict[str, Any]) -> None:
        """Take a report where nothing blocks. There, time is bounded from outside, so only the peer is noted."""
        if event.endswith(".connect_tcp.started"):
            self._connecting(info)

    def cut(self) -> None:
        """End the request now."""
        with self._lock:
            self._cut = True
            self._shut()

    def done(self) -> None:
        """Forget the request: it has ended."""
        self._disarm()
        with self._lock:
            self._socket = None

    def _connecting(self, info: dict[str, Any]) -> None:
        self.peer = (str(info["host"]), int(info["port"]))

    def _connected(self, stream: Any) -> None:
        with self._lock:
            self._socket = stream.get_extra_info("socket")
            if self._cut:
                self._shut()

    def _shut(self) -> None:
        if self._socket is not None:
            # Not the TLS socket's own method: that would take the connection apart under the reading thread.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _arm(self, seconds: float | None) -> None:
        self._disarm()
        if seconds is not None:
            self._timer = threading.Timer(seconds, self._expire)
            self._timer.daemon = True
            self._timer.start()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        with self._lock:
            self.overdue = True
            self._shut()
