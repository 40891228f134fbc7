"""
One file of a listing, and its bytes, as streams that never end early without saying so.

A storage that fails in the middle of a file must not look like a shorter file, and an object that is replaced while
it is read in pieces must not come out as a mixture of two.
"""

from __future__ import annotations

import builtins
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, cast

from amili_provider.exceptions import AmiliStorageSettingsError
from amili_provider.storage.base import Entry, NotAsListedError, ReadStream
from amili_provider.storage.errors import explain
from amili_provider.storage.locations import Location

BLOCK_BYTES = 8 * 1024 * 1024
"""How much is asked for at a time from object storages: a request costs a processor some 2 ms, whatever its size."""
BLOCKS_AHEAD = 2
"""Blocks that are on their way while one is used."""
STREAM_MEMORY_BYTES = (BLOCKS_AHEAD + 1) * BLOCK_BYTES
"""Memory that one open stream of a large object takes."""


class WholeFile(ReadStream):
    """
    A stream that gives exactly the listed number of bytes, or raises.

    :param inner: where the bytes come from.
    :param size: the size that was listed.
    :param still_the_same: called at the end of a file that was read in several pieces; raises if it was replaced.
    :param wrap: turns what the storage raised into an error that can be shown.
    """

    def __init__(
        self,
        inner: BinaryIO,
        size: int,
        still_the_same: Callable[[], None] | None,
        wrap: Callable[[BaseException], Exception],
    ) -> None:
        super().__init__()
        self._inner = inner
        self._size = size
        self._position = 0
        self._ended = False
        self._still_the_same = still_the_same
        self._wrap = wrap

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes; as many as asked for unless the file ends."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(BLOCK_BYTES), b""))
        try:
            return self._next(size)
        except Exception as error:  # noqa: BLE001 - a dozen libraries, one door
            raise self._wrap(error) from None

    def _next(self, size: int) -> bytes:
        if self._ended:
            return b""
        data = self._inner.read(size)
        self._position += len(data)
        if self._position > self._size:
            raise NotAsListedError(f"more than the {self._size} bytes listed could be read: it has grown")
        if data or not size:
            return data
        if self._position < self._size:
            raise NotAsListedError(f"it ended after {self._position} of {self._size} bytes")
        self._ended = True
        if self._still_the_same:
            # Samba goes on telling the old time of a file as long as we have it open.
            self._inner.close()
            self._still_the_same()
        return data

    def close(self) -> None:
        """Close what is underneath; an error in that changes nothing about what was read."""
        if not self.closed:
            try:
                self._inner.close()
            except Exception:  # noqa: BLE001, S110 - every byte is already checked
                pass
            finally:
                super().close()


class Blocks(ReadStream):
    """
    An object read block by block, each with one ranged request: no request that only asks for the size.

    The blocks that follow are asked for while one is used: one connection to an object storage is slower than the
    line. The last request asks for one byte more than was listed, so that an object that has grown cannot come out
    as its own beginning.

    :param read: returns the bytes of a span.
    :param size: of the object as listed.
    :param submit: does something in a thread.
    """

    def __init__(
        self,
        read: Callable[[int, int], bytes],
        size: int,
        submit: Callable[[Callable[[], bytes]], Future[bytes]],
    ) -> None:
        super().__init__()
        self._read = read
        self._size = size
        self._submit = submit
        self._asked = 0
        self._ahead: deque[tuple[int, Future[bytes]]] = deque()
        self._block = memoryview(b"")

    def read(self, size: int | None = -1, /) -> bytes:
        """Return at most *size* bytes; none at the end."""
        if not self._block:
            self._ask()
            if self._ahead:
                start, asked = self._ahead.popleft()
                self._block = memoryview(self._checked(asked.result(), start))
                self._ask()
        wanted = len(self._block) if size is None or size < 0 else size
        data, self._block = bytes(self._block[:wanted]), self._block[wanted:]
        return data

    def _ask(self) -> None:
        while len(self._ahead) < BLOCKS_AHEAD and self._asked < self._size:
            start, end = self._asked, min(self._asked + BLOCK_BYTES, self._size)
            self._asked = end
            self._ahead.append((start, self._submit(partial(self._read, start, end + (end == self._size)))))

    def _checked(self, data: bytes, start: int) -> bytes:
        end = min(start + BLOCK_BYTES, self._size)
        if start + len(data) < end:
            raise NotAsListedError(f"it ended after {start + len(data)} of {self._size} bytes")
        return data

    def close(self) -> None:
        """Give up what was asked for and not used."""
        for _, asked in self._ahead:
            asked.cancel()
        self._ahead.clear()
        super().close()


@dataclass(frozen=True, slots=True)
class StorageFile:
    """
    One file of a listing.

    :param location_root: where the listing started; shared by its files.
    :param path: the path on the filesystem.
    :param url: the path as people see it.
    :param name: the base name, Unicode NFC.
    :param size: bytes, as listed.
    :param fingerprint: ETag, generation or modification time: what changes with the content.
    :param modified: when it was last written, in seconds since 1970, by the storage's own clock.
    :param local_path: the path if it is a local file, to be read in place.
    :param literal: whether it was named, rather than found by a pattern or in a folder.
    :param fault: why it cannot be read, as far as the listing tells; None if nothing is wrong.
    :param changed: what moves with every write, even one that sets *modified* back; None if the storage has no such.
    """

    location_root: Location = field(repr=False, compare=False)
    path: str
    url: str
    name: str
    size: int
    fingerprint: str | None
    modified: float | None
    local_path: str | None
    literal: bool
    fault: str | None = None
    changed: int | None = None

    @property
    def key(self) -> tuple[str, str | None, str]:
        """What tells it from every other file; :attr:`url` does not, since it is shown without its query."""
        return (self.location_root.protocol, self.location_root.conn_id, self.path)

    @property
    def can_be_read_together(self) -> bool:
        """Whether :func:`read_together` costs the storage's library less than one :meth:`open` after the other."""
        return self.can_be_read_in_parallel and 0 < self.size <= BLOCK_BYTES

    @property
    def can_be_read_in_parallel(self) -> bool:
        """Whether several ranges of it are on their way at once, so that reading is as fast as the line."""
        return self.location_root.storage.kind.object_store

    def open(self) -> BinaryIO:
        """
        Return a stream of the bytes from the start, to be used by one thread.

        It gives as many bytes as were listed, or raises :class:`AmiliStorageError` or
        :class:`FileNotFoundError`.
        """
        if self.fault is not None:
            raise AmiliStorageSettingsError(f"Cannot read {self.url}: {self.fault}.")
        try:
            inner, in_pieces = self._open_inner(self.location_root)
        except Exception as error:  # noqa: BLE001 - a dozen libraries, one door
            raise self.explained(error) from None
        check = self._check_unchanged if in_pieces and self.fingerprint is not None else None
        return cast("BinaryIO", WholeFile(inner, self.size, check, self.explained))

    def explained(self, error: BaseException) -> Exception:
        """Return what the storage raised while this file was read as an error that can be shown."""
        return explain("read", self.url, self.location_root.storage.connection, error)

    def _open_inner(self, root: Location) -> tuple[BinaryIO, bool]:
        """Return the bytes, and whether it takes several requests to get them."""
        if self.local_path is not None:
            return cast("BinaryIO", builtins.open(self.local_path, "rb", buffering=0)), True  # noqa: PTH123
        # Of an object every piece is bound to the fingerprint.
        in_pieces = root.storage.kind.lists and not root.storage.kind.object_store
        return cast("BinaryIO", root.fs.open(self.path, self.size, self.fingerprint)), in_pieces

    def _check_unchanged(self) -> None:
        now = look_at(self.location_root, self.path)
        if (now.size, now.fingerprint) != (self.size, self.fingerprint):
            raise NotAsListedError("it was replaced or written to since it was listed")


def read_together(files: Sequence[StorageFile]) -> list[bytes | Exception]:
    """
    Read small objects of one storage at once: for each its bytes, as many as were listed, or why not.

    :param files: each must say that it :attr:`~StorageFile.can_be_read_together`.
    """
    fs = files[0].location_root.fs
    # One byte more than listed, so that an object that has grown does not come out as its own beginning.
    asked = [fs.submit(partial(fs.read, file.path, file.fingerprint, (0, file.size + 1))) for file in files]
    return [_whole(file, one) for file, one in zip(files, asked, strict=True)]


def _whole(file: StorageFile, asked: Future[bytes]) -> bytes | Exception:
    try:
        found = asked.result()
    except Exception as error:  # noqa: BLE001 - a dozen libraries, one door
        return file.explained(error)
    if len(found) < file.size:
        return file.explained(NotAsListedError(f"it ended after {len(found)} of {file.size} bytes"))
    if len(found) > file.size:
        return file.explained(NotAsListedError(f"more than the {file.size} bytes listed could be read: it has grown"))
    return found


def look_at(location: Location, path: str) -> Entry:
    """Return what the storage says of *path* now; its errors come out as they are."""
    return cast("Entry", location.fs.info(path))
