"""A real Airflow: a throw-away home with its database migrated, the example DAGs as its DAGs folder."""

from __future__ import annotations

import fcntl
import importlib
import importlib.util
import inspect
import json
import logging
import os
import shutil
import subprocess
import sys
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from airflow.providers.common.compat.sdk import get_listener_manager, hookimpl
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from moto.server import ThreadedMotoServer

from amili_provider.sandbox.server import SandboxServer

EXAMPLES = Path(__file__).parents[2] / "example_dags"

# An asset starts only DAGs that are not paused.
os.environ["AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION"] = "False"


@dataclass(frozen=True)
class Outcome:
    """What became of a run: its state, its tasks' states, their return values, and all that was logged."""

    state: str
    task_states: dict[str, str]
    xcom: dict[str, Any]
    log: str


RunDag = Callable[..., Outcome]


class _Failures:
    """A listener that keeps why tasks failed: the ``dag.test()`` of Airflow 3.0 does not log it."""

    def __init__(self) -> None:
        self.said: list[str] = []

    @hookimpl
    def on_task_instance_failed(self, error: BaseException | str | None) -> None:
        self.said.append(str(error))


def load_dag(dag_id: str, file: Path | None = None) -> Any:
    """Import a DAG file, by default the example that is named like its DAG, and return the DAG."""
    spec = importlib.util.spec_from_file_location(dag_id, file or EXAMPLES / f"{dag_id}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return next(v for v in vars(module).values() if getattr(v, "dag_id", None) == dag_id and hasattr(v, "test"))


@pytest.fixture(name="bundle")
def _bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for DAGs: Airflow 3 runs only what it finds in a bundle; 2.11 knows none, and runs what it is given."""
    folder = tmp_path / "dags"
    folder.mkdir()
    classpath = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundle = {"name": "documentation", "classpath": classpath, "kwargs": {"path": str(folder)}}
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))
    _forget_bundles()
    yield folder
    _forget_bundles()


def _forget_bundles() -> None:
    """Airflow 3.4 reads only once in a process which bundles there are."""
    manager = sys.modules.get("airflow.dag_processing.bundles.manager")
    if (known := getattr(manager, "_load_bundle_config_snapshot", None)) is not None:
        known.cache_clear()


@pytest.fixture(scope="session", name="airflow_home")
def _airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrate the database of the session's Airflow home; of the processes of pytest-xdist, one does it for all."""
    home, shared = Path(os.environ["AIRFLOW_HOME"]), tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    migrated = shared / "airflow.db"
    with (shared / "airflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not migrated.exists():
            command = [sys.executable, "-m", "airflow", "db", "migrate"]
            subprocess.run(command, check=True, capture_output=True, timeout=600)
            shutil.copy(home / "airflow.db", migrated)
    shutil.copy(migrated, home / "airflow.db")
    if not AIRFLOW_V_3_0_PLUS:
        # Airflow 2's tables refer to those of its web server's users, which only commands import.
        importlib.import_module("airflow.providers.fab.auth_manager.models")
    return Path(os.environ["AIRFLOW_HOME"])


@pytest.fixture(name="run_dag")
def _run_dag(
    airflow_home: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[RunDag]:
    """Run an example DAG for a day with ``dag.test()``: the tasks, the triggers and XCom are Airflow's own."""
    assert airflow_home
    failures = _Failures()

    def run_dag(
        dag_id: str,
        *,
        day: str | None = None,
        conf: dict[str, Any] | None = None,
        change: Callable[[Any], None] = lambda _dag: None,
        file: Path | None = None,
    ) -> Outcome:
        with warnings.catch_warnings():
            # Airflow's own warnings about itself are not ours to fail on.
            warnings.simplefilter("ignore")
            dag = load_dag(dag_id, file)
            change(dag)
            return _run(dag, day, conf)

    def _run(dag: Any, day: str | None, conf: dict[str, Any] | None) -> Outcome:
        caplog.set_level(logging.INFO)
        # A run by hand delivers the day before its date.
        when = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=1) if day else None
        # Airflow 2.11 calls the logical date by its old name.
        name = "logical_date" if "logical_date" in inspect.signature(dag.test).parameters else "execution_date"
        run = dag.test(run_conf=conf, **{name: when})
        instances = run.get_task_instances()
        xcom = {ti.task_id: ti.xcom_pull(task_ids=ti.task_id) for ti in instances}
        captured = capfd.readouterr()
        return Outcome(
            state=str(run.state),
            task_states={ti.task_id: str(ti.state) for ti in instances},
            xcom=xcom,
            log="\n".join([caplog.text + captured.out + captured.err, *failures.said]),
        )

    get_listener_manager().add_listener(failures)
    yield run_dag
    get_listener_manager().pm.unregister(failures)


@pytest.fixture(scope="session", name="s3_url")
def _s3_url() -> Iterator[str]:
    """An S3 server on loopback."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(name="s3")
def _s3(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty S3 with a bucket, and the connection ``aws_default`` to it."""
    url = s3_url
    urllib.request.urlopen(f"{url}/moto-api/reset", data=b"", timeout=10).close()
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    connection = {
        "conn_type": "aws",
        "login": keys["aws_access_key_id"],
        "password": keys["aws_secret_access_key"],
        "extra": {"endpoint_url": url, "region_name": "eu-north-1"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys)
    client.create_bucket(Bucket="invoices")
    yield client
    client.close()


@pytest.fixture(name="amili")
def _amili(amili_sandbox: SandboxServer) -> SandboxServer:
    """A local Amili, and a ledger."""
    return amili_sandbox
