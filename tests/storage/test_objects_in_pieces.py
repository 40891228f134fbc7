"""Objects are read in large pieces, several at once, and never come out as anything but what was listed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from types import SimpleNamespace
from typing import Any

import fsspec.asyn
import pytest

from amili_provider.exceptions import AmiliStorageError
from amili_provider.storage import streams
from amili_provider.storage.files import StorageFile
from amili_provider.storage.reading import read_content, read_small_contents
from amili_provider.storage.streams import Blocks, ShortReadError


class FakeObjects(fsspec.asyn.AsyncFileSystem):  # type: ignore[misc] # fsspec is not typed
    """An object storage in memory that answers ranges as HTTP does, each request after a short while."""

    cachable = False

    def __init__(self, **objects: bytes) -> None:
        super().__init__()
        self.objects = objects
        self.requests: list[tuple[int, int]] = []
        self.now = self.most = 0

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        self.requests.append((start or 0, end or 0))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0.02)
            if path not in self.objects:
                raise FileNotFoundError(path)
            return self.objects[path][start:end]
        finally:
            self.now -= 1

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        data = self.objects[path]
        etag = hashlib.md5(data).hexdigest()
        return {"name": path, "size": len(data), "type": "file", "ETag": etag}


@pytest.fixture(name="small_blocks")
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a thousand bytes."""
    monkeypatch.setattr(streams, "BLOCK_BYTES", 1000)
    monkeypatch.setattr("amili_provider.storage.files.BLOCK_BYTES", 1000)


def listed(fs: FakeObjects, path: str) -> StorageFile:
    """Return the file as a listing gave it before anything changed."""
    data = fs.objects.get(path, b"x" * 10)
    location: Any = SimpleNamespace(
        fs=fs, storage=SimpleNamespace(kind=SimpleNamespace(object_store=True, lists=True), connection=None)
    )
    return StorageFile(
        location_root=location,
        path=path,
        url=f"s3://bucket/{path}",
        name=path,
        size=len(data),
        fingerprint=hashlib.md5(data).hexdigest(),
        modified=None,
        local_path=None,
        literal=True,
    )


@pytest.mark.parametrize("size", [1, 999, 1000, 1001, 5000, 5001, 12_345])
@pytest.mark.usefixtures("small_blocks")
def test_pieces_come_in_order_and_several_are_on_their_way(size: int) -> None:
    """The bytes are the object's whatever the size, requests overlap, and memory for blocks is bounded."""
    data = os.urandom(size)
    fs = FakeObjects(a=data)
    with listed(fs, "a").open() as stream:
        assert b"".join(iter(lambda: stream.read(300), b"")) == data
    assert sorted(fs.requests) == [
        (start, min(start + 1000, size) + (start + 1000 >= size)) for start in range(0, size, 1000)
    ]
    assert fs.most == min(streams.BLOCKS_AHEAD, -(-size // 1000))


@pytest.mark.parametrize("size", [10, 1000, 3500])
@pytest.mark.parametrize("growth", [1, 5000])
@pytest.mark.usefixtures("small_blocks")
def test_an_object_that_has_grown_is_never_its_own_beginning(size: int, growth: int) -> None:
    """Replaced by a longer one since it was listed: an error in each way of reading, not the first bytes of it."""
    data = os.urandom(size)
    fs = FakeObjects(a=data, other=b"other")
    files = [listed(fs, "a"), listed(fs, "other")]
    fs.objects["a"] = data + b"+" * growth
    with pytest.raises(AmiliStorageError, match=r"s3://bucket/a"):
        read_content(files[0], in_memory_bytes=10_000)
    grown, other = read_small_contents(files)
    assert isinstance(grown, AmiliStorageError)
    assert not isinstance(other, Exception)
    assert list(other.blocks(100)) == [b"other"]


@pytest.mark.parametrize("size", [10, 1000, 3500])
@pytest.mark.usefixtures("small_blocks")
def test_an_object_that_has_shrunk_or_gone_is_an_error(size: int) -> None:
    """Each way of reading says so, of that file only."""
    fs = FakeObjects(a=os.urandom(size), b=os.urandom(size), c=b"fine")
    files = [listed(fs, "a"), listed(fs, "b"), listed(fs, "c")]
    fs.objects["a"] = fs.objects["a"][:-1]
    del fs.objects["b"]
    with pytest.raises(AmiliStorageError):
        read_content(files[0], in_memory_bytes=10_000)
    shrunk, gone, fine = read_small_contents(files)
    assert isinstance(shrunk, AmiliStorageError)
    assert isinstance(gone, (AmiliStorageError, FileNotFoundError))
    assert not isinstance(fine, Exception)


@pytest.mark.usefixtures("small_blocks")
def test_an_object_replaced_by_one_of_the_same_size_does_not_come_out_as_a_mixture() -> None:
    """Read in pieces, its fingerprint is looked at again in the end."""
    fs = FakeObjects(a=os.urandom(3000))
    stream = listed(fs, "a").open()
    stream.read(10)
    fs.objects["a"] = os.urandom(3000)
    with pytest.raises(AmiliStorageError, match="replaced"):
        while stream.read(500):
            pass


def test_small_files_are_read_together() -> None:
    """One hand-over for all, in the order asked; a stop before it ends every file of the group."""
    fs = FakeObjects(**{f"f{n}": b"%d" % n for n in range(20)})
    files = [listed(fs, f"f{n}") for n in range(20)]
    contents = list(read_small_contents(files))
    assert [b"".join(content.blocks(10)) for content in contents if not isinstance(content, Exception)] == [
        b"%d" % n for n in range(20)
    ]
    assert fs.most == 20

    def stop(_: int) -> None:
        raise InterruptedError("stopped")

    assert [type(one) for one in read_small_contents(files, on_bytes=stop)] == [InterruptedError] * 20


@pytest.mark.usefixtures("small_blocks")
def test_closing_gives_up_what_was_asked_for() -> None:
    """No request is left behind in the storage's thread."""
    fs = FakeObjects(a=os.urandom(9000))
    blocks = Blocks(fs, "a", 9000)
    blocks.read(10)
    blocks.close()
    done = threading.Event()
    fs.loop.call_soon_threadsafe(fs.loop.call_later, 0.01, done.set)
    assert done.wait(5)
    assert fs.now == 0
    assert len(fs.requests) <= 1 + streams.BLOCKS_AHEAD


def test_a_short_answer_is_an_error_where_it_happens() -> None:
    """A storage that ends an answer early is not believed."""

    class Cutting(FakeObjects):
        async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **more: Any) -> bytes:
            return (await super()._cat_file(path, start, end, **more))[:-1]

    blocks = Blocks(Cutting(a=b"x" * 100), "a", 101)
    with pytest.raises(ShortReadError):
        blocks.read(10)
