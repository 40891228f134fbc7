"""Connections to FTP and FTPS servers: greeted, encrypted, logged in."""

from __future__ import annotations

import ftplib
import re
import socket
import ssl

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
