"""What Airflow offers from 3.4 on: a note on the run, pauses that use up no retry, loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import get_base_airflow_version_tuple
from sqlalchemy import text

from amili_provider.sandbox.server import SandboxServer
from tests.dags.conftest import Outcome, RunDag, bundle_of

pytestmark = pytest.mark.skipif(get_base_airflow_version_tuple() < (3, 4), reason="Airflow has it from 3.4 on")

DAG = """
from datetime import datetime, timedelta

from airflow.sdk import DAG, task_group

from amili_provider.operators.amili import AmiliFileUploadOperator

SETTINGS = {{"source": "{folder}/*.csv", "file_type": "InvoiciaFormatDocFile", "retry_delay": timedelta(seconds=0.1)}}

with DAG("{dag_id}", schedule=None, start_date=datetime(2025, 1, 1)) as dag:
"""
UPLOAD = """
    AmiliFileUploadOperator(task_id="upload", retries={retries}, **SETTINGS, pre_execute={before})
"""
LOOP = """
    @task_group
    def again():
        AmiliFileUploadOperator(task_id="upload", retries=0, force=True, **SETTINGS)

    again.loop(max_iterations=2)
"""


@pytest.fixture(name="run")
def _run(run_dag: RunDag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a DAG with these tasks over one file."""
    (tmp_path / "one.csv").write_bytes(b"one")
    dags = tmp_path / "dags"
    dags.mkdir()
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", bundle_of(dags))

    def run(dag_id: str, tasks: str) -> Outcome:
        file = dags / f"{dag_id}.py"
        file.write_text(DAG.format(folder=tmp_path, dag_id=dag_id) + tasks, encoding="utf-8")
        return run_dag(dag_id, file=file)

    return run


def _of_the_run(sql: str, dag_id: str) -> list[Any]:
    from airflow.utils.session import create_session

    with create_session() as session:
        return [row[0] for row in session.execute(text(sql), {"dag_id": dag_id})]


def test_the_note_on_the_run_keeps_what_a_person_wrote(run: Any, amili: SandboxServer) -> None:
    """Also if it was written while the task ran."""
    before = "lambda context: context['ti'].update_dagrun_note('asked Amili, kari')"
    assert run("noted", UPLOAD.format(retries=0, before=before)).state == "success"
    sql = "SELECT n.content FROM dag_run_note n JOIN dag_run r ON r.id = n.dag_run_id WHERE r.dag_id = :dag_id"
    assert _of_the_run(sql, "noted") == ["asked Amili, kari\nupload: 1 uploaded"]
    assert len(amili.uploads) == 1


def test_a_pause_that_amili_asks_for_uses_up_no_retry(run: Any, amili: SandboxServer) -> None:
    """The task waits as a sensor does between its pokes, and delivers in its first try."""
    amili.faults.add("upload", status=429, headers={"Retry-After": "1"}, times=3)
    outcome = run("paused", UPLOAD.format(retries=1, before="None"))
    assert outcome.state == "success"
    assert "Amili asked for a pause of 1 seconds" in outcome.log
    assert len(amili.uploads) == 1
    assert _of_the_run("SELECT try_number FROM task_instance WHERE dag_id = :dag_id", "paused") == [1]


def test_iterations_of_a_loop_are_no_retries_of_each_other(run: Any, amili: SandboxServer) -> None:
    """What each is told to do it does: by force the same file goes out twice."""
    assert run("looped", LOOP).state == "success"
    assert len(amili.uploads) == 2
