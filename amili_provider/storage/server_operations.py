"""What one kind of server says for itself, over one connection; the filesystem is built from it."""

from __future__ import annotations

import contextlib
import errno
import io
from typing import Any, Generic, TypeVar

_NO_SOCKET = frozenset(
    {errno.EBADF, errno.ENOTSOCK, errno.ENOTCONN, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH}
)
"""What the kernel says of a socket that is closed or leads nowhere, without a ConnectionError of its own."""

C = TypeVar("C")


class ServerOperations(Generic[C]):
    """The operations of a kind of server. A path is absolute; what is missing is a :class:`FileNotFoundError`."""

    def _connect(self) -> C:
        raise NotImplementedError

    @staticmethod
    def _disconnect(connection: C) -> None:
        raise NotImplementedError

    @staticmethod
    def _alive(connection: C) -> bool:
        raise NotImplementedError

    def _is_answer(self, error: BaseException) -> bool:
        """Return whether *error* is the server's answer to this call, so that the connection is in order."""
        return isinstance(error, (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError))

    def _is_lost(self, error: BaseException) -> bool:
        """Return whether *error* says that the connection broke."""
        if isinstance(error, (EOFError, ConnectionError, TimeoutError)):
            return True
        return isinstance(error, OSError) and error.errno in _NO_SOCKET

    def _list(self, connection: C, path: str) -> list[dict[str, Any]]:
        raise NotImplementedError

    def _stat(self, connection: C, path: str) -> dict[str, Any]:
        raise NotImplementedError

    def _reader(self, connection: C, path: str) -> io.RawIOBase:
        raise NotImplementedError

    def _write(self, connection: C, path: str) -> contextlib.AbstractContextManager[Any]:
        """Return a stream into a new file; :class:`FileExistsError` if there is one, where the server can tell."""
        raise NotImplementedError

    def _remove(self, connection: C, path: str) -> None:
        raise NotImplementedError

    def _mkdir(self, connection: C, path: str) -> None:
        raise NotImplementedError
