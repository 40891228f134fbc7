"""A real Airflow on loopback with a home of its own, which ends with the ``with`` block."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.processes import end, free_port

EXAMPLES = Path(__file__).parents[3] / "example_dags"
_START_SECONDS = 240.0


@dataclass(frozen=True)
class Throwaway:
    """
    What is running.

    :param url: of the UI and the API.
    :param environment: of its processes.
    """

    url: str
    environment: dict[str, str] = field(repr=False)

    def command(self, *arguments: str) -> str:
        """Run a command of Airflow and return what it prints."""
        command = [sys.executable, "-W", "ignore", "-m", "airflow", *arguments]
        ran = subprocess.run(
            command, env=self.environment, check=True, capture_output=True, text=True, timeout=_START_SECONDS
        )
        return ran.stdout


def _environment(home: Path, port: int) -> dict[str, str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "AIRFLOW__"))}
    return mine | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES),
        # Whoever reaches loopback is an administrator here, for as long as this lasts.
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
    }


@contextmanager
def _process(arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a part of Airflow while the block lasts."""
    command = [sys.executable, "-m", "airflow", *arguments]
    with log.open("wb") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=out) as process:
        try:
            yield process
        finally:
            end(process)


def _answer(url: str) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            body: bytes = answer.read()
            return body
    except (urllib.error.URLError, OSError):
        return None


def wait_for(url: str, words: bytes, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when *url* answers with *words* in it; the log is shown if that does not come."""
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if words in (_answer(url) or b""):
            return
        time.sleep(0.5)
    raise RuntimeError(f"{url} did not answer:\n{log.read_text(errors='replace')[-3000:]}")


@contextmanager
def airflow(dag_id: str) -> Iterator[Throwaway]:
    """
    Start an API server and a DAG processor; go on once *dag_id* can be seen.

    :param dag_id: one of the example DAGs.
    """
    with tempfile.TemporaryDirectory(prefix="amili-browser-") as folder, ExitStack() as stack:
        home, port = Path(folder), free_port()
        environment = _environment(home, port)
        url = f"http://127.0.0.1:{port}"
        Throwaway(url, environment).command("db", "migrate")
        server_log, processor_log = home / "server.log", home / "processor.log"
        server = stack.enter_context(
            _process(
                ["api-server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"], environment, server_log
            )
        )
        processor = stack.enter_context(_process(["dag-processor"], environment, processor_log))
        wait_for(f"{url}/api/v2/monitor/health", b"healthy", server, server_log)
        wait_for(f"{url}/ui/dags", dag_id.encode(), processor, processor_log)
        yield Throwaway(url, environment)
