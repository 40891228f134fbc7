"""
SFTP, as Airflow's own SSH hook reads the connection.

That is keys by file and inline, passphrases, proxies, and the host's key checked unless the connection says otherwise.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import posixpath
import re
import stat
from collections.abc import Iterator, Mapping
from typing import Any

import paramiko
from airflow.providers.ssh.hooks.ssh import SSHHook

from amili_provider.storage.backends.server import ServerFiles, quiet
from amili_provider.storage.base import ReadStream, broken_link
from amili_provider.storage.connections import StorageConnection
from amili_provider.storage.errors import WrongSettings

_CONNECT_SECONDS = 30
_ANSWER_SECONDS = 120.0
# The server answers reads of at most 32 KiB; asking for a window of them at once hides the way there and back.
_READ_BYTES = 32 * 1024
_WINDOW_BYTES = 4 * 1024 * 1024

_Connection = tuple[paramiko.SSHClient, paramiko.SFTPClient]


_HOST_KEY = re.compile(r"(ssh|ecdsa|sk)-\S+ +AAAA")
_A_HOST_KEY = "algorithm and key, without the host before them: ssh-ed25519 AAAA…"


def _advice(extra: Mapping[str, Any]) -> str:
    """Return what to correct in a connection that Airflow's hook cannot read."""
    advice = []
    key = str(extra.get("private_key") or "")
    if key and not re.match(r"\s*-----BEGIN [A-Z ]*PRIVATE KEY-----\r?\n", key):
        advice.append(
            "the extra 'private_key' must be the key itself, from -----BEGIN on, with its line breaks (in JSON "
            "\\n, with one backslash); a path goes into the extra 'key_file'"
        )
    if (host_key := str(extra.get("host_key") or "").strip()) and not _HOST_KEY.match(host_key):
        advice.append(f"the extra 'host_key' must be {_A_HOST_KEY}")
    return "Correct it: " + "; ".join(advice) if advice else "Correct its host, login, key and extra"


class SftpFiles(ServerFiles[_Connection]):
    """
    The files of an SFTP server.

    :param hook: Airflow's hook, with the connection already read. Each connection uses a copy of it.
    :param extra: of the Airflow connection.
    """

    protocol = "sftp"

    def __init__(self, hook: SSHHook, extra: Mapping[str, Any]) -> None:
        super().__init__(hook.remote_host, int(hook.port or 22), hook.username or "", 22, extra)
        self._hook = hook
        # It reports every connection, and with a traceback every one that fails, which is raised anyway.
        quiet("paramiko.transport", logging.CRITICAL)

    @classmethod
    def from_connection(cls, connection: StorageConnection) -> SftpFiles:
        """Return the files behind an Airflow connection. Only from the task's own thread: it is looked up here."""
        try:
            hook = SSHHook(ssh_conn_id=connection.conn_id)
        except Exception as error:  # noqa: BLE001 - the hook's versions differ in what they raise
            raise WrongSettings(
                f"the connection cannot be used for SSH ({error}). {_advice(connection.extra)}"
            ) from None
        if hook.conn_timeout is None:
            hook.conn_timeout = _CONNECT_SECONDS
        # One attempt: the task's own retries are there for the rest, and a wrong password must not lock an account.
        hook.conn_retry_attempts = 1
        return cls(hook, connection.extra)

    def _connect(self) -> _Connection:
        hook = copy.copy(self._hook)
        hook.client = None
        hook.__dict__.pop("host_proxy", None)
        where = f"{self._host}:{self._port}"
        try:
            client = hook.get_conn()
        except paramiko.BadHostKeyException as error:
            raise WrongSettings(
                f"the host key of {where} is not the expected one: it is {error.key.get_name()} "
                f"{error.key.get_base64()[:24]}… Find out why before you change the extra 'host_key' or known_hosts"
            ) from None
        except paramiko.PasswordRequiredException:
            raise WrongSettings(
                "the private key needs a passphrase. Add it to the connection: extra 'private_key_passphrase' for an "
                "inline key, the password for a key file"
            ) from None
        except paramiko.BadAuthenticationType as error:
            raise WrongSettings(
                f"{where} does not let {self._login!r} log in with what the connection has; it offers "
                f"{', '.join(error.allowed_types)}. A password needs 'password' there, a key 'publickey'"
            ) from None
        except paramiko.AuthenticationException as error:
            raise WrongSettings(
                f"{where} refuses the login of {self._login!r} ({error}). Correct the login, password or key"
            ) from None
        except FileNotFoundError as error:
            raise WrongSettings(f"the key file {error.filename!r} does not exist on this worker") from None
        except paramiko.SSHException as error:
            if "known_hosts" in str(error):
                raise WrongSettings(
                    f"the host key of {where} is not known. Add the extra 'host_key' to the connection ("
                    f"{_A_HOST_KEY}), or the host to known_hosts of the worker"
                ) from None
            if "No authentication methods" in str(error):
                raise WrongSettings(
                    f"nothing to log in to {where} with as {self._login!r}: neither a password nor a key. Add one to "
                    f"the connection"
                ) from None
            raise OSError(f"no SSH connection to {where}: {error}") from None
        except (OSError, EOFError) as error:
            raise OSError(f"no connection to {where}: {error or type(error).__name__}") from None
        try:
            sftp = client.open_sftp()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no SFTP
            client.close()
            raise OSError(f"{where} does not offer SFTP: {error or type(error).__name__}") from None
        channel = sftp.get_channel()
        assert channel is not None
        channel.settimeout(_ANSWER_SECONDS)
        return client, sftp

    @staticmethod
    def _disconnect(connection: _Connection) -> None:
        connection[0].close()

    @staticmethod
    def _alive(connection: _Connection) -> bool:
        try:
            connection[1].stat(".")
        except Exception:  # noqa: BLE001 - whatever it is, another connection is better
            return False
        return True

    def _is_answer(self, error: BaseException) -> bool:
        # paramiko turns the server's status into IOError; a broken connection is an SSHException or EOFError.
        return isinstance(error, OSError) and not self._is_lost(error)

    def _is_lost(self, error: BaseException) -> bool:
        if isinstance(error, WrongSettings):
            return False
        return super()._is_lost(error) or isinstance(error, paramiko.SSHException) or "closed" in str(error)

    def home(self) -> str:
        """Return the folder that the server puts this login into."""
        return self.run(lambda connection: connection[1].normalize(".")) or "/"

    def _list(self, connection: _Connection, path: str) -> list[dict[str, Any]]:
        sftp = connection[1]
        found = []
        for attributes in sftp.listdir_attr(path):
            name = posixpath.join(path, attributes.filename)
            details = _details(name, attributes)
            if details["type"] == "unknown" or (details["type"] == "file" and details["size"] is None):
                with contextlib.suppress(FileNotFoundError):  # gone since
                    found.append({**self._stat(connection, name), "islink": details["islink"]})
            else:
                found.append(details)
        if not found:
            # Of a folder that may be read but not entered servers leave out every name.
            sftp.stat(posixpath.join(path, "."))
        return found

    def _stat(self, connection: _Connection, path: str) -> dict[str, Any]:
        sftp = connection[1]
        try:
            details = _details(path, sftp.stat(path))
        except OSError as error:
            if self._is_lost(error) or not _details(path, sftp.lstat(path))["islink"]:
                raise
            return broken_link(path, error.strerror or error)
        if details["type"] == "unknown":
            details["type"] = self._type_by_listing(sftp, path)
        return details

    def _type_by_listing(self, sftp: paramiko.SFTPClient, path: str) -> str:
        """Return the type of what is at *path*, as the server does not tell it: only a folder can be listed."""
        try:
            sftp.listdir_attr(path)
        except OSError as error:
            if self._is_lost(error):
                raise
            return "unknown" if isinstance(error, PermissionError) else "file"
        return "directory"

    def _reader(self, connection: _Connection, path: str) -> io.RawIOBase:
        return _Windows(connection[1].open(path, "rb"))

    @contextlib.contextmanager
    def _write(self, connection: _Connection, path: str) -> Iterator[Any]:
        sftp = connection[1]
        try:
            # paramiko's "x" alone does not write.
            out = sftp.open(path, "wxb")
        except OSError as error:
            # Servers answer a plain "Failure" for a name that exists.
            if isinstance(error, (FileNotFoundError, PermissionError)) or not _there(sftp, path):
                raise
            raise FileExistsError(path) from None
        with out:
            out.set_pipelined(True)
            yield out

    def _remove(self, connection: _Connection, path: str) -> None:
        connection[1].remove(path)

    def _mkdir(self, connection: _Connection, path: str) -> None:
        connection[1].mkdir(path)

    def rename(self, old: str, new: str) -> None:
        """Rename; :class:`FileExistsError` if *new* exists."""

        def work(connection: _Connection) -> None:
            if _there(connection[1], new):
                raise FileExistsError(new)
            connection[1].rename(old, new)

        self.run(work, again=False)


def _there(sftp: paramiko.SFTPClient, path: str) -> bool:
    try:
        sftp.lstat(path)
    except FileNotFoundError:
        return False
    return True


def _details(name: str, attributes: paramiko.SFTPAttributes) -> dict[str, Any]:
    letter = stat.filemode(attributes.st_mode or 0)[0]
    if letter == "?":
        # Some servers send no modes, or only the rights; the line for people begins with a letter for the type.
        letter = str(getattr(attributes, "longname", ""))[:1]
    return {
        "name": name,
        "type": {"d": "directory", "-": "file", **dict.fromkeys("bcps", "other")}.get(letter, "unknown"),
        "islink": letter == "l",
        "size": attributes.st_size,
        "mtime": None if attributes.st_mtime is None else float(attributes.st_mtime),
    }


def _ask_quietly(file: paramiko.SFTPFile) -> None:
    """Let the thread in which paramiko asks for a window hand its error to the reader, not print a traceback."""
    ask = file._prefetch_thread  # noqa: SLF001 - it has no door of its own

    def ask_or_tell(*args: Any) -> None:
        try:
            ask(*args)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to whoever reads
            file._saved_exception = error  # noqa: SLF001 - what paramiko raises at the next call

    file._prefetch_thread = ask_or_tell  # noqa: SLF001


class _Windows(ReadStream):
    """
    A remote file read in windows, each asked for at once: fast over a long way, and bounded in memory.

    :param file: the open file.
    """

    def __init__(self, file: paramiko.SFTPFile) -> None:
        super().__init__()
        self._file = file
        _ask_quietly(file)
        self._size = file.stat().st_size or 0
        self._next = 0
        self._window: list[bytes] = []

    def read(self, size: int | None = -1, /) -> bytes:
        """Return at most *size* bytes; none at the end."""
        if not self._window and self._next < self._size:
            end = min(self._next + _WINDOW_BYTES, self._size)
            asked = [(at, min(_READ_BYTES, end - at)) for at in range(self._next, end, _READ_BYTES)]
            self._window = list(self._file.readv(asked))
            if [len(block) for block in self._window] != [length for _, length in asked]:
                raise OSError(f"it became shorter while it was read, after {self._next} bytes")
            self._window.reverse()
            self._next = end
            # What paramiko keeps of blocks that the server gave in parts.
            self._file._prefetch_data.clear()  # noqa: SLF001 - paramiko has no other way
        if not self._size:
            return bytes(self._file.read(_READ_BYTES))  # of what a server tells no size
        if not self._window:
            return b""
        block = self._window.pop()
        if size is not None and 0 <= size < len(block):
            self._window.append(block[size:])
            return block[:size]
        return block

    def close(self) -> None:
        """Close the remote file."""
        if not self.closed:
            super().close()
            self._file.close()
