"""
The bytes of a file, readable again and again: in memory, behind a descriptor, or on their storage.

:mod:`amili_provider.storage.reading` decides which.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from amili_provider.exceptions import AmiliStorageError
from amili_provider.storage.files import StorageFile

READ_BYTES = 1024 * 1024


class HashedContent:
    """
    Content with its hash. Close it when it is no longer needed.

    :param size: bytes.
    :param sha256: SHA-256 of the content, 64 hex characters; None until its blocks were read to the end once.
    :param shown: the file's name for messages.
    """

    _may_change = False
    """Whether it is hashed each time that it is read, since nothing else tells that it is what it was."""

    def __init__(self, size: int, sha256: str | None, *, shown: str = "") -> None:
        self.size = size
        self.sha256 = sha256
        self._shown = shown

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.size} bytes>"

    def blocks(self, block_bytes: int) -> Iterator[bytes | memoryview]:
        """
        Yield the content in blocks of exactly *block_bytes* but for the last.

        Use a block before asking for the next: some kinds use its memory again.

        :raises AmiliStorageError: if it cannot be read, or is not what it was.
        """
        if self.sha256 is None or self._may_change:
            return self._hashed(self._blocks(block_bytes))
        return self._blocks(block_bytes)

    def hash_now(self, on_bytes: Callable[[int], None] | None = None) -> str:
        """
        Return the hash; where it is not known yet, read everything for it.

        :param on_bytes: called with the length of each block read; what it raises ends the reading.
        :raises AmiliStorageError: if it cannot be read.
        """
        if self.sha256 is None:
            for block in self.blocks(READ_BYTES):
                if on_bytes:
                    on_bytes(len(block))
        assert self.sha256 is not None
        return self.sha256

    def check_unchanged(self) -> None:
        """Raise :class:`AmiliStorageError` if the bytes may differ from what was hashed."""

    def close(self) -> None:
        """Give back memory, descriptor and disk space."""

    def _blocks(self, block_bytes: int) -> Iterator[bytes | memoryview]:
        raise AssertionError(f"each kind of content has its own blocks of {block_bytes} bytes")

    def _hashed(self, blocks: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        """Yield *blocks*; each is hashed while it is used and the next is read. At the end the hash is known."""
        digest = hashlib.sha256()
        with ThreadPoolExecutor(1, thread_name_prefix="amili-hash") as hasher:
            hashing = None
            for block in blocks:
                if hashing is not None:
                    hashing.result()
                hashing = hasher.submit(digest.update, block)
                yield block
        found = digest.hexdigest()
        if self.sha256 not in (None, found):
            raise AmiliStorageError(f"{self._shown} was changed while it was being read or sent.")
        self.sha256 = found


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
    :param sha256: SHA-256 of the content; None if it is not known yet.
    :param shown: the file's name for messages.
    :param state: what :func:`state_of` said when it was opened; None for a spool.
    """

    def __init__(
        self, descriptor: int, size: int, sha256: str | None, *, shown: str, state: tuple[int, ...] | None
    ) -> None:
        super().__init__(size, sha256, shown=shown)
        self._descriptor = descriptor
        self._state = state

    def _blocks(self, block_bytes: int) -> Iterator[bytes | memoryview]:
        # Two buffers in turn for the whole iteration: one may still be hashed while the other is filled.
        used, free = (memoryview(bytearray(min(block_bytes, max(self.size, 1)))) for _ in range(2))
        position = 0
        while position < self.size:
            wanted = min(block_bytes, self.size - position)
            used, free = free, used
            got = _read_fully(self._descriptor, used[:wanted], position)
            if got != wanted:
                raise AmiliStorageError(f"{self._shown} became shorter while it was being read or sent.")
            position += got
            yield used[:got]

    def check_unchanged(self) -> None:
        """Raise :class:`AmiliStorageError` if the file was written to since it was opened."""
        if self._state is not None and state_of(os.fstat(self._descriptor)) != self._state:
            raise AmiliStorageError(f"{self._shown} was changed while it was being read or sent.")

    def close(self) -> None:
        """Close the descriptor; a spool's disk space goes with it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()


class StoredContent(HashedContent):
    """
    A large file that stays on its storage, and is read from there each time.

    :param file: a file of a listing.
    """

    _may_change = True

    def __init__(self, file: StorageFile) -> None:
        super().__init__(file.size, None, shown=file.url)
        self._file = file

    def _blocks(self, block_bytes: int) -> Iterator[bytes | memoryview]:
        return blocks_of(self._file, block_bytes, _read_block)


def state_of(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes when somebody writes to a file."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _read_some(stream: BinaryIO, most_bytes: int) -> bytes:
    """Return what the storage gives at once: whoever may be told to stop does not wait for more."""
    return stream.read(most_bytes)


def blocks_of(
    file: StorageFile, block_bytes: int, read: Callable[[BinaryIO, int], bytes] = _read_some
) -> Iterator[bytes]:
    """
    Yield what the storage gives, in blocks of at most *block_bytes*.

    :param file: a file of a listing.
    :param block_bytes: bytes of a block at most.
    :param read: how a block is read; no bytes mean the end.
    :raises AmiliStorageError: if it cannot be read, or is not exactly as long as the listing said.
    :raises FileNotFoundError: if it is gone since it was listed.
    """
    got = 0
    with file.open() as stream:
        while block := read(stream, block_bytes):
            got += len(block)
            if got > file.size:
                raise wrong_length(file, f"more than {file.size}")
            yield block
    if got != file.size:
        raise wrong_length(file, got)


class WrongLength(AmiliStorageError):  # noqa: N818 - what is wrong is the file's length
    """A file is not as long as it was listed."""


def wrong_length(file: StorageFile, got: int | str) -> WrongLength:
    """Return the error for a file that is not as long as it was listed."""
    return WrongLength(
        f"{file.url} was listed with {file.size} bytes, but {got} could be read: it is being written, was replaced, "
        f"or the storage failed. Nothing of it was accepted."
    )


def _read_block(stream: BinaryIO, block_bytes: int) -> bytes:
    """Return the next *block_bytes*, fewer only at the end, however few the storage gives at a time."""
    block = stream.read(block_bytes)
    if not block or len(block) >= block_bytes:
        return block
    pieces, missing = [block], block_bytes - len(block)
    while missing > 0 and (more := stream.read(missing)):
        pieces.append(more)
        missing -= len(more)
    return b"".join(pieces)


def _read_fully(descriptor: int, buffer: memoryview, position: int) -> int:
    got = 0
    while got < len(buffer):
        count = os.preadv(descriptor, [buffer[got:]], position + got)
        if not count:
            break
        got += count
    return got
