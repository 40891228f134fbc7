"""A real Airflow: a throw-away home with its database migrated, the example DAGs as its DAGs folder."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "example_dags"


@dataclass(frozen=True)
class Outcome:
    """What became of a run: its state, its tasks' states, their return values, and all that was logged."""

    state: str
    task_states: dict[str, str]
    xcom: dict[str, Any]
    log: str


RunDag = Callable[..., Outcome]


def load_dag(dag_id: str) -> Any:
    """Import the example that is named like its DAG, and return the DAG."""
    spec = importlib.util.spec_from_file_location(dag_id, EXAMPLES / f"{dag_id}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return next(v for v in vars(module).values() if getattr(v, "dag_id", None) == dag_id and hasattr(v, "test"))


@pytest.fixture(scope="session", name="airflow_home")
def _airflow_home() -> Path:
    """Migrate the database of the session's Airflow home, once."""
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    return Path(os.environ["AIRFLOW_HOME"])


@pytest.fixture(name="run_dag")
def _run_dag(airflow_home: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> RunDag:
    """Run an example DAG with ``dag.test()``: the tasks, the triggers and XCom are Airflow's own."""
    assert airflow_home

    def run_dag(
        dag_id: str,
        *,
        logical_date: str | None = None,
        conf: dict[str, Any] | None = None,
        change: Callable[[Any], None] = lambda _dag: None,
    ) -> Outcome:
        with warnings.catch_warnings():
            # Airflow's own warnings about itself are not ours to fail on.
            warnings.simplefilter("ignore")
            return _run(dag_id, logical_date, conf, change)

    def _run(
        dag_id: str, logical_date: str | None, conf: dict[str, Any] | None, change: Callable[[Any], None]
    ) -> Outcome:
        from airflow.providers.common.compat.sdk import timezone

        caplog.set_level(logging.INFO)
        when = timezone.parse(logical_date) if logical_date else None
        dag = load_dag(dag_id)
        change(dag)
        run = dag.test(logical_date=when, run_conf=conf)
        instances = run.get_task_instances()
        xcom = {ti.task_id: ti.xcom_pull(task_ids=ti.task_id) for ti in instances}
        captured = capfd.readouterr()
        return Outcome(
            state=str(run.state),
            task_states={ti.task_id: str(ti.state) for ti in instances},
            xcom=xcom,
            log=caplog.text + captured.out + captured.err,
        )

    return run_dag
