"""
Byte streams that never end early without saying so.

A storage that fails in the middle of a file must not look like a shorter file, and an object that is replaced while
it is read in pieces must not come out as a mixture of two.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import BinaryIO

from amili_provider.storage.base import NotAsListedError

BLOCK_BYTES = 8 * 1024 * 1024
"""How much is asked for at a time from object storages: a request costs a processor some 2 ms, whatever its size."""
BLOCKS_AHEAD = 2
"""Blocks that are on their way while one is used."""
STREAM_MEMORY_BYTES = (BLOCKS_AHEAD + 1) * BLOCK_BYTES
"""Memory that one open stream of a large object takes."""


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
        self._ended = False
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

    def readable(self) -> bool:
        """Return True: it is for reading."""
        return True

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

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Read into *buffer*; return how many bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Give up what was asked for and not used."""
        for _, asked in self._ahead:
            asked.cancel()
        self._ahead.clear()
        super().close()
