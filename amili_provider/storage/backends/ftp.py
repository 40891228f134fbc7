"""
FTP and FTPS, as Airflow's own FTP hooks read the connection.

That is passive mode, encoding, and for FTPS certificates that are checked and data that is encrypted too.

FTPS is chosen by the scheme (``ftps://``), or by the extra ``tls`` of the connection where a path has no scheme.
"""

from __future__ import annotations

import contextlib
import ftplib
import io
import posixpath
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

from amili_provider.storage.backends.ftp_protocol import logged_in, read_facts, read_list, read_mlsd, read_moment
from amili_provider.storage.backends.server import ServerFiles
from amili_provider.storage.base import ReadStream, broken_link
from amili_provider.storage.connections import StorageConnection
from amili_provider.storage.errors import MISSING, WrongSettings

_NO = frozenset({"false", "0", "no", "off", "none", ""})
_REFUSED = re.compile(r"permission|denied|not allowed|privilege|access is", re.IGNORECASE)
_NOTHING = re.compile(r"no files?\b|no such|not found|empty|no matching|0 files", re.IGNORECASE)
"""How servers refuse to list a folder that can be entered, and has nothing in it."""
_IN_USE = re.compile(r"another process|in use|being used|sharing violation|locked|busy|being written", re.IGNORECASE)
"""How servers refuse to give a file that its writer holds."""
_CUT_OFF = re.compile(r"truncat|incomplete|aborted|too many", re.IGNORECASE)
"""What servers add to the success of a listing that does not name everything."""


class FtpFiles(ServerFiles[ftplib.FTP]):
    """
    The files of an FTP server.

    :param connection: the Airflow connection.
    :param tls: whether to use FTPS (explicit TLS).
    """

    protocol = "ftp"

    def __init__(self, connection: StorageConnection, *, tls: bool) -> None:
        if not connection.host:
            raise WrongSettings("the connection names no host. Add it")
        super().__init__(
            connection.host, connection.port or ftplib.FTP_PORT, connection.login, ftplib.FTP_PORT, connection.extra
        )
        self._password = connection.password
        self._passive = str(connection.extra.get("passive", True)).strip().lower() not in _NO
        self._encoding = str(connection.extra.get("encoding") or "utf-8")
        self._tls = tls
        self._mlsd: bool | None = None

    def prefix(self) -> str:
        """Return what a path is shown with."""
        return f"{'ftps' if self._tls else 'ftp'}://{self._host}{self._shown_port}"

    def _connect(self) -> ftplib.FTP:
        return logged_in(
            self._host,
            self._port,
            self._login,
            self._password,
            tls=self._tls,
            passive=self._passive,
            encoding=self._encoding,
        )

    @staticmethod
    def _disconnect(connection: ftplib.FTP) -> None:
        # No QUIT: a server in the middle of a transfer would let us wait for its answer.
        connection.close()

    @staticmethod
    def _alive(connection: ftplib.FTP) -> bool:
        try:
            connection.voidcmd("NOOP")
        except Exception:  # noqa: BLE001 - whatever it is, another connection is better
            return False
        return True

    def _is_lost(self, error: BaseException) -> bool:
        # 421: the server closes the connection, as after idle time.
        return super()._is_lost(error) or (isinstance(error, OSError) and str(error).startswith("421"))

    def home(self) -> str:
        """Return the folder that the server puts this login into."""
        return self.run(lambda connection: _answered(connection.pwd, "/")) or "/"

    def _list(self, connection: ftplib.FTP, path: str) -> list[dict[str, Any]]:
        if self._mlsd is not False:
            try:
                lines = _lines(connection, f"MLSD {path}")
            except ftplib.error_perm as error:
                if str(error)[:3] not in ("500", "502", "504"):
                    raise _refusal(error, path) from None
                self._mlsd = False
            else:
                self._mlsd = True
                found = [self._known(connection, details) for line in lines if (details := read_mlsd(line, path))]
                if not found:
                    # Of a folder that may be read but not entered servers leave out every name.
                    _answered(lambda: connection.cwd(path), path)
                return found
        # A server without MLSD lists a missing folder as an empty one; entering it is what tells them apart.
        _answered(lambda: connection.cwd(path), path)
        lines = _answered(lambda: _lines_or_none(connection), path)
        return [self._known(connection, details) for line in lines if (details := read_list(line, path))]

    def _known(self, connection: ftplib.FTP, details: dict[str, Any]) -> dict[str, Any]:
        """Return *details*, after asking for what the server left out: what a link leads to, a type, a size."""
        path, kind = details["name"], details["type"]
        if kind in ("directory", "other") or (kind == "file" and details["size"] is not None):
            return details
        if kind == "unknown" and _asked(connection, f"CWD {path}").startswith("2"):
            return {**details, "type": "directory"}
        answer = _asked(connection, f"SIZE {path}")
        told = re.match(r"213 (\d+)\s*$", answer)
        if told is None:
            if details["islink"]:
                return broken_link(path, answer)
            missing = "size" if kind == "file" else "type and size"
            return {**details, "fault": f"the server does not tell its {missing} ({answer})"}
        details = {**details, "type": "file", "size": int(told[1])}
        if details["islink"]:
            # The time in the listing may be the link's own.
            details["mtime"] = read_moment(_asked(connection, f"MDTM {path}").removeprefix("213 "))
            details.pop("etag", None)
        return details

    def _stat(self, connection: ftplib.FTP, path: str) -> dict[str, Any]:
        if self._mlsd is not False:
            try:
                answer = connection.sendcmd(f"MLST {path}")
            except ftplib.error_perm as error:
                if str(error)[:3] not in ("500", "502", "504"):
                    raise _refusal(error, path) from None
                self._mlsd = False
            else:
                self._mlsd = True
                facts = [*answer.splitlines(), answer[4:]][1].strip()
                details = read_facts(facts.partition(" ")[0], path)
                if details is None:
                    return {"name": path, "type": "directory"}
                told = _asked(connection, f"SIZE {path}") if details["type"] == "file" else ""
                if told.startswith("213") and told.split()[1:] != [str(details["size"])]:
                    # ProFTPD tells of a link as of a file, with the link's own size and time.
                    details = {**details, "type": "unknown", "islink": True}
                return self._known(connection, details)
        # The same source as a listing has, so that what was listed can be compared with what is there now.
        try:
            listed = self._list(connection, posixpath.dirname(path))
        except FileNotFoundError:
            raise FileNotFoundError(path) from None
        for details in listed:
            if details["name"] == path:
                return details
        raise FileNotFoundError(path)

    def _reader(self, connection: ftplib.FTP, path: str) -> io.RawIOBase:
        return _Retrieval(connection, _answered(lambda: connection.transfercmd(f"RETR {path}"), path))

    @contextlib.contextmanager
    def _write(self, connection: ftplib.FTP, path: str) -> Iterator[Any]:
        data = _answered(lambda: connection.transfercmd(f"STOR {path}"), path)
        with data:
            yield _Writer(data)
            if isinstance(data, ssl.SSLSocket):
                with contextlib.suppress(OSError):
                    data.unwrap()
        _answered(connection.voidresp, path)

    def _remove(self, connection: ftplib.FTP, path: str) -> None:
        _answered(lambda: connection.delete(path), path)

    def _mkdir(self, connection: ftplib.FTP, path: str) -> None:
        _answered(lambda: connection.mkd(path), path)

    def rename(self, old: str, new: str) -> None:
        """Rename; :class:`FileExistsError` if *new* exists. FTP cannot do both in one step: it looks first."""
        if self.exists(new):
            raise FileExistsError(new)
        self.run(lambda connection: _answered(lambda: connection.rename(old, new), new), again=False)


def _lines(connection: ftplib.FTP, command: str) -> list[str]:
    lines: list[str] = []
    connection.voidcmd("TYPE A")
    try:
        with connection.transfercmd(command) as data, data.makefile("rb") as received:
            lines.extend(line.decode(connection.encoding, "surrogateescape").rstrip("\r\n") for line in received)
            if isinstance(data, ssl.SSLSocket):
                with contextlib.suppress(OSError):
                    data.unwrap()
        # Only this answer says that the listing is complete.
        ended = connection.voidresp()
    finally:
        with contextlib.suppress(*ftplib.all_errors):
            connection.voidcmd("TYPE I")
    if _CUT_OFF.search(ended):
        raise WrongSettings(
            f"the server lists only {len(lines)} names of this folder, and says so ({ended.splitlines()[-1]}). Let its "
            f"operator raise the limit (pure-ftpd: LimitRecursion), or spread the files over more folders"
        )
    return lines


def _asked(connection: ftplib.FTP, command: str) -> str:
    """Return what the server answers to *command*, a refusal too; raise if the connection does not go on."""
    try:
        return connection.sendcmd(command)
    except (ftplib.error_perm, ftplib.error_temp) as error:
        if str(error).startswith("421"):
            raise OSError(str(error)) from None
        return str(error)


def _lines_or_none(connection: ftplib.FTP) -> list[str]:
    """Return what ``LIST`` says of the folder that was entered; some servers refuse to list an empty one."""
    try:
        return _lines(connection, "LIST")
    except (ftplib.error_perm, ftplib.error_temp) as error:
        if str(error)[:3] in ("450", "550") and _NOTHING.search(str(error)):
            return []
        raise


def _answered(work: Callable[[], Any], path: str) -> Any:
    """Do *work*; the server's refusals come out as the errors that Python has for them."""
    try:
        return work()
    except ftplib.error_perm as error:
        raise _refusal(error, path) from None
    except ftplib.error_temp as error:
        raise OSError(str(error)) from None
    except (ftplib.error_reply, ftplib.error_proto) as error:
        raise OSError(f"the server's answer makes no sense: {error}") from None


def _refusal(error: ftplib.error_perm, path: str) -> OSError:
    words = str(error)
    if words[:3] in ("450", "550") and _IN_USE.search(words):
        return OSError(f"it cannot be read now: {words}")
    if words[:3] in ("530", "532", "553") or _REFUSED.search(words):
        return PermissionError(words)
    if words[:3] == "550" or (words[:3] == "501" and MISSING.search(words)):
        return FileNotFoundError(words)
    return OSError(f"{words} ({path})")


class _Writer:
    """The end of a data connection that takes what is to be stored."""

    def __init__(self, data: socket.socket) -> None:
        self._data = data

    def write(self, block: bytes) -> None:
        """Send *block*."""
        self._data.sendall(block)


class _Retrieval(ReadStream):
    """
    The bytes of a ``RETR``, ended only by the server's word that the transfer is complete.

    :param connection: the control connection.
    :param data: the data connection.
    """

    def __init__(self, connection: ftplib.FTP, data: socket.socket) -> None:
        super().__init__()
        self._connection = connection
        self._data = data
        self._ended = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Return at most *size* bytes; none at the end."""
        if self._ended:
            return b""
        block = self._data.recv(256 * 1024 if size is None or size < 0 else min(size, 256 * 1024))
        if not block:
            self._ended = True
            if isinstance(self._data, ssl.SSLSocket):
                with contextlib.suppress(OSError):
                    self._data.unwrap()
            self._data.close()
            try:
                self._connection.voidresp()
            except (ftplib.Error, EOFError) as error:
                raise ConnectionError(f"the transfer was not completed: {error or 'connection lost'}") from None
        return block

    def close(self) -> None:
        """Close the data connection."""
        if not self.closed:
            super().close()
            self._data.close()
