"""A real Airflow on loopback: Postgres, Redis, API server, scheduler, DAG processor, and Celery workers."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.processes import free_port

HERE = Path(__file__).parent
T = TypeVar("T")


def program(name: str) -> str:
    """Return the path of a server's program; Debian keeps those of Postgres off the PATH."""
    found = shutil.which(name) or next(iter(sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)), "")  # noqa: PTH207
    if not found:
        raise SystemExit(f"{name} is not installed: apt-get install postgresql redis-server")
    return found


class Cluster:
    """
    The servers and the Airflow processes, while the ``with`` block lasts.

    :param folder: an empty folder for everything that they write.
    :param workers: names of the Celery workers, each a process of its own with two tasks at once.
    :param environment: more environment variables, for the tasks too.
    :param pool: slots of the pool ``amili``.
    """

    def __init__(self, folder: Path, *, workers: Sequence[str], environment: dict[str, str], pool: int) -> None:
        self._folder = folder
        self._workers = workers
        self._pool = pool
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._postgres, self._redis, api = free_port(), free_port(), free_port()
        self._api = api
        database = f"127.0.0.1:{self._postgres}/airflow"
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")},
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "tests.suites.scaleout.worker_name.worker_name",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{api}/execution/",
            "AIRFLOW__CORE__INTERNAL_API_SECRET_KEY": secrets.token_hex(16),
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://airflow@{database}",
            "AIRFLOW__CELERY__BROKER_URL": f"redis://127.0.0.1:{self._redis}/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql+psycopg2://airflow@{database}",
            "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
            "PYTHONPATH": str(HERE.parents[2]),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            **environment,
        }

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _start(self) -> None:
        self._start_postgres()
        redis = ["--port", str(self._redis), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        self._run_on("redis", [program("redis-server"), *redis])
        _wait("Redis", lambda: _listens(self._redis))
        self.airflow("db", "migrate")
        self.airflow("pools", "set", "amili", str(self._pool), "Uploads to Amili at once")
        airflow = [sys.executable, "-m", "airflow"]
        self._run_on("api-server", [*airflow, "api-server", "--port", str(self._api), "--workers", "1"])
        self._run_on("scheduler", [*airflow, "scheduler", "--skip-serve-logs"])
        self._run_on("dag-processor", [*airflow, "dag-processor"])
        for worker in self._workers:
            self._run_on(
                worker,
                [*airflow, "celery", "worker", "-H", f"{worker}@%h", "-c", "2", "-s", "--without-gossip"],
                SCALEOUT_WORKER=worker,
            )
        _wait("the API server", lambda: _listens(self._api), 240)

    def _start_postgres(self) -> None:
        data = self._folder / "postgres"
        data.mkdir()
        as_owner: list[str] = []
        if os.geteuid() == 0:
            # Postgres refuses to run as root.
            shutil.chown(data, "postgres", "postgres")
            self._folder.chmod(0o755)
            as_owner = [program("setpriv"), "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        subprocess.run(
            [*as_owner, program("initdb"), "--auth=trust", "--username=airflow", "--pgdata", str(data)],
            check=True,
            capture_output=True,
            cwd=data,
        )
        # A throw-away database need not survive a crash of the machine.
        settings = ["listen_addresses=127.0.0.1", f"unix_socket_directories={data}", "fsync=off", "max_connections=200"]
        options = [part for setting in settings for part in ("-c", setting)]
        self._run_on("postgres", [*as_owner, program("postgres"), "-D", str(data), "-p", str(self._postgres), *options])
        _wait("Postgres", lambda: _listens(self._postgres))
        _wait("Postgres", self._database_is_made)

    def _database_is_made(self) -> bool:
        import psycopg2

        try:
            with contextlib.closing(self._connect("postgres")) as connection:
                connection.autocommit = True
                connection.cursor().execute("create database airflow")
        except psycopg2.OperationalError:
            return False  # still starting
        return True

    def _connect(self, database: str = "airflow") -> Any:
        import psycopg2

        return psycopg2.connect(host="127.0.0.1", port=self._postgres, user="airflow", dbname=database)

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows that Airflow's database gives."""
        with contextlib.closing(self._connect()) as connection:
            cursor = connection.cursor()
            cursor.execute(statement, values)
            return list(cursor.fetchall())

    def airflow(self, *arguments: str) -> str:
        """Run an Airflow command and return what it prints."""
        command = [sys.executable, "-m", "airflow", *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise SystemExit(f"airflow {' '.join(arguments)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def run_dag(self, dag_id: str, run_id: str, *, timeout: float) -> str:
        """Trigger a DAG, wait for the end of the run, and return its state."""
        _wait(
            f"the DAG {dag_id}",
            lambda: bool(self.query("select 1 from serialized_dag where dag_id = %s", dag_id)),
            timeout,
        )
        self.airflow("dags", "trigger", dag_id, "--run-id", run_id)

        def ended() -> str:
            self._check_processes()
            rows = self.query("select state from dag_run where dag_id = %s and run_id = %s", dag_id, run_id)
            return str(rows[0][0]) if rows and rows[0][0] in ("success", "failed") else ""

        return _wait(f"the run {run_id}", ended, timeout)

    def xcom(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """Return what an unmapped task returned."""
        rows = self.query(
            "select value from xcom where dag_id = %s and run_id = %s and task_id = %s and key = 'return_value'",
            dag_id,
            run_id,
            task_id,
        )
        value = rows[0][0] if rows else None
        return json.loads(value) if isinstance(value, str) else value

    def logs(self) -> Iterator[str]:
        """Yield the ends of all logs, for a person who wants to know why."""
        for path in sorted([*self._folder.glob("*.log"), *self._folder.glob("logs/**/*.log")]):
            yield f"--- {path.relative_to(self._folder)}\n{path.read_text(errors='replace')[-3000:]}"

    def _run_on(self, name: str, command: Sequence[str], **environment: str) -> None:
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env={**self._environment, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                start_new_session=True,
            )
        self._processes.append((name, process))

    def _check_processes(self) -> None:
        for name, process in self._processes:
            if process.poll() is not None:
                raise SystemExit(f"{name} ended with {process.returncode}:\n" + "\n".join(self.logs()))

    def _stop(self) -> None:
        """End what was started, the last first: each is the head of a process group of its own."""
        for signal_number, patience in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0)):
            for _, process in reversed(self._processes):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal_number)
            deadline = time.monotonic() + patience
            for _, process in self._processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.1, deadline - time.monotonic()))


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


def _wait(what: str, ready: Callable[[], T], timeout: float = 60.0) -> T:
    deadline = time.monotonic() + timeout
    while not (found := ready()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {timeout:.0f} s")
        time.sleep(0.25)
    return found
