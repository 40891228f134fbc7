"""
The bytes of a file, hashed once and readable again: in memory, in place, or from a spool.

Small files are kept in memory. Larger local files are read in place through one descriptor. Larger files from
elsewhere are spooled while they are hashed, so that the storage is read once and a replay costs it nothing.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from amili_provider.exceptions import AmiliStorageError
from amili_provider.storage.files import StorageFile, read_together

_READ_BYTES = 1024 * 1024


class HashedContent:
    """
    Content with its hash. Close it when it is no longer needed.

    :param size: bytes.
    :param sha256: SHA-256 of the content, 64 hex characters.
    """

    def __init__(self, size: int, sha256: str) -> None:
        self.size = size
        self.sha256 = sha256

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.size} bytes>"

    def blocks(self, block_bytes: int) -> Iterator[bytes | memoryview]:
        """Yield the content in blocks of exactly *block_bytes* but for the last."""
        raise AssertionError(f"each kind of content has its own blocks of {block_bytes} bytes")

    def check_unchanged(self) -> None:
        """Raise :class:`AmiliStorageError` if the bytes may differ from what was hashed."""

    def close(self) -> None:
        """Give back memory, descriptor and disk space."""


class MemoryContent(HashedContent):
    """
    A small file, held as bytes.

    :param data: the content.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(len(data), hashlib.sha256(data).hexdigest())
        self._data = data

    def blocks(self, block_bytes: int) -> Iterator[bytes | memoryview]:
        """Yield the content in blocks of exactly *block_bytes* but for the last."""
        if self.size <= block_bytes:
            if self.size:
                yield self._data
            return
        view = memoryview(self._data)
        for start in range(0, self.size, block_bytes):
            yield view[start : start + block_bytes]

    def close(self) -> None:
        """Give back the memory."""
        self._data = b""


class DescriptorContent(HashedContent):
    """
    A large file behind one descriptor: a local file in place, or a spool that nobody else can reach.

    :param descriptor: an open descriptor; owned from here on.
    :param size: bytes.
    :param sha256: SHA-256 of the content.
    :param shown: the file's name for messages.
    :param state: what ``fstat`` said while the file was hashed; None for a spool.
    """

    def __init__(self, descriptor: int, size: int, sha256: str, *, shown: str, state: tuple[int, ...] | None) -> None:
        super().__init__(size, sha256)
        self._descriptor = descriptor
        self._shown = shown
        self._state = state

    def blocks(self, block_bytes: int) -> Iterator[bytes | memoryview]:
        """Yield the content in blocks of exactly *block_bytes* but for the last."""
        # One buffer for the whole iteration: the consumer is done with a block before it asks for the next.
        buffer = memoryview(bytearray(min(block_bytes, max(self.size, 1))))
        position = 0
        while position < self.size:
            wanted = min(block_bytes, self.size - position)
            got = _read_fully(self._descriptor, buffer[:wanted], position)
            if got != wanted:
                raise AmiliStorageError(f"{self._shown} became shorter while it was being sent.")
            position += got
            yield buffer[:got]

    def check_unchanged(self) -> None:
        """Raise :class:`AmiliStorageError` if the file was written to since it was hashed."""
        if self._state is not None and _state(os.fstat(self._descriptor)) != self._state:
            raise AmiliStorageError(f"{self._shown} was changed while it was being sent.")

    def close(self) -> None:
        """Close the descriptor; a spool's disk space goes with it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()


def _state(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _read_fully(descriptor: int, buffer: memoryview, position: int) -> int:
    got = 0
    while got < len(buffer):
        count = os.preadv(descriptor, [buffer[got:]], position + got)
        if not count:
            break
        got += count
    return got


def _blocks_ahead(descriptor: int) -> Iterator[memoryview]:
    """Yield what *descriptor* holds, block by block; the next is read while one is used."""
    used, ahead = (memoryview(bytearray(_READ_BYTES)) for _ in range(2))
    position = 0
    with ThreadPoolExecutor(1, thread_name_prefix="amili-ahead") as reader:
        coming = reader.submit(_read_fully, descriptor, ahead, position)
        while got := coming.result():
            used, ahead = ahead, used
            position += got
            coming = reader.submit(_read_fully, descriptor, ahead, position)
            yield used[:got]


def read_content(
    file: StorageFile,
    *,
    in_memory_bytes: int,
    spool_dir: str | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> HashedContent:
    """
    Read *file* once, hash it, and return content that can be read again.

    :param file: a file of a listing.
    :param in_memory_bytes: files up to this size are kept in memory.
    :param spool_dir: folder for the spool of larger files that are not local; default: the system's temporary folder.
    :param on_bytes: called with the length of each block read; what it raises ends the reading.
    :raises AmiliStorageError: if the file is not as long as it was listed, cannot be read, or the spool's disk is full.
    :raises FileNotFoundError: if it is gone since it was listed.
    """
    if file.local_path is not None:
        return _read_local(file, file.local_path, in_memory_bytes, on_bytes)
    if file.size <= in_memory_bytes:
        return _read_to_memory(file, on_bytes)
    return _spool(file, spool_dir, on_bytes)


def read_small_contents(
    files: Sequence[StorageFile], *, on_bytes: Callable[[int], None] | None = None
) -> Iterator[HashedContent | Exception]:
    """
    Read *files*, all small enough for memory, and yield for each its content, or why there is none.

    :param files: files of a listing; neighbours on one storage are read together where that costs less.
    :param on_bytes: as for :func:`read_content`.
    """
    position = 0
    while position < len(files):
        together = _neighbours(files, position)
        yield from _read_group(together, on_bytes)
        position += len(together)


def _neighbours(files: Sequence[StorageFile], start: int) -> Sequence[StorageFile]:
    """Return as many *files* from *start* as can be read together, at least one."""
    end = start + 1
    if files[start].can_be_read_together:
        fs = files[start].location_root.fs
        while end < len(files) and files[end].can_be_read_together and files[end].location_root.fs is fs:
            end += 1
    return files[start:end]


def _read_group(
    group: Sequence[StorageFile], on_bytes: Callable[[int], None] | None
) -> Sequence[HashedContent | Exception]:
    try:
        if len(group) == 1:
            return [read_content(group[0], in_memory_bytes=group[0].size, on_bytes=on_bytes)]
        if on_bytes:
            on_bytes(0)
        return [MemoryContent(found) if isinstance(found, bytes) else found for found in read_together(group)]
    except Exception as error:  # noqa: BLE001 - whatever a storage raises is the outcome of these files
        return [error] * len(group)


def _wrong_length(file: StorageFile, got: int | str) -> AmiliStorageError:
    return AmiliStorageError(
        f"{file.url} was listed with {file.size} bytes, but {got} could be read: it is being written, was replaced, "
        f"or the storage failed. Nothing of it was sent."
    )


def _read_local(
    file: StorageFile, path: str, in_memory_bytes: int, on_bytes: Callable[[int], None] | None
) -> HashedContent:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise AmiliStorageError(f"{file.url} is not a regular file.")
        if status.st_size != file.size:
            raise _wrong_length(file, status.st_size)
        if file.size <= in_memory_bytes:
            # One byte more than listed, to notice a file that grew after fstat.
            data = os.pread(descriptor, file.size + 1, 0)
            if len(data) != file.size or _state(os.fstat(descriptor)) != _state(status):
                raise _wrong_length(file, len(data))
            if on_bytes:
                on_bytes(len(data))
            return MemoryContent(data)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        digest = hashlib.sha256()
        position = 0
        for block in _blocks_ahead(descriptor):
            digest.update(block)
            position += len(block)
            if on_bytes:
                on_bytes(len(block))
        if position != file.size or _state(os.fstat(descriptor)) != _state(status):
            raise _wrong_length(file, position)
        content = DescriptorContent(descriptor, file.size, digest.hexdigest(), shown=file.url, state=_state(status))
        descriptor = -1
        return content
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _blocks_of(file: StorageFile, on_bytes: Callable[[int], None] | None) -> Iterator[bytes]:
    """Yield what the storage gives, and check that it is exactly as long as the listing said."""
    got = 0
    with file.open() as stream:
        while block := stream.read(_READ_BYTES):
            got += len(block)
            if got > file.size:
                raise _wrong_length(file, f"more than {file.size}")
            if on_bytes:
                on_bytes(len(block))
            yield block
    if got != file.size:
        raise _wrong_length(file, got)


def _read_to_memory(file: StorageFile, on_bytes: Callable[[int], None] | None) -> HashedContent:
    return MemoryContent(b"".join(_blocks_of(file, on_bytes)))


def _spool(file: StorageFile, spool_dir: str | None, on_bytes: Callable[[int], None] | None) -> HashedContent:
    digest = hashlib.sha256()
    try:
        spool: IO[bytes] = tempfile.TemporaryFile(dir=spool_dir, prefix="amili-spool-", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise _spool_failed(file, spool_dir, error) from error
    with spool:
        for block in _blocks_of(file, on_bytes):
            digest.update(block)
            try:
                view = memoryview(block)
                while view:
                    view = view[spool.write(view) :]
            except OSError as error:
                raise _spool_failed(file, spool_dir, error) from error
        return DescriptorContent(os.dup(spool.fileno()), file.size, digest.hexdigest(), shown=file.url, state=None)


def _spool_failed(file: StorageFile, spool_dir: str | None, error: OSError) -> AmiliStorageError:
    where = spool_dir or tempfile.gettempdir()
    if error.errno == errno.ENOSPC:
        return AmiliStorageError(
            f"No room in {where} to spool {file.url} ({file.size} bytes). Nothing of it was sent. Free some space, or "
            f"set 'spool_dir' to a larger disk."
        )
    return AmiliStorageError(
        f"{file.url} cannot be spooled in {where}: {error.strerror}. Nothing of it was sent. Set 'spool_dir' to a "
        f"folder that the worker can write."
    )
