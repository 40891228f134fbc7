"""A whole Airflow as processes, and its REST API."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.processes import free_port

REPOSITORY = Path(__file__).parents[3]
SERVICES = {
    "api-server": ("api-server", "--workers", "1"),
    "dag-processor": ("dag-processor",),
    "scheduler": ("scheduler",),
    "triggerer": ("triggerer",),
}
_ENDS = ("success", "failed", "skipped", "upstream_failed")


OVER = threading.Event()
"""Set when the bench must end: then nobody waits for anything any more."""
_CALL_SECONDS = 30
_CALLS = 5


class BenchError(RuntimeError):
    """The bench itself, or Airflow, did not do what it should."""


def until(what: str, ready: Callable[[], Any], seconds: float) -> Any:
    """Return what *ready* gives as soon as it is not false."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = ready()
        if found:
            return found
        if OVER.wait(0.3):
            raise BenchError(f"the bench was ended, and still not: {what}")
    raise BenchError(f"after {seconds:g} s still not: {what}")


class Airflow:
    """
    Scheduler, triggerer, API server and dag processor, each a process of its own.

    :param home: a folder of its own.
    :param database: the URL of its database.
    :param environment: more variables, such as connections.
    :param services: what to start; Airflow 2 has a scheduler that also reads DAGs, and no such API server.
    :param python: the Python that has this Airflow.
    :param person: name and password of its only user, an administrator; without, whoever comes is one.
    """

    def __init__(
        self,
        home: Path,
        database: str,
        environment: Mapping[str, str],
        *,
        services: Collection[str] = tuple(SERVICES),
        python: str = sys.executable,
        person: tuple[str, str] | None = None,
    ) -> None:
        self.home = home
        self._person = person
        self._services = services
        self._python = python
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._token = ""
        self._beginning = threading.Lock()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "AWS_"))}
        self._environment = {
            **kept,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent / "dags"),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": str(person is None),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API_AUTH__JWT_SECRET": "a-secret-of-this-bench-only-not-of-anything-else",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "3",
            # A triggerer that was killed is missed sooner than by default.
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
            "PYTHONPATH": os.pathsep.join(p for p in (str(REPOSITORY), kept.get("PYTHONPATH")) if p),
            # The first task of an API server on a busy machine is answered late.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            "PYTHONWARNINGS": "ignore",
            # Airflow 2's executor starts tasks with the command that it finds.
            "PATH": os.pathsep.join((str(Path(python).parent), kept["PATH"])),
            **environment,
        }
        if person is not None:
            passwords = home / "passwords.json"
            passwords.write_text(json.dumps(dict([person])), encoding="utf-8")
            self._environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"] = f"{person[0]}:admin"
            self._environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"] = str(passwords)

    @contextlib.contextmanager
    def running(self) -> Iterator[Airflow]:
        """Migrate the database, start everything, and end everything."""
        try:
            self._migrate()
            for service in self._services:
                # A task that finds no API server fails; where a run is due already, the scheduler starts it at once.
                if service == "scheduler" and "api-server" in self._processes:
                    until("the API server answers", self._answers, 300)
                self.start(service)
            yield self
        finally:
            for service in reversed(list(self._processes)):
                self.stop(service)

    def _migrate(self) -> None:
        command = [self._python, "-m", "airflow", "db", "migrate"]
        done = subprocess.run(command, env=self._environment, capture_output=True, check=False, timeout=300)
        if done.returncode:
            raise BenchError(f"airflow db migrate:\n{done.stderr.decode('utf-8', 'replace')[-3000:]}")

    def start(self, service: str) -> None:
        """Start one of the services."""
        with (self.home / f"{service}.log").open("ab") as log:
            self._processes[service] = subprocess.Popen(
                [self._python, "-m", "airflow", *SERVICES[service]],
                env=self._environment,
                cwd=self.home,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self, service: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End a service and all its children: with SIGKILL at once, else in order."""
        process = self._processes.pop(service)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def check(self) -> None:
        """Raise if a service has ended."""
        for service, process in self._processes.items():
            if process.poll() is not None:
                raise BenchError(f"{service} ended:\n{self.said(service)}")

    def said(self, service: str) -> str:
        """Return the end of what a service said."""
        return (self.home / f"{service}.log").read_text("utf-8", "replace")[-3000:]

    # The REST API.

    def _answers(self) -> bool:
        self.check()
        asked = urllib.request.Request(f"{self.url}/auth/token")
        if self._person is not None:
            asked.data = json.dumps(dict(zip(("username", "password"), self._person, strict=True))).encode()
            asked.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(asked, timeout=5) as answer:
                self._token = json.load(answer)["access_token"]
        except (OSError, urllib.error.URLError):
            return False
        return True

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call the REST API; None for 404. A busy API server that does not answer a question is asked again."""
        calls = _CALLS if method == "GET" else 1
        for left in reversed(range(calls)):
            try:
                return self._called(method, path, body)
            except OSError as error:
                if not left or OVER.wait(1):
                    raise BenchError(f"{method} {path}: {calls} time(s) no answer: {error!r}") from error
        raise AssertionError

    def _called(self, method: str, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            f"{self.url}/api/v2{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_CALL_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise BenchError(f"{method} {path}: {error.code} {error.read()[:500]!r}") from None

    def knows(self, dag_ids: set[str]) -> bool:
        """Return whether the dag processor has read these DAGs."""
        answer = self.call("GET", "/dags?limit=100")
        return dag_ids <= {dag["dag_id"] for dag in answer["dags"]}

    def begin(self, dag_id: str) -> Run:
        """Begin a run of a DAG."""
        with self._beginning:
            answer = self.call("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None})
        return Run(self, dag_id, answer["dag_run_id"])


class Run:
    """One run of a DAG."""

    def __init__(self, airflow: Airflow, dag_id: str, run_id: str) -> None:
        self._airflow = airflow
        self.run_id = run_id
        self._path = f"/dags/{dag_id}/dagRuns/{run_id}"
        self._name = dag_id

    def state(self, task_id: str) -> str | None:
        """Return the state of a task."""
        answer = self._airflow.call("GET", f"{self._path}/taskInstances/{task_id}")
        return None if answer is None else answer["state"]

    def until(self, task_id: str, *states: str, seconds: float = 420) -> str:
        """Wait until a task is in one of some states, by default until it has ended."""
        wanted = states or _ENDS
        seen: list[Any] = [None]

        def there() -> bool:
            seen[0] = self.state(task_id)
            if seen[0] in _ENDS and seen[0] not in wanted:
                raise BenchError(f"{self._name}.{task_id} has ended, instead of {' or '.join(wanted)}")
            return seen[0] in wanted

        try:
            until(f"{self._name}.{task_id} is {' or '.join(wanted)}", there, seconds)
        except BenchError as error:
            raise BenchError(f"{error}; it is {seen[0]}\n{self.log(task_id)[-2500:]}") from None
        return str(seen[0])

    def question(self, task_id: str) -> Any:
        """Return what a task asks under Required Actions, and what was answered."""
        return self._airflow.call("GET", f"{self._path}/taskInstances/{task_id}/-1/hitlDetails")

    def answer(self, task_id: str, option: str, *, asked: int, **fields: Any) -> None:
        """
        Answer the question of a task, as its page does.

        :param asked: how often the task has asked by now.
        """
        self.heard(asked)
        body = {"chosen_options": [option], "params_input": fields}
        for left in reversed(range(_CALLS)):
            try:
                self._airflow.call("PATCH", f"{self._path}/taskInstances/{task_id}/-1/hitlDetails", body)
            except BenchError:
                # A busy API server may have taken an answer that it did not confirm.
                if (self.question(task_id) or {}).get("response_received"):
                    return
                if not left:
                    raise
            else:
                return

    def heard(self, asked: int) -> None:
        """
        Wait until the scheduler has heard that the processes ended that asked *asked* times.

        Airflow takes a task for lost that goes on before; no person is so fast.
        """
        until("the scheduler hears that the task's process ended", lambda: self._ended() >= asked, 120)

    def _ended(self) -> int:
        lines = (self._airflow.home / "scheduler.log").read_text("utf-8", "replace").splitlines()
        return sum("Received executor event with state success" in one and self.run_id in one for one in lines)

    def xcom(self, task_id: str) -> Any:
        """Return what a task returned."""
        answer = self._airflow.call("GET", f"{self._path}/taskInstances/{task_id}/xcomEntries/return_value")
        if answer is None:
            return None
        value = answer["value"]
        return json.loads(value) if isinstance(value, str) else value

    def log(self, task_id: str) -> str:
        """Return what a task logged, in all its tries."""
        found = [
            json.dumps(
                self._airflow.call("GET", f"{self._path}/taskInstances/{task_id}/logs/{number}?full_content=true")
            )
            for number in (1, 2)
        ]
        return "\n".join(found)
