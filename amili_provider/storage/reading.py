"""
The content that a file gets when it is read: hashed, and fit to be sent more than once.

Small files are kept in memory. Larger local files are read in place through one descriptor. Larger files from
elsewhere are spooled while they are hashed, so that the storage is read once and a replay costs it nothing; or they
stay where they are, to be hashed on their way (:func:`open_content`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from amili_provider.exceptions import AmiliStorageError
from amili_provider.storage.base import NotAsListedError
from amili_provider.storage.content import (
    READ_BYTES,
    DescriptorContent,
    HashedContent,
    MemoryContent,
    StoredContent,
    WrongLength,
    blocks_of,
    state_of,
    wrong_length,
)
from amili_provider.storage.files import StorageFile, read_together


def read_content(
    file: StorageFile,
    *,
    in_memory_bytes: int,
    on_bytes: Callable[[int], None] | None = None,
) -> HashedContent:
    """
    Read *file* once, hash it, and return content that can be read again.

    :param file: a file of a listing.
    :param in_memory_bytes: files up to this size are kept in memory.
    :param on_bytes: called with the length of each block read; what it raises ends the reading.
    :raises AmiliStorageError: if the file is not as long as it was listed, cannot be read, or the spool's disk is full.
    :raises FileNotFoundError: if it is gone since it was listed.
    """
    if file.local_path is not None:
        return _read_local(file, file.local_path, in_memory_bytes, on_bytes)
    if file.size <= in_memory_bytes:
        return _read_to_memory(file, on_bytes)
    return _spool(file, on_bytes)


def more_than_told(file: StorageFile) -> AmiliStorageError | None:
    """
    Return what is wrong if *file*, which was listed with 0 bytes, has some all the same; object stores know theirs.

    :param file: a file of a listing, with 0 bytes.
    """
    if not file.can_be_read_in_parallel:
        try:
            read_content(file, in_memory_bytes=0).close()
        except AmiliStorageError as error:
            if isinstance(error, WrongLength) or isinstance(error.__context__, NotAsListedError):
                return error
        except OSError:  # gone since
            pass
    return None


def can_stay(file: StorageFile) -> bool:
    """Return whether *file* can be read again as fast as it can be sent, so that :func:`open_content` takes it."""
    return file.local_path is not None or file.can_be_read_in_parallel


def open_content(file: StorageFile) -> HashedContent:
    """
    Return the content of a large file, which is hashed while it is read for the first time.

    :param file: a file of a listing that :func:`can_stay`.
    :raises AmiliStorageError: if a local file is not as long as it was listed, or no regular file.
    :raises FileNotFoundError: if a local file is gone since it was listed.
    """
    if file.local_path is not None:
        return _open_local(file, file.local_path)
    return StoredContent(file)


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


def _opened(file: StorageFile, path: str) -> tuple[int, os.stat_result]:
    """Return a descriptor of a local file that is as long as it was listed, and its status."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe in its place must not hold us
    except OSError as error:
        raise file.explained(error) from None
    try:
        status = os.fstat(descriptor)
    except OSError:
        os.close(descriptor)
        raise
    if stat.S_ISREG(status.st_mode) and status.st_size == file.size:
        return descriptor, status
    os.close(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise AmiliStorageError(f"{file.url} is not a regular file.")
    raise wrong_length(file, status.st_size)


def _read_local(
    file: StorageFile, path: str, in_memory_bytes: int, on_bytes: Callable[[int], None] | None
) -> HashedContent:
    if file.size > in_memory_bytes:
        content = _open_local(file, path)
        try:
            content.hash_now(on_bytes)
            content.check_unchanged()
        except BaseException:
            content.close()
            raise
        return content
    descriptor, status = _opened(file, path)
    try:
        # One byte more than listed, to notice a file that grew after fstat.
        data = os.pread(descriptor, file.size + 1, 0)
        if len(data) != file.size or state_of(os.fstat(descriptor)) != state_of(status):
            raise wrong_length(file, len(data))
    finally:
        os.close(descriptor)
    if on_bytes:
        on_bytes(len(data))
    return MemoryContent(data)


def _open_local(file: StorageFile, path: str) -> DescriptorContent:
    descriptor, status = _opened(file, path)
    with contextlib.suppress(OSError):
        # Advice only: there are filesystems that do not take it.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    return DescriptorContent(descriptor, file.size, None, shown=file.url, state=state_of(status))


def _blocks_of(file: StorageFile, on_bytes: Callable[[int], None] | None) -> Iterator[bytes]:
    for block in blocks_of(file, READ_BYTES):
        if on_bytes:
            on_bytes(len(block))
        yield block


def _read_to_memory(file: StorageFile, on_bytes: Callable[[int], None] | None) -> HashedContent:
    return MemoryContent(b"".join(_blocks_of(file, on_bytes)))


def _spool(file: StorageFile, on_bytes: Callable[[int], None] | None) -> HashedContent:
    digest = hashlib.sha256()
    try:
        spool: IO[bytes] = tempfile.TemporaryFile(prefix="amili-spool-", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise _spool_failed(file, error) from error
    with spool:
        for block in _blocks_of(file, on_bytes):
            digest.update(block)
            try:
                view = memoryview(block)
                while view:
                    view = view[spool.write(view) :]
            except OSError as error:
                raise _spool_failed(file, error) from error
        return DescriptorContent(os.dup(spool.fileno()), file.size, digest.hexdigest(), shown=file.url, state=None)


def _spool_failed(file: StorageFile, error: OSError) -> AmiliStorageError:
    where = tempfile.tempdir or "any temporary folder"
    if error.errno == errno.ENOSPC:
        return AmiliStorageError(
            f"No room in {where} to spool {file.url} ({file.size} bytes). Nothing of it was sent. Free some space, or "
            "let TMPDIR of the worker name a larger disk."
        )
    return AmiliStorageError(
        f"{file.url} cannot be spooled in {where}: {error.strerror}. Nothing of it was sent. Let TMPDIR of the "
        "worker name a folder that it can write."
    )
