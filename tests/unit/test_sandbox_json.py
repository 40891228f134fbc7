"""The sandbox's reader of uploads against the standard library's, under any cutting of the bytes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tracemalloc
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amili_provider.sandbox.body import MalformedJson, TooMuchText, UploadBody
from amili_provider.sandbox.content import ReceivedContent

_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
keys = st.text() | st.sampled_from(["content", '"content":"', 'x"content', "content\\"])
texts = st.text() | st.binary(max_size=9).map(lambda data: base64.b64encode(data).decode())
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(keys, children, max_size=4),
    max_leaves=12,
)


def cut(body: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """Cut *body* at *places*, empty pieces included."""
    edges = [0, *sorted(p % (len(body) + 1) for p in places), len(body)]
    return (body[a:b] for a, b in pairwise(edges))


def read(body: bytes, places: Iterable[int] = (), **limits: int) -> Any:
    """Read *body* in pieces; of each content remains what is known of it."""
    reader = UploadBody(lambda: ReceivedContent(None), **limits)
    for piece in cut(body, places):
        reader.feed(piece)
    return _said(reader.close())


def _said(value: Any) -> Any:
    if isinstance(value, ReceivedContent):
        return "not base64" if value.problem else ("content", value.size, value.sha256, value.head)
    if isinstance(value, dict):
        return {key: _said(item) for key, item in value.items()}
    return [_said(item) for item in value] if isinstance(value, list) else value


def read_by_standard_library(body: bytes) -> Any:
    """Read *body* strictly: UTF-8, no byte-order mark, no constants that are Python's only."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    def with_content(entry: dict[str, Any]) -> dict[str, Any]:
        if isinstance(text := entry.get("content"), str):
            entry["content"] = "not base64"
            if _BASE64.fullmatch(text):
                data = base64.b64decode(text)
                entry["content"] = ("content", len(data), hashlib.sha256(data).hexdigest(), data[:256])
        return entry

    return json.loads(body.decode(), parse_constant=refuse, object_hook=with_content)


def agree(body: bytes, places: list[int]) -> None:
    """Both readers give the same value, or both refuse."""
    try:
        expected = read_by_standard_library(body)
    except ValueError:
        with pytest.raises(MalformedJson):
            read(body, places)
    else:
        assert read(body, places) == expected


@given(json_values, st.lists(st.integers(0, 10_000), max_size=30), st.booleans(), st.booleans())
def test_any_cutting_reads_the_same_value(value: Any, places: list[int], escaped: bool, spaced: bool) -> None:
    """Valid JSON in any pieces, with escapes or raw characters, is what json.loads reads."""
    layout: dict[str, Any] = {"indent": 1, "separators": (" ,\r", " \t: ")} if spaced else {}
    text = json.dumps(value, ensure_ascii=escaped, **layout)
    agree(text.encode("utf-8", "surrogatepass"), places)


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
                '"content"',
                '{"content":"',
                '{"content":"QUJD"}',
            ]
        ),
        max_size=24,
    ).map("".join),
    st.lists(st.integers(0, 60), max_size=8),
)
@example('"\\ud83d\\ude00"', [3, 8])
@example('"a\x01"', [2])
@example('{"a":1}}', [])
@example("12", [1])
@example("-", [])
@example("", [])
@example("\ufeff1", [])
@example('{"a":1,}', [])
@example("[1,]", [])
@example('{"a":"x"content":"QUJD"}', [])
@example('{"content":"QUJD","content":"QQ=="}', [3])
@example('{"content"' + " " * 100 + ':"QUJD"}', [50])
@example('{"\\u0063ontent":"QUJD"}', [])
@example('{"content":"QU\\u004aD"}', [14])
def test_malformed_text_is_refused_like_the_standard_library(text: str, places: list[int]) -> None:
    """Any jumble of JSON's own tokens is read or refused exactly as json.loads reads or refuses it."""
    agree(text.encode(), places)


@given(st.binary(max_size=40), st.lists(st.integers(0, 60), max_size=8), st.sampled_from([b'{"a":"', b'{"content":"']))
def test_any_bytes_in_a_text_are_judged_like_the_standard_library(inside: bytes, places: list[int], key: bytes) -> None:
    """Control characters and broken UTF-8 inside a text are refused, wherever the pieces end."""
    agree(key + inside + b'"}', places)


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
    body = read(b'{"files":[{"content":"x"},{"content":"' + encoded + b'","fileId":"a"}]}', places)
    content = ("content", len(data), hashlib.sha256(data).hexdigest(), data[:256])
    assert body == {"files": [{"content": "not base64"}, {"content": content, "fileId": "a"}]}


@pytest.mark.parametrize(
    "content",
    ["QQ", "QQ=", "Q", "QQ==QQ==", "Q Q=", "QUI=\\n", "====", "A===", "_-__", "ø", "QUJD=", "Q=JD", "QQ==Q"],
)
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_content_that_is_not_base64_is_a_problem_and_not_malformed_json(content: str, size: int) -> None:
    """Bad base64 in good JSON is noticed, whatever the pieces."""
    body = f'{{"content":"{content}"}}'.encode()
    assert read(body, range(0, len(body), size)) == {"content": "not base64"}


@pytest.mark.parametrize("where", range(1, 9))
def test_a_raw_line_break_in_content_is_malformed_json(where: int) -> None:
    """A control character in content is refused at every place of a quantum, and not taken for bad base64."""
    body = bytearray(b'"QUJDQUJD"')
    body.insert(where, 10)
    with pytest.raises(MalformedJson, match="control character"):
        read(b'{"content":' + body + b"}", range(30))


@pytest.mark.parametrize("slash", [b"/", b"\\/", b"\\u002f"])
def test_content_goes_to_disk(tmp_path: Path, slash: bytes) -> None:
    """The file on disk has the bytes that were sent, and none is open longer than its content arrives."""
    data = [bytes(range(256)) * 300, *([b"\xff" * 9] * 300)]
    paths = [tmp_path / str(number) for number in range(len(data))]
    going = iter(paths)
    reader = UploadBody(lambda: ReceivedContent(next(going)))
    contents = (b'{"content":"' + base64.b64encode(one).replace(b"/", slash) + b'"}' for one in data)
    before = len([*Path("/proc/self/fd").iterdir()])
    for piece in cut(b"[" + b",".join(contents) + b"]", range(0, 1_100_000, 4_001)):
        reader.feed(piece)
        assert len([*Path("/proc/self/fd").iterdir()]) < before + 5
    assert len(reader.close()) == len(data)
    assert [path.read_bytes() for path in paths] == data


def test_content_costs_no_memory() -> None:
    """Reading 64 MiB of content takes less than 2 MiB."""
    block = base64.b64encode(bytes(192 * 1024))
    reader = UploadBody(lambda: ReceivedContent(None))
    tracemalloc.start()
    try:
        deque(map(reader.feed, [b'{"content":"', *[block] * 256, b'"}']), maxlen=0)
        body = reader.close()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert body["content"].size == 48 * 1024 * 1024
    assert peak < 2 * 1024 * 1024


def test_nesting_and_text_are_bounded() -> None:
    """A body of nothing but brackets, or of nothing but text, does not fill the memory."""
    assert read(b"[" * 100 + b"]" * 100)
    with pytest.raises(MalformedJson, match="nested"):
        read(b"[" * 100_000 + b"]" * 100_000)
    with pytest.raises(MalformedJson, match="digits"):
        read(b"1" * 10_000)
    for content in (b"QUJD" * 90, b"QU\\/D" * 90):
        assert read(b'{"content":"' + content + b'"}', range(0, 500, 7), most_text=100)["content"] != "not base64"
    with pytest.raises(TooMuchText):
        read(b'["' + b"x" * 90 + b'", "' + b"y" * 20, most_text=100)
    with pytest.raises(TooMuchText):
        read(b'{"content":"' + b"ABC!" * 90, most_text=100)


def test_an_unfinished_body_is_not_a_value() -> None:
    """Every proper beginning of a body is refused at its end."""
    body = b'{"files": [{"fileId": "a", "n": 1.5e3, "t": [true, null], "content": "QUJD"}]}'
    for length in range(len(body)):
        with pytest.raises(MalformedJson):
            read(body[:length])
    assert read(body + b" \n") == read_by_standard_library(body)
