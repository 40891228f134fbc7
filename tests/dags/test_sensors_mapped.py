"""Receipts of mapped uploads, on a real Airflow: waited for together, or by a sensor of each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amili_provider.sandbox.server import SandboxServer
from tests.dags.conftest import RunDag

_DAG = """
from datetime import datetime

from airflow.providers.common.compat.sdk import DAG

from amili_provider.operators.amili import AmiliFileUploadOperator
from amili_provider.sensors.amili import AmiliFileResultSensor

with DAG(dag_id="mapped_receipts", schedule=None, start_date=datetime(2025, 1, 1)) as dag:
    upload = AmiliFileUploadOperator.partial(
        task_id="upload", file_type="InvoiciaFormatDocFile"
    ).expand(source=["{folder}/one.csv", "{folder}/two.csv"])
    together = AmiliFileResultSensor(task_id="together", receipts=upload.output, deferrable=True, poke_interval=1)
    each = AmiliFileResultSensor.partial(
        task_id="each", deferrable=True, poke_interval=1
    ).expand(receipts=upload.output)
    together >> each
"""


_DAG_WITH_A_LOSS = """
from datetime import datetime

from airflow.providers.common.compat.sdk import DAG

from amili_provider.operators.amili import AmiliFileUploadOperator
from amili_provider.sensors.amili import AmiliFileResultSensor

with DAG(dag_id="mapped_receipts", schedule=None, start_date=datetime(2025, 1, 1)) as dag:
    uploads = AmiliFileUploadOperator.partial(task_id="upload", file_type="InvoiciaFormatDocFile", if_no_files="skip")
    upload = uploads.expand(source=["{folder}/one.csv", {last}])
    arguments = {"trigger_rule": "all_done", "soft_fail": True, "poke_interval": 1}
    AmiliFileResultSensor(task_id="together", receipts=upload.output, deferrable=True, **arguments)
    AmiliFileResultSensor(task_id="listed", receipts=[upload.output, []], mode="reschedule", **arguments)
"""


def test_receipts_of_mapped_uploads_are_waited_for(
    tmp_path: Path, amili_sandbox: SandboxServer, run_dag: RunDag, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sensor takes the receipts of all mapped uploads, and a mapped sensor those of one each, through a deferral."""
    file = _put(tmp_path, monkeypatch, _DAG)
    amili_sandbox.results.set("*", "queued", "queued", "created")
    outcome = run_dag("mapped_receipts", file=file)
    assert outcome.state == "success"
    assert [one["name"] for one in outcome.xcom["together"]] == ["one.csv", "two.csv"]
    # Per file two answers without a result, which a deferral outlasts, and one result for each of the two sensors.
    assert amili_sandbox.count("result") == 2 * (2 + 2)
    assert len(amili_sandbox.uploads) == 2

    # Once more, when one of the results is there before the deferral: it is not lost over it.
    ids = [receipt["file_id"] for receipt in outcome.xcom["together"]]
    amili_sandbox.results.set(ids[0], "created")
    amili_sandbox.results.set(ids[1], "queued", "created")
    again = run_dag("mapped_receipts", file=file)
    assert again.state == "success"
    assert [one["file_id"] for one in again.xcom["together"]] == ids
    assert len(amili_sandbox.uploads) == 2


@pytest.mark.parametrize(
    ("last", "state"),
    [
        # Ends before it has any receipts, like a task that is killed.
        ("''", "failed"),
        # Is skipped, with an empty list of receipts: there are no files, so none are missing.
        ("'{folder}/none/*.csv'", "success"),
    ],
)
def test_an_upload_without_receipts_is_missed(
    last: str,
    state: str,
    tmp_path: Path,
    amili_sandbox: SandboxServer,
    run_dag: RunDag,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A sensor that goes on whatever became of the uploads fails if receipts are missing, and says how many."""
    (tmp_path / "none").mkdir()
    file = _put(tmp_path, monkeypatch, _DAG_WITH_A_LOSS.replace("{last}", last))
    amili_sandbox.results.set("*", "created")
    outcome = run_dag("mapped_receipts", file=file)
    assert [outcome.task_states[name] for name in ("together", "listed")] == [state] * 2
    said = "Receipts came from 1 of 2 uploads of task 'upload'; none came from map index 1 (failed)."
    assert (said in outcome.log) is (state == "failed")
    assert amili_sandbox.count("result") == (0 if state == "failed" else 2)


def _put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dag: str) -> Path:
    """Write a DAG and its two files where Airflow finds them, and return the DAG's file."""
    folder = tmp_path / "dags"
    folder.mkdir()
    # Airflow 3 runs only what it finds in a bundle; 2.11 knows no bundles and runs what it is given.
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundles = [{"name": "mapped", "classpath": local, "kwargs": {"path": str(folder)}}]
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps(bundles))
    for name in ("one", "two"):
        (tmp_path / f"{name}.csv").write_text(name, "utf-8")
    file = folder / "mapped_receipts.py"
    file.write_text(dag.replace("{folder}", str(tmp_path)), "utf-8")
    return file
