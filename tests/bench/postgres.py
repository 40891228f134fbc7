"""A PostgreSQL cluster of one's own, in a folder, on a free port."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

_START_SECONDS = 60


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """
    Run a cluster while the block lasts.

    :param folder: where it lives; removed by the caller.
    :returns: the URL of a database for Airflow.
    """
    binaries = _binaries()
    # The server refuses to run as root; then it runs as the user that its package made.
    user = "postgres" if os.geteuid() == 0 else None
    folder.mkdir(mode=0o700)
    if user is not None:
        os.chown(folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    data, port = folder / "data", free_port()

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [binaries / program, *arguments],
            check=True,
            user=user,
            cwd=folder,
            timeout=_START_SECONDS,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )

    run("initdb", "--pgdata", str(data), "--username", "airflow", "--auth", "trust", "--no-sync")
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
    run("pg_ctl", "start", "--pgdata", str(data), "--wait", "--log", str(folder / "log"), "--options", options)
    try:
        run("createdb", "--host", "127.0.0.1", "--port", str(port), "--username", "airflow", "airflow")
        yield f"postgresql+psycopg2://airflow@127.0.0.1:{port}/airflow"
    finally:
        run("pg_ctl", "stop", "--pgdata", str(data), "--mode", "immediate")


def _binaries() -> Path:
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not versions:
        raise SystemExit("There is no PostgreSQL here: apt-get install postgresql")
    return versions[-1]


def free_port() -> int:
    """Return a port of loopback on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
