"""What a delivery says through the asset that it declares as outlet, and who is started by it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from sqlalchemy import text

from amili_provider.sandbox.server import SandboxServer
from tests.dags.conftest import EXAMPLES, RunDag

FILE = EXAMPLES / "amili_after_delivery.py"
URI = "amili://api.staging.amili.no/2218"
DAY = "2025-03-01"


@pytest.fixture(scope="session", name="known_dags")
def _known_dags(airflow_home: Path) -> None:
    """Let Airflow know which DAGs are scheduled on which assets; only newer ones do so in ``dag.test()``."""
    assert airflow_home
    command = [sys.executable, "-W", "ignore", "-m", "airflow", "dags", "reserialize"]
    subprocess.run(command, check=True, capture_output=True, timeout=600)


def _rows(sql: str) -> list[Any]:
    from airflow.utils.session import create_session

    if not AIRFLOW_V_3_0_PLUS:
        sql = sql.replace("asset", "dataset")
    with create_session() as session:
        return [row[0] for row in session.execute(text(sql))]


def events() -> list[dict[str, Any]]:
    """Return the extras of the asset's events, the newest last."""
    sql = f"SELECT e.extra FROM asset_event e JOIN asset a ON a.id = e.asset_id WHERE a.uri = '{URI}' ORDER BY e.id"
    return [json.loads(extra) for extra in _rows(sql)]


def waiting() -> set[str]:
    """Return the DAGs for which Airflow has noted that an asset of theirs was updated."""
    return set(_rows("SELECT target_dag_id FROM asset_dag_run_queue"))


@pytest.mark.usefixtures("known_dags")
def test_a_delivery_starts_the_next_dag_and_says_what_was_delivered(
    s3: Any, amili: SandboxServer, run_dag: RunDag
) -> None:
    """The event of the outlet carries counts, bytes and file ids, and the DAG scheduled on it is due."""
    s3.put_object(Bucket="invoices", Key=f"outbound/{DAY}/inv0.csv", Body=b"zero")
    assert run_dag("amili_delivery", day=DAY, file=FILE).state == "success"
    before = len(events())
    for number, content in enumerate((b"zero", b"one", b"two")):
        s3.put_object(Bucket="invoices", Key=f"outbound/{DAY}/inv{number}.csv", Body=content)
    outcome = run_dag("amili_delivery", day=f"{DAY}T12:00", file=FILE)
    assert outcome.state == "success", outcome.log
    receipts = outcome.xcom["upload_invoices"]
    (event,) = events()[before:]
    assert event["amili"] == {
        "client_no": receipts[0]["client_no"],
        "file_type": "InvoiciaFormatDocFile",
        "files_uploaded": 2,
        "bytes_uploaded": 6,
        "files_already_uploaded": 1,
        "file_ids": [r["file_id"] for r in receipts],
        "file_ids_cut": False,
    }
    assert "amili_after_delivery" in waiting()


@pytest.mark.usefixtures("known_dags")
def test_a_delivery_that_fails_starts_nothing(s3: Any, amili: SandboxServer, run_dag: RunDag) -> None:
    """A refused file fails the task, and the next DAG does not hear of the others."""
    before = len(events())
    s3.put_object(Bucket="invoices", Key=f"outbound/{DAY}/good.csv", Body=b"fine")
    s3.put_object(Bucket="invoices", Key=f"outbound/{DAY}/bad.csv", Body=b"REJECT: no such debtor")
    outcome = run_dag("amili_delivery", day=DAY, file=FILE)
    assert outcome.state == "failed"
    assert len(amili.uploads) == 1
    assert len(events()) == before


@pytest.mark.usefixtures("known_dags")
def test_a_day_without_files_starts_nothing(s3: Any, amili: SandboxServer, run_dag: RunDag) -> None:
    """A task that may succeed with nothing emits no event, neither without files nor with an empty one."""

    def green_with_nothing(dag: Any) -> None:
        dag.get_task("upload_invoices").if_no_files = "succeed"

    before = len(events())
    assert run_dag("amili_delivery", day=DAY, file=FILE, change=green_with_nothing).state == "success"
    s3.put_object(Bucket="invoices", Key=f"outbound/{DAY}/empty.csv", Body=b"")
    outcome = run_dag("amili_delivery", day=DAY, file=FILE, change=green_with_nothing)
    assert outcome.state == "success"
    assert [r["outcome"] for r in outcome.xcom["upload_invoices"]] == ["skipped"]
    assert len(events()) == before


def test_the_next_dag_runs(run_dag: RunDag) -> None:
    """Started by hand, without an event, it ends well too."""
    outcome = run_dag("amili_after_delivery", day=DAY)
    assert (outcome.state, outcome.xcom["count_deliveries"]) == ("success", [])
