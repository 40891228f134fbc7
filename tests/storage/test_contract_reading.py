"""What every storage owes: a file's bytes as they were listed, or an error; never a part that looks whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from amili_provider.exceptions import AmiliError, AmiliStorageError
from amili_provider.storage import files
from amili_provider.storage.files import StorageFile
from amili_provider.storage.listing import list_files
from amili_provider.storage.opening import open_sources
from amili_provider.storage.reading import read_content
from tests.storage.backends.base import Backend
from tests.storage.backends.ftp import Ftp
from tests.storage.backends.smb import Smb

_LARGE = random.Random(5).randbytes(9_000_000)


def _one(store: Backend, path: str) -> StorageFile:
    [file] = list_files(store.url(path), "partner")
    return file


def _digest(file: StorageFile) -> str:
    with contextlib.closing(read_content(file, in_memory_bytes=1_000_000)) as content:
        return content.hash_now()


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_bytes_are_the_source_s(store: Backend) -> None:
    """What is read is what was written, for sizes around every block that is read at a time."""
    mib = 1024 * 1024
    for size in (1, 32 * 1024, mib, 4 * mib, 4 * mib + 1):
        store.put("x.bin", _LARGE[:size])
        assert _digest(_one(store, "x.bin")) == _sha(_LARGE[:size])


def test_compressed_files_are_opaque(store: Backend) -> None:
    """Nothing is unpacked by surprise."""
    import gzip

    packed = gzip.compress(b"invoice" * 100)
    store.put("x.csv.gz", packed)
    with _one(store, "x.csv.gz").open() as stream:
        assert stream.read() == packed


def test_a_stream_begins_anew_each_time(store: Backend) -> None:
    """A file can be opened again after it was left in the middle."""
    store.put("x.bin", _LARGE)
    file = _one(store, "x.bin")
    with file.open() as stream:
        assert stream.read(100) == _LARGE[:100]
    with file.open() as stream:
        assert stream.read(100) == _LARGE[:100]
    assert _digest(file) == _sha(_LARGE)


def test_many_threads_read_many_files_each_its_own(store: Backend) -> None:
    """Eight threads reading forty files at once get every file right."""
    contents = {f"f{number:02}.bin": random.Random(number).randbytes(20_000 + number * 7_001) for number in range(40)}
    for name, data in contents.items():
        store.put(name, data)
    files = list_files(store.url("*.bin"), "partner")
    with ThreadPoolExecutor(8) as pool:
        digests = dict(zip([file.name for file in files], pool.map(_digest, files), strict=True))
    assert digests == {name: _sha(data) for name, data in contents.items()}


@pytest.mark.parametrize("size", [1_000, 6_000_000])
def test_a_file_that_was_deleted_is_an_error(store: Backend, size: int) -> None:
    """A file that is gone since it was listed is missing, not empty."""
    store.put("x.bin", _LARGE[:size])
    file = _one(store, "x.bin")
    store.remove("x.bin")
    with pytest.raises((FileNotFoundError, AmiliStorageError), match=r"x\.bin"):
        _digest(file)


@pytest.mark.parametrize(
    ("listed", "now"), [(1_000, 999), (1_000, 1_001), (6_000_000, 5_000_000), (6_000_000, 6_000_001), (10, 0)]
)
def test_a_file_of_another_length_is_an_error(store: Backend, listed: int, now: int) -> None:
    """A file that was truncated or has grown since it was listed is not read as if it were whole."""
    store.put("x.bin", _LARGE[:listed])
    file = _one(store, "x.bin")
    store.put("x.bin", _LARGE[:now])
    with pytest.raises(AmiliStorageError, match=r"x\.bin"):
        _digest(file)
    # Nor by whoever reads the stream without counting.
    with pytest.raises(AmiliStorageError, match=r"x\.bin"), file.open() as stream:
        while stream.read(100_000):
            pass


@pytest.mark.parametrize("listed", [1, 9 * 1024 * 1024])
def test_a_pipe_in_the_place_of_a_listed_file_holds_nobody_up(tmp_path: Path, listed: int) -> None:
    """Opening a pipe waits for its writer, who may never come: it is refused instead."""
    path = tmp_path / "a.csv"
    with path.open("wb") as out:
        out.truncate(listed)
    [file] = list_files(str(path), None)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(AmiliStorageError, match="not a regular file"):
        read_content(file, in_memory_bytes=1024)


def test_a_large_file_that_is_replaced_while_it_is_read_is_an_error(
    store: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the old and half of the new, of the same length, is nobody's file."""
    if isinstance(store, Ftp):
        pytest.skip("FTP sends a file in one piece, and its listing has no finer time than a minute or a second")
    # Of an object, which is bound to its version, what is read ahead would be all of it, and right.
    monkeypatch.setattr(files, "BLOCK_BYTES", 1024 * 1024)
    store.put("x.bin", _LARGE)
    file = _one(store, "x.bin")
    digest = hashlib.sha256()
    with pytest.raises(AmiliStorageError), file.open() as stream:
        digest.update(stream.read(100_000))
        if store.name in ("sftp", "smb"):
            # Their times have a resolution of a second.
            import time

            time.sleep(1.1)
        store.put("x.bin", _LARGE[::-1])
        while block := stream.read(1_000_000):
            digest.update(block)
    assert digest.hexdigest() != _sha(_LARGE[::-1])


# What smbprotocol says when it closes a file of a server that died.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_server_that_dies_in_mid_read_is_an_error_and_comes_back(store: Backend) -> None:
    """A connection that is cut at any byte is an error; when the server is back, the same file is read in full."""
    if store.wire is None:
        pytest.skip("no wire to cut")
    store.put("x.bin", _LARGE)
    file = _one(store, "x.bin")
    for count in (0, 1_000, 300_000, 5_000_000, 8_900_000):
        store.wire.cut_after(count)
        try:
            digest = _digest(file)
        except (AmiliError, OSError) as error:
            assert not isinstance(error, FileNotFoundError)
            assert not any(secret in str(error) for secret in store.secrets())
        else:
            # A library that asked again got the rest.
            assert digest == _sha(_LARGE)
        store.wire.mend()
    assert _digest(file) == _sha(_LARGE)


def test_an_ftp_server_that_is_restarted_in_mid_read(store: Backend) -> None:
    """An FTP server that ends in the middle of a file is an error; when it is back, the file is read in full."""
    if not isinstance(store, Ftp):
        pytest.skip("the others are behind a wire")
    store.put("x.bin", _LARGE)
    file = _one(store, "x.bin")
    with pytest.raises(AmiliStorageError, match=r"x\.bin"), file.open() as stream:
        stream.read(1000)
        store.halt()
        try:
            while stream.read(200_000):
                pass
        finally:
            store.run()
    assert _digest(file) == _sha(_LARGE)


def test_idle_connections_that_died_do_no_harm(store: Backend) -> None:
    """A file that was listed before the server closed every connection is read through a new one."""
    store.put("x.bin", b"invoice")
    file = _one(store, "x.bin")
    if isinstance(store, Ftp):
        store.halt()
        store.run()
    elif store.wire is not None:
        store.wire.cut()
        store.wire.mend()
    with file.open() as stream:
        assert stream.read() == b"invoice"


def test_a_socket_that_smbprotocol_has_just_closed_does_no_harm(store: Backend, mocker: MockerFixture) -> None:
    """
    Its receiving thread closes a dead socket before it says that it is not connected.

    Whoever sends in between is told of a bad file descriptor.
    """
    if not isinstance(store, Smb):
        pytest.skip("for SMB alone")
    store.put("x.bin", b"invoice")
    file = _one(store, "x.bin")
    ((connection, _),) = file.location_root.fs._pool._idle
    (server,) = connection.values()
    dead = mocker.patch.object(server.transport, "send", autospec=True, side_effect=OSError(errno.EBADF, "closed"))
    with file.open() as stream:
        assert stream.read() == b"invoice"
    dead.assert_called()


def test_nothing_stays_open(store: Backend) -> None:
    """After sources are closed this process has as many sockets to the server as before, also after a second time."""
    if store.name == "file":
        pytest.skip("there is no server")
    store.put("a.csv", b"data")

    def sockets() -> int:
        port = store.wire.port if store.object_store and store.wire else store.connection()["port"]
        lines = [line for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
        return sum(line.split()[2].endswith(f":{port:04X}") and line.split()[3] == "01" for line in lines)

    before, threads = sockets(), set(threading.enumerate())
    for _ in range(2):
        sources = open_sources(store.url("*.csv"), "partner")
        files = list_files(sources)
        with files[0].open() as stream:
            assert stream.read() == b"data"
        assert store.object_store or sockets() > before
        sources.close()
        deadline = time.monotonic() + 10
        while (sockets() > before or set(threading.enumerate()) - threads) and time.monotonic() < deadline:
            time.sleep(0.02)
        # Fewer, if what other tests left behind was collected meanwhile.
        assert sockets() <= before
        assert not set(threading.enumerate()) - threads
