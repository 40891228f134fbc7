"""SFTP: OpenSSH."""

# ruff: noqa: D102 - what a method owes is said once, in Backend

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.processes import end, free_port, wait_for
from tests.storage.backends.accounts import Account
from tests.storage.backends.base import OnDisk, program
from tests.storage.backends.wire import Wire


class Sftp(OnDisk):
    """
    OpenSSH's server with a configuration and host key of its own.

    Root gives it a user with a password. Everybody else logs in as themselves, with a key: only root's server can check
    a password.
    """

    name = "sftp"
    conn_type = "sftp"

    def start(self) -> None:
        sshd = program("sshd", "apt-get install openssh-server")
        keygen = program("ssh-keygen", "apt-get install openssh-client")
        self.root = self.scratch / "files"
        self.root.mkdir()
        self.account = Account(self.root)
        self.key = self.scratch / "client_key"
        self.locked_key = self.scratch / "locked_key"
        for path, passphrase in ((self.scratch / "host_key", ""), (self.key, ""), (self.locked_key, "key-canary-pass")):
            subprocess.run(
                [keygen, "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)], check=True, capture_output=True
            )
        authorized = self.scratch / "authorized_keys"
        authorized.write_text(
            self.key.with_suffix(".pub").read_text() + self.locked_key.with_suffix(".pub").read_text()
        )
        authorized.chmod(0o644)
        self._port = free_port()
        config = self.scratch / "sshd_config"
        config.write_text(
            f"Port {self._port}\nListenAddress 127.0.0.1\nHostKey {self.scratch}/host_key\nPidFile none\n"
            f"AuthorizedKeysFile {authorized}\nStrictModes no\nUsePAM no\nPasswordAuthentication yes\n"
            f"Subsystem sftp internal-sftp -d {self.root}\nMaxStartups 200\nMaxSessions 200\nLogLevel ERROR\n"
        )
        self._command = [sshd, "-D", "-e", "-f", str(config)]
        if os.geteuid() == 0:
            # Where sshd of root keeps its own; the package makes it when the service starts, which it does not here.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self._run()
        self.wire = Wire(self._port)
        self.own(self.root)

    def _run(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self._port, lambda: self._process.poll() is None)

    def stop(self) -> None:
        super().stop()
        end(self._process)
        self.account.remove()

    def own(self, path: Path) -> None:
        self.account.own(path)

    def host_key(self) -> str:
        """Return the server's public key as a line of known_hosts has it."""
        return " ".join((self.scratch / "host_key.pub").read_text().split()[:2])

    def connection(self) -> dict[str, Any]:
        if self.account.made:
            return self.login({}, password=self.account.password)
        return self.login({"key_file": str(self.key)})

    def login(self, extra: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """Return a connection that logs in with nothing but what is given."""
        assert self.wire is not None
        return {
            "conn_type": "sftp",
            "host": "127.0.0.1",
            "port": self.wire.port,
            "login": self.account.name,
            **fields,
            "extra": {"host_key": self.host_key(), "look_for_keys": "false", **extra},
        }

    def wrong_login(self) -> dict[str, Any] | None:
        return self.login({}, password="wrong-canary")

    def url(self, path: str = "") -> str:
        return f"sftp://{self.on_disk()}/{path}"

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
