"""What Airflow offers from 3.4 on: pauses that use up no retry, and loops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from airflow.providers.common.compat.version_compat import get_base_airflow_version_tuple
from airflow.utils.session import create_session
from sqlalchemy import text

from amili_provider.sandbox.server import SandboxServer
from tests.dags.conftest import Outcome, RunDag

pytestmark = pytest.mark.skipif(get_base_airflow_version_tuple() < (3, 4), reason="Airflow has it from 3.4 on")

Run = Callable[[str, str], Outcome]
DAG = """
from datetime import datetime, timedelta

from airflow.sdk import DAG, task_group

from amili_provider.operators.amili import AmiliFileUploadOperator

SETTINGS = {{"source": "{folder}/*.csv", "file_type": "InvoiciaFormatDocFile", "retry_delay": timedelta(seconds=0.1)}}

with DAG("{dag_id}", schedule=None, start_date=datetime(2025, 1, 1)) as dag:
"""
UPLOAD = """
    AmiliFileUploadOperator(task_id="upload", retries=1, **SETTINGS)
"""
LOOP = """
    @task_group
    def again():
        AmiliFileUploadOperator(task_id="upload", retries=0, force=True, **SETTINGS)

    again.loop(max_iterations=2)
"""


@pytest.fixture(name="run")
def _run(run_dag: RunDag, bundle: Path, tmp_path: Path) -> Run:
    """Run a DAG with these tasks over one file."""
    (tmp_path / "one.csv").write_bytes(b"one")

    def run(dag_id: str, tasks: str) -> Outcome:
        file = bundle / f"{dag_id}.py"
        file.write_text(DAG.format(folder=tmp_path, dag_id=dag_id) + tasks, encoding="utf-8")
        return run_dag(dag_id, file=file)

    return run


def test_a_pause_that_amili_asks_for_uses_up_no_retry(run: Run, amili: SandboxServer) -> None:
    """The task waits as a sensor does between its pokes, and delivers in its first try."""
    amili.faults.add("upload", status=429, headers={"Retry-After": "1"}, times=3)
    outcome = run("paused", UPLOAD)
    assert outcome.state == "success"
    assert "Amili asked for a pause of 1 seconds" in outcome.log
    assert len(amili.uploads) == 1
    with create_session() as session:
        tries = session.scalars(text("SELECT try_number FROM task_instance WHERE dag_id = 'paused'"))
        assert list(tries) == [1]


def test_iterations_of_a_loop_are_no_retries_of_each_other(run: Run, amili: SandboxServer) -> None:
    """What each is told to do it does: by force the same file goes out twice."""
    assert run("looped", LOOP).state == "success"
    assert len(amili.uploads) == 2
