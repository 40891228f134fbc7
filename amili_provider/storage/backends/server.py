"""Files on servers that hold one conversation per connection: SFTP, FTP, SMB."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import posixpath
import shutil
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, ClassVar, Generic, TypeVar, cast

from amili_provider.storage.backends.pool import Download, Pool
from amili_provider.storage.base import Entry, read_entry, undone
from amili_provider.storage.connections import split_host
from amili_provider.storage.errors import WrongSettings

_NO_SOCKET = frozenset(
    {errno.EBADF, errno.ENOTSOCK, errno.ENOTCONN, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH}
)
"""What the kernel says of a socket that is closed or leads nowhere, without a ConnectionError of its own."""

C = TypeVar("C")


class ServerOperations(ABC, Generic[C]):
    """The operations of a kind of server. A path is absolute; what is missing is a :class:`FileNotFoundError`."""

    @abstractmethod
    def _connect(self) -> C:
        """Return a new connection."""

    @staticmethod
    @abstractmethod
    def _disconnect(connection: C) -> None:
        """End a connection."""

    @staticmethod
    @abstractmethod
    def _alive(connection: C) -> bool:
        """Return whether a connection that was kept still answers."""

    def _is_answer(self, error: BaseException) -> bool:
        """Return whether *error* is the server's answer to this call, so that the connection is in order."""
        return isinstance(error, (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError))

    def _is_lost(self, error: BaseException) -> bool:
        """Return whether *error* says that the connection broke."""
        if isinstance(error, (EOFError, ConnectionError, TimeoutError)):
            return True
        return isinstance(error, OSError) and error.errno in _NO_SOCKET

    @abstractmethod
    def _list(self, connection: C, path: str) -> list[dict[str, Any]]:
        """Return the entries of a folder."""

    @abstractmethod
    def _stat(self, connection: C, path: str) -> dict[str, Any]:
        """Return what the server says of one path."""

    @abstractmethod
    def _reader(self, connection: C, path: str) -> io.RawIOBase:
        """Return a stream of a file."""

    @abstractmethod
    def _write(self, connection: C, path: str) -> contextlib.AbstractContextManager[Any]:
        """Return a stream into a new file; :class:`FileExistsError` if there is one, where the server can tell."""

    @abstractmethod
    def _remove(self, connection: C, path: str) -> None:
        """Remove a file."""

    @abstractmethod
    def _mkdir(self, connection: C, path: str) -> None:
        """Make a folder."""


_PAUSES = (0.2, 0.8)
"""Seconds before a connection that was refused is tried again."""
_QUICK_SECONDS = 5.0
"""A refusal that took longer is not a busy server's, and is not tried again."""
_SESSIONS = 8
"""How many connections to a server there are at once, unless its connection says otherwise or it lets in fewer."""
_MOST_SESSIONS = 64
_BLOCK = 1024 * 1024
T = TypeVar("T")


def _sessions(said: object) -> int:
    if said in (None, ""):
        return _SESSIONS
    number = str(said).strip()
    if number.isdecimal() and 1 <= int(number) <= _MOST_SESSIONS:
        return int(number)
    raise WrongSettings(
        f"the extra 'max_sessions' is {number[:20]!r}, not a number from 1 to {_MOST_SESSIONS}. Correct it"
    )


def quiet(logger: str, level: int = logging.WARNING) -> None:
    """Keep a library from filling the task's log with its protocol, unless somebody asked for it."""
    found = logging.getLogger(logger)
    if found.level == logging.NOTSET:
        found.setLevel(level)


class ServerFiles(ServerOperations[C]):
    """
    What SFTP, FTP and SMB have in common.

    :param host: the server, as the connection names it.
    :param port: its port.
    :param login: who logs in.
    :param default_port: the port that need not be shown.
    :param extra: of the connection; ``max_sessions`` is how many connections there may be at once.
    :raises WrongSettings: if *extra* says something else there than a number from 1 to 64.
    """

    protocol: ClassVar[str]

    def __init__(self, host: str, port: int, login: str, default_port: int, extra: Mapping[str, Any]) -> None:
        self._host = host
        self._port = port
        self._login = login
        self._shown_port = "" if port == default_port else f":{port}"
        self._pool: Pool[C] = Pool(
            self._connect_patiently, self._disconnect, self._alive, most=_sessions(extra.get("max_sessions"))
        )
        weakref.finalize(self, self._pool.close)

    def _connect_patiently(self) -> C:
        # A busy server turns away some of those who come at once (sshd's MaxStartups is the best known for it).
        for pause in _PAUSES:
            started = time.monotonic()
            try:
                return self._connect()
            except WrongSettings:
                raise
            except OSError:
                if time.monotonic() - started > _QUICK_SECONDS:
                    raise
                time.sleep(pause)
        return self._connect()

    def remove(self, path: str, _version: str | None, /) -> None:
        """Delete a file."""
        self.run(lambda connection: self._remove(connection, path), again=False)

    def home(self) -> str:
        """Return the folder that the server puts this login into. The first call: it shows whether all is well."""
        return "/"

    def prefix(self) -> str:
        """Return what a path is shown with."""
        return f"{self.protocol}://{self._host}{self._shown_port}"

    def path_of(self, scheme: str, rest: str) -> str:
        """Return the path in ``scheme://rest``; a host there must be the connection's."""
        host, path = split_host(rest)
        user, at, server = host.rpartition("@")
        if at and user != self._login:
            raise ValueError(
                f"The {scheme}:// path names a user, but the connection logs in as another. Write three slashes: "
                f"{scheme}:///path."
            )
        name, _, port = server.partition(":")
        if server and (name.casefold() != self._host.casefold() or port not in ("", str(self._port))):
            raise ValueError(
                f"The path names the host {server!r}, but the connection is to {self._host}{self._shown_port}. "
                f"Write three slashes ({scheme}://{path or '/'}), or choose another connection."
            )
        return path or "/"

    def run(self, work: Callable[[C], T], *, again: bool = True) -> T:
        """
        Do *work* with a connection of its own.

        :param again: whether it may be done a second time if a connection that was idle turns out to be broken.
        """
        while True:
            connection, reused = self._pool.take()
            try:
                result = work(connection)
            except BaseException as error:
                if self._is_answer(error):
                    self._pool.give_back(connection)
                else:
                    self._pool.discard(connection)
                    if reused and again and self._is_lost(error):
                        continue
                raise
            self._pool.give_back(connection)
            return result

    def close(self) -> None:
        """Close all connections, those in use when they are given back; who asks again opens new ones."""
        self._pool.close()

    def scan(self, path: str) -> Iterator[Entry]:
        """Yield what is in the folder *path*."""
        listed = self.run(lambda connection: self._list(connection, path))
        listed.reverse()
        while listed:  # each is let go of: a large folder is not kept twice
            yield read_entry(listed.pop())

    def info(self, path: str) -> Entry:
        """Return what is at *path*."""
        if path == "/":
            return read_entry({"name": "/", "type": "directory"})
        return read_entry(self.run(lambda connection: self._stat(connection, path)))

    def exists(self, path: str) -> bool:
        """Return whether there is something at *path*. An error is not a no."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def open(self, path: str, _size: int, _version: str | None, /) -> BinaryIO:
        """Return a stream of the file at *path*, with a connection of its own."""
        while True:
            connection, reused = self._pool.take()
            try:
                raw = self._reader(connection, path)
            except BaseException as error:
                if self._is_answer(error):
                    self._pool.give_back(connection)
                else:
                    self._pool.discard(connection)
                    if reused and self._is_lost(error):
                        continue
                raise
            return cast("BinaryIO", Download(raw, self._pool, connection))

    def make_folders(self, path: str) -> None:
        """Make the folder *path* and those above it."""
        if path in ("", "/") or self.exists(path):
            return
        self.make_folders(posixpath.dirname(path))
        try:
            self.run(lambda connection: self._mkdir(connection, path), again=False)
        except OSError as error:
            # Somebody else may have made it at the same moment; SFTP and FTP have no word of their own for it.
            if self._is_lost(error) or not self.exists(path):
                raise

    def create(self, path: str, stream: BinaryIO, _size: int, /) -> None:
        """Write *stream* to a new file at *path*; exclusively where the server can."""

        def write(connection: C) -> None:
            with self._write(connection, path) as out:
                begun.append(path)
                shutil.copyfileobj(stream, out, _BLOCK)

        begun: list[str] = []  # nothing to undo before
        with undone(lambda: self.remove(begun[0], None)):
            self.run(write, again=False)
