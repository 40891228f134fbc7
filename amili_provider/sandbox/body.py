"""The JSON of an upload, read while it arrives: contents are handed on, and :mod:`json` reads the rest."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from typing import Any, NoReturn

from amili_provider.sandbox.content import ReceivedContent

_CONTENT = re.compile(rb'[{,][ \t\n\r]*"content"[ \t\n\r]*:[ \t\n\r]*"')
_LONGEST_BEGINNING = 64
"""Bytes of a key, its colon and the blanks about them, that are found across two chunks; of a longer one, the text is
kept, and decoded in the end."""


class MalformedJson(ValueError):  # noqa: N818 - reads as what it says
    """The bytes are not one JSON value, or not yet when they ended."""


class TooMuchText(ValueError):  # noqa: N818
    """More text besides contents than the reader was allowed to keep."""


class UploadBody:
    """
    Reads one JSON value (RFC 8259) from chunks; a body of a gigabyte costs the memory of one chunk.

    A text under the key ``content`` is handed on as long as it is base64, its slashes escaped or not. A mark stands in
    its place, and before whatever else the text has. So all but base64 is read, and judged, by :mod:`json`; and every
    text ``content`` of an object becomes a :class:`~amili_provider.sandbox.content.ReceivedContent`.

    :param open_content: returns where the next content goes.
    :param most_text: bytes besides contents before :class:`TooMuchText`.
    """

    def __init__(self, open_content: Callable[[], ReceivedContent], *, most_text: int = 64 * 1024 * 1024) -> None:
        self._open_content = open_content
        self._most_text = most_text
        self._text = bytearray()
        self._tail = b""  # may be the beginning of a content's key
        self._arriving: ReceivedContent | None = None
        self._mark = secrets.token_hex(16)  # no text of the caller's can be taken for it
        self._contents: dict[str, ReceivedContent] = {}

    def feed(self, chunk: bytes) -> None:
        """
        Read the next *chunk*.

        :raises TooMuchText: if there is more to keep than is allowed.
        """
        data, at = self._tail + chunk, 0
        self._tail = b""
        while at < len(data):
            at = self._read_text(data, at) if self._arriving is None else self._read_content(self._arriving, data, at)

    def close(self) -> Any:
        """
        Return the value.

        :raises MalformedJson: if it is not complete, or no JSON.
        """
        self._keep(self._tail)
        try:
            return json.loads(self._text.decode(), object_hook=self._with_content, parse_constant=_refuse_constant)
        except RecursionError:
            raise MalformedJson("nested too deeply") from None
        except ValueError as error:
            raise MalformedJson(getattr(error, "msg", None) or str(error)) from None

    def _read_text(self, data: bytes, at: int) -> int:
        # Within a text of JSON, a quote has a backslash before it: what looks like this key and its value is them.
        found = _CONTENT.search(data, at)
        if found is None:
            end = max(at, len(data) - _LONGEST_BEGINNING)
            self._keep(data[at:end])
            self._tail = data[end:]
            return len(data)
        mark = f"{self._mark}{len(self._contents)}"
        self._arriving = self._contents[mark] = self._open_content()
        self._keep(data[at : found.end()] + f"{mark}:".encode())
        return found.end()

    def _read_content(self, content: ReceivedContent, data: bytes, at: int) -> int:
        quote = data.find(b'"', at)
        stop = len(data) if quote < 0 else quote
        while True:
            escape = data.find(b"\\", at, stop)
            end = stop if escape < 0 else escape
            if not content.write(memoryview(data)[at:end]):
                break
            at = end
            if data[at : at + 2] != b"\\/":  # which PHP writes for each slash
                break
            content.write(b"/")
            at += 2
        if content.problem is None and data[at:] in (b"", b"\\"):
            self._tail = data[at:]
            return len(data)
        self._arriving = None
        content.discard_handle()
        return at  # of what is no base64, json is to say whether it is JSON

    def _keep(self, piece: bytes) -> None:
        self._text += piece
        if len(self._text) > self._most_text:
            raise TooMuchText("more text than this reader keeps")

    def _with_content(self, entry: dict[str, Any]) -> dict[str, Any]:
        text = entry.get("content")
        if isinstance(text, str):
            mark, _, rest = text.partition(":")
            content = self._contents.get(mark)
            if content is None:  # its key was not found: it has an escape, or many blanks about it
                content, rest = self._open_content(), text
            content.write(rest.encode("utf-8", "surrogatepass"))
            entry["content"] = content.close()
        return entry


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is Python's, not JSON's")
