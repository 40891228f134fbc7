"""Files on servers as streams."""

from __future__ import annotations

import io
from typing import Any

from amili_provider.storage.pool import Pool


class Download(io.RawIOBase):
    """
    A stream with a connection of its own, which goes back to the pool when the file was read to its end.

    :param raw: the bytes.
    :param pool: where the connection goes.
    :param connection: the connection.
    """

    def __init__(self, raw: io.RawIOBase, pool: Pool[Any], connection: Any) -> None:
        super().__init__()
        self._raw = raw
        self._pool = pool
        self._connection: Any = connection
        self._complete = False

    def readable(self) -> bool:
        """Return True: it is for reading."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes; none at the end, and only there."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(256 * 1024), b""))
        data = self._raw.read(size) or b""
        self._complete = not data and size > 0
        return data

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Read into *buffer*; return how many bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Give the connection back, or close it if the file was left in the middle."""
        if self.closed:
            return
        connection, self._connection = self._connection, None
        in_order = self._complete
        try:
            self._raw.close()
        except Exception:  # noqa: BLE001 - a connection that cannot even close a file is not used again
            in_order = False
        if in_order:
            self._pool.give_back(connection)
        else:
            self._pool.discard(connection)
        super().close()
