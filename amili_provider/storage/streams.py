"""
Byte streams that never end early without saying so.

A storage that fails in the middle of a file must not look like a shorter file, and an object that is replaced while
it is read in pieces must not come out as a mixture of two.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO

from fsspec import AbstractFileSystem

BLOCK_BYTES = 4 * 1024 * 1024
"""How much is asked for at a time from object storages; one block per open stream is kept in memory."""


class ShortReadError(OSError):
    """The stream ended before the listed size, or went on after it."""


class WholeFile(io.RawIOBase):
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
        self._still_the_same = still_the_same
        self._wrap = wrap

    def readable(self) -> bool:
        """Return True: it is for reading."""
        return True

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
        data = self._inner.read(size)
        self._position += len(data)
        if self._position > self._size:
            raise ShortReadError(f"more than the {self._size} bytes listed could be read: it has grown")
        if data or not size:
            return data
        if self._position < self._size:
            raise ShortReadError(f"it ended after {self._position} of {self._size} bytes")
        if self._still_the_same:
            check, self._still_the_same = self._still_the_same, None
            check()
        return data

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Read into *buffer*; return how many bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close what is underneath; an error in that changes nothing about what was read."""
        if not self.closed:
            try:
                self._inner.close()
            except Exception:  # noqa: BLE001, S110 - every byte is already checked
                pass
            finally:
                super().close()


class Blocks(io.RawIOBase):
    """
    An object read block by block, each with one ranged request: no request that only asks for the size.

    :param fs: an object storage's filesystem.
    :param path: the object.
    :param size: its size as listed.
    """

    def __init__(self, fs: AbstractFileSystem, path: str, size: int) -> None:
        super().__init__()
        self._fs = fs
        self._path = path
        self._size = size
        self._next = 0
        self._block = memoryview(b"")

    def readable(self) -> bool:
        """Return True: it is for reading."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return at most *size* bytes; none at the end."""
        if not self._block and self._next < self._size:
            end = min(self._next + BLOCK_BYTES, self._size)
            data = self._fs.cat_file(self._path, start=self._next, end=end)
            if len(data) != end - self._next:
                raise ShortReadError(f"it ended after {self._next + len(data)} of {self._size} bytes")
            self._block, self._next = memoryview(data), end
        wanted = len(self._block) if size is None or size < 0 else size
        data, self._block = bytes(self._block[:wanted]), self._block[wanted:]
        return data

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Read into *buffer*; return how many bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
