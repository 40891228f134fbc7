"""The request body: exact, re-iterable, of known length, its tail held back."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amili_provider.api.upload import READ_BLOCK_BYTES, PartUnreadable, UploadBody, UploadPart, base64_bytes


class Bytes:
    """Content in memory; *real* is what is read, which a test may let differ from what was announced."""

    def __init__(self, data: bytes, real: bytes | None = None, *, changed: bool = False) -> None:
        self.size = len(data)
        self.real = data if real is None else real
        self.changed = changed
        self.reads = 0

    def blocks(self, block_bytes: int) -> Iterator[bytes]:
        """Yield the content in blocks."""
        self.reads += 1
        for start in range(0, len(self.real), block_bytes):
            yield self.real[start : start + block_bytes]

    def check_unchanged(self) -> None:
        """Raise if the test says that the content changed."""
        if self.changed:
            raise OSError("changed")


def _part(data: bytes, file_id: str = "id1", name: str = "a.csv", **kwargs: object) -> UploadPart:
    return UploadPart(file_id, name, "InvoiciaFormatDocFile", Bytes(data, **kwargs))  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    contents=st.lists(st.binary(max_size=200), min_size=1, max_size=5),
    name=st.text(max_size=30).filter(lambda t: not any("\ud800" <= c <= "\udfff" for c in t)),
    user_id=st.one_of(st.none(), st.text(alphabet='aÆ"\\\n1', max_size=8)),
)
def test_body_is_the_documented_json_of_the_announced_length(
    contents: list[bytes], name: str, user_id: str | None
) -> None:
    """Whatever the files hold, the body parses to them and is as long as it says."""
    body = UploadBody([_part(c, f"id{i}", name) for i, c in enumerate(contents)], user_id=user_id)
    sent = b"".join(body)
    assert len(sent) == body.content_length
    data = json.loads(sent)
    assert data.get("metadata") == (None if user_id is None else {"userId": user_id})
    assert [base64.b64decode(f["content"]) for f in data["files"]] == contents
    assert [(f["fileId"], f["name"], f["type"]) for f in data["files"]] == [
        (f"id{i}", name, "InvoiciaFormatDocFile") for i in range(len(contents))
    ]


@pytest.mark.parametrize("size", [0, 1, 2, 3, READ_BLOCK_BYTES - 1, READ_BLOCK_BYTES, 2 * READ_BLOCK_BYTES + 2])
def test_every_iteration_yields_the_same_bytes(size: int) -> None:
    """A replay sends what was sent before, from the start."""
    body = UploadBody([_part(b"x" * size)])
    first, second = b"".join(body), b"".join(body)
    assert first == second
    assert base64_bytes(size) == len(base64.b64encode(b"x" * size))


def test_file_id_comes_last_and_only_with_the_tail() -> None:
    """Without the last chunk the last file has no id and the JSON has no end."""
    chunks = list(UploadBody([_part(b"one", "first"), _part(b"two", "last")]))
    assert b'"last"' not in b"".join(chunks[:-1])
    assert chunks[-1] == b'", "fileId": "last"}]}'
    with pytest.raises(ValueError, match="Expecting|Unterminated"):
        json.loads(b"".join(chunks[:-1]))


def test_the_tail_is_released_only_after_the_claim() -> None:
    """What before_tail raises keeps the tail back."""
    released_at_claim = []

    def refuse() -> None:
        released_at_claim.append(body.released)
        raise LookupError("claimed elsewhere")

    body = UploadBody([_part(b"data")], before_tail=refuse)
    chunks = []
    with pytest.raises(LookupError):
        for chunk in body:
            chunks.append(chunk)  # noqa: PERF402 - the chunks before the error matter
    assert released_at_claim == [False]
    assert not body.released
    assert b"fileId" not in b"".join(chunks)


def test_replay_is_announced_only_after_a_released_tail() -> None:
    """before_replay is for iterations that follow a complete one."""
    calls: list[str] = []
    body = UploadBody([_part(b"data")], before_replay=lambda: calls.append("replay"))
    next(iter(body))
    assert (calls, body.released) == ([], False)
    list(body)
    assert (calls, body.released) == ([], True)
    chunks = iter(body)
    next(chunks)
    assert (calls, body.released) == (["replay"], False)


@pytest.mark.parametrize(
    "part",
    [
        _part(b"12345678", real=b"1234567"),
        _part(b"12345678", real=b"123456789"),
        _part(b"", real=b"1"),
        _part(b"1" * (READ_BLOCK_BYTES + 5), real=b"1" * READ_BLOCK_BYTES),
        _part(b"same", changed=True),
    ],
)
def test_content_that_is_not_what_was_hashed_never_completes(part: UploadPart) -> None:
    """Shorter, longer or changed content ends the request before its tail, naming the file."""
    body = UploadBody([_part(b"good", "good"), part])
    with pytest.raises(PartUnreadable) as caught:
        list(body)
    assert caught.value.file_id == "id1"
    assert not body.released


def test_small_files_are_gathered_into_few_chunks() -> None:
    """A thousand tiny files do not cost a thousand system calls."""
    body = UploadBody([_part(b"x" * 100, str(i)) for i in range(1000)])
    assert len(list(body)) < 6


def test_neither_names_nor_content_are_in_the_repr() -> None:
    """A body that is logged by accident says nothing of debtors."""
    assert repr(UploadBody([_part(b"secret", name="Ola.csv")])) == "<UploadBody of 1 file(s), 105 bytes>"
