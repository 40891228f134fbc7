"""The conversation with FTP servers: greeting, encryption, login, and how they describe files (``MLSD``, ``LIST``)."""

from __future__ import annotations

import contextlib
import ftplib
import posixpath
import re
import socket
import ssl
from datetime import UTC, datetime
from typing import Any

from amili_provider.receipts import one_line
from amili_provider.storage.errors import WrongSettings

_SECONDS = 120.0
_FULL = re.compile(r"maximum|too many \w*\s?(users|connect|clients|sessions)|already (connected|logged)", re.IGNORECASE)
"""How servers refuse a login that they would let in at another time."""
_GREETING_SECONDS = 30.0
_IMPLICIT_TLS = 990
_IMPLICIT_SECONDS = 5.0


class _Ftp(ftplib.FTP):
    """FTP that does not take the greeting of an SSH server for the first of several lines."""

    def getline(self) -> str:
        line: str = super().getline()
        if line.startswith("SSH-"):
            raise ftplib.error_proto(line)  # noqa: S321 - an error of it
        return line


class _Ftps(_Ftp, ftplib.FTP_TLS):
    """FTPS whose data connections resume the session of the control connection, as many servers demand."""

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, int | None]:
        connection, size = ftplib.FTP.ntransfercmd(self, cmd, rest)  # noqa: S321 - encrypted in the next line
        if self._prot_p:  # type: ignore[attr-defined]
            control = self.sock
            session = control.session if isinstance(control, ssl.SSLSocket) else None
            connection = self.context.wrap_socket(connection, server_hostname=self.host, session=session)
        return connection, size


def logged_in(
    host: str, port: int, login: str, password: str, *, tls: bool, passive: bool, encoding: str
) -> ftplib.FTP:
    """
    Return a connection that is logged in.

    :raises WrongSettings: if the server is there, but not as the arguments say.
    :raises OSError: if there is no connection now.
    """
    where = f"{host}:{port}"
    ftp: ftplib.FTP
    if tls:
        ftp = _Ftps(context=ssl.create_default_context(), timeout=_SECONDS, encoding=encoding)
    else:
        ftp = _Ftp(timeout=_SECONDS, encoding=encoding)
    try:
        _greet(ftp, host, port)
        _log_in(ftp, where, login, password, tls=tls)
        ftp.set_pasv(passive)
        ftp.voidcmd("TYPE I")
    except BaseException as error:
        ftp.close()
        if isinstance(error, ssl.SSLCertVerificationError):
            raise WrongSettings(
                f"the certificate of {where} is not trusted ({error.verify_message}). Use the host name that is in "
                f"the certificate, or add its authority to the worker's trusted ones"
            ) from None
        if isinstance(error, (OSError, EOFError)) and not isinstance(error, WrongSettings):
            raise OSError(f"no connection to {where}: {error or type(error).__name__}") from None
        raise
    return ftp


def _greet(ftp: ftplib.FTP, host: str, port: int) -> None:
    """Connect, and wait for the server's greeting; what does not greet like FTP is none."""
    where, implicit = f"{host}:{port}", port == _IMPLICIT_TLS
    try:
        ftp.connect(host, port, timeout=_IMPLICIT_SECONDS if implicit else _GREETING_SECONDS)
    except EOFError:
        raise OSError(f"{where} closes the connection without a greeting") from None
    except (ftplib.error_temp, ftplib.error_perm) as error:
        raise OSError(f"{where} lets nobody in now: {error}") from None
    except (ftplib.error_proto, ftplib.error_reply, TimeoutError) as error:
        if isinstance(error, TimeoutError) and ftp.sock is None:
            raise  # not even a connection
        said = one_line(error, 60) if isinstance(error, ftplib.Error) else "nothing"
        if said.startswith("SSH-"):
            advice = "That is SSH: use a connection of type sftp, and sftp:// in the path"
        elif implicit:
            advice = "Port 990 is for implicit TLS, which is not supported: use the port of explicit TLS, mostly 21"
        else:
            advice = "Correct the port of the connection"
        raise WrongSettings(f"{where} does not greet as an FTP server does, it says {said}. {advice}") from None
    ftp.timeout = _SECONDS
    assert ftp.sock is not None
    ftp.sock.settimeout(_SECONDS)


def _log_in(ftp: ftplib.FTP, where: str, login: str, password: str, *, tls: bool) -> None:
    if isinstance(ftp, ftplib.FTP_TLS):
        try:
            ftp.auth()
        except ftplib.error_perm as error:
            raise WrongSettings(f"{where} does not offer FTPS ({error}). Use ftp://, or ask for TLS") from None
    try:
        ftp.login(login, password)
    except ftplib.error_perm as error:
        if _FULL.search(str(error)):
            raise OSError(f"{where} lets nobody else in now: {error}") from None
        raise WrongSettings(
            f"{where} refuses the login of {login or 'anonymous'!r} ({error}). Correct the login or password"
            + ("" if tls else ", or use ftps:// if the server demands TLS")
        ) from None
    except ftplib.Error as error:
        raise OSError(f"{where} does not let us in now: {error}") from None
    if isinstance(ftp, ftplib.FTP_TLS):
        ftp.prot_p()


# What "ls -l" prints; every server without MLSD answers LIST like that, or like DOS, or as IBM i does. Owner and group
# may have blanks in them, and months are written in the server's language.
_CLOCK = r"(?:\d{1,2}:\d\d(?::\d\d)?|\d{4})"
_MONTH = r"(?:[^\W\d_]{1,10}\.?|\d{1,2}月)"
_UNIX_LINE = re.compile(
    r"(?P<type>[-dlbcps])[-rwxsStTlL+.@]{9,11}\s+\d+\s+\S.*?\s+(?P<size>\d+)\s+"
    rf"(?P<date>{_MONTH}\s*\d{{1,2}}[.日]?\s+{_CLOCK}|\d{{1,2}}\.?\s+{_MONTH}\s+{_CLOCK}|"
    rf"\d{{4}}-\d\d-\d\d\s+{_CLOCK}) (?P<name>.+)"
)
_DOS_LINE = re.compile(
    r"(?P<date>\d\d-\d\d-\d{2,4}\s+\d\d:\d\d(?:[AP]M)?)\s+(?:(?P<kind><[A-Z]+>)|(?P<size>\d+))\s+(?P<name>.+)"
)
_IBM_LINE = re.compile(
    r"\S+\s+(?P<size>\d+)?\s+(?P<date>\d\d/\d\d/\d\d\s+\d\d:\d\d:\d\d)\s+\*(?P<kind>[A-Z]+)\s+(?P<name>.+?)/?"
)
_TOTAL = re.compile(r"(?:tot\w*|insgesamt|итого|合計|总用量)\s*:?\s+\d+\S*", re.IGNORECASE)
"""How ls sums up, in the server's language."""


def read_mlsd(line: str, folder: str) -> dict[str, Any] | None:
    """Read one line of ``MLSD``; None for the folder itself and the one above."""
    facts, _, name = line.partition(" ")
    if not facts.endswith(";") and "; " in name:
        # Some servers write groups with blanks ("domain users"), which a fact must not hold.
        facts, _, name = line.partition("; ")
    return read_facts(facts, posixpath.join(folder, name))


def read_facts(facts: str, path: str) -> dict[str, Any] | None:
    """Read ``type=file;size=12;modify=20260101120000.123;`` (RFC 3659); a server may leave out any of them."""
    values = {key.lower(): value for key, _, value in (fact.partition("=") for fact in facts.split(";")) if key}
    kind = values.get("type", "").lower()
    if kind in ("cdir", "pdir"):
        return None
    size = values.get("size", "")
    return {
        "name": path,
        "type": {"dir": "directory", "file": "file"}.get(kind, "unknown"),
        "islink": "link" in kind,
        "size": int(size) if size.isdecimal() else None,
        "mtime": read_moment(values.get("modify", "")),
    }


def read_moment(words: str) -> float | None:
    """Return ``20260101120000.123`` (RFC 3659) in seconds since 1970; None if it is none."""
    with contextlib.suppress(ValueError):
        whole, _, fraction = words.partition(".")
        moment = datetime.strptime(whole, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        return moment.timestamp() + (float(f"0.{fraction}") if fraction else 0.0)
    return None


def read_list(line: str, folder: str) -> dict[str, Any] | None:
    """Read one line of ``LIST``. The date is kept as text: it has no zone, and often no year."""
    if match := _UNIX_LINE.fullmatch(line):
        kind = {"d": "directory", "-": "file", "l": "unknown"}.get(match["type"], "other")
        name = match["name"].partition(" -> ")[0] if match["type"] == "l" else match["name"]
    elif match := _DOS_LINE.fullmatch(line):
        # A junction, or a link, leads to what is asked for.
        kind = {None: "file", "<DIR>": "directory"}.get(match["kind"], "unknown")
        name = re.sub(r" \[[^\]]*\]$", "", match["name"]) if kind == "unknown" else match["name"]
    elif match := _IBM_LINE.fullmatch(line):
        kind, name = {"STMF": "file", "DIR": "directory"}.get(match["kind"], "unknown"), match["name"]
    else:
        if not line.strip() or _TOTAL.fullmatch(line.strip()):
            return None
        raise OSError(f"a line of the server's listing cannot be read: {line[:80]!r}")
    if name in (".", ".."):
        return None
    size = int(match["size"] or 0)
    return {
        "name": posixpath.join(folder, name),
        "type": kind,
        "islink": line.startswith("l") or kind == "unknown",
        "size": size,
        "etag": f"{match['date']} {size}",
    }
