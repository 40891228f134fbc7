"""SMB shares (Windows, Samba), as Airflow's own Samba hook reads the connection."""

from __future__ import annotations

import contextlib
import errno
import io
import posixpath
import stat
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import smbclient
from smbprotocol.connection import Connection
from smbprotocol.exceptions import (
    LogonFailure,
    SMBAuthenticationError,
    SMBConnectionClosed,
    SMBException,
    SMBOSError,
    SMBResponseException,
)
from smbprotocol.session import Session

from amili_provider.storage.backends.server import ServerFiles, quiet
from amili_provider.storage.base import ReadStream, broken_link
from amili_provider.storage.connections import StorageConnection
from amili_provider.storage.errors import WrongSettings

_PORT = 445
_SECONDS = 60
_AUTH = ("negotiate", "ntlm", "kerberos")
_DENIED = 0xC0000022  # STATUS_ACCESS_DENIED, which smbclient knows no errno for
_NO_SHARE = 0xC00000CC  # STATUS_BAD_NETWORK_NAME
_NO_SHARE_WORDS = "the server has no such share. Correct the schema of the connection, or without one the path"
# STATUS_OBJECT_NAME_INVALID, STATUS_OBJECT_PATH_SYNTAX_BAD: no file can be called so; a pattern is, for example.
_NO_SUCH_NAME = frozenset({0xC0000033, 0xC000003B})

_Connection = dict[str, Any]  # smbclient's own: a cache with one server connection in it


class SmbFiles(ServerFiles[_Connection]):
    """
    The files of an SMB share.

    :param connection: the Airflow connection; its schema is the share. Without one, a path begins with the share.
    """

    protocol = "smb"

    def __init__(self, connection: StorageConnection) -> None:
        if not connection.host:
            raise WrongSettings("the connection names no host. Add it")
        super().__init__(connection.host, connection.port or _PORT, connection.login, _PORT, connection.extra)
        # It reports every packet.
        quiet("smbprotocol")
        self._password = connection.password
        self._share = connection.schema.strip("/\\")
        legacy = connection.extra.get("auth")
        self._auth = str(connection.extra.get("auth_protocol") or (legacy if legacy in _AUTH else None) or "negotiate")
        if self._auth not in _AUTH:
            raise WrongSettings(f"the extra 'auth_protocol' must be one of {', '.join(_AUTH)}, not {self._auth!r}")

    def _options(self, connection: _Connection) -> dict[str, Any]:
        """Return what smbclient wants with every call."""
        if not all(server.transport.connected for server in connection.values()):
            # smbclient would open another one by itself, see _connect.
            raise SMBConnectionClosed
        return {
            "username": self._login or None,
            "password": self._password or None,
            "port": self._port,
            "connection_cache": connection,
            "auth_protocol": self._auth,
            "connection_timeout": _SECONDS,
        }

    def prefix(self) -> str:
        """Return what a path is shown with."""
        return super().prefix() + (f"/{self._share}" if self._share else "")

    def path_of(self, scheme: str, rest: str) -> str:
        """Return the path in ``smb://rest``. With the host the share is named too, as every SMB address has it."""
        path = super().path_of(scheme, rest)
        if not rest.startswith("/") and self._share:
            share, _, inside = path.lstrip("/").partition("/")
            if share.casefold() != self._share.casefold():
                raise ValueError(
                    f"The path names the share {share!r}, but the connection's is {self._share!r}. Write "
                    f"{scheme}:///path for a path in the connection's share."
                )
            return "/" + inside
        return path

    def _unc(self, path: str) -> str:
        inside = path.strip("/").replace("/", "\\")
        return "\\\\" + "\\".join(part for part in (self._host, self._share, inside) if part)

    def _connect(self) -> _Connection:
        where = f"{self._host}:{self._port}"
        # A client id for each: Samba hands connections of one client to one process, and several that arrive there at
        # once may wait for ever (tried). smbclient itself gives all of them the same.
        server = Connection(uuid4(), self._host, self._port, require_signing=True)
        # How long an answer may take; after twice that the connection counts as dead. The default is 20 minutes.
        server._receive_timeout = _SECONDS  # noqa: SLF001 - there is an environment variable for it, and nothing else
        connection: _Connection = {f"{self._host.lower()}:{self._port}": server}
        try:
            server.connect(timeout=_SECONDS)
            Session(
                server,
                username=self._login or None,
                password=self._password or None,
                require_encryption=False,
                auth_protocol=self._auth,
            ).connect()
        except (LogonFailure, SMBAuthenticationError) as error:
            self._disconnect(connection)
            raise WrongSettings(
                f"{where} refuses the login of {self._login!r} ({_short(error)}). Correct the login or password"
            ) from None
        except (SMBException, ValueError, OSError, TimeoutError) as error:
            self._disconnect(connection)
            raise OSError(f"no connection to {where}: {_short(error)}") from None
        return connection

    @staticmethod
    def _disconnect(connection: _Connection) -> None:
        for server in list(connection.values()):
            with contextlib.suppress(Exception):
                # Only the socket: a polite farewell would wait for the answer of a server that may be dead.
                server.disconnect(close=False)
        connection.clear()

    @staticmethod
    def _alive(connection: _Connection) -> bool:
        try:
            for server in connection.values():
                server.echo(timeout=5)
        except Exception:  # noqa: BLE001 - whatever it is, another connection is better
            return False
        return bool(connection)

    def _is_answer(self, error: BaseException) -> bool:
        return isinstance(error, (SMBOSError, SMBResponseException)) or super()._is_answer(error)

    def _is_lost(self, error: BaseException) -> bool:
        return super()._is_lost(error) or isinstance(error, SMBConnectionClosed)

    def home(self) -> str:
        """Return the share's top folder, after asking for it."""
        if self._share:
            try:
                self.run(lambda connection: self._stat(connection, "/"))
            except FileNotFoundError:
                raise WrongSettings(_NO_SHARE_WORDS) from None
        return "/"

    def _list(self, connection: _Connection, path: str) -> list[dict[str, Any]]:
        found = []
        with _refusals(path), contextlib.closing(_scan(self._unc(path), self._options(connection))) as entries:
            for entry in entries:
                known, name = entry.smb_info, posixpath.join(path, entry.name)
                if entry.is_symlink():
                    # The size in the listing is the link's own.
                    with contextlib.suppress(FileNotFoundError):  # gone since
                        found.append({**self._stat(connection, name), "islink": True})
                    continue
                found.append(
                    {
                        "name": name,
                        "type": "directory" if entry.is_dir() else "file",
                        "islink": False,
                        "size": known.end_of_file,
                        "mtime": known.last_write_time.timestamp(),
                    }
                )
        if not found:
            # Of a folder that may be read but not entered servers leave out every name: whether there is any is denied.
            with contextlib.suppress(FileNotFoundError):
                self._stat(connection, posixpath.join(path, uuid4().hex))
        return found

    def _stat(self, connection: _Connection, path: str) -> dict[str, Any]:
        unc, options = self._unc(path), self._options(connection)
        with _refusals(path):
            try:
                status = smbclient.stat(unc, **options)
            except SMBOSError as error:
                if not stat.S_ISLNK(smbclient.lstat(unc, **options).st_mode):
                    raise
                return broken_link(path, error.strerror)
        kind = "directory" if stat.S_ISDIR(status.st_mode) else "file"
        return {
            "name": path,
            "type": kind,
            "islink": False,
            "size": status.st_size,
            # Cut to microseconds as a listing is.
            "mtime": status.st_mtime_ns // 1000 / 1e6,
        }

    def _reader(self, connection: _Connection, path: str) -> io.RawIOBase:
        with _refusals(path):
            # Others may go on reading, writing and renaming: we never lock a partner's file.
            opened = smbclient.open_file(
                self._unc(path), mode="rb", buffering=0, share_access="rwd", **self._options(connection)
            )
        return _Reader(opened, path)

    @contextlib.contextmanager
    def _write(self, connection: _Connection, path: str) -> Iterator[Any]:
        with (
            _refusals(path),
            smbclient.open_file(self._unc(path), mode="xb", share_access="r", **self._options(connection)) as out,
        ):
            yield out

    def _remove(self, connection: _Connection, path: str) -> None:
        with _refusals(path):
            smbclient.remove(self._unc(path), **self._options(connection))

    def _mkdir(self, connection: _Connection, path: str) -> None:
        with _refusals(path):
            smbclient.mkdir(self._unc(path), **self._options(connection))

    def rename(self, old: str, new: str) -> None:
        """Rename; :class:`FileExistsError` if *new* exists."""

        def work(connection: _Connection) -> None:
            with _refusals(new):
                smbclient.rename(self._unc(old), self._unc(new), **self._options(connection))

        self.run(work, again=False)


def _scan(path: str, options: dict[str, Any]) -> Any:
    return smbclient.scandir(path, **options)


def _short(error: BaseException) -> str:
    """Return the first sentence of what smbprotocol says; the rest is protocol fields."""
    words = str(error) or type(error).__name__
    return words.partition(", Context:")[0][:200]


@contextlib.contextmanager
def _refusals(path: str) -> Iterator[None]:
    """Let the server's refusals come out as the errors that Python has for them."""
    try:
        yield
    except SMBOSError as error:
        if error.ntstatus in _NO_SUCH_NAME:
            raise FileNotFoundError(errno.ENOENT, "no such file", path) from None
        if error.ntstatus == _NO_SHARE:
            raise WrongSettings(_NO_SHARE_WORDS) from None
        if error.ntstatus == _DENIED:
            raise PermissionError(errno.EACCES, "permission denied", path) from None
        # SMBOSError has errno, but is not the subclass of OSError that belongs to it.
        raise OSError(error.errno, error.strerror, path) from None
    except SMBResponseException as error:
        if error.status == _NO_SHARE:
            raise WrongSettings(_NO_SHARE_WORDS) from None
        raise OSError(_short(error)) from None


class _Reader(ReadStream):
    """
    A remote file.

    :param file: the open file.
    :param path: its path, for errors.
    """

    def __init__(self, file: Any, path: str) -> None:
        super().__init__()
        self._file = file
        self._path = path

    def read(self, size: int | None = -1, /) -> bytes:
        """Return at most *size* bytes; none at the end."""
        with _refusals(self._path):
            return bytes(self._file.read(1024 * 1024 if size is None or size < 0 else min(size, 1024 * 1024)) or b"")

    def close(self) -> None:
        """Close the remote file."""
        if not self.closed:
            super().close()
            self._file.close()
