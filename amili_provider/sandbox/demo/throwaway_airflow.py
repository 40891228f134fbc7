"""A throw-away Airflow: a home of its own that is gone afterwards, and the process that runs the example DAG."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import amili_provider

DAG_ID = "amili_daily_upload"
NO_AWS_FILES = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
"""Variables that keep the person's own files of AWS settings from being read."""

_PATIENCE_SECONDS = 5.0
_TAIL_LINES = 40


class AirflowFailedError(RuntimeError):
    """Airflow did not do what the demo asked for."""


def example_dag() -> Path:
    """Return the file of the example DAG: inside an installed package, or beside it in the repository."""
    package = Path(amili_provider.__file__).parent
    for folder in (package / "example_dags", package.parent / "example_dags"):
        if (folder / f"{DAG_ID}.py").is_file():
            return folder / f"{DAG_ID}.py"
    raise AirflowFailedError(f"the example DAG {DAG_ID}.py is not part of this installation")


class ThrowawayAirflow:
    """
    Airflow with an SQLite database in a temporary folder.

    :param home: an empty folder, removed by its owner.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._dags = home / "dags"
        self._log = home / "airflow.log"
        self._processes: list[subprocess.Popen[str]] = []
        self._runner: subprocess.Popen[str] | None = None
        self._environment = self._make_environment()

    def _make_environment(self) -> dict[str, str]:
        # Nothing of the person's own Airflow or AWS takes part.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AWS_"))}
        temporary = self._home / "tmp"
        return kept | {
            **NO_AWS_FILES,
            "AIRFLOW_HOME": str(self._home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self._dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self._home}/airflow.db",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self._home / "logs"),
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "PYTHONWARNINGS": "ignore",
            "TMPDIR": str(temporary),
        }

    def begin_setup(self) -> None:
        """Begin to make the database; :meth:`finish_setup` waits for it."""
        self._dags.mkdir(parents=True)
        (self._home / "tmp").mkdir()
        shutil.copy(example_dag(), self._dags)
        self._migration = self._start([sys.executable, "-m", "airflow", "db", "migrate"])

    def finish_setup(self) -> None:
        """Wait until the database is made."""
        if self._migration.wait() != 0:
            raise AirflowFailedError(f"'airflow db migrate' failed:\n{self._last_words()}")

    def connect(self, connections: Mapping[str, str]) -> None:
        """
        Start the process that runs DAGs.

        :param connections: Airflow connections as JSON, by id.
        """
        self._environment |= {f"AIRFLOW_CONN_{conn_id.upper()}": value for conn_id, value in connections.items()}
        read_end, write_end = os.pipe()
        command = [sys.executable, "-m", "amili_provider.sandbox.demo.airflow_run", str(write_end)]
        try:
            self._runner = self._start(command, stdin=subprocess.PIPE, pass_fds=(write_end,))
        finally:
            os.close(write_end)
        self._answers = os.fdopen(read_end, encoding="utf-8")

    def write_environment(self) -> Path:
        """Write what makes a shell the one of this Airflow, to be read with ``.``; return the file."""
        ours = {k: v for k, v in self._environment.items() if os.environ.get(k) != v and k != "TMPDIR"}
        # Its pages ask for no password; they are on this machine only.
        ours |= {"AIRFLOW__API__HOST": "127.0.0.1", "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True"}
        ours |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
        lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(ours.items())]
        lines.append(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")
        file = self._home / "environment"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return file

    def run(self, day: date) -> dict[str, Any]:
        """Run the example DAG for *day*; return what :func:`amili_provider.sandbox.demo.airflow_run.run` says."""
        return self._ask({"dag_id": DAG_ID, "dags": str(self._dags), "day": str(day)})

    def amili_ledger(self, *arguments: str) -> str:
        """Run the command ``amili-ledger``; return what it printed."""
        printed: str = self._ask({"amili_ledger": arguments})["printed"]
        return printed

    def _ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        assert self._runner is not None  # connect() comes first
        assert self._runner.stdin is not None  # it was started with one
        with suppress(BrokenPipeError):  # then there is no answer either
            self._runner.stdin.write(json.dumps(order) + "\n")
            self._runner.stdin.flush()
        line = self._answers.readline()
        if not line:
            raise AirflowFailedError(f"Airflow ended too early:\n{self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise AirflowFailedError(f"{answer['error']}\n{self._last_words()}")
        return answer

    def _start(self, command: list[str], **options: Any) -> subprocess.Popen[str]:
        # A session of its own, so that whatever it starts ends with it.
        with self._log.open("a") as log:
            process = subprocess.Popen(  # noqa: S603 - our own Python and module
                command,
                env=self._environment,
                cwd=self._home,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                **{"stdin": subprocess.DEVNULL, **options},
            )
        self._processes.append(process)
        return process

    def _last_words(self) -> str:
        return "\n".join(self._log.read_text("utf-8", "replace").splitlines()[-_TAIL_LINES:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            if process.poll() is None:
                _end(process)
            if process.stdin is not None:
                with suppress(BrokenPipeError):
                    process.stdin.close()
        if self._runner is not None:
            self._answers.close()


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_PATIENCE_SECONDS)
    # Whoever of its session has not listened.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
