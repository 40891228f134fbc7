"""The sandbox's incremental JSON reader against the standard library's, under any cutting of the bytes."""

from __future__ import annotations

import base64
import hashlib
import json
import tracemalloc
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amili_provider.sandbox.content import ReceivedContent
from amili_provider.sandbox.scanner import DEEPEST_NESTING, JsonScanner, TooMuchText
from amili_provider.sandbox.streamed import MalformedJson

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)

ways = st.sampled_from(["kept", "streamed"])


class TextSink:
    """Collects a streamed string, so that it can be compared with what the standard library reads."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, piece: bytes | memoryview) -> bool:
        """Distrust every piece, so that the reader checks each of them itself."""
        self.pieces.append(bytes(piece))
        return False

    def close(self) -> str:
        """Return the text; halves of a pair that came as two escapes become one character."""
        text = b"".join(self.pieces).decode("utf-8", "surrogatepass")
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def cut(body: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """Cut *body* at *places*, empty pieces included."""
    edges = [0, *sorted(p % (len(body) + 1) for p in places), len(body)]
    return (body[a:b] for a, b in pairwise(edges))


def read(body: bytes, places: Iterable[int] = (), *, how: str = "kept") -> Any:
    """Read *body* in pieces."""
    scanner = JsonScanner(lambda _path: TextSink() if how == "streamed" else None)
    for piece in cut(body, places):
        scanner.feed(piece)
    return scanner.close()


def read_by_standard_library(body: bytes) -> Any:
    """Read *body* strictly: UTF-8, no byte-order mark, no constants that are Python's only."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(body.decode(), parse_constant=refuse)


def agree(body: bytes, places: list[int], *, how: str) -> None:
    """Both readers give the same value, or both refuse."""
    try:
        expected = read_by_standard_library(body)
    except ValueError:
        with pytest.raises(MalformedJson):
            read(body, places, how=how)
    else:
        assert read(body, places, how=how) == expected


@given(json_values, st.lists(st.integers(0, 10_000), max_size=30), st.booleans(), st.booleans(), st.booleans())
def test_any_cutting_reads_the_same_value(value: Any, places: list[int], how: str, escaped: bool, spaced: bool) -> None:
    """Valid JSON in any pieces, with escapes or raw characters, streamed or kept, is what json.loads reads."""
    layout: dict[str, Any] = {"indent": 1, "separators": (" ,\r", " \t: ")} if spaced else {}
    text = json.dumps(value, ensure_ascii=escaped, **layout)
    agree(text.encode("utf-8", "surrogatepass"), places, how=how)


@given(
    st.lists(
        st.sampled_from(
            [
                *'{}[]",:\\ \n\t0123456789.eE+-/u',
                "true",
                "false",
                "null",
                "NaN",
                '"a"',
                "\\u00e5",
                "\\ud83d",
                "ø",
            ]
        ),
        max_size=24,
    ).map("".join),
    st.lists(st.integers(0, 60), max_size=8),
    ways,
)
@example('"\\ud83d\\ude00"', [3, 8], "kept")
@example('"\\ud83d\\ude00"', [3, 8], "streamed")
@example('"a\x01"', [2], "streamed")
@example('{"a":1}}', [], "kept")
@example("12", [1], "kept")
@example("-", [], "kept")
@example("", [], "kept")
@example("\ufeff1", [], "kept")
@example('{"a":1,}', [], "kept")
@example("[1,]", [], "kept")
def test_malformed_text_is_refused_like_the_standard_library(text: str, places: list[int], how: str) -> None:
    """Any jumble of JSON's own tokens is read or refused exactly as json.loads reads or refuses it."""
    agree(text.encode(), places, how=how)


@given(st.binary(max_size=40), st.lists(st.integers(0, 60), max_size=8), ways)
def test_any_bytes_in_a_string_are_judged_like_the_standard_library(inside: bytes, places: list[int], how: str) -> None:
    """Control characters and broken UTF-8 inside a string are refused, wherever the pieces end."""
    agree(b'["' + inside + b'"]', places, how=how)


@given(
    st.binary(max_size=4000),
    st.lists(st.integers(0, 8000), max_size=40),
    st.sampled_from([b"", b"/", b"+=", b"="]),
)
def test_content_is_decoded_under_any_cutting(data: bytes, places: list[int], also_escaped: bytes) -> None:
    """Base64 content arrives byte-identical, also where the sender escapes characters that need no escape."""
    encoded = base64.b64encode(data)
    for character in also_escaped:
        short = b"\\/" if character == ord("/") else b"\\u%04x" % character
        encoded = encoded.replace(bytes([character]), short)
    content = ReceivedContent(None)
    scanner = JsonScanner(lambda path: content if path == ("files", 1, "content") else None)
    for piece in cut(b'{"files":[{"content":"x"},{"content":"' + encoded + b'","fileId":"a"}]}', places):
        scanner.feed(piece)
    body = scanner.close()
    assert body == {"files": [{"content": "x"}, {"content": content, "fileId": "a"}]}
    assert content.problem is None
    assert (content.size, content.head) == (len(data), data[:256])
    assert content.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "content",
    ["QQ", "QQ=", "Q", "QQ==QQ==", "Q Q=", "QUI=\\n", "====", "A===", "_-__", "ø", "QUJD=", "Q=JD", "QQ==Q"],
)
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_content_that_is_not_base64_is_a_problem_and_not_malformed_json(content: str, size: int) -> None:
    """Bad base64 in good JSON is noticed, whatever the pieces."""
    received = ReceivedContent(None)
    scanner = JsonScanner(lambda _path: received)
    body = f'"{content}"'.encode()
    for start in range(0, len(body), size):
        scanner.feed(body[start : start + size])
    assert scanner.close() is received
    assert received.problem


@pytest.mark.parametrize("where", range(1, 9))
def test_a_raw_line_break_in_content_is_malformed_json(where: int) -> None:
    """A control character in content is refused at every place of a quantum, and not taken for bad base64."""
    body = bytearray(b'"QUJDQUJD"')
    body.insert(where, 10)
    scanner = JsonScanner(lambda _path: ReceivedContent(None))
    with pytest.raises(MalformedJson):
        deque(map(scanner.feed, (bytes([byte]) for byte in body)), maxlen=0)


def test_content_goes_to_disk(tmp_path: Path) -> None:
    """The file on disk has the bytes that were sent."""
    data = bytes(range(256)) * 3000
    content = ReceivedContent(tmp_path / "part")
    scanner = JsonScanner(lambda _path: content)
    for piece in cut(b'"' + base64.b64encode(data) + b'"', range(0, 1_100_000, 65_521)):
        scanner.feed(piece)
    assert scanner.close() is content
    assert (tmp_path / "part").read_bytes() == data


def test_content_costs_no_memory() -> None:
    """Reading 64 MiB of content takes less than 2 MiB."""
    block = base64.b64encode(bytes(192 * 1024))
    scanner = JsonScanner(lambda _path: ReceivedContent(None))
    tracemalloc.start()
    try:
        scanner.feed(b'"')
        for _ in range(256):
            scanner.feed(block)
        scanner.feed(b'"')
        content = scanner.close()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert content.size == 48 * 1024 * 1024
    assert peak < 2 * 1024 * 1024


def test_nesting_and_text_are_bounded() -> None:
    """A body of nothing but brackets, or of nothing but text, does not fill the memory."""
    assert read(b"[" * DEEPEST_NESTING + b"]" * DEEPEST_NESTING)
    with pytest.raises(MalformedJson, match="nested"):
        read(b"[" * (DEEPEST_NESTING + 1))
    with pytest.raises(MalformedJson, match="endless"):
        read(b"1" * 10_000)
    scanner = JsonScanner(most_text=100)
    scanner.feed(b'["' + b"x" * 90 + b'", "')
    with pytest.raises(TooMuchText):
        scanner.feed(b"y" * 20)


def test_an_unfinished_body_is_not_a_value() -> None:
    """Every proper beginning of a body is refused at its end."""
    body = b'{"files": [{"fileId": "a", "n": 1.5e3, "t": [true, null], "content": "QUJD"}]}'
    for length in range(len(body)):
        with pytest.raises(MalformedJson):
            read(body[:length])
    assert read(body + b" \n") == json.loads(body)
