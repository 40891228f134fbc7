"""SMB: Samba."""

# ruff: noqa: D102 - what a method owes is said once, in Backend

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import end, free_port, wait_for
from tests.storage.backends.accounts import Account
from tests.storage.backends.base import OnDisk, program
from tests.storage.backends.wire import Wire


class Smb(OnDisk):
    """Samba's server with a configuration, share and list of passwords of its own, as whoever runs the tests."""

    name = "smb"
    conn_type = "samba"
    # The others are wildcards in SMB itself: no client can name such a file.
    awkward = "+%#[]"

    def start(self) -> None:
        smbd = program("smbd", "apt-get install samba")
        pdbedit = program("pdbedit", "apt-get install samba")
        try:
            import smbclient  # noqa: F401
        except ImportError:
            pytest.skip("the SMB library is not installed: pip install 'airflow-provider-amili[smb]'")
        self.root = self.scratch / "files"
        self.root.mkdir()
        self.account = Account(self.root)
        self._port = free_port()
        config = self.scratch / "smb.conf"
        places = "\n".join(
            f"{key} = {self.scratch}/samba"
            for key in ("private dir", "lock directory", "state directory", "cache directory", "pid directory")
        )
        (self.scratch / "samba").mkdir()
        config.write_text(
            f"[global]\nsmb ports = {self._port}\ninterfaces = lo\nbind interfaces only = yes\n{places}\n"
            f"ncalrpc dir = {self.scratch}/samba/ncalrpc\nlog file = {self.scratch}/samba/log\nlog level = 0\n"
            f"server role = standalone server\nload printers = no\ndisable spoolss = yes\nmap to guest = never\n"
            f"[partner]\npath = {self.root}\nread only = no\nvalid users = {self.account.name}\n"
        )
        subprocess.run(
            [pdbedit, "-s", str(config), "-a", "-t", "-u", self.account.name],
            input=f"{self.account.password}\n{self.account.password}\n",
            text=True,
            check=True,
            capture_output=True,
        )
        self._process = subprocess.Popen(
            [smbd, "--foreground", "--no-process-group", f"--configfile={config}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            # When it ends it ends its whole process group, which must not be the tests'.
            start_new_session=True,
        )
        wait_for(self._port, lambda: self._process.poll() is None)
        self.wire = Wire(self._port)
        self.own(self.root)

    def stop(self) -> None:
        super().stop()
        end(self._process)
        self.account.remove()

    def own(self, path: Path) -> None:
        self.account.own(path)

    def connection(self) -> dict[str, Any]:
        assert self.wire is not None
        return {
            "conn_type": "samba",
            "host": "127.0.0.1",
            "port": self.wire.port,
            "login": self.account.name,
            "password": self.account.password,
            "schema": "partner",
        }

    def url(self, path: str = "") -> str:
        return f"smb:///{self.day}/{path}"

    def bare(self, path: str = "") -> str:
        return f"{self.day}/{path}"

    @contextlib.contextmanager
    def denied(self, path: str, mode: int = 0o000) -> Iterator[None]:
        folder = self.on_disk(path)
        folder.chmod(mode)
        try:
            yield
        finally:
            folder.chmod(0o755)
