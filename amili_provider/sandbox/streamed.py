"""A JSON string that is handed on while it arrives, escapes resolved."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any, Protocol

_CONTROL = re.compile(rb"[\x00-\x1f]")
_SHORT_ESCAPE, _UNICODE_ESCAPE = 2, 6


class MalformedJson(ValueError):  # noqa: N818 - reads as what it says
    """The bytes are not one JSON value, or not yet when they ended."""


class Sink(Protocol):
    """Where a string value goes while it arrives."""

    def write(self, piece: bytes | memoryview) -> bool:
        """
        Take the next piece of the string, escapes resolved, as UTF-8.

        :returns: whether every byte was as expected; pieces that were not are checked by the reader itself.
        """

    def close(self) -> Any:
        """Return what stands in the tree in place of the string."""


class StreamedString:
    """
    Reads one string from behind its opening quote to its closing one.

    :param sink: where it goes.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._escape = bytearray()  # possibly cut by a chunk's end
        self._checker: codecs.IncrementalDecoder | None = None

    def read(self, chunk: bytes, position: int) -> tuple[int, bool]:
        """
        Read on.

        :returns: up to where the chunk was read, and whether the string has ended there.
        :raises MalformedJson: without a position.
        """
        if self._escape:
            return self._continue_escape(chunk, position), False
        quote = chunk.find(b'"', position)
        end = len(chunk) if quote < 0 else quote
        backslash = chunk.find(b"\\", position, end)
        if backslash >= 0:
            end = backslash
        if end > position:
            self._emit(memoryview(chunk)[position:end])
        if backslash >= 0:
            self._escape += b"\\"
            return backslash + 1, False
        if quote < 0:
            return end, False
        self._end_character()
        return quote + 1, True

    def close(self) -> Any:
        """Return what the sink makes of the string."""
        return self._sink.close()

    def _continue_escape(self, chunk: bytes, position: int) -> int:
        wanted = _SHORT_ESCAPE
        if len(self._escape) > 1 or chunk[position] == ord("u"):
            wanted = _UNICODE_ESCAPE
        end = min(len(chunk), position + wanted - len(self._escape))
        self._escape += chunk[position:end]
        if len(self._escape) == wanted:
            try:
                character: str = json.loads(f'"{self._escape.decode("ascii")}"')
            except ValueError:
                raise MalformedJson("an escape that is not JSON") from None
            self._escape.clear()
            # The half of a pair is a character to JSON, so it is passed on as it is.
            self._sink.write(character.encode("utf-8", "surrogatepass"))
            self._end_character()
        return end

    def _emit(self, piece: memoryview) -> None:
        as_expected = self._sink.write(piece)
        if as_expected and self._checker is None:
            return  # the fast path: legal base64 is neither a control character nor broken UTF-8
        if self._checker is None:
            self._checker = codecs.getincrementaldecoder("utf-8")()
        if _CONTROL.search(piece):
            raise MalformedJson("a control character in a string")
        try:
            self._checker.decode(piece)
        except UnicodeDecodeError:
            raise MalformedJson("bytes that are not UTF-8 in a string") from None

    def _end_character(self) -> None:
        if self._checker is not None:
            try:
                self._checker.decode(b"", final=True)
            except UnicodeDecodeError:
                raise MalformedJson("bytes that are not UTF-8 in a string") from None
            self._checker.reset()
