"""
An incremental JSON reader that can hand long strings on while they arrive.

It builds what :func:`json.loads` would build, from chunks of any size, with one difference: a string value
for which a sink is opened goes to that sink piece by piece, and the sink's result takes its place in the
tree. So a body of a gigabyte costs the memory of one chunk. Written for this sandbox: plain UTF-8, nothing
but RFC 8259.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

from amili_provider.sandbox.streamed import MalformedJson, Sink, StreamedString

DEEPEST_NESTING = 100
LONGEST_SCALAR = 4096
"""Characters of one number or literal."""

_SPACE = re.compile(rb"[ \t\n\r]*")
_SCALAR = re.compile(rb"[-+.0-9A-Za-z]*")
_TEXT_STOP = re.compile(rb'["\\]')
_QUOTE, _BACKSLASH, _COLON, _COMMA = b'"\\:,'
_OPEN_OBJECT, _CLOSE_OBJECT, _OPEN_ARRAY, _CLOSE_ARRAY = b"{}[]"


class TooMuchText(ValueError):  # noqa: N818
    """More text outside of sinks than the reader was allowed to keep."""


class JsonScanner:
    """
    Reads one JSON value from chunks.

    :param open_sink: asked at each string *value* with its path (keys and indexes); a sink, or None to keep
        the text.
    :param most_text: bytes of keys, kept strings and numbers in total before :class:`TooMuchText`.
    """

    def __init__(
        self,
        open_sink: Callable[[tuple[str | int, ...]], Sink | None] = lambda _path: None,
        *,
        most_text: int = 64 * 1024 * 1024,
    ) -> None:
        self._open_sink = open_sink
        self._text_left = most_text
        self._state: Callable[[bytes, int], int] = self._between
        self._expected = "value"
        self._containers: list[dict[str, Any] | list[Any]] = []
        self._keys: list[str] = []  # one per open object: the key whose value is being read
        self._root: Any = None
        self._raw = bytearray()  # the text or scalar being read, escapes unresolved
        self._escaped = False
        self._reading_key = False
        self._stream: StreamedString | None = None
        self._read = 0

    def feed(self, chunk: bytes) -> None:
        """Read the next *chunk*."""
        position, end = 0, len(chunk)
        while position < end:
            position = self._state(chunk, position)
        self._read += end

    def close(self) -> Any:
        """Return the value. :raises MalformedJson: if it is not complete."""
        if self._state == self._scalar:
            self._finish_scalar(0)
        if self._expected != "nothing":
            raise MalformedJson(f"the JSON ends too early, after {self._read} bytes")
        return self._root

    def _fail(self, position: int, what: str) -> NoReturn:
        raise MalformedJson(f"{what} at byte {self._read + position}")

    # Between values

    def _between(self, chunk: bytes, position: int) -> int:
        position = _SPACE.match(chunk, position).end()  # type: ignore[union-attr] # even nothing matches
        if position == len(chunk):
            return position
        byte, expected = chunk[position], self._expected
        if expected in {"value", "value or ]"}:
            return self._begin_value(byte, position)
        if expected in {"key", "key or }"}:
            if byte == _QUOTE:
                self._begin_text(reading_key=True)
            elif byte == _CLOSE_OBJECT and expected == "key or }":
                self._close_container()
            else:
                self._fail(position, "a key was expected")
        elif expected == "colon":
            if byte != _COLON:
                self._fail(position, "a colon was expected")
            self._expected = "value"
        elif expected == "comma":
            self._after_value(byte, position)
        else:
            self._fail(position, "the JSON was complete, but something follows")
        return position + 1

    def _begin_value(self, byte: int, position: int) -> int:
        if byte == _QUOTE:
            sink = self._open_sink(self._path())
            if sink is None:
                self._begin_text(reading_key=False)
            else:
                self._stream, self._state = StreamedString(sink), self._streamed
        elif byte == _OPEN_OBJECT:
            self._open_container({}, "key or }", position)
            self._keys.append("")
        elif byte == _OPEN_ARRAY:
            self._open_container([], "value or ]", position)
        elif byte == _CLOSE_ARRAY and self._expected == "value or ]":
            self._close_container()
        else:
            self._raw, self._state = bytearray(), self._scalar
            return position
        return position + 1

    def _after_value(self, byte: int, position: int) -> None:
        in_object = isinstance(self._containers[-1], dict)
        if byte == _COMMA:
            self._expected = "key" if in_object else "value"
        elif byte == (_CLOSE_OBJECT if in_object else _CLOSE_ARRAY):
            self._close_container()
        else:
            self._fail(position, "a comma or the end of the container was expected")

    def _open_container(self, container: dict[str, Any] | list[Any], expected: str, position: int) -> None:
        if len(self._containers) == DEEPEST_NESTING:
            self._fail(position, f"nested deeper than {DEEPEST_NESTING}")
        self._containers.append(container)
        self._expected = expected

    def _close_container(self) -> None:
        container = self._containers.pop()
        if isinstance(container, dict):
            self._keys.pop()
        self._place(container)

    def _path(self) -> tuple[str | int, ...]:
        keys = iter(self._keys)
        return tuple(next(keys) if isinstance(c, dict) else len(c) for c in self._containers)

    def _place(self, value: Any) -> None:
        self._state = self._between
        if not self._containers:
            self._root, self._expected = value, "nothing"
            return
        container = self._containers[-1]
        if isinstance(container, dict):
            container[self._keys[-1]] = value
        else:
            container.append(value)
        self._expected = "comma"

    # Numbers and literals

    def _scalar(self, chunk: bytes, position: int) -> int:
        end = _SCALAR.match(chunk, position).end()  # type: ignore[union-attr] # it matches the empty string
        self._keep(chunk[position:end])
        if len(self._raw) > LONGEST_SCALAR:
            self._fail(position, "an endless number")
        if end < len(chunk):
            self._finish_scalar(end)
        return end

    def _finish_scalar(self, position: int) -> None:
        try:
            value = json.loads(self._raw, parse_constant=_refuse_constant)
        except ValueError:
            self._fail(position, "not a JSON value")
        self._place(value)

    # Strings that are kept

    def _begin_text(self, *, reading_key: bool) -> None:
        self._raw, self._escaped, self._reading_key = bytearray(), False, reading_key
        self._state = self._text

    def _text(self, chunk: bytes, position: int) -> int:
        if self._escaped:
            self._keep(chunk[position : position + 1])
            self._escaped = False
            return position + 1
        stop = _TEXT_STOP.search(chunk, position)
        if stop is None:
            self._keep(chunk[position:])
            return len(chunk)
        self._keep(chunk[position : stop.start()])
        if chunk[stop.start()] == _BACKSLASH:
            self._keep(b"\\")
            self._escaped = True
        else:
            self._finish_text(stop.start())
        return stop.end()

    def _finish_text(self, position: int) -> None:
        try:
            text: str = json.loads(f'"{self._raw.decode()}"')
        except ValueError:
            self._fail(position, "a string that is not JSON or not UTF-8 ends")
        if self._reading_key:
            self._keys[-1] = text
            self._state, self._expected = self._between, "colon"
        else:
            self._place(text)

    def _keep(self, piece: bytes) -> None:
        self._text_left -= len(piece)
        if self._text_left < 0:
            raise TooMuchText("more text than this reader keeps")
        self._raw += piece

    # Strings that go to a sink

    def _streamed(self, chunk: bytes, position: int) -> int:
        assert self._stream is not None  # only a string that has a sink brings the reader into this state
        try:
            end, finished = self._stream.read(chunk, position)
        except MalformedJson as problem:
            self._fail(position, str(problem))
        if finished:
            self._place(self._stream.close())
        return end


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity are Python's, not JSON's
