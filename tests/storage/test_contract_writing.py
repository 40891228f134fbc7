"""What the ledger and the moves need of every storage that can be written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from amili_provider.storage.filesystems import Location, open_location
from tests.storage.backends.base import Backend
from tests.storage.backends.ftp import Ftp


@pytest.fixture(name="folder")
def _folder(store: Backend) -> Location:
    """The test's folder, open."""
    return open_location(store.url("ledger"), "partner")


def _at(folder: Location, name: str) -> str:
    return f"{folder.path.rstrip('/')}/{name}"


def _create(fs: Any, path: str, data: bytes) -> bool:
    try:
        fs.pipe_file(path, data, mode="create")
    except FileExistsError:
        return False
    return True


def test_a_file_is_written_rewritten_and_read_as_it_is_now(store: Backend, folder: Location) -> None:
    """What was written a moment ago is what is read, whatever was read before."""
    fs = folder.fs
    fs.makedirs(_at(folder, "a/b"), exist_ok=True)
    path = _at(folder, "a/b/1.json")
    with pytest.raises(FileNotFoundError):
        fs.cat_file(path)
    for data in (b"{}", b'{"longer": 1}', b"", b"{}"):
        fs.pipe_file(path, data)
        assert bytes(fs.cat_file(path)) == data
        assert store.read("ledger/a/b/1.json") == data
    assert [entry["name"].rpartition("/")[2] for entry in fs.ls(_at(folder, "a/b"), detail=True)] == ["1.json"]
    fs.rm_file(path)
    with pytest.raises(FileNotFoundError):
        fs.cat_file(path)


def test_only_one_of_many_creates_a_name(store: Backend, folder: Location) -> None:
    """Exclusive create is exclusive, or said not to exist; never a look first and a write then."""
    fs = folder.fs
    fs.makedirs(folder.path, exist_ok=True)
    if isinstance(store, Ftp):
        with pytest.raises(NotImplementedError):
            fs.pipe_file(_at(folder, "x.json"), b"1", mode="create")
        with pytest.raises(NotImplementedError):
            fs.open(_at(folder, "x.json"), "xb")
        return
    if store.name == "gs":
        pytest.skip("the emulator does not know preconditions")
    for number in range(5):
        path = _at(folder, f"{number}.json")
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda who: _create(fs, path, b"%d" % who), range(8)))  # noqa: B023 - awaited here
        assert made.count(True) == 1
        assert bytes(fs.cat_file(path)) == b"%d" % made.index(True)


def test_making_a_folder_twice_is_refused(store: Backend, folder: Location) -> None:
    """A folder is made once, with an error for the second, and can be deleted; making sure of it is not an error."""
    if store.object_store:
        pytest.skip("no folders here")
    fs = folder.fs
    fs.makedirs(_at(folder, "x/y/z"), exist_ok=True)
    fs.makedirs(_at(folder, "x/y/z"), exist_ok=True)
    lock = _at(folder, "x/lock")

    def make(_: int) -> bool:
        try:
            fs.mkdir(lock, create_parents=False)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(make, range(6))).count(True) == 1
    fs.rmdir(lock)
    assert make(0)


def test_rewriting_never_shows_a_part(store: Backend, folder: Location) -> None:
    """A reader sees the old or the new content, whole, while a file is rewritten again and again."""
    fs = folder.fs
    fs.makedirs(folder.path, exist_ok=True)
    path = _at(folder, "r.json")
    contents = [bytes([65 + number]) * (20_000 + 1_000 * number) for number in range(12)]
    fs.pipe_file(path, contents[0])
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: [fs.pipe_file(path, data) for data in contents])
        while not writing.done():
            assert bytes(fs.cat_file(path)) in contents
        writing.result()
    assert bytes(fs.cat_file(path)) == contents[-1]
