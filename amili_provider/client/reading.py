"""Answers are read within bounds: an answer may be endless, huge, or packed to become huge."""

from __future__ import annotations

import zlib

import httpx

LARGEST_ANSWER_BYTES = 8 * 1024 * 1024
"""Of an answer, unpacked."""


class AnswerUnusable(Exception):  # noqa: N818 - not an error yet: the caller knows whether a file was on its way
    """The answer is too large, or packed in a way that was not asked for."""


class Unpacking:
    """
    Gathers the raw bytes of an answer, unpacked if they are packed, up to a bound.

    :param encoding: the header ``Content-Encoding``. None was asked for, but some gateways pack nevertheless.
    :param largest: bytes after unpacking.
    """

    def __init__(self, encoding: str, largest: int = LARGEST_ANSWER_BYTES) -> None:
        encoding = encoding.strip().casefold()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise AnswerUnusable("the answer is packed in a way that was not asked for")
        # 32: recognise the headers of gzip and zlib by themselves.
        self._unpacker = None if encoding in ("", "identity") else zlib.decompressobj(32 + zlib.MAX_WBITS)
        self._largest = largest
        self._pieces: list[bytes] = []
        self._length = 0

    def add(self, raw: bytes) -> None:
        """Take raw bytes."""
        room = self._largest - self._length
        if self._unpacker is None:
            piece = raw
        else:
            try:
                piece = self._unpacker.decompress(raw, room + 1)
            except zlib.error:
                raise AnswerUnusable("the answer cannot be unpacked") from None
        if len(piece) > room:
            raise AnswerUnusable(f"the answer is larger than {self._largest // (1024 * 1024)} MiB")
        self._pieces.append(piece)
        self._length += len(piece)

    def content(self) -> bytes:
        """Return what was gathered."""
        if self._unpacker is not None and not self._unpacker.eof and self._length:
            raise AnswerUnusable("the answer cannot be unpacked")
        return b"".join(self._pieces)


def read_answer(response: httpx.Response, *, code_decides: bool) -> bytes:
    """
    Read the body of an answer.

    :param response: the answer, not read yet.
    :param code_decides: whether the body is only wanted for its message: then what cannot be read is left out.
    :raises AnswerUnusable: if it is too large or cannot be unpacked.
    :raises httpx.HTTPError: if it ends early.
    """
    try:
        unpacking = Unpacking(response.headers.get("content-encoding", ""))
        for raw in response.iter_raw():
            unpacking.add(raw)
        return unpacking.content()
    except (AnswerUnusable, httpx.HTTPError):
        if code_decides:
            return b""
        raise


async def aread_answer(response: httpx.Response, *, code_decides: bool) -> bytes:
    """Read the body of an answer without blocking; see :func:`read_answer`."""
    try:
        unpacking = Unpacking(response.headers.get("content-encoding", ""))
        async for raw in response.aiter_raw():
            unpacking.add(raw)
        return unpacking.content()
    except (AnswerUnusable, httpx.HTTPError):
        if code_decides:
            return b""
        raise
