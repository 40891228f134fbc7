"""
Processes that do one thing at a time for their parent, who talks to them in lines of JSON over a socket.

What they do is in :mod:`tests.chaos.airflow_side` (a worker's place in a real Airflow) and in
:mod:`tests.chaos.forge`. They end when their parent does.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
DAGS = Path(__file__).parent / "dags"
_ANSWER_SECONDS = 120.0


class StationError(RuntimeError):
    """The station itself failed: not a finding about the product."""


def new_home(dags: Path = DAGS) -> Path:
    """Return a fresh Airflow home whose database is ready and knows the DAGs of a folder."""
    home = Path(tempfile.mkdtemp(prefix="amili-chaos-"))
    with (home / "prepare.log").open("wb") as log:
        done = subprocess.run(
            [sys.executable, "-m", "tests.chaos.airflow_side", "prepare"],
            env=environment(home, dags), cwd=REPOSITORY, stdout=log, stderr=log, check=False, timeout=600,
        )  # fmt: skip
    if done.returncode:
        raise StationError((home / "prepare.log").read_text("utf-8", "replace")[-4000:])
    return home


def copy_of(home: Path) -> Path:
    """Return another home, with a copy of the database."""
    copy = Path(tempfile.mkdtemp(prefix="amili-chaos-"))
    for name in ("airflow.db", "airflow.cfg"):
        if (home / name).exists():
            shutil.copyfile(home / name, copy / name)
    return copy


def environment(home: Path, dags: Path = DAGS) -> dict[str, str]:
    """Return the environment of a process of the Airflow in *home*; connections of this process come along."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW_HOME", "AIRFLOW__", "AWS_"))}
    return {
        **kept,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=60",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": f"{home}/logs",
        "PYTHONPATH": os.pathsep.join(p for p in (str(REPOSITORY), kept.get("PYTHONPATH")) if p),
        "PYTHONWARNINGS": "ignore",
    }


class Station:
    """
    A station, as its parent sees it.

    :param home: the Airflow home; stations may share one.
    :param name: for its log, which lies in the home.
    :param module: what runs there.
    :param dags: the DAGs folder.
    :param imports: modules to import before anything is forked, so that not every task pays for them.
    """

    def __init__(
        self,
        home: Path,
        name: str,
        *,
        module: str = "tests.chaos.airflow_side",
        dags: Path = DAGS,
        imports: Sequence[str] = (),
    ) -> None:
        self.log = home / f"{name}.log"
        ours, theirs = socket.socketpair()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, "serve", str(theirs.fileno()), *imports],
                env=environment(home, dags), cwd=REPOSITORY, stdout=log, stderr=log, pass_fds=[theirs.fileno()],
            )  # fmt: skip
        theirs.close()
        ours.settimeout(_ANSWER_SECONDS)
        self._socket = ours
        self._lines = ours.makefile("r", encoding="utf-8")

    def ask(self, what: str, **arguments: Any) -> Any:
        """Have something done and return the answer."""
        self.begin(what, **arguments)
        return self.answer()

    def begin(self, what: str, **arguments: Any) -> None:
        """Have something begun."""
        self._socket.sendall(json.dumps([what, arguments]).encode() + b"\n")

    def answer(self) -> Any:
        """Return the answer to what was begun."""
        line = self._lines.readline()
        if not line:
            raise StationError(f"the station ended:\n{self.log.read_text('utf-8', 'replace')[-4000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise StationError(answer["error"])
        return answer["answer"]

    def close(self) -> None:
        """End the station."""
        self._lines.close()
        self._socket.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve(descriptor: int, servant: Any) -> None:
    """Answer what is asked over the socket *descriptor* with the methods of *servant*, until it is closed."""
    channel = socket.socket(fileno=descriptor)
    for line in _lines(channel):
        what, arguments = json.loads(line)
        try:
            answer = {"answer": getattr(servant, what)(**arguments)}
        except Exception as error:  # noqa: BLE001 - told to the parent, which judges it
            import traceback

            answer = {"error": f"{what}: {error!r}\n{traceback.format_exc()}"}
        channel.sendall(json.dumps(answer, default=str).encode() + b"\n")
    # The API server's threads would keep the process.
    os._exit(0)


def _lines(channel: socket.socket) -> Iterator[str]:
    with contextlib.suppress(ConnectionError), channel.makefile("r", encoding="utf-8") as lines:
        yield from lines
