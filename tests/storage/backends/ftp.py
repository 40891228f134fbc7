"""FTP and FTPS: pyftpdlib."""

# ruff: noqa: D102 - what a method owes is said once, in Backend

from __future__ import annotations

import contextlib
import errno
import logging
import os
import subprocess
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.storage.backends.base import OnDisk, program


class Ftp(OnDisk):
    """An FTP server. No wire: its data go through connections of their own."""

    name = "ftp"
    conn_type = "ftp"
    without = frozenset({"ftps"})
    commands_missing: tuple[str, ...] = ()

    def _handler(self) -> Any:
        from pyftpdlib.handlers import FTPHandler

        return FTPHandler

    def start(self) -> None:
        try:
            with warnings.catch_warnings():
                # On Python 3.11 it takes asyncore from the standard library, which is said to go.
                warnings.simplefilter("ignore", DeprecationWarning)
                from pyftpdlib.authorizers import DummyAuthorizer
                from pyftpdlib.filesystems import AbstractedFS

                base = self._handler()
        except ImportError:
            pytest.skip("pyftpdlib is not installed: pip install pyftpdlib pyopenssl")
        logging.getLogger("pyftpdlib").setLevel(logging.CRITICAL)
        self.root = self.scratch / "files"
        self.root.mkdir()
        self.authorizer = DummyAuthorizer()
        self.authorizer.add_user("partner", "ftp-secret-canary", str(self.root), perm="elradfmwMT")
        missing = self.commands_missing
        self.commands: list[str] = []

        def seen(handler: Any, line: str, cmd: str, arg: str) -> None:
            self.commands.append(cmd)
            base.pre_process_command(handler, line, cmd, arg)

        def chdir(files: Any, path: str) -> None:
            # Its own changes this process's folder for a moment, and two threads at once leave it changed.
            if not Path(path).is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "not a folder", path)
            files.cwd = files.fs2ftp(path)

        commands = {name: known for name, known in base.proto_cmds.items() if name not in missing}
        files = type("Files", (AbstractedFS,), {"chdir": chdir})
        about = {
            "authorizer": self.authorizer,
            "abstracted_fs": files,
            "proto_cmds": commands,
            "log_prefix": "",
            "timeout": 60,
        }
        self.handler = type("Handler", (base,), {**about, "timeout": 60, "pre_process_command": seen})
        self._port = 0
        self.run()

    def run(self) -> None:
        """Let the server listen, on the port that it had before."""
        from pyftpdlib.servers import ThreadedFTPServer

        self._server = ThreadedFTPServer(("127.0.0.1", self._port), self.handler)
        self._port = self._server.address[1]
        self._halted = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(self._server, self._halted), daemon=True)
        self._thread.start()

    @staticmethod
    def _serve(server: Any, halted: threading.Event) -> None:
        try:
            server.serve_forever(timeout=0.05)
        except (OSError, ValueError):
            # Its sockets are closed under it to halt it at any moment; it has no gentler way that breaks connections.
            if not halted.is_set():
                raise

    def halt(self) -> None:
        """Stop the server and break its connections."""
        self._halted.set()
        self._server.close_all()
        self._thread.join(10)

    def stop(self) -> None:
        super().stop()
        self.halt()

    def connection(self) -> dict[str, Any]:
        return {
            "conn_type": "ftp",
            "host": "127.0.0.1",
            "port": self._port,
            "login": "partner",
            "password": "ftp-secret-canary",
        }

    def url(self, path: str = "") -> str:
        return f"ftp:///{self.day}/{path}"

    def bare(self, path: str = "") -> str:
        return f"{self.day}/{path}"

    @contextlib.contextmanager
    def denied(self, path: str, mode: int = 0o000) -> Iterator[None]:
        if mode:
            pytest.skip("its rights are not those of the disk")
        self.authorizer.override_perm("partner", str(self.on_disk(path)), perm="w", recursive=True)
        try:
            yield
        finally:
            self.authorizer.user_table["partner"]["operms"].clear()


class OldFtp(Ftp):
    """A server without MLSD and MLST, as vsftpd is one: only what ``ls`` prints."""

    name = "ftp-list"
    commands_missing = ("MLSD", "MLST")


class Ftps(Ftp):
    """FTP with TLS, which it demands for both connections."""

    name = "ftps"
    without = frozenset()

    def _handler(self) -> Any:
        from pyftpdlib.handlers import TLS_FTPHandler

        openssl = program("openssl", "apt-get install openssl")
        self.certificate = self.scratch / "server.pem"
        subprocess.run(
            [
                *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
                *("-keyout", str(self.certificate), "-out", str(self.scratch / "cert.pem")),
            ],
            check=True,
            capture_output=True,
        )
        self.certificate.write_text(self.certificate.read_text() + (self.scratch / "cert.pem").read_text())
        return type(
            "Tls",
            (TLS_FTPHandler,),
            {"certfile": str(self.certificate), "tls_control_required": True, "tls_data_required": True},
        )

    def start(self) -> None:
        super().start()
        # What the worker's administrator does for a server with an authority of its own.
        os.environ["SSL_CERT_FILE"] = str(self.scratch / "cert.pem")

    def stop(self) -> None:
        os.environ.pop("SSL_CERT_FILE", None)
        super().stop()

    def connection(self) -> dict[str, Any]:
        return {**super().connection(), "extra": {"tls": True}}

    def url(self, path: str = "") -> str:
        return f"ftps:///{self.day}/{path}"
