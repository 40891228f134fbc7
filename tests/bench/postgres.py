"""A PostgreSQL cluster of one's own, in a folder, on a free port."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

_COMMAND_SECONDS = 120
_DRIVERS = ("asyncpg", "psycopg2")


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """
    Run a cluster while the block lasts.

    :param folder: where it lives; removed by the caller.
    :returns: the URL of a database for Airflow.
    :raises SystemExit: if something is missing on this machine, saying what to install.
    """
    binaries, user = _binaries(), _user()
    if missing := [name for name in _DRIVERS if importlib.util.find_spec(name) is None]:
        raise SystemExit(f"{' and '.join(missing)} cannot be imported here: uv run --group bench python -m tests.bench")
    folder.mkdir(mode=0o700)
    if user is not None:
        shutil.chown(folder, user, user)
    data, log, port = folder / "data", folder / "log", free_port()

    def run(program: str, *arguments: str) -> None:
        # Into a file, not a pipe: the server inherits it, and would keep a pipe open.
        with (folder / f"{program}.log").open("wb") as said:
            done = subprocess.run(
                [binaries / program, *arguments],
                check=False,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
                cwd=folder,
                env={key: value for key, value in os.environ.items() if not key.startswith("PG")},
                timeout=_COMMAND_SECONDS,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        if done.returncode:
            words = "\n".join(_end_of(path) for path in (Path(said.name), log))
            raise SystemExit(f"{program} of PostgreSQL failed with {done.returncode}:\n{words}")

    # A locale that every machine has, whatever the environment names.
    run(
        "initdb", f"--pgdata={data}", "--username=airflow", "--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8"
    )
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c fsync=off"
    run("pg_ctl", "start", f"--pgdata={data}", "--wait", f"--log={log}", f"--options={options}")
    try:
        run("createdb", "--host=127.0.0.1", f"--port={port}", "--username=airflow", "airflow")
        yield f"postgresql+psycopg2://airflow@127.0.0.1:{port}/airflow"
    finally:
        run("pg_ctl", "stop", f"--pgdata={data}", "--mode=immediate")


def _user() -> str | None:
    """Return who runs the server, which refuses to be root: then the user that Debian's package made."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        raise SystemExit("There is no user postgres here to run the server: apt-get install postgresql") from None


def _binaries() -> Path:
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not versions:
        raise SystemExit(
            "There is no PostgreSQL here: apt-get install postgresql, or python -m tests.bench --database sqlite"
        )
    return versions[-1].parent


def _end_of(log: Path) -> str:
    return log.read_text("utf-8", "replace")[-2000:] if log.exists() else ""


def free_port() -> int:
    """Return a port of loopback on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
