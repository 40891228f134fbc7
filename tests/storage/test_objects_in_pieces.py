"""Objects are read in large pieces, several at once, and never come out as anything but what was listed."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from concurrent import futures
from types import SimpleNamespace
from typing import Any

import pytest

from amili_provider.exceptions import AmiliStorageError
from amili_provider.storage import files
from amili_provider.storage.backends.objects import THREADS, ObjectFiles
from amili_provider.storage.base import NotAsListedError
from amili_provider.storage.files import Blocks, StorageFile
from amili_provider.storage.reading import read_content, read_small_contents


class FakeObjects:
    """
    A client of an object store in memory that answers ranges as HTTP does, each request after a short while.

    No request is answered before ``together`` have been there at once, or ten seconds are over.
    """

    def __init__(self, **objects: bytes) -> None:
        self.objects = objects
        self.requests: list[tuple[int, int]] = []
        self.now = self.most = 0
        self.together = 1
        self.lock = threading.Condition()
        self.files = ObjectFiles(self)

    def read(self, bucket: str, key: str, version: str | None, span: tuple[int, int] | None) -> bytes:
        """Return a span of an object that has this version."""
        assert bucket == "bucket"
        assert span
        with self.lock:
            self.requests.append(span)
            self.now += 1
            self.most = max(self.most, self.now)
            self.lock.notify_all()
            self.lock.wait_for(lambda: self.most >= self.together, 10)
        try:
            time.sleep(0.02)
            if key not in self.objects:
                raise FileNotFoundError(key)
            if version not in (None, etag(self.objects[key])):
                raise FileExistsError(key)
            return self.objects[key][span[0] : span[1]]
        finally:
            with self.lock:
                self.now -= 1

    def meaning(self, error: Exception) -> Exception:
        """Return what was raised."""
        return error

    def close(self) -> None:
        """Close nothing."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} is not asked for")


def etag(data: bytes) -> str:
    """Return what changes with the content."""
    return hashlib.md5(data).hexdigest()


@pytest.fixture(name="small_blocks")
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a thousand bytes."""
    monkeypatch.setattr(files, "BLOCK_BYTES", 1000)
    monkeypatch.setattr("amili_provider.storage.files.BLOCK_BYTES", 1000)


def listed(fs: FakeObjects, path: str, *, bound: bool = True) -> StorageFile:
    """Return the file as a listing gave it before anything changed; *bound* if it told a version."""
    data = fs.objects.get(path, b"x" * 10)
    location: Any = SimpleNamespace(
        fs=fs.files, storage=SimpleNamespace(kind=SimpleNamespace(object_store=True, lists=True), connection=None)
    )
    return StorageFile(
        location_root=location,
        path=f"bucket/{path}",
        url=f"s3://bucket/{path}",
        name=path,
        size=len(data),
        fingerprint=etag(data) if bound else None,
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
    fs.together = min(files.BLOCKS_AHEAD, -(-size // 1000))
    with listed(fs, "a").open() as stream:
        assert b"".join(iter(lambda: stream.read(300), b"")) == data
    assert sorted(fs.requests) == [
        (start, min(start + 1000, size) + (start + 1000 >= size)) for start in range(0, size, 1000)
    ]
    assert fs.most == fs.together


@pytest.mark.parametrize("size", [10, 1000, 3500])
@pytest.mark.parametrize("growth", [1, 5000])
@pytest.mark.parametrize("bound", [True, False])
@pytest.mark.usefixtures("small_blocks")
def test_an_object_that_has_grown_is_never_its_own_beginning(size: int, growth: int, bound: bool) -> None:
    """Replaced by a longer one since it was listed: an error in each way of reading, not the first bytes of it."""
    data = os.urandom(size)
    fs = FakeObjects(a=data, other=b"other")
    files = [listed(fs, "a", bound=bound), listed(fs, "other", bound=bound)]
    fs.objects["a"] = data + b"+" * growth
    with pytest.raises(AmiliStorageError, match=r"s3://bucket/a"):
        read_content(files[0], in_memory_bytes=10_000)
    grown, other = read_small_contents(files)
    assert isinstance(grown, AmiliStorageError)
    assert not isinstance(other, Exception)
    assert list(other.blocks(100)) == [b"other"]


@pytest.mark.parametrize("size", [10, 1000, 3500])
@pytest.mark.parametrize("bound", [True, False])
@pytest.mark.usefixtures("small_blocks")
def test_an_object_that_has_shrunk_or_gone_is_an_error(size: int, bound: bool) -> None:
    """Each way of reading says so, of that file only."""
    fs = FakeObjects(a=os.urandom(size), b=os.urandom(size), c=b"fine")
    files = [listed(fs, name, bound=bound) for name in "abc"]
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
    """Each piece is bound to the version that was listed."""
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
    fs.together = THREADS
    files = [listed(fs, f"f{n}") for n in range(20)]
    contents = list(read_small_contents(files))
    assert [b"".join(content.blocks(10)) for content in contents if not isinstance(content, Exception)] == [
        b"%d" % n for n in range(20)
    ]
    assert fs.most == THREADS

    def stop(_: int) -> None:
        raise InterruptedError("stopped")

    assert [type(one) for one in read_small_contents(files, on_bytes=stop)] == [InterruptedError] * 20


@pytest.mark.usefixtures("small_blocks")
def test_closing_gives_up_what_was_asked_for() -> None:
    """No request is left behind, and no thread."""
    others = set(threading.enumerate())
    fs = FakeObjects(a=os.urandom(90_000))
    stream = listed(fs, "a").open()
    stream.read(10)
    stream.close()
    fs.files.close()
    deadline = time.monotonic() + 10
    while set(threading.enumerate()) - others:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert fs.now == 0
    assert len(fs.requests) <= 1 + files.BLOCKS_AHEAD


def test_a_short_answer_is_an_error_where_it_happens() -> None:
    """A storage that ends an answer early is not believed."""
    answers = futures.Future[bytes]()
    answers.set_result(b"x" * 99)
    with pytest.raises(NotAsListedError):
        Blocks(lambda _start, _end: b"", 100, lambda _work: answers).read(10)
